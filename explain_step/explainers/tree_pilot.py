"""How many distinct patterns real rows have at the deep leaves of trees: counted at some leaves, for some rows.

A leaf of many columns is valued once for every distinct pattern of passed and failed conditions that rows meet at it, and
how many those are is a matter of the data: columns of which one at most is 1 have a hundredth of what even ones have. So
they are counted. Which rows and leaves are looked at follows from sizes: the same count on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from explain_step.explainers.ensembles import Ensemble, Tree, decide
from explain_step.types import FloatArray, IntArray

LEAVES, ROWS = 144, 2_048
"""Leaves that are looked at, and rows, explained ones and of the background: a fifth of a second."""
HALVINGS = 3
"""Patterns are counted among all these rows, half of them and a quarter: how their number grows."""
MET = (64, 512)
"""Patterns of explained rows for which it is counted how many of so many of the background's they meet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pilot:
    """What was counted at some leaves.

    Attributes
    ----------
    columns : ndarray of shape (leaves,)
        Distinct raw columns on the path.
    times : ndarray of shape (leaves,)
        How many leaves each stands for.
    ours, theirs : ndarray of shape (leaves, HALVINGS)
        Distinct patterns of explained and of background rows, among ever fewer of them.
    sizes : tuple of two ndarrays of shape (HALVINGS,)
        How many rows those are.
    meeting : ndarray of shape (leaves,)
        Share of the pairs of an explained and a background pattern that together pass every column.
    """

    columns: FloatArray
    times: FloatArray
    ours: FloatArray
    theirs: FloatArray
    sizes: tuple[FloatArray, FloatArray]
    meeting: FloatArray

    def patterns(self, *, rows: int, background: int) -> tuple[FloatArray, FloatArray]:
        """Return how many distinct patterns so many rows have at each leaf."""
        most = 2.0 ** np.minimum(self.columns, 60)
        counts = ((self.ours, rows), (self.theirs, background))
        mine, others = (
            np.minimum(_grown(counted, sizes, of), np.minimum(most, of))
            for (counted, of), sizes in zip(counts, self.sizes, strict=True)
        )
        return mine, others


def chosen(size: int) -> IntArray:
    """Return which of so many rows are looked at: `ROWS` of them, evenly spread.

    Examples
    --------
    >>> chosen(3).tolist(), len(chosen(10**6))
    ([0, 1, 2], 2048)
    """
    return np.arange(size) if size <= ROWS else (np.arange(ROWS) * size) // ROWS


def deep_leaves(tree: Tree, sources: IntArray, *, shallow: int) -> tuple[IntArray, IntArray]:
    """Return the leaves with more than ``shallow`` distinct raw columns on their path, and how many these are."""
    if tree.left[0] < 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    used, place = np.unique(sources, return_inverse=True)
    seen = np.zeros((len(tree.left), len(used)), dtype=np.bool_)
    at = np.zeros(1, dtype=np.int64)
    leaves, counts = [], []
    while len(at):
        leaf = tree.left[at] < 0
        leaves.append(at[leaf])
        counts.append(seen[at[leaf]].sum(axis=1))
        inner = at[~leaf]
        path = seen[inner]
        path[np.arange(len(inner)), place[tree.column[inner]]] = True
        seen[tree.left[inner]] = seen[tree.right[inner]] = path
        at = np.concatenate([tree.left[inner], tree.right[inner]])
    found, many = np.concatenate(leaves), np.concatenate(counts).astype(np.int64)
    return found[many > shallow], many[many > shallow]


def count(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray,
    *,
    sources: IntArray,
    leaves: list[tuple[IntArray, IntArray]],
    weights: FloatArray,
) -> Pilot:
    """Return what `LEAVES` of the deep leaves say, evenly spread over the numbers of columns on their paths.

    Parameters
    ----------
    rows, background : ndarray of shape (columns, n) and (columns, m)
        Encoded: `chosen` ones.
    leaves : list
        `deep_leaves` of each tree.
    weights : ndarray
        How many times a leaf of each tree counts.
    """
    tree = np.repeat(np.arange(len(leaves)), [len(nodes) for nodes, _ in leaves])
    nodes, columns = (np.concatenate([one[i] for one in leaves]) for i in (0, 1))
    order = np.argsort(columns, kind="stable")
    some = (
        order[((np.arange(LEAVES) + 0.5) * len(order) / LEAVES).astype(np.int64)]
        if len(order) > LEAVES
        else order
    )
    parents = {t: _parents(ensemble.trees[t]) for t in np.unique(tree[some])}
    both = np.concatenate([rows, background], axis=1)
    counted = []
    for leaf in some:
        one = tree[leaf]
        failed = _failed(ensemble.trees[one], int(nodes[leaf]), parents[one], both, sources=sources)
        counted.append(_counted(failed, rows.shape[1]))
    ours, theirs, meeting = zip(*counted, strict=True)
    return Pilot(
        columns=columns[some].astype(np.float64),
        times=weights[tree[some]] * len(order) / len(some),
        ours=np.array(ours),
        theirs=np.array(theirs),
        sizes=(_sizes(rows.shape[1]), _sizes(background.shape[1])),
        meeting=np.array(meeting),
    )


def _parents(tree: Tree) -> IntArray:
    parent = np.full(len(tree.left), -1)
    inner = np.flatnonzero(tree.left >= 0)
    parent[tree.left[inner]] = parent[tree.right[inner]] = inner
    return parent


def _failed(
    tree: Tree, leaf: int, parent: IntArray, encoded: FloatArray, *, sources: IntArray
) -> npt.NDArray[np.bool_]:
    """Return which rows fail which column of a leaf's path: array of shape (columns, rows)."""
    path = [leaf]
    while parent[path[-1]] >= 0:
        path.append(int(parent[path[-1]]))
    below, nodes = np.array(path[:-1]), np.array(path[1:])
    other = decide(tree, encoded, nodes=nodes) != (tree.left[nodes] == below)[:, None]
    used, place = np.unique(sources[tree.column[nodes]], return_inverse=True)
    failed = np.zeros((len(used), encoded.shape[1]), dtype=np.bool_)
    for column, row in zip(place, other, strict=True):
        failed[column] |= row
    return failed


def _counted(failed: npt.NDArray[np.bool_], n: int) -> tuple[list[int], list[int], float]:
    """Return the numbers of distinct patterns of the first n rows and of the others, and the share of pairs that meet.

    A random number stands for each column, and the sum of those failed, without its overflow, for the pattern: any number of
    columns fits.
    """
    keys = np.random.default_rng(0).integers(1 << 64, size=len(failed), dtype=np.uint64)
    sums = (keys[:, None] * failed).sum(axis=0)
    bits = np.packbits(failed, axis=0)
    parts = [(sums[:n], bits[:, :n]), (sums[n:], bits[:, n:])]
    shown = []
    for (part, which), most in zip(parts, MET, strict=True):
        first = np.unique(part, return_index=True)[1][:most]  # in the order of sums, which is random
        shown.append(which[:, first])
    both = (shown[0][:, :, None] & shown[1][:, None, :]).any(axis=0)
    return _distinct(sums[:n]), _distinct(sums[n:]), float(1.0 - both.mean())


def _distinct(sums: npt.NDArray[np.uint64]) -> list[int]:
    return [len(np.unique(sums[:: 1 << times])) for times in range(HALVINGS)]


def _sizes(size: int) -> FloatArray:
    return np.array([float(-(-size // (1 << times))) for times in range(HALVINGS)])


def _grown(counted: FloatArray, sizes: FloatArray, size: int) -> FloatArray:
    """Return the number of patterns among ``size`` rows: a power of the rows between two counts and beyond the last."""
    numbers, at = np.log(counted), np.log(sizes)
    step = next((i for i in range(HALVINGS - 2) if size > sizes[i + 1]), HALVINGS - 2)
    slope = (numbers[:, step] - numbers[:, step + 1]) / max(at[step] - at[step + 1], 1e-9)
    return np.asarray(np.exp(numbers[:, step] + slope * (np.log(max(size, 1)) - at[step])))
