"""What makes an effect curve doubtful: methods that disagree, and a grid that leaves the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from explain_step.artifacts import clusters, columns
from explain_step.artifacts.effects import Curve
from explain_step.config import Config
from explain_step.types import Caveat, FloatArray, Subject

AGREEMENT = 0.9
SPARSE = 0.25


def cut_short(made: int, *, of: int, seconds: float, reference: int | None = None) -> tuple[Caveat, ...]:
    """Return a caveat where the budget ended before every feature had its curves, or left fewer rows for them."""
    if made == of and reference is None:
        return ()
    rows = "" if reference is None else f", and partial dependence rests on {reference} reference rows"
    spent = f"{seconds:.3g} s of the budget were not enough. Raise the option budget for the rest."
    text = f"Dependence has curves of {made} of {of} features{rows}: {spent}"
    return (Caveat(code="dependence_budget", section="dependence", message=text, degrades=True),)


def disagreement(
    explained: Subject, feature: str, *, pdp: Curve, ale: Curve, count: FloatArray
) -> tuple[Caveat, ...]:
    """Return a caveat where PDP and ALE have different shapes: weighted correlation below `AGREEMENT`.

    Curves that differ no more than ALE's own intervals allow are not said to differ.
    """
    found: dict[str, float] = {}
    spread = explained.response.output.std(axis=0)
    outputs = explained.model.output_names
    for k, output in enumerate(outputs):
        a, b = (v.value[:, k] - np.average(v.value[:, k], weights=count) for v in (pdp, ale))
        shift = ale.value[:, k] - b
        unsure = (ale.low[:, k] - shift <= a) & (a <= ale.high[:, k] - shift)
        if unsure[count > 0].all():
            continue
        size = [float(np.sqrt(np.average(v**2, weights=count))) for v in (a, b)]
        # curves that hardly move have no shape to disagree about
        if max(size) < 0.05 * spread[k] or min(size) == 0:
            continue
        agreement = float(np.average(a * b, weights=count)) / (size[0] * size[1])
        if agreement < AGREEMENT:
            found[output] = agreement
    if not found:
        return ()
    text = (
        f"Partial dependence and ALE of {feature!r} differ in shape {_how_far(found, of=len(outputs))}: other columns move "
        "with it, and ALE is the safer reading."
    )
    return (Caveat(code="method_disagreement", section="dependence", message=text),)


def _how_far(agreements: Mapping[str, float], *, of: int) -> str:
    """Return the correlation of the curves; of several outputs, of how many and the one where it is lowest."""
    worst = min(agreements, key=agreements.__getitem__)
    size = f"correlation {agreements[worst]:.2f}"
    return f"({size})" if of == 1 else f"for {len(agreements)} of {of} outputs (most for {worst!r}, {size})"


def sparse(X: pd.DataFrame, features: list[str], *, config: Config) -> tuple[Caveat, ...]:
    """Return caveats where partial dependence asks about combinations of numbers that do not occur."""
    numeric = [f for f in X.columns if columns.kind(X[f]) != "levels"][: clusters.MAX_COLUMNS]
    if len(X) < 100 or len(numeric) < 2:
        return ()
    association = clusters.association_matrix(X[numeric])
    np.fill_diagonal(association, 0.0)
    found = []
    for feature in (f for f in features if f in numeric):
        position = numeric.index(feature)
        partner = numeric[int(association[position].argmax())]
        if association[position].max() < clusters.THRESHOLD:
            continue
        grid = columns.grid(X[feature], config=config)
        empty = empty_share(X[feature], X[partner], grid=grid)
        if empty > SPARSE:
            text = (
                f"{empty:.0%} of the combinations of {feature!r} and {partner!r} (association "
                f"{association[position].max():.2f}) that partial dependence averages over do not occur in "
                "the "
                "data; the model extrapolates there."
            )
            found.append(Caveat(code="extrapolated_grid", section="dependence", message=text))
    return tuple(found)


def empty_share(a: pd.Series[Any], b: pd.Series[Any], *, grid: FloatArray) -> float:
    """Return the share of (grid point, other column's value) combinations in cells without any row."""
    x, z = columns.numbers(a), columns.numbers(b)
    known = ~np.isnan(x) & ~np.isnan(z)
    x, z = x[known], z[known]
    bins = int(np.clip(np.sqrt(len(x) / 10), 3, 10))
    edges = [np.unique(np.quantile(v, np.linspace(0, 1, bins + 1)[1:-1])) for v in (x, z)]
    code = [np.searchsorted(e, v, side="right") for e, v in zip(edges, (x, z), strict=True)]
    held = np.zeros((len(edges[0]) + 1, len(edges[1]) + 1), dtype=bool)
    held[code[0], code[1]] = True
    asked = held[np.searchsorted(edges[0], grid, side="right")][:, code[1]]
    return float(1 - asked.mean())
