"""How good the model is on any number of rows: sums by segment, made of blocks, merged, sent as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from explain_step import ties
from explain_step.artifacts import metric_deltas, segment_rates
from explain_step.artifacts.metric_influence import ROW_METRICS, row_losses
from explain_step.metrics import Metric, curves
from explain_step.streaming import areas, moments
from explain_step.streaming.moments import Moments
from explain_step.streaming.plan import Measure, Plan
from explain_step.types import FloatArray, IntArray, Subject

ROWS_OF_A_RANGE = 250_000
"""Rows whose scores are sorted together, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Sums over the rows of each level of a segment, and of no level in the last group; or over all rows.

    Attributes
    ----------
    losses : Moments
        Of the plan's losses.
    cubes : ndarray of shape (groups, losses, 4)
        Sums of w³ times the powers 0 to 3 of each centred, scaled loss.
    squares : Moments
        Of `metric_deltas.square_columns`, with the products of pairs; no column where R² is not asked for.
    rows, weight, square : ndarray of shape (groups, true classes, said classes)
        See `metric_deltas.confusion`; of shape (groups, 0, 0) where there are no classes.
    """

    losses: Moments
    cubes: FloatArray
    squares: Moments
    rows: FloatArray
    weight: FloatArray
    square: FloatArray


Measures = tuple[Group, ...]
"""Of all rows, then of each of the plan's segments."""


def measure_of(subject: Subject, chosen: tuple[Metric, ...], *, rows: int) -> Measure | None:
    """Return what is to be summed of ``rows`` rows for these metrics and the rates; None where nothing can be.

    Parameters
    ----------
    subject : Subject
        A sample of them.
    """
    if subject.y is None:
        return Measure(classes=True) if segment_rates.has_rates(subject) else None
    names = tuple(m.name for m in chosen)
    found = {m: row_losses(m, subject) for m in names if m in ROW_METRICS}
    losses = {m: values for m, values in found.items() if values is not None}
    w = np.ones(len(subject.X)) if subject.weights is None else subject.weights
    y = np.asarray(subject.y).reshape(len(w), -1)
    edges, bounded = _edges(subject, rows=rows) if areas.NAME in names else (None, ())
    centres = [float(np.average(v, weights=w)) for v in losses.values()]
    spreads = [float(np.std(v)) for v in losses.values()]
    return Measure(
        metrics=names,
        losses=tuple(losses),
        centres=tuple(centres),
        scales=tuple(max(s, 1e-9 * abs(c)) or 1.0 for s, c in zip(spreads, centres, strict=True)),
        targets=tuple(np.average(y.astype(np.float64), axis=0, weights=w).tolist()) if "r2" in names else (),
        classes=segment_rates.has_rates(subject),
        edges=edges,
        bounded=bounded,
    )


def _edges(subject: Subject, *, rows: int) -> tuple[tuple[tuple[float, ...], ...] | None, tuple[bool, ...]]:
    """Return where the scores of each curve are cut into ranges, and whether they are in [0, 1]."""
    if subject.model.task != "binary" and subject.response.probability is None:
        return None, ()
    scores = [score for _, score in curves(subject.y, subject.response, subject.model)]
    edges = [areas.edges_of(score, ranges=-(-rows // ROWS_OF_A_RANGE)) for score in scores]
    return tuple(tuple(e.tolist()) for e in edges), tuple(map(ties.is_unit, scores))


def of_block(plan: Plan, subject: Subject, levels: list[IntArray]) -> Measures:
    """Return the sums of a block of rows.

    Parameters
    ----------
    subject : Subject of n rows
        ``y``, ``weights`` and the whole ``response`` are read.
    levels : list of ndarray of int of shape (n,)
        Of `segment_codes`, one per segment of the plan.
    """
    measure, n = plan.measure, len(subject.X)
    assert measure is not None
    weights = subject.weights if plan.weighted else None
    losses = [row_losses(name, subject) for name in measure.losses]
    columns = np.stack([v for v in losses if v is not None], axis=1) if losses else np.empty((n, 0))
    squares = (
        metric_deltas.square_columns(
            metric_deltas.targets(subject), subject.response.predicted, centre=np.asarray(measure.targets)
        )
        if measure.targets
        else np.empty((n, 0))
    )
    groups = [(np.zeros(n, dtype=np.int64), 1)]
    groups += [(codes, len(s.levels) + 1) for codes, s in zip(levels, plan.segments, strict=True)]
    return tuple(
        _group(measure, subject, columns, squares, weights, codes=codes, groups=count)
        for codes, count in groups
    )


def _group(
    measure: Measure,
    subject: Subject,
    columns: FloatArray,
    squares: FloatArray,
    weights: FloatArray | None,
    *,
    codes: IntArray,
    groups: int,
) -> Group:
    if measure.classes:
        counts, weight, square = metric_deltas.confusion(subject, codes, groups=groups)
    else:
        counts = weight = square = np.zeros((groups, 0, 0))
    return Group(
        losses=moments.of(columns, codes, groups=groups, weights=weights),
        cubes=_cubes(measure, columns, weights, codes=codes, groups=groups),
        squares=_squares(squares, weights, codes=codes, groups=groups),
        rows=counts,
        weight=weight,
        square=square,
    )


def _cubes(
    measure: Measure, columns: FloatArray, weights: FloatArray | None, *, codes: IntArray, groups: int
) -> FloatArray:
    cube = np.ones(len(columns)) if weights is None else weights**3
    out = np.zeros((groups, columns.shape[1], 4))
    for j, (centre, scale) in enumerate(zip(measure.centres, measure.scales, strict=True)):
        x = (columns[:, j] - centre) / scale
        for power in range(4):
            out[:, j, power] = np.bincount(codes, weights=cube * x**power, minlength=groups)
    return out


def _squares(squares: FloatArray, weights: FloatArray | None, *, codes: IntArray, groups: int) -> Moments:
    parts = []
    for g in range(groups):
        rows = slice(None) if groups == 1 else np.flatnonzero(codes == g)
        some = None if weights is None else weights[rows]
        parts.append(moments.of(squares[rows], weights=some, full=True))
    return moments.joined(parts)


def merge(a: Measures, b: Measures) -> Measures:
    """Return the sums of both sets of rows."""
    return tuple(_merged(x, y) for x, y in zip(a, b, strict=True))


def _merged(a: Group, b: Group) -> Group:
    return Group(
        losses=moments.merge(a.losses, b.losses),
        cubes=a.cubes + b.cubes,
        squares=moments.merge(a.squares, b.squares),
        rows=a.rows + b.rows,
        weight=a.weight + b.weight,
        square=a.square + b.square,
    )


def take(group: Group, places: Any) -> Group:
    """Return the sums of the given levels together, as one group."""
    index = np.asarray(places, dtype=np.int64)
    return Group(
        losses=moments.pooled(group.losses.take(index)),
        cubes=group.cubes[index].sum(axis=0, keepdims=True),
        squares=moments.pooled(group.squares.take(index)),
        rows=group.rows[index].sum(axis=0, keepdims=True),
        weight=group.weight[index].sum(axis=0, keepdims=True),
        square=group.square[index].sum(axis=0, keepdims=True),
    )


def to_arrays(measures: Measures) -> dict[str, Any]:
    """Return the sums as named arrays."""
    found: dict[str, Any] = {}
    for i, group in enumerate(measures):
        for name in Group.__slots__:
            value = getattr(group, name)
            if isinstance(value, Moments):
                found |= {f"measures/{i}/{name}/{p}": getattr(value, p) for p in Moments.__slots__}
            else:
                found[f"measures/{i}/{name}"] = value
    return found


def from_arrays(arrays: dict[str, Any]) -> Measures:
    """Return the sums that `to_arrays` named."""
    count = len({name.split("/")[1] for name in arrays if name.startswith("measures/")})
    return tuple(
        Group(**{name: _read(arrays, f"measures/{i}/{name}") for name in Group.__slots__})
        for i in range(count)
    )


def _read(arrays: dict[str, Any], name: str) -> Any:
    if name in arrays:
        return arrays[name]
    return Moments(**{p: arrays[f"{name}/{p}"] for p in Moments.__slots__})
