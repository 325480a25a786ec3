"""Scores: how good an explanation is, each with interval, direction, source and a random control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.scores.additivity import ADDITIVITY
from explain_step.scores.base import Scorer
from explain_step.scores.fidelity import FIDELITY
from explain_step.scores.sparsity import SPARSITY
from explain_step.scores.stability import STABILITY
from explain_step.seeds import Seeds
from explain_step.types import Artifact, Attributions, MethodSpec, Score, Subject

__all__ = ["SCORERS", "Scorer", "score", "to_artifact"]

SCORERS: tuple[Scorer, ...] = (FIDELITY, ADDITIVITY, STABILITY, SPARSITY)


def score(
    subject: Subject,
    attributions: Attributions,
    *,
    config: Config,
    seeds: Seeds,
    scorers: tuple[Scorer, ...] = SCORERS,
) -> tuple[Score, ...]:
    """Return all scores of the attributions, the primary fidelity first.

    A score that is not defined here has value None and says why; it is never 0.

    Raises
    ------
    PredictionFailed
        The model raised, or returned something that is not finite.
    """
    found: list[Score] = []
    for scorer in scorers:
        try:
            found.extend(scorer.score(scorer, subject, attributions, config=config, seeds=seeds))
        except NotApplicable as error:
            found.append(_undefined(scorer, str(error), n=len(attributions.rows)))
    return tuple(found)


def _undefined(scorer: Scorer, reason: str, *, n: int) -> Score:
    return Score(
        name=scorer.name,
        variant="",
        value=None,
        ci_low=None,
        ci_high=None,
        direction=scorer.direction,
        n=n,
        method=MethodSpec(name=scorer.name, version="1", exact=False),
        source=scorer.source,
        reason=reason,
    )


def to_artifact(scores: tuple[Score, ...], quantity: Mapping[str, Any]) -> Artifact:
    """Return the table ``scores``: one row per score and variant; undefined values are missing."""
    table = pd.DataFrame(
        {
            "score": [s.name for s in scores],
            "variant": [s.variant for s in scores],
            "value": _numbers([s.value for s in scores]),
            "ci_low": _numbers([s.ci_low for s in scores]),
            "ci_high": _numbers([s.ci_high for s in scores]),
            "direction": [s.direction for s in scores],
            "n": np.array([s.n for s in scores], dtype=np.float64),
            "source": [s.source for s in scores],
            "reason": [s.reason for s in scores],
        }
    )
    meta = {
        "quantity": dict(quantity),
        "method": {
            f"{s.name}/{s.variant}" if s.variant else s.name: {**s.method.params, "budget": s.method.budget}
            for s in scores
        },
        "interval": "95%, over rows, for this fitted model and these attributions; per score, see method",
        "control": "control_random is the same score of random values of each row's size; "
        "a score near its control says nothing",
    }
    return Artifact(name="scores", kind="scores", table=table, meta=meta)


def _numbers(values: list[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
