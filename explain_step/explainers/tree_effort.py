"""What exact values of deep trees will cost, by sizes alone, and the rows that a budget affords.

A leaf whose path has few columns costs a look-up. That of a forest grown to the end has ten to twenty, and is valued for
every distinct pattern of conditions that rows meet at it (`tree_deep`): thousands of such leaves per tree take minutes. A
matter of sizes alone, like the choice of the engine: the same rows are explained on every machine.
"""

from __future__ import annotations

import numpy as np

from explain_step.explainers import tree_compiled
from explain_step.explainers.ensembles import Ensemble, Tree
from explain_step.explainers.tree_groups import MOST_BITS
from explain_step.types import FloatArray, IntArray

SHALLOW, MOST_TABLE = 8, 16
"""Distinct columns on the path: up to the first a leaf costs next to nothing; up to the second it can have a table."""
PER_ROW, PER_OTHER, PER_ENTRY, PER_PAIR, PER_SORTED = 12e-9, 3e-9, 10e-9, 1.0e-9, 80e-9
"""Processor seconds per leaf: of an explained row, a background row, an entry of a table, a pair of patterns, a row whose
pattern is too wide for a table."""
WITHOUT_NUMBA, LONG = 6.0, 10.0
"""How many times longer NumPy takes, about, and how many times a tree of longer paths than packed patterns hold."""
PER_SECOND = 2.0
"""Processor seconds of exact work that a second of the stage's budget affords, on two processors. The stage has half of the
step's budget, and what is reckoned may take nearly twice as long."""
FEWEST, FEW, FAR = 1_000, 100, 4.0
"""Rows, explained ones and those of the background, that are never cut; few where these take far more than is afforded."""


def affordable(
    ensemble: Ensemble, *, sources: IntArray, rows: int, background: int, budget: float
) -> tuple[int, int]:
    """Return how many rows to explain and how many background rows to take, so that ``budget`` seconds hold.

    The larger of the two is cut first, and neither below `FEWEST`, or `FEW` where that would take far too long.

    Parameters
    ----------
    sources : ndarray of int
        Raw column of each encoded column.
    rows, background : int
        What there is.
    budget : float
        Of the stage, in seconds.

    Examples
    --------
    >>> stump = Ensemble(trees=(), offset=np.zeros(1), encode=np.asarray, columns=())
    >>> affordable(stump, sources=np.zeros(0, dtype=np.int64), rows=10**6, background=10**4, budget=1.0)
    (1000000, 10000)
    """
    allowed = budget * PER_SECOND
    slower = 1.0 if tree_compiled.available() else WITHOUT_NUMBA
    most = len(np.unique(sources))
    leaves = sum(int((tree.left < 0).sum()) for tree in ensemble.trees)
    times = leaves * (max(slower, LONG) if most > MOST_BITS else slower)

    def cost(columns: IntArray, many: FloatArray, rows: int, background: int) -> float:
        each = _seconds(columns, rows=rows, background=background, outputs=_width(ensemble))
        return float((many * each).sum())

    if max(cost(np.array([k]), np.array([times]), rows, background) for k in range(most + 1)) <= allowed:
        return rows, background  # whatever the paths: spares the look at them
    columns, many = _leaves_by_columns(ensemble, sources, most=most, slower=slower)
    least = (
        FEWEST if cost(columns, many, min(rows, FEWEST), min(background, FEWEST)) <= FAR * allowed else FEW
    )
    while (rows > least or background > least) and cost(columns, many, rows, background) > allowed:
        if background >= rows:
            background = max(least, int(background * 0.9))
        else:
            rows = max(least, int(rows * 0.9))
    return rows, background


def _leaves_by_columns(
    ensemble: Ensemble, sources: IntArray, *, most: int, slower: float
) -> tuple[IntArray, FloatArray]:
    """Return numbers of columns on a path and how many deep leaves have them, those of slow trees counted several times."""
    many = np.zeros(most + 1)
    for tree in ensemble.trees:
        deep = _deep(tree, sources)
        long = deep.max(initial=0) > MOST_BITS
        many += (max(slower, LONG) if long else slower) * np.bincount(deep, minlength=most + 1)
    return np.arange(most + 1), many


def pair_entries(ensemble: Ensemble, *, sources: IntArray) -> float:
    """Return what the tables of interactions of all deep leaves hold: entries times pairs of columns.

    Examples
    --------
    >>> stump = Ensemble(trees=(), offset=np.zeros(1), encode=np.asarray, columns=())
    >>> pair_entries(stump, sources=np.zeros(0, dtype=np.int64))
    0.0
    """
    total = 0.0
    for tree in () if _is_shallow(ensemble) else ensemble.trees:
        k = _deep(tree, sources).astype(np.float64)
        total += float((2.0**k * k * (k - 1) / 2).sum())
    return total


def _is_shallow(ensemble: Ensemble) -> bool:
    """Return whether no path has more than `SHALLOW` splits, of all trees at once: faster than `_deep` of each."""
    if not ensemble.trees:
        return True
    start = np.cumsum([0, *(len(tree.left) for tree in ensemble.trees)])[:-1]
    shift = np.repeat(start, [len(tree.left) for tree in ensemble.trees])
    left, right = (
        np.concatenate([getattr(t, side) for t in ensemble.trees]) + shift for side in ("left", "right")
    )
    inner = np.concatenate([tree.left for tree in ensemble.trees]) >= 0
    at = start
    for _ in range(SHALLOW):
        at = at[inner[at]]
        at = np.concatenate([left[at], right[at]])
    return not inner[at].any()


def _width(ensemble: Ensemble) -> int:
    """Return the most outputs that a tree adds to."""
    return max((len(tree.outputs) for tree in ensemble.trees), default=1)


def _seconds(columns: IntArray, *, rows: int, background: int, outputs: int) -> FloatArray:
    """Return the processor seconds of a leaf by the number of columns on its path."""
    k = columns.astype(np.float64)
    pairs = PER_PAIR * _patterns(k, rows) * _patterns(k, background)
    pairs += np.where(k <= MOST_TABLE, 0.0, PER_SORTED * (rows + background))
    tables = np.where(k <= MOST_TABLE, PER_ENTRY * 2.0**k, np.inf)
    return np.asarray(np.minimum(pairs, tables) + PER_ROW * rows * (2 + outputs) / 3 + PER_OTHER * background)


def _patterns(k: FloatArray, rows: int) -> FloatArray:
    """Return about how many distinct patterns so many rows have at a leaf of k columns (counted on three data sets)."""
    return np.asarray(1.0 / (2.0 / max(rows, 1) + 5.0 / 2.0**k))


def _deep(tree: Tree, sources: IntArray) -> IntArray:
    """Return the number of distinct raw columns on the path of each leaf that has more than `SHALLOW`."""
    if tree.left[0] < 0:
        return np.zeros(0, dtype=np.int64)
    used, place = np.unique(sources, return_inverse=True)
    seen = np.zeros((len(tree.left), len(used)), dtype=np.bool_)
    at = np.zeros(1, dtype=np.int64)
    found = []
    while len(at):
        leaf = tree.left[at] < 0
        found.append(seen[at[leaf]].sum(axis=1))
        inner = at[~leaf]
        path = seen[inner]
        path[np.arange(len(inner)), place[tree.column[inner]]] = True
        seen[tree.left[inner]] = seen[tree.right[inner]] = path
        at = np.concatenate([tree.left[inner], tree.right[inner]])
    counts = np.concatenate(found).astype(np.int64)
    return counts[counts > SHALLOW]
