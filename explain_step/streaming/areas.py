"""Areas under the ROC curve of any number of rows, exactly: sorted ranges of scores, each summed where it is.

A hit's placement is the share of misses that score below it. In a range of scores it is the misses of lower ranges plus
those below it inside; so the sums of placements and of their squares inside every range, and the weights of the ranges
below, tell area and error as all rows in one memory would. Scores that only rounding tells apart have to be in one range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from explain_step import intervals, ties
from explain_step.artifacts import segment_tests
from explain_step.artifacts.metric_influence import FEW_OF_A_CLASS, Limit, limit_of_area
from explain_step.streaming.plan import Plan
from explain_step.types import FloatArray, IntArray

SCORE, HIT, ROWS, WEIGHT, SQUARE = "score", "hit", "rows", "weight", "square"
SUMS = 7
"""Of hits and of misses: rows; sums of weights times powers 0 to 2 of the placement; the same of squared weights."""


def level_name(segment: int) -> str:
    """Return the name of the column with the levels of a segment."""
    return f"level{segment}"


def columns_of(plan: Plan) -> list[str]:
    """Return the columns that tell rows apart: score, hit, and the level in every segment."""
    return [SCORE, HIT, *(level_name(i) for i in range(len(plan.segments)))]


def gathered(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return equal rows as one, with their number, weight and squared weight; in the order of scores."""
    return rows.groupby(keys, as_index=False, sort=True, observed=True)[[ROWS, WEIGHT, SQUARE]].sum()


def edges_of(scores: FloatArray, *, ranges: int) -> FloatArray:
    """Return where scores are cut into ranges of about as many rows, in the middle between scores of a sample.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of the sample.
    ranges : int
        At most.
    """
    ordered, ranks = np.sort(scores), np.sort(ties.score_ranks(scores))
    starts = np.flatnonzero(np.diff(ranks) > 0) + 1
    if not len(starts):
        return np.zeros(0)
    wanted = np.arange(1, ranges) * len(ordered) / ranges
    chosen = np.unique(starts[np.clip(np.searchsorted(starts, wanted), 0, len(starts) - 1)])
    return np.asarray((ordered[chosen - 1] + ordered[chosen]) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """The sums of one range of scores.

    Attributes
    ----------
    place : int
        Its position among the ranges.
    low, high : float
        Smallest and largest score.
    sums : ndarray of shape (groups, 2, SUMS)
        All rows; then of each segment the rows of each level, of none, and those outside of each of these.
    """

    place: int
    low: float
    high: float
    sums: FloatArray

    def to_row(self) -> FloatArray:
        """Return the range as numbers."""
        return np.concatenate([[self.place, self.low, self.high], self.sums.ravel()])

    @classmethod
    def from_row(cls, row: FloatArray) -> Range:
        """Return what `to_row` wrote."""
        return cls(
            place=int(row[0]), low=float(row[1]), high=float(row[2]), sums=row[3:].reshape(-1, 2, SUMS)
        )


def of_range(plan: Plan, rows: pd.DataFrame, *, place: int, unit: bool) -> Range:
    """Return the sums of a range from its gathered rows, in the order of scores.

    Parameters
    ----------
    unit : bool
        Whether all scores, of every range, are in [0, 1].
    """
    score = rows[SCORE].to_numpy(dtype=np.float64)
    ranks = ties.score_ranks(score, unit=unit)
    numbers = [rows[name].to_numpy(dtype=np.float64) for name in (ROWS, WEIGHT, SQUARE)]
    summed = partial(_summed, ranks=ranks, hit=rows[HIT].to_numpy(dtype=bool), numbers=np.stack(numbers))
    found = [summed(np.ones(len(rows), dtype=bool))]
    for i, segment in enumerate(plan.segments):
        codes = rows[level_name(i)].to_numpy()
        inside = [codes == level for level in range(len(segment.levels) + 1)]
        found += [*map(summed, inside), *(summed(~own) for own in inside)]
    return Range(place=place, low=float(score[0]), high=float(score[-1]), sums=np.stack(found))


def _summed(
    chosen: np.ndarray[tuple[int], np.dtype[np.bool_]],
    *,
    ranks: IntArray,
    hit: np.ndarray[tuple[int], np.dtype[np.bool_]],
    numbers: FloatArray,
) -> FloatArray:
    rank, positive = ranks[chosen], hit[chosen]
    many, w, ww = numbers[:, chosen]
    up, down = (np.bincount(rank, weights=w * side) for side in (positive, ~positive))
    below = (np.cumsum(down) - down / 2)[rank]
    above = (up.sum() - (np.cumsum(up) - up / 2))[rank]
    out = np.zeros((2, SUMS))
    for side, (own, place) in enumerate(((positive, below), (~positive, above))):
        p = place[own]
        out[side] = [
            many[own].sum(),
            *(float((w[own] * p**power).sum()) for power in range(3)),
            *(float((ww[own] * p**power).sum()) for power in range(3)),
        ]
    return out


@dataclass(frozen=True, kw_only=True, slots=True)
class Areas:
    """What is known of each group's area: arrays of shape (groups, 2, SUMS), placements as shares of the other class."""

    sums: FloatArray

    def whole(self) -> FloatArray:
        """Return the sums over all rows."""
        return np.asarray(self.sums[0])

    def of(self, plan: Plan, segment: int, level: int, *, rest: bool) -> FloatArray:
        """Return the sums over the rows of a level, or over those outside of it."""
        start = 1 + sum(2 * (len(s.levels) + 1) for s in plan.segments[:segment])
        return np.asarray(self.sums[start + level + rest * (len(plan.segments[segment].levels) + 1)])


def joined(ranges: list[Range], *, unit: bool) -> Areas | None:
    """Return the areas of all ranges; None where two ranges share a score, or scores are not where ``unit`` says."""
    ordered = sorted(ranges, key=lambda r: r.place)
    ends = np.array([v for r in ordered for v in (r.low, r.high)])
    if ties.is_unit(ends) != unit or len({r.place for r in ordered}) < len(ordered):
        return None
    steps = np.diff(ties.score_ranks(ends, unit=unit))
    if (steps[1::2] <= 0).any() or (np.diff(ends) < 0).any():
        return None
    sums = np.stack([r.sums for r in ordered])
    out = np.zeros(sums.shape[1:])
    weight = sums[:, :, :, 1]  # ranges, groups, sides
    total = weight.sum(axis=0)
    lower = np.cumsum(weight[:, :, 1], axis=0) - weight[:, :, 1]
    higher = total[None, :, 0] - np.cumsum(weight[:, :, 0], axis=0)
    for side, more in enumerate((lower, higher)):
        other = total[:, 1 - side]
        safe = np.where(other > 0, other, 1.0)
        own = sums[:, :, side]
        out[:, side, 0] = own[:, :, 0].sum(axis=0)
        for first in (1, 4):
            zero, one, two = (own[:, :, first + power] for power in range(3))
            out[:, side, first] = zero.sum(axis=0)
            out[:, side, first + 1] = (one + more * zero).sum(axis=0) / safe
            out[:, side, first + 2] = (two + 2 * more * one + more**2 * zero).sum(axis=0) / safe**2
    return Areas(sums=out)


# --- from sums to value, interval and difference


def value_of(sums: FloatArray) -> float:
    """Return the area; NaN where a class has no weight."""
    if not min(sums[0, 1], sums[1, 1]) > 0:
        return float("nan")
    return float(sums[0, 2] / sums[0, 1])


def limit_of(sums: FloatArray) -> Limit | None:
    """Return the limit of an area as `metric_influence.limit` has it; the normal one also in place of resamples."""
    value = value_of(sums)
    if not np.isfinite(value):
        return None
    hits, misses = (float(side[1] ** 2 / max(side[4], 1e-300)) for side in sums)
    if min(hits, misses) < FEW_OF_A_CLASS or not 0 < value < 1:
        low, high = intervals.area(value, hits=hits, misses=misses)
        return Limit(error=(high - low) / (2 * stats.norm.ppf(0.975)), low=low, high=high)
    variance = sum(_about(side[4:], value) / side[1] ** 2 for side in sums)
    return limit_of_area(value, float(np.sqrt(variance)))


def area_of(sums: FloatArray) -> segment_tests.Area | None:
    """Return what `segment_tests.area` does."""
    if min(sums[:, 0]) < 2 or not np.isfinite(value := value_of(sums)):
        return None
    size = [float(side[1] ** 2 / side[4]) for side in sums]
    spread = [
        _about(side[1:4], value) / side[1] * many / max(many - 1, 1e-300)
        for side, many in zip(sums, size, strict=True)
    ]
    return segment_tests.Area(value=value, spread=(spread[0], spread[1]), size=(size[0], size[1]))


def _about(powers: FloatArray, centre: float) -> float:
    """Return the sum of squared distances to a centre, from sums of the powers 0 to 2."""
    return max(float(powers[2] - 2 * centre * powers[1] + centre**2 * powers[0]), 0.0)
