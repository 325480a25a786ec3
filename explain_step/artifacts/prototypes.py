"""Typical rows: medoids, and k-medoids that cover the data. Deterministic; ties go to the first row."""

from __future__ import annotations

import numpy as np

from explain_step.types import FloatArray, IntArray

MOST_POINTS = 1500
"""Points that compete; rows come in content order, so the first ones are an arbitrary, stable sample."""
POINTS_AT_ONCE = 64
MOST_COLUMNS = 200
OUTLYING = 0.02
"""Share of each column's values at either end that is pulled in."""
SWAPS = 30
DIGITS = 9
"""Relative digits on which distances are compared: dust from the order of additions decides nothing."""


def typical_space(points: FloatArray) -> FloatArray:
    """Return the points with outlying coordinates pulled in, in at most `MOST_COLUMNS` columns.

    Without that a single far-off row would be its own prototype. The columns with the largest variance are
    kept.
    """
    low, high = np.quantile(points, [OUTLYING, 1 - OUTLYING], axis=0)
    inner = np.clip(points, low, high)
    if inner.shape[1] <= MOST_COLUMNS:
        return np.asarray(inner, dtype=np.float64)
    order = np.argsort(-_tidy(inner.var(axis=0)), kind="stable")[:MOST_COLUMNS]
    return np.asarray(inner[:, np.sort(order)], dtype=np.float64)


def medoid(points: FloatArray) -> int:
    """Return the position of the point with the smallest total distance to all points.

    Parameters
    ----------
    points : ndarray of shape (n, d), n >= 1
        Beyond `MOST_POINTS` only the first ones compete and count.

    Examples
    --------
    >>> medoid(np.array([[0.0], [1.0], [10.0]]))
    1
    """
    return int(np.argmin(_tidy(_distances(points[:MOST_POINTS]).sum(axis=0))))


def closest_to(points: FloatArray, centre: FloatArray) -> IntArray:
    """Return the order of the points by their distance to ``centre``."""
    return np.asarray(np.argsort(_tidy(_norms(points - centre)), kind="stable"), dtype=np.int64)


def k_medoids(points: FloatArray, k: int) -> IntArray:
    """Return positions of at most k points that together are close to all points.

    Greedy building, then swaps while they help (Kaufman and Rousseeuw 1990, doi:10.1002/9780470316801, ch.
    2). Fewer than k where further ones would bring nothing (repeated points).

    Examples
    --------
    >>> k_medoids(np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]]), 2).tolist()
    [1, 4]
    """
    table = _distances(points[:MOST_POINTS])
    chosen: list[int] = []
    nearest = np.full(len(table), np.inf)
    for _ in range(min(k, len(table))):
        costs = _costs(table, nearest)
        best = int(np.argmin(costs))
        if chosen and costs[best] >= _tidy(nearest.sum(keepdims=True))[0]:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, table[:, best])
    for _ in range(SWAPS):
        if not _swap(table, chosen):
            break
    return np.asarray(sorted(chosen), dtype=np.int64)


def _costs(table: FloatArray, nearest: FloatArray) -> FloatArray:
    """Return the cost with each point as a further medoid; some points at once, which stay in the cache."""
    room = np.empty((POINTS_AT_ONCE, len(table)))
    found = np.empty(len(table))
    for start in range(0, len(table), POINTS_AT_ONCE):
        some = table[start : start + POINTS_AT_ONCE]  # distances are symmetric
        found[start : start + len(some)] = np.minimum(some, nearest, out=room[: len(some)]).sum(axis=1)
    return _tidy(found)


def _swap(table: FloatArray, chosen: list[int]) -> bool:
    """Replace one medoid where that lowers the cost; say whether it did."""
    cost = float(_tidy(table[:, chosen].min(axis=1).sum(keepdims=True))[0])
    for i in range(len(chosen)):
        others = [c for j, c in enumerate(chosen) if j != i]
        nearest = table[:, others].min(axis=1) if others else np.full(len(table), np.inf)
        costs = _costs(table, nearest)
        best = int(np.argmin(costs))
        if costs[best] < cost:
            chosen[i] = best
            return True
    return False


def coverage(points: FloatArray, chosen: IntArray) -> tuple[FloatArray, float]:
    """Return the share of points nearest to each chosen one, and the share of the spread that they explain.

    The second number is one minus the total distance to the nearest chosen point over that to the best
    single point.
    """
    table = np.stack([_norms(points - points[c]) for c in chosen], axis=1)
    counts = np.bincount(table.argmin(axis=1), minlength=len(chosen))
    alone = float(_norms(points - points[medoid(points)]).sum())
    spread = 1 - float(table.min(axis=1).sum()) / alone if alone > 0 else 1.0
    return np.asarray(counts / len(points), dtype=np.float64), max(spread, 0.0)


def _distances(points: FloatArray) -> FloatArray:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(points, points), dtype=np.float64)


def _norms(points: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt((points**2).sum(axis=1)), dtype=np.float64)


def _tidy(values: FloatArray) -> FloatArray:
    """Round to `DIGITS` digits relative to the largest value."""
    size = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return values if size == 0 else np.asarray(np.round(values / size, DIGITS) * size, dtype=np.float64)
