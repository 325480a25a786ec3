"""Whether a metric differs between a segment and the rest: tests and intervals that hold in small groups.

A mean over rows (log loss, Brier score, MAE, RMSE, the size of a contribution) is compared with what groups of the same
size, drawn by chance from the same rows, show: a permutation test of the studentised difference (Janssen 1997,
doi:10.1016/S0167-7152(97)00043-6; Chung and Romano 2013, doi:10.1214/13-AOS1090). It is exact where membership says nothing
about a row's loss, whatever the losses' distribution, and right for many rows where only the means agree.

The area under the ROC curve is compared by its variance under equal areas, from the placement values of both sides
(DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595), as a share is by its score test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from explain_step.artifacts.metric_influence import ROW_METRICS, placements, row_losses
from explain_step.artifacts.segment_statistics import Estimate
from explain_step.metrics import Metric, positive_hits, positive_score
from explain_step.types import FloatArray, IntArray, Subject, Task

BoolArray = npt.NDArray[np.bool_]
GROUPS = 9_999
"""Groups drawn by chance."""
DRAWN = 600_000
"""Rows drawn for all of them, about: neighbours in a shuffled order are a group, and every size shares the orders."""
FAR = 10
"""Differences that fewer groups reach have a p-value by the shape of Student's tail: draws tell nothing beyond them all."""
MOST_ROWS = 1_000
"""Segments of more rows, with as many outside, have the normal limit."""
LEAST = 1e-9
"""Smallest standard error of a group, in units of the largest loss: groups without any spread are not infinitely sure."""


def told(metric: Metric | None, task: Task) -> str:
    """Return how the metric's differences between segments, their intervals and p-values are made."""
    name = "" if metric is None else metric.name
    if name == "accuracy":
        return "Newcombe, and a score test"
    if name in ROW_METRICS:
        return (
            f"studentised, against groups of the same size drawn by chance ({GROUPS:,} or so; a permutation test; the last "
            f"{FAR} of them go on as Student's tail), with over {MOST_ROWS:,} rows on both sides normal"
        )
    if name == "roc_auc" and task == "binary":
        return "normal, by the larger of the variance under equal areas and that of each side (DeLong)"
    of_areas = ", of 1,000 rows with 100 of each class DeLong's" if name == "roc_auc" else ""
    return f"normal with bootstrap standard errors{of_areas}, too sure in groups of under 100 rows"


# ------------------------------------------------------------------------------------------------------- means over rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffled:
    """Running sums of the rows' losses over shuffled orders.

    Attributes
    ----------
    terms : ndarray of shape (k, n)
        Per row with weight w and centred, scaled loss x: wx, w²x², w, w², w²x; the first two where all weights are equal.
    sums : ndarray of shape (k, orders, n + 1)
        Sums of the terms over the first rows of each order.
    centre, scale : float
        Mean loss, and the largest distance from it.
    root : bool
        The metric is the root of the mean loss.
    """

    terms: FloatArray
    sums: FloatArray
    centre: float
    scale: float
    root: bool


def shuffled(metric: Metric, subject: Subject, *, rng: np.random.Generator) -> Shuffled | None:
    """Return the losses of a metric that is a mean over rows, in shuffled orders; None for other metrics.

    The given order of the rows does not matter.
    """
    losses = None if metric.name == "accuracy" or subject.y is None else row_losses(metric.name, subject)
    if losses is None:
        return None
    orders = orders_of(len(losses), rng=rng)
    return shuffled_values(losses, subject.weights, orders=orders, root=metric.name == "rmse")


def orders_of(n: int, *, rng: np.random.Generator) -> IntArray:
    """Return shuffled orders of n rows, of shape (orders, n): about `DRAWN` places together."""
    orders = int(np.clip(DRAWN // max(n, 1), 1, GROUPS))
    return rng.permuted(np.tile(np.arange(n), (orders, 1)), axis=1)


def shuffled_values(
    losses: FloatArray, weights: FloatArray | None, *, orders: IntArray, root: bool = False
) -> Shuffled | None:
    """Return numbers of n rows in shuffled orders (orders, n); None where they are too few, equal, or not all finite.

    The orders are of the numbers by their size: how the rows are given does not matter.
    """
    n = len(losses)
    if n < 4 or not np.isfinite(losses).all():
        return None
    w = np.ones(n) if weights is None else weights / weights.max()
    centre = float(np.average(losses, weights=w))
    scale = float(np.abs(losses - centre).max())
    if not scale > 1e-12 * max(abs(centre), 1e-300):
        return None
    terms = _terms((losses - centre) / scale, w)
    sums = np.zeros((len(terms), len(orders), n + 1))
    places = np.lexsort((w, losses))[orders]
    for term, out in zip(terms, sums, strict=True):
        np.cumsum(term[places], axis=1, out=out[:, 1:])
    return Shuffled(terms=terms, sums=sums, centre=centre, scale=scale, root=root)


def _terms(x: FloatArray, w: FloatArray) -> FloatArray:
    if (w == 1).all():
        return np.stack([x, x**2])
    return np.stack([w * x, w**2 * x**2, w, w**2, w**2 * x])


def is_small(inside: BoolArray) -> bool:
    """Return whether a segment, or the rest, has so few rows that it is compared with groups drawn by chance."""
    size = int(inside.sum())
    return 2 <= min(size, len(inside) - size) <= MOST_ROWS


def by_chance(made: Shuffled, inside: BoolArray, *, level: float = 0.95) -> Estimate | None:
    """Return the metric inside minus outside, against groups of the same size drawn by chance.

    The p-value is twice the smaller tail; the interval takes the same groups' quantiles, so that it holds zero where
    the p-value is above one minus ``level``, and does not where it is below.

    Returns
    -------
    Estimate or None
        None where the segment and the rest have over `MOST_ROWS` rows, or one of them under 2.
    """
    n, size = len(inside), int(inside.sum())
    smaller = min(size, n - size)
    if not is_small(inside):
        return None
    whole = made.terms.sum(axis=1)
    own = made.terms[:, inside].sum(axis=1)
    gap, error = _studentised(made, own[:, None], whole, size=size)
    drawn = _windows(made.sums, smaller)
    if smaller != size:
        drawn = whole[:, None] - drawn
    gaps, errors = _studentised(made, drawn, whole, size=size)
    ratios = (gaps / errors)[np.isfinite(gaps)]
    return _against(ratios, float(gap[0]), float(error[0]), degrees=smaller - 1, level=level)


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The metric of some rows, by the standard error of its mean loss; ``n`` counts the rows."""

    value: float
    error: float
    n: int


def by_chance_of(made: Shuffled, inside: Side, rest: Side, *, level: float = 0.95) -> Estimate | None:
    """Return what `by_chance` does for groups of rows of which only the sums are known, against groups of a sample.

    Returns
    -------
    Estimate or None
        None also where the sample has fewer than twice as many rows as the smaller group.
    """
    if rest.n < inside.n:
        turned = by_chance_of(made, rest, inside, level=level)
        return None if turned is None else turned.negated()
    if not 2 <= inside.n <= min(MOST_ROWS, made.terms.shape[1] // 2):
        return None
    drawn = _windows(made.sums, inside.n)
    gaps, errors = _studentised(made, drawn, made.terms.sum(axis=1), size=inside.n)
    ratios = (gaps / errors)[np.isfinite(gaps)]
    error = max(float(np.hypot(inside.error, rest.error)), LEAST * made.scale)
    return _against(ratios, inside.value - rest.value, error, degrees=inside.n - 1, level=level)


def _against(ratios: FloatArray, gap: float, error: float, *, degrees: int, level: float) -> Estimate | None:
    """Return a difference and its standard error against the ratios of the two in groups drawn by chance."""
    if not np.isfinite(gap) or not len(ratios):
        return None
    ratio, near = gap / error, 1e-9 * max(abs(gap / error), 1e-3)
    tail = min(int((ratios <= ratio + near).sum()), int((ratios >= ratio - near).sum()))
    p = min(1.0, 2 * (1 + tail) / (1 + len(ratios)))
    if tail < FAR <= len(ratios):
        p = min(p, _beyond(ratio, ratios, degrees=degrees))
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=gap, low=float(gap - high * error), high=float(gap - low * error), p=p)


def _beyond(ratio: float, ratios: FloatArray, *, degrees: int) -> float:
    """Return the p-value of a ratio that lies beyond nearly all that were drawn: from the `FAR`-th on as Student's tail."""
    ordered = np.sort(ratios)
    edge = float(ordered[-FAR] if ratio > 0 else -ordered[FAR - 1])
    if not 0 < edge < abs(ratio):
        return 1.0
    shape = float(stats.t.sf(abs(ratio), degrees) / stats.t.sf(edge, degrees))
    return 2 * (1 + FAR) / (1 + len(ratios)) * shape


def _windows(sums: FloatArray, size: int) -> FloatArray:
    """Return the sums over groups of neighbours, about `GROUPS` of them, of shape (k, groups)."""
    _, orders, ends = sums.shape
    each = -(-GROUPS // orders)  # of one order: some overlap, by three quarters at most
    step = max((ends - size) // each, size // 4, 1)
    return (sums[:, :, size::step] - sums[:, :, : ends - size : step]).reshape(len(sums), -1)


def _studentised(
    made: Shuffled, own: FloatArray, whole: FloatArray, *, size: int
) -> tuple[FloatArray, FloatArray]:
    """Return differences to the rest and their standard errors, from sums of shape (k, groups)."""
    sides = [_side(made, own, size), _side(made, whole[:, None] - own, len(made.terms[0]) - size)]
    (a, error_a), (b, error_b) = sides
    return a - b, np.maximum(np.hypot(error_a, error_b), LEAST * made.scale)


def _side(made: Shuffled, sums: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Return the metric and its standard error of rows given by their sums."""
    wx, wwxx = sums[:2]
    w, ww, wwx = (size, size, wx) if len(sums) == 2 else sums[2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = wx / w
        square = np.maximum(wwxx - 2 * mean * wwx + mean**2 * ww, 0.0) / w**2 * (size / (size - 1))
        error = np.sqrt(square) * made.scale
        value = made.centre + made.scale * mean
        if made.root:
            value = np.sqrt(np.maximum(value, 0.0))
            error = error / (2 * np.maximum(value, LEAST * np.sqrt(made.scale)))
    return value, error


# ------------------------------------------------------------------------------------------------ areas under the curve


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """An area under the ROC curve with what its variance is made of, of hits and of misses.

    ``spread`` are the variances of the placement values, ``size`` the effective numbers of rows.
    """

    value: float
    spread: tuple[float, float]
    size: tuple[float, float]

    def variance(self, spread: tuple[float, float]) -> float:
        """Return the area's variance where placement values vary like this."""
        return sum(s / n for s, n in zip(spread, self.size, strict=True))


def area(part: Subject) -> Area | None:
    """Return the area of a binary model's rows; None where a class has fewer than two rows."""
    hit, score = positive_hits(part.y, part.model), positive_score(part.response, part.model)
    w = np.ones(len(hit)) if part.weights is None else part.weights
    sides = [hit & (w > 0), ~hit & (w > 0)]
    if min(int(s.sum()) for s in sides) < 2:
        return None
    place = placements(hit, score, weights=w)
    value = float(np.average(place[hit], weights=w[hit]))
    spread, size = [], []
    for side in sides:
        share = w[side] / w[side].sum()
        size.append(1 / float((share**2).sum()))
        spread.append(float(share @ (place[side] - value) ** 2) * size[-1] / (size[-1] - 1))
    return Area(value=value, spread=(spread[0], spread[1]), size=(size[0], size[1]))


def areas(inside: Area, rest: Area, *, level: float = 0.95) -> Estimate:
    """Return the difference of two areas.

    Of two variances the larger counts: the one that holds where the areas are equal, with the spread of both sides
    together, and the one from each side's own spread.
    """
    both = (_pooled(inside, rest, side=0), _pooled(inside, rest, side=1))
    equal = inside.variance(both) + rest.variance(both)
    own = inside.variance(inside.spread) + rest.variance(rest.spread)
    error = float(np.sqrt(max(equal, own)))
    gap = inside.value - rest.value
    if not error > 1e-12:
        return Estimate(value=gap)
    reach = float(stats.norm.ppf(0.5 + level / 2)) * error
    p = float(2 * stats.norm.sf(abs(gap) / error))
    return Estimate(value=gap, low=max(gap - reach, -1.0), high=min(gap + reach, 1.0), p=p)


def _pooled(inside: Area, rest: Area, *, side: int) -> float:
    sizes = (inside.size[side], rest.size[side])
    return float(np.average([inside.spread[side], rest.spread[side]], weights=sizes))
