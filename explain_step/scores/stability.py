"""Rank stability: whether other rows of the same kind would give the same ranking of the columns."""

from __future__ import annotations

import numpy as np

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.scores import base
from explain_step.scores.base import CONTROL, Scorer
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, Score, Subject

TOP = 5
RESAMPLES = 200
INTERVAL = "95% range of the agreement over single bootstrap resamples of the rows"


def top_overlap(importance: FloatArray, reference: FloatArray, *, k: int) -> FloatArray:
    """Return the share of the ``k`` largest of ``reference`` that are among each row's k largest.

    Ties go to the earlier column.

    Examples
    --------
    >>> top_overlap(np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), np.array([9.0, 8.0, 7.0]), k=1).tolist()
    [1.0, 0.0]
    """
    wanted = np.zeros(len(reference), dtype=bool)
    wanted[np.argsort(-reference, kind="stable")[:k]] = True
    found = np.argsort(-importance, axis=1, kind="stable")[:, :k]
    return np.asarray(wanted[found].mean(axis=1))


def tau_b(importance: FloatArray, reference: FloatArray) -> FloatArray:
    """Return Kendall's tau-b of each row with ``reference`` (Kendall 1945, doi:10.2307/2332303).

    NaN where all columns of one side are equal.
    """
    from scipy import stats

    return np.array([stats.kendalltau(row, reference, variant="b").statistic for row in importance])


def _score(
    scorer: Scorer, subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds
) -> tuple[Score, ...]:
    """Compare the rankings by mean absolute attribution on resampled rows with the one on all rows."""
    n, d, _ = attributions.values.shape
    if n < 2:
        msg = "the ranking of a single row cannot be resampled"
        raise NotApplicable(msg)
    if d < 2:
        msg = "a single column has no ranking"
        raise NotApplicable(msg)
    if base.all_zero(attributions):
        msg = "all attributions are zero, so there is no ranking"
        raise NotApplicable(msg)
    weights = base.row_weights(subject, attributions)
    k = min(TOP, d - 1)
    control = base.random_attributions(attributions, seeds=seeds)
    return (
        _agreement(scorer, f"top{k}", attributions.values, weights=weights, k=k, seeds=seeds),
        _agreement(scorer, "kendall_tau_b", attributions.values, weights=weights, k=None, seeds=seeds),
        _agreement(scorer, CONTROL, control, weights=weights, k=k, seeds=seeds),
    )


def _agreement(
    scorer: Scorer, variant: str, values: FloatArray, *, weights: FloatArray, k: int | None, seeds: Seeds
) -> Score:
    size = np.abs(values)
    reference = np.average(size, axis=0, weights=weights)
    # the same resamples for every variant: differences between variants are not luck
    rng = seeds.rng("scores", scorer.name)
    drawn = base.resampled_means(size, weights=weights, rng=rng, resamples=RESAMPLES)
    drawn = drawn[np.isfinite(drawn).all(axis=(1, 2))]
    per_output = [
        top_overlap(drawn[:, :, o], reference[:, o], k=k) if k else tau_b(drawn[:, :, o], reference[:, o])
        for o in range(values.shape[2])
        if reference[:, o].max() > 0
    ]
    agreement = base.over_outputs(np.stack(per_output, axis=1))
    known = agreement[np.isfinite(agreement)]
    return scorer.result(
        variant,
        float(known.mean()) if len(known) else float("nan"),
        interval=base.percentiles(agreement),
        n=len(values),
        seeds=seeds,
        params={
            "k": k,
            "agreement": f"share of the top {k} kept" if k else "Kendall's tau-b of all columns",
            "resamples": RESAMPLES,
            "outputs": "mean over outputs",
            "interval": INTERVAL,
        },
        reason="the ranking is not defined on most resamples",
    )


STABILITY = Scorer(
    name="rank_stability",
    direction="higher",
    source="bootstrap of the ranking: Hall and Miller 2009, doi:10.1214/09-AOS680; tau-b: Kendall 1945, "
    "doi:10.2307/2332303",
    score=_score,
)
