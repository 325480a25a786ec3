"""Additivity error: how far base value plus attributions are from the model's output."""

from __future__ import annotations

import numpy as np

from explain_step import intervals
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import masking
from explain_step.explainers.sampling import spread_rows
from explain_step.scores.base import CONTROL, Scorer, over_outputs, random_attributions
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, Score, Subject

ROWS = 2_000
CENSUS = (
    "none to add: every one of these rows was checked, so the largest error among them is known; it says nothing of "
    "other rows, and both ends are the value itself"
)


def _score(
    scorer: Scorer, subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds
) -> tuple[Score, ...]:
    """Ask the model again about (a sample of) the explained rows and compare with the sums.

    Absolute errors are divided by the standard deviation of the output; the mean over outputs is taken.
    """
    spread = subject.response.output.std(axis=0)
    if not (spread > 0).any():
        msg = "the model's output is the same on all explained rows: an error has no scale to compare with"
        raise NotApplicable(msg)
    sample = spread_rows(
        subject.response.output[attributions.rows], ROWS, rng=seeds.rng("scores", scorer.name, "rows")
    )
    output = masking.predict(subject.model, subject.X.iloc[attributions.rows[sample]])
    base = attributions.base_values[sample]

    def errors(values: FloatArray) -> FloatArray:
        gap = np.abs(base + values[sample].sum(axis=1) - output)
        return over_outputs(np.divide(gap, spread, out=np.full(gap.shape, np.nan), where=spread > 0))

    params = {
        "scale": "standard deviation of the output",
        "outputs": "mean over outputs",
        "rows": len(sample),
    }
    scores = []
    for variant, values in (
        ("mean", attributions.values),
        (CONTROL, random_attributions(attributions, seeds=seeds, same_total=False)),
    ):
        rng = seeds.rng("scores", scorer.name, variant)
        mean, low, high = intervals.mean_interval(errors(values), rng=rng)
        text = "95% studentised bootstrap over the explained rows, for this fitted model"
        scores.append(
            scorer.result(
                variant,
                float(mean),
                interval=(max(0.0, float(low)), float(high)),
                n=len(sample),
                seeds=seeds,
                params={**params, "interval": text},
                reason="an interval needs two rows",
            )
        )
    worst = float(errors(attributions.values).max())
    largest = scorer.result(
        "max",
        worst,
        interval=(worst, worst),
        n=len(sample),
        seeds=seeds,
        params={**params, "interval": CENSUS},
    )
    return scores[0], largest, scores[1]


ADDITIVITY = Scorer(
    name="additivity_error",
    direction="lower",
    source="local accuracy: Lundberg and Lee 2017, arXiv:1705.07874; completeness: Sundararajan et al. 2017, "
    "arXiv:1703.01365",
    score=_score,
)
