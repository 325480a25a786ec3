"""Which rows to show: each kind by a stated rule over rows in content order, never by their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from explain_step.artifacts import prototypes
from explain_step.metrics import LEAST_PROBABILITY
from explain_step.types import FloatArray, IntArray, Subject

Kind = Literal["correct", "incorrect", "borderline", "prototype", "largest_error"]
KINDS: tuple[Kind, ...] = ("correct", "incorrect", "borderline", "largest_error", "prototype")
"""Reading order."""
PER_KIND = 2
MOST_CORRECT = 3
"""Correct rows of a model with many classes: one for each of the classes predicted most often."""
PROTOTYPES = 3
ROWS_PER_PROTOTYPE = 10
"""Few rows get fewer prototypes, so that rows are left for the other kinds."""
BAND = 0.75
"""Regression: an error is a miss beyond this quantile of the absolute errors."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A chosen row: its kind, its position, and for a prototype the share of rows that are nearest to it."""

    kind: Kind
    row: int
    share: float = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """All chosen rows in reading order, and the facts of the choice.

    ``spread`` is the share of the rows' spread around one typical row that the prototypes account for;
    ``band`` the absolute error that separates correct from incorrect (regression).
    """

    rows: tuple[Chosen, ...]
    spread: float
    band: float | None


def choose(part: Subject, points: FloatArray) -> Choice:
    """Return the rows to show.

    Parameters
    ----------
    part : Subject of n >= 1 rows
        The explained rows in content order.
    points : ndarray of shape (n, d)
        Their attributions, flattened: the space in which rows are alike or not.
    """
    space = prototypes.typical_space(points)
    wanted = max(1, min(PROTOTYPES, len(space) // ROWS_PER_PROTOTYPE))
    centres = prototypes.k_medoids(space, wanted)
    shares, spread = prototypes.coverage(space, centres)
    found = [
        Chosen(kind="prototype", row=int(c), share=float(s)) for c, s in zip(centres, shares, strict=True)
    ]
    found.sort(key=lambda c: -c.share)
    used = {c.row for c in found}
    band, rankings = _rankings(part, space)
    for kind, most, groups in rankings:
        rows = _take(groups, used, most)
        used.update(rows)
        found.extend(Chosen(kind=kind, row=row) for row in rows)
    ordered = tuple(c for kind in KINDS for c in found if c.kind == kind)
    return Choice(rows=ordered, spread=spread, band=band)


def _take(groups: Sequence[IntArray], used: set[int], most: int) -> list[int]:
    """Take the best unused row of each group in turn; where all are used, the best row all the same."""
    taken: list[int] = []
    for depth in range(most):
        for group in groups:
            free = [int(r) for r in group if int(r) not in used and int(r) not in taken]
            if free and len(taken) < most and (depth > 0 or len(taken) < len(groups)):
                taken.append(free[0])
    if not taken:
        return [int(group[0]) for group in groups if len(group)][:1]
    return taken


def _rankings(
    part: Subject, space: FloatArray
) -> tuple[float | None, list[tuple[Kind, int, list[IntArray]]]]:
    """Return for each kind how many rows are wanted, and groups of rows, the best of each group first."""
    loss = losses(part)
    rankings: list[tuple[Kind, int, list[IntArray]]] = []
    if loss is not None:
        rankings.append(("largest_error", PER_KIND, [_order(-loss)]))
    wrong, band = misses(part, loss)
    if wrong is not None:
        groups = _groups(part)
        correct = min(len(groups), MOST_CORRECT) if part.model.task == "multiclass" else PER_KIND
        rankings.append(("correct", correct, _typical([g & ~wrong for g in groups], space)))
        rankings.append(("incorrect", PER_KIND, _typical([g & wrong for g in groups], space)))
    margin = margins(part) if band is None or loss is None else np.abs(loss - band)
    if margin is not None:
        sides = _groups(part) if part.model.task == "binary" else [np.ones(len(space), dtype=np.bool_)]
        rankings.append(("borderline", PER_KIND, [_order(margin, side) for side in sides]))
    return band, rankings


def _order(badness: FloatArray, mask: BoolArray | None = None) -> IntArray:
    """Return the rows of ``mask`` with the smallest value first; equal values in content order."""
    rows = np.arange(len(badness)) if mask is None else np.flatnonzero(mask)
    return np.asarray(rows[np.argsort(np.round(badness[rows], 12), kind="stable")], dtype=np.int64)


def _typical(groups: Sequence[BoolArray], space: FloatArray) -> list[IntArray]:
    """Return each group's rows by their distance to the group's medoid; large groups first."""
    ordered = sorted((np.flatnonzero(g) for g in groups if g.any()), key=lambda rows: -len(rows))
    found = []
    for rows in ordered:
        centre = space[rows[prototypes.medoid(space[rows])]]
        found.append(np.asarray(rows[prototypes.closest_to(space[rows], centre)], dtype=np.int64))
    return found


def _groups(part: Subject) -> list[BoolArray]:
    """Return the rows by predicted class; for regression those predicted under and over the median."""
    response = part.response
    if part.model.task == "regression":
        level = response.output.mean(axis=1)
        high = level > np.median(level)
        return [~high, high]
    if response.label is None or part.model.classes is None:
        return [np.ones(len(part.X), dtype=np.bool_)]
    return [np.asarray(response.label == c, dtype=np.bool_) for c in part.model.classes]


def losses(part: Subject) -> FloatArray | None:
    """Return one loss per row: -log p of the true class, minus the signed margin, or the absolute error."""
    if part.y is None:
        return None
    model, response, y = part.model, part.response, np.asarray(part.y)
    if model.task == "regression":
        error = np.abs(response.predicted - y.reshape(response.predicted.shape).astype(np.float64))
        return np.asarray(error.mean(axis=1), dtype=np.float64)
    if model.classes is None:
        return None
    hits = np.stack([y == c for c in model.classes], axis=1)
    if response.probability is not None:
        own = (response.probability * hits).sum(axis=1)
        return np.asarray(-np.log(np.clip(own, LEAST_PROBABILITY, 1.0)), dtype=np.float64)
    if model.task == "binary":
        return np.asarray(
            np.where(hits[:, model.positive or 0], -1, 1) * response.output[:, 0], dtype=np.float64
        )
    return None


def misses(part: Subject, loss: FloatArray | None) -> tuple[BoolArray | None, float | None]:
    """Return which rows are predicted wrongly (None without labels), and the error band of a regression."""
    if part.y is None:
        return None, None
    if part.model.task == "regression" and loss is not None:
        band = float(np.quantile(loss, BAND))
        return np.asarray(loss > band, dtype=np.bool_), band
    if part.response.label is None:
        return None, None
    return np.asarray(part.response.label != part.y, dtype=np.bool_), None


def margins(part: Subject) -> FloatArray | None:
    """Return how far each row is from being predicted otherwise; None for a regression."""
    model, response = part.model, part.response
    if model.task == "regression":
        return None
    scores = response.probability
    if scores is None:
        if response.output.shape[1] == 1:
            return np.asarray(np.abs(response.output[:, 0]), dtype=np.float64)
        scores = response.output
    if scores.shape[1] < 2:
        return None
    top = np.sort(scores, axis=1)
    return np.asarray(top[:, -1] - top[:, -2], dtype=np.float64)


def rules(task: str, *, band: float | None, labels: bool) -> dict[str, str]:
    """Return the rule of each kind in words."""
    if task == "regression":
        near = "closest to the medoid of such rows in attribution space, among low and among high predictions"
        edge = f"the third quartile of the absolute errors, {band:.4g}" if band is not None else "a band"
        said = {
            "correct": f"error within {edge}; {near}",
            "incorrect": f"error beyond {edge}; {near}",
            "borderline": f"error closest to {edge}",
            "largest_error": "largest mean absolute error",
        }
    else:
        near = "closest to the medoid of such rows in attribution space, one for each predicted class"
        said = {
            "correct": f"predicted class is the true class; {near}",
            "incorrect": f"predicted class is not the true class; {near}",
            "borderline": "smallest difference between the two leading classes"
            + (", one on each side" if task == "binary" else ""),
            "largest_error": "largest loss (minus the log probability of the true class, or the margin on "
            "the wrong side)",
        }
    kept = said if labels else {k: v for k, v in said.items() if k == "borderline" and task != "regression"}
    together = (
        "k-medoids of all explained rows in attribution space, far-off values pulled in (Kaufman and "
        "Rousseeuw 1990)"
    )
    return kept | {
        "prototype": together,
        "ties": "equal rows and values are ordered by the content of the row, never by its place",
        "repeats": "a row is shown once, unless its kind has no other",
    }
