"""The error of the mean area of several classes, exactly: how much each row moves it, added up over all curves.

A row moves every class's area, and these moves depend on each other, so that sums along one curve do not tell the error of
the mean. Each range says how much its rows move the area of its curve, in all rows and in every segment; a row's moves are
added up by its key, a hash of its scores, class and levels, wherever the ranges are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from explain_step.canonical_columns import Keys, mixed
from explain_step.metrics import curves
from explain_step.streaming import areas
from explain_step.streaming.areas import Areas, Range, Ranked
from explain_step.streaming.plan import Plan
from explain_step.types import FloatArray, IntArray, Subject


def keys_of(subject: Subject, levels: list[IntArray]) -> Keys:
    """Return a 64-bit number per row: equal where scores, class and levels are. Unlike rows hardly ever share one."""
    pairs = curves(subject.y, subject.response, subject.model)
    found = np.zeros(len(subject.X), dtype=np.uint64)
    for hit, score in pairs:
        found = mixed(found, np.ascontiguousarray(score + 0.0, dtype=np.float64).view(np.uint64))
        found = mixed(found, hit.astype(np.uint64))
    for codes in levels:
        found = mixed(found, codes.astype(np.uint64))
    return found


def widths(plan: Plan) -> list[int]:
    """Return the number of groups that each segment cuts rows into."""
    return [len(s.levels) + 1 for s in areas.segments_of(plan)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """What the rows of a range cannot know of the others.

    Attributes
    ----------
    below, above : ndarray of shape (ranges, groups)
        Weight of misses in lower ranges, and of hits in higher ones; by the place of a range.
    total : ndarray of shape (ranges, groups, 2)
        Weight of all hits and misses of the range's curve.
    value : ndarray of shape (ranges, groups)
        Area of the range's curve.
    curves : ndarray of int of shape (groups,)
        How many curves have an area.
    """

    below: FloatArray
    above: FloatArray
    total: FloatArray
    value: FloatArray
    curves: IntArray


def outside(plan: Plan, ranges: list[Range], known: Areas) -> Outside:
    """Return what is known beyond each range, from the sums of all."""
    count, groups = int(areas.starts(plan)[-1]), known.sums.shape[1]
    below, above, value = (np.zeros((count, groups)) for _ in range(3))
    total = np.zeros((count, groups, 2))
    weight, first = known.sums[..., 1], known.sums[:, :, 0, 2]
    for k, own in enumerate(areas.by_curve(plan, ranges)):
        places = [r.place for r in own]
        below[places], above[places] = areas.outside(np.stack([r.sums for r in own]))
        total[places] = weight[k]
        value[places] = first[k] / np.where(weight[k, :, 0] > 0, weight[k, :, 0], 1.0)
    defined = (weight.min(axis=2) > 0).sum(axis=0)
    return Outside(below=below, above=above, total=total, value=value, curves=defined)


def moves(plan: Plan, rows: pd.DataFrame, known: Outside, *, place: int) -> FloatArray:
    """Return how much each gathered row of a range moves the mean area, as far as this curve goes.

    Returns
    -------
    ndarray of shape (rows, 1 + groups of all segments)
        Over all rows; then for each segment's levels the area inside where the row is there, else that of the rest.
    """
    ranked = areas.ranked(plan, rows, place=place)
    found = np.empty((len(rows), 1 + sum(widths(plan))))
    found[:, 0] = _moves(ranked, np.ones(len(rows), dtype=bool), known, place=place, group=0)
    column = 1
    for i, width in enumerate(widths(plan)):
        codes = rows[areas.level_name(i)].to_numpy()
        for level in range(width):
            inside = codes == level
            for chosen, rest in ((inside, False), (~inside, True)):
                group = areas.group_of(plan, i, level, rest=rest)
                found[chosen, column] = _moves(ranked, chosen, known, place=place, group=group)
            column += 1
    return found


def _moves(
    rows: Ranked, chosen: areas.BoolArray, known: Outside, *, place: int, group: int
) -> FloatArray | float:
    """Return what `metric_influence.area_influence` does, for some of the rows of a group."""
    hits, misses = known.total[place, group]
    if not min(hits, misses) > 0:
        return 0.0
    below, above = rows.placed(chosen)
    positive = rows.hit[chosen]
    share = np.where(
        positive,
        (below + known.below[place, group]) / misses,
        (above + known.above[place, group]) / hits,
    )
    of_class = np.where(positive, hits, misses) / (hits + misses)
    moved = (share - known.value[place, group]) / of_class / known.curves[group]
    return np.asarray(moved, dtype=np.float64)


def squares(
    plan: Plan, keys: IntArray, square: FloatArray, levels: list[IntArray], moved: FloatArray
) -> FloatArray:
    """Return the sums of squared weights times squared moves of each group, and last that of squared weights.

    Parameters
    ----------
    keys : ndarray of int of shape (m,)
        Of rows on each of their curves: a row comes once for each.
    square : ndarray of shape (m,)
    levels : list of ndarray of int of shape (m,)
    moved : ndarray of shape (m, columns)
        See `moves`.
    """
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(keys[order]) != 0)[: len(keys)])
    weight = square[order][first]
    summed = weight[:, None] * np.add.reduceat(moved[order], first, axis=0) ** 2
    found, column = [summed[:, 0].sum()], 1
    for own, width in zip(levels, widths(plan), strict=True):
        codes = own[order][first]
        parts = summed[:, column : column + width]
        inside = codes[:, None] == np.arange(width)
        found += [*np.where(inside, parts, 0.0).sum(axis=0), *np.where(inside, 0.0, parts).sum(axis=0)]
        column += width
    return np.array([*found, weight.sum()])
