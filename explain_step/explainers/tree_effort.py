"""What exact values of deep trees will cost, by sizes alone, and the rows that a budget affords.

A leaf whose path has few columns costs a look-up. That of a forest grown to the end has ten to twenty, and is valued for
every distinct pattern of conditions that rows meet at it (`tree_deep`): thousands of such leaves per tree take minutes. A
matter of sizes alone, like the choice of the engine: the same rows are explained on every machine.
"""

from __future__ import annotations

import numpy as np

from explain_step.explainers import tree_compiled
from explain_step.explainers.ensembles import Ensemble, Tree
from explain_step.types import FloatArray, IntArray

SHALLOW, MOST_TABLE = 8, 16
"""Distinct columns on the path: up to the first a leaf costs next to nothing; up to the second it can have a table."""
PER_ROW, PER_OTHER, PER_ENTRY, PER_PAIR, PER_SORTED = 12e-9, 3e-9, 10e-9, 0.7e-9, 60e-9
"""Processor seconds per leaf: of an explained row, a background row, an entry of a table, a pair of patterns, a row whose
pattern is too wide for a table."""
WITHOUT_NUMBA = 5.0
"""How many times longer NumPy takes, about."""
PER_SECOND = 3.0
"""Processor seconds of exact work that a second of the stage's budget affords: two processors, and what other stages of an
exact explanation leave."""
FEWEST = 1_000
"""Rows, explained ones and those of the background, that are never cut."""


def affordable(
    ensemble: Ensemble, *, sources: IntArray, rows: int, background: int, budget: float
) -> tuple[int, int]:
    """Return how many rows to explain and how many background rows to take, so that ``budget`` seconds hold.

    The larger of the two is cut first, and neither below `FEWEST`.

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
    allowed = budget * PER_SECOND / (1.0 if tree_compiled.available() else WITHOUT_NUMBA)
    leaves = sum(int((tree.left < 0).sum()) for tree in ensemble.trees)
    if (
        leaves
        * _seconds(np.array([MOST_TABLE]), rows=rows, background=background, outputs=_width(ensemble)).sum()
        <= allowed
    ):
        return rows, background  # whatever the paths: spares the look at them
    deep = np.concatenate([np.zeros(0, dtype=np.int64), *(_deep(tree, sources) for tree in ensemble.trees)])
    columns, many = np.unique(deep, return_counts=True)
    while rows > FEWEST or background > FEWEST:
        each = _seconds(columns, rows=rows, background=background, outputs=_width(ensemble))
        if float((many * each).sum()) <= allowed:
            break
        if background >= rows:
            background = max(FEWEST, int(background * 0.9))
        else:
            rows = max(FEWEST, int(rows * 0.9))
    return rows, background


def pair_entries(ensemble: Ensemble, *, sources: IntArray) -> float:
    """Return what the tables of interactions of all deep leaves hold: entries times pairs of columns.

    Examples
    --------
    >>> stump = Ensemble(trees=(), offset=np.zeros(1), encode=np.asarray, columns=())
    >>> pair_entries(stump, sources=np.zeros(0, dtype=np.int64))
    0.0
    """
    total = 0.0
    for tree in ensemble.trees:
        k = _deep(tree, sources).astype(np.float64)
        total += float((2.0**k * k * (k - 1) / 2).sum())
    return total


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
