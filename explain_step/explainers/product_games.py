"""Shapley values of games that are products of one factor per feature: mine in the coalition, theirs elsewhere.

The value of feature j is ``(mine_j - theirs_j)`` times the chance-weighted product of the other features' factors, when
each of them is in with the same chance t and t is uniform on [0, 1] (Owen 1972, doi:10.1287/mnsc.18.5.64): the integral
of a polynomial in t of degree d - 1, which Gauss-Legendre quadrature with d / 2 nodes gives without error. All d values
take d x d / 2 products instead of 2^d coalitions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from explain_step.explainers import tree_codes, tree_compiled
from explain_step.types import FloatArray, IntArray

AT_ONCE = 1 << 15
"""Factors that NumPy holds at a time: they stay in the second cache."""
SMALL_WORK = 10_000_000
"""Products below which NumPy is used: a tenth of a second. A matter of sizes alone: the same rows get the same bits,
whatever is compiled."""
SHARE_ROWS, SHARES = 32, 4
"""Fewest rows for which a thread makes the background's factors anew, and runs of rows per thread."""


class _Games(NamedTuple):
    """What `values` is given."""

    shown: FloatArray
    others: FloatArray
    points: FloatArray
    weights: FloatArray
    sources: IntArray
    features: int


def work(*, rows: int, background: int, points: int, derived: int, features: int) -> float:
    """Return how many products the values of so many rows take; making the factors is counted as products, too.

    Examples
    --------
    >>> work(rows=1, background=100, points=10, derived=4, features=4)
    8920.0
    """
    nodes = (features + 1) // 2
    return float(rows) * points * (background * features * nodes + 3 * derived + 20 * features)


def values(
    shown: FloatArray,
    others: FloatArray,
    points: FloatArray,
    *,
    weights: FloatArray,
    sources: IntArray,
    features: int,
) -> FloatArray:
    """Return the Shapley values of ``sum_i weights_i exp(-|z - points_i|^2)``, on average over background rows.

    Parameters
    ----------
    shown, others : ndarray of shape (n, derived) and (m, derived)
        Explained and background rows.
    points : ndarray of shape (s, derived)
    weights : ndarray of shape (outputs, s)
    sources : ndarray of int of shape (derived,)
        The feature of each derived column: columns of one feature change together.
    features : int

    Returns
    -------
    ndarray of shape (n, features, outputs)

    Examples
    --------
    >>> found = values(np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]]), np.zeros((1, 2)), weights=np.ones((1, 1)),
    ...     sources=np.arange(2), features=2)
    >>> found.round(3).ravel().tolist()
    [0.233, 0.0]
    """
    size = work(
        rows=len(shown), background=len(others), points=len(points), derived=len(sources), features=features
    )
    small = size <= SMALL_WORK or not tree_compiled.available()
    engine = _with_numpy if small else _with_numba
    return engine(_Games(shown, others, points, weights, sources, features))


def warm() -> None:
    """Compile the kernel, or load it from Numba's cache on disk."""
    two = np.zeros((2, 2))
    _with_numba(_Games(two, two, two, np.ones((1, 2)), np.arange(2), 2))


def _with_numba(games: _Games) -> FloatArray:
    shown, others, points, weights, sources, features = games
    from explain_step.explainers.product_game_kernels import add_values

    nodes, node_weights = _quadrature(features)
    found = np.zeros((len(shown), features, len(weights)))
    others, points, weights = (np.ascontiguousarray(part) for part in (others, points, weights))

    def add(share: tuple[int, int]) -> None:
        rows = slice(*share)
        mine = np.ascontiguousarray(shown[rows])
        add_values(found[rows], mine, others, points, weights, sources, nodes, node_weights)

    workers = tree_compiled.processors()
    parts = max(1, min(SHARES * workers, len(shown) // SHARE_ROWS))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        list(pool.map(add, tree_codes.chunks(len(shown), parts=parts)))
    return found


def _quadrature(features: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights on [0, 1] that are exact for degree ``features - 1``."""
    nodes, weights = np.polynomial.legendre.leggauss(max(1, (features + 1) // 2))
    return (nodes + 1) / 2, weights / 2


def _with_numpy(games: _Games) -> FloatArray:
    shown, others, points, weights, sources, features = games
    quadrature = list(zip(*_quadrature(features), strict=True))
    found = np.zeros((len(shown), features, len(weights)))
    step = max(1, AT_ONCE // max(1, features * len(others)))
    for start in range(0, len(points), step):
        some = points[start : start + step]
        theirs = _factors(others, some, sources, features=features)
        for row, mine in enumerate(_factors(shown, some, sources, features=features).transpose(2, 0, 1)):
            away = mine[:, :, None] - theirs
            total = np.zeros_like(away)
            for node, weight in quadrature:
                total += weight * _of_others(theirs + node * away)
            found[row] += (away * total).mean(axis=2) @ weights[:, start : start + step].T
    return found


def _factors(rows: FloatArray, points: FloatArray, sources: IntArray, *, features: int) -> FloatArray:
    """Return each feature's factor of each point and row: (features, points, rows)."""
    square = np.zeros((features, len(points), len(rows)))
    for column, feature in enumerate(sources):
        away = points[:, column, None] - rows[None, :, column]
        square[feature] += away * away
    return np.asarray(np.exp(-square))


def _of_others(factors: FloatArray) -> FloatArray:
    """Return, for each feature, the product of the other features' factors."""
    before, after = np.ones_like(factors), np.ones_like(factors)
    np.cumprod(factors[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumprod(factors[:0:-1], axis=0)[::-1]
    return before * after
