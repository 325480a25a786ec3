"""Explaining many blocks of rows: what does not depend on them is done once."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from explain_step import explainers as room
from explain_step.errors import NotApplicable
from explain_step.explainers.additive import without_dust
from explain_step.explainers.base import Explainer, Preparing
from explain_step.types import Attributions, Subject

Explain = Callable[[pd.DataFrame], Attributions]


def prepare(
    subject: Subject, *, rows: int, budget: float = math.inf, explainers: tuple[Explainer, ...] | None = None
) -> Explain | None:
    """Return what explains blocks of rows of the subject's model, against its background; None without an exact way.

    Parameters
    ----------
    subject : Subject
        Some rows, from which the explainer is chosen as for an explanation of them.
    rows : int
        About how many rows will be explained in all: the engine is chosen for them.
    budget : float
        Seconds that the explanation may take: None is returned where it would take longer.
    explainers : tuple of Explainer, optional
        Default: those of the package.

    Returns
    -------
    callable or None
        DataFrame of n raw rows to exact `Attributions` of them. They are not checked; `additive.errors` does that.
    """
    try:
        chosen = room.choose(subject, explainers=explainers or room.EXPLAINERS)
        if not isinstance(chosen, Preparing):
            return None
        ready = chosen.prepare(subject, rows=rows, budget=budget)
    except NotApplicable:
        return None
    model = subject.model

    def explain(X: pd.DataFrame) -> Attributions:
        values = ready.values(X)
        return without_dust(
            Attributions(
                values=values,
                base_values=np.tile(ready.base, (len(values), 1)),
                feature_names=model.feature_names,
                output_names=model.output_names,
                output_space=model.output_space,
                method=ready.method,
                rows=np.arange(len(values)),
            )
        )

    return explain
