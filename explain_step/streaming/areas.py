"""Areas under the ROC curve of any number of rows, exactly: sorted ranges of scores, each summed where it is.

A hit's placement is the share of misses that score below it. In a range of scores it is the misses of lower ranges plus
those below it inside; so the sums of placements and of their squares inside every range, and the weights of the ranges
below, tell area and error as all rows in one memory would. Scores that only rounding tells apart have to be in one range.
Several classes have a curve each, and the mean area's error needs more: see `area_errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from explain_step import intervals, ties
from explain_step.artifacts import segment_tests
from explain_step.artifacts.metric_influence import FEW_OF_A_CLASS, Limit, limit_of_area
from explain_step.streaming.plan import Plan, Segment
from explain_step.types import FloatArray, IntArray

NAME = "roc_auc"
SCORE, HIT, KEY, ROWS, WEIGHT, SQUARE = "score", "hit", "key", "rows", "weight", "square"
SUMS = 7
"""Of hits and of misses: rows; sums of weights times powers 0 to 2 of the placement; the same of squared weights."""

BoolArray = npt.NDArray[np.bool_]


def level_name(segment: int) -> str:
    """Return the name of the column with the levels of a segment."""
    return f"level{segment}"


def edges(plan: Plan) -> tuple[tuple[float, ...], ...]:
    """Return where the scores of each curve are cut."""
    assert plan.measure is not None
    return plan.measure.edges or ()


def starts(plan: Plan) -> IntArray:
    """Return the place of each curve's first range: ranges are numbered through all curves."""
    return np.cumsum([0, *(len(own) + 1 for own in edges(plan))])


def segments_of(plan: Plan) -> tuple[Segment, ...]:
    """Return the segments whose areas are asked for: those of the first metric."""
    assert plan.measure is not None
    return plan.segments if plan.measure.metrics[:1] == (NAME,) else ()


def columns_of(plan: Plan) -> list[str]:
    """Return the columns that tell rows apart: score, hit, of several curves a key, and the level in every segment."""
    levels = [level_name(i) for i in range(len(segments_of(plan)))]
    return [SCORE, HIT, *([KEY] if len(edges(plan)) > 1 else []), *levels]


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
    firsts = np.flatnonzero(np.diff(ranks) > 0) + 1
    if not len(firsts):
        return np.zeros(0)
    wanted = np.arange(1, ranges) * len(ordered) / ranges
    chosen = np.unique(firsts[np.clip(np.searchsorted(firsts, wanted), 0, len(firsts) - 1)])
    return np.asarray((ordered[chosen - 1] + ordered[chosen]) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """The sums of one range of scores of one curve.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """The gathered rows of a range of one curve, in the order of scores.

    Attributes
    ----------
    ranks : ndarray of int of shape (m,)
        Of the scores; ties share one.
    hit : ndarray of bool of shape (m,)
    numbers : ndarray of shape (3, m)
        Rows, weight and squared weight.
    """

    ranks: IntArray
    hit: BoolArray
    numbers: FloatArray

    def placed(self, chosen: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return the misses below each of the chosen rows, and the hits above it, of those chosen; ties half."""
        rank, positive, w = self.ranks[chosen], self.hit[chosen], self.numbers[1, chosen]
        up, down = (np.bincount(rank, weights=w * side) for side in (positive, ~positive))
        return (np.cumsum(down) - down / 2)[rank], (up.sum() - (np.cumsum(up) - up / 2))[rank]


def ranked(plan: Plan, rows: pd.DataFrame, *, place: int) -> Ranked:
    """Return the gathered rows of the range at a place."""
    assert plan.measure is not None
    unit = plan.measure.bounded[int(np.searchsorted(starts(plan), place, side="right")) - 1]
    numbers = [rows[name].to_numpy(dtype=np.float64) for name in (ROWS, WEIGHT, SQUARE)]
    return Ranked(
        ranks=ties.score_ranks(rows[SCORE].to_numpy(dtype=np.float64), unit=unit),
        hit=rows[HIT].to_numpy(dtype=bool),
        numbers=np.stack(numbers),
    )


def of_range(plan: Plan, rows: pd.DataFrame, *, place: int) -> Range:
    """Return the sums of a range from its gathered rows."""
    summed = partial(_summed, ranked(plan, rows, place=place))
    found = [summed(np.ones(len(rows), dtype=bool))]
    for i, segment in enumerate(segments_of(plan)):
        codes = rows[level_name(i)].to_numpy()
        inside = [codes == level for level in range(len(segment.levels) + 1)]
        found += [*map(summed, inside), *(summed(~own) for own in inside)]
    score = rows[SCORE]
    return Range(place=place, low=float(score.iloc[0]), high=float(score.iloc[-1]), sums=np.stack(found))


def _summed(rows: Ranked, chosen: BoolArray) -> FloatArray:
    positive = rows.hit[chosen]
    many, w, ww = rows.numbers[:, chosen]
    below, above = rows.placed(chosen)
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
class Area:
    """What is known of one group's area.

    Attributes
    ----------
    sums : ndarray of shape (curves, 2, SUMS)
        Placements as shares of the other class.
    square : float, optional
        Of several curves the sum of squares of the rows' weights times how much they move the mean area.
    """

    sums: FloatArray
    square: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Areas:
    """The areas of all groups: ``sums`` of shape (curves, groups, 2, SUMS), of several curves ``squares``, one per group."""

    sums: FloatArray
    squares: FloatArray | None = None

    def whole(self) -> Area:
        """Return the area over all rows."""
        return self._at(0)

    def of(self, plan: Plan, segment: int, level: int, *, rest: bool) -> Area:
        """Return the area over the rows of a level, or over those outside of it."""
        return self._at(group_of(plan, segment, level, rest=rest))

    def _at(self, group: int) -> Area:
        return Area(
            sums=self.sums[:, group], square=None if self.squares is None else float(self.squares[group])
        )


def group_of(plan: Plan, segment: int, level: int, *, rest: bool) -> int:
    """Return the position of a level, or of the rows outside of it, among the groups."""
    asked = segments_of(plan)
    first = 1 + sum(2 * (len(s.levels) + 1) for s in asked[:segment])
    return first + level + rest * (len(asked[segment].levels) + 1)


def by_curve(plan: Plan, ranges: list[Range]) -> list[list[Range]]:
    """Return the ranges of each curve in the order of scores."""
    ordered, firsts = sorted(ranges, key=lambda r: r.place), starts(plan)
    return [[r for r in ordered if a <= r.place < b] for a, b in pairwise(firsts.tolist())]


def joined(plan: Plan, ranges: list[Range]) -> Areas | None:
    """Return the areas of all ranges; None where two ranges share a score, or scores are not where the plan has them."""
    assert plan.measure is not None
    curves = zip(by_curve(plan, ranges), plan.measure.bounded, strict=True)
    found = [_joined(own, unit=unit) for own, unit in curves]
    known = [sums for sums in found if sums is not None]
    return Areas(sums=np.stack(known)) if known and len(known) == len(found) else None


def _joined(ordered: list[Range], *, unit: bool) -> FloatArray | None:
    ends = np.array([v for r in ordered for v in (r.low, r.high)])
    if ties.is_unit(ends) != unit or len({r.place for r in ordered}) < len(ordered) or not len(ends):
        return None
    steps = np.diff(ties.score_ranks(ends, unit=unit))
    if (steps[1::2] <= 0).any() or (np.diff(ends) < 0).any():
        return None
    sums = np.stack([r.sums for r in ordered])
    out = np.zeros(sums.shape[1:])
    total = sums[:, :, :, 1].sum(axis=0)
    for side, more in enumerate(outside(sums)):
        other = total[:, 1 - side]
        safe = np.where(other > 0, other, 1.0)
        own = sums[:, :, side]
        out[:, side, 0] = own[:, :, 0].sum(axis=0)
        for first in (1, 4):
            zero, one, two = (own[:, :, first + power] for power in range(3))
            out[:, side, first] = zero.sum(axis=0)
            out[:, side, first + 1] = (one + more * zero).sum(axis=0) / safe
            out[:, side, first + 2] = (two + 2 * more * one + more**2 * zero).sum(axis=0) / safe**2
    return out


def outside(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the misses in the ranges below each of a curve's ordered ranges, and the hits above it: (ranges, groups)."""
    hits, misses = sums[:, :, 0, 1], sums[:, :, 1, 1]
    return np.cumsum(misses, axis=0) - misses, hits.sum(axis=0) - np.cumsum(hits, axis=0)


# --- from sums to value, interval and difference


def value_of(area: Area) -> float:
    """Return the area, of several classes the mean of those that are defined; NaN where there is none."""
    found = [float(s[0, 2] / s[0, 1]) for s in area.sums if min(s[0, 1], s[1, 1]) > 0]
    return float(np.mean(found)) if found else float("nan")


def limit_of(area: Area) -> Limit | None:
    """Return the limit of an area as `metric_influence.limit` has it; the normal one also in place of resamples."""
    value = value_of(area)
    if not np.isfinite(value):
        return None
    if area.square is not None:
        return limit_of_area(value, float(np.sqrt(area.square) / area.sums[0, :, 1].sum()))
    sums = area.sums[0]
    hits, misses = (float(side[1] ** 2 / max(side[4], 1e-300)) for side in sums)
    if min(hits, misses) < FEW_OF_A_CLASS or not 0 < value < 1:
        low, high = intervals.area(value, hits=hits, misses=misses)
        return Limit(error=(high - low) / (2 * stats.norm.ppf(0.975)), low=low, high=high)
    variance = sum(_about(side[4:], value) / side[1] ** 2 for side in sums)
    return limit_of_area(value, float(np.sqrt(variance)))


def area_of(area: Area) -> segment_tests.Area | None:
    """Return what `segment_tests.area` does; None of several classes."""
    if area.square is not None:
        return None
    sums = area.sums[0]
    if min(sums[:, 0]) < 2 or not np.isfinite(value := value_of(area)):
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
