"""What trees answer to mixed rows, from the leaves that each column of a row allows: no row is predicted anew.

A split on a column excludes the leaves on its other side. With the leaves of a tree as the bits of a word (Lucchese et
al. 2015, doi:10.1145/2766462.2767733), a column's value is a mask of the leaves that it leaves, and a row's leaf is
the one bit that all its columns' masks share. A row with one column taken from elsewhere then costs one operation and
one look-up per tree.

Trees of more leaves than a word has bits are blocks of neighbouring leaves; a row has its leaf in one of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from explain_step.explainers import tree_codes
from explain_step.explainers.ensembles import Ensemble
from explain_step.explainers.tree_codes import Coding, FlatEnsemble
from explain_step.explainers.tree_compiled import processors
from explain_step.types import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """The trees as blocks of at most 64 leaves.

    Attributes
    ----------
    flat : FlatEnsemble
    tests : ndarray of int of shape (tests, 2)
        Node and column of each test, by block and, within a block, by column.
    masks : ndarray of uint64 of shape (tests, 2)
        The leaves that rows keep that go right, and that go left.
    ends : ndarray of int of shape (blocks,)
        Where each block's tests end.
    values : ndarray
        The leaves' values, from ``value_start[block]`` on, one after the other; then zeros, for rows that are in no leaf.
    outputs : ndarray of int
        The outputs that a block's leaves have values for, from ``output_start[block]`` to that of the next.
    n_outputs : int
    """

    flat: FlatEnsemble
    tests: IntArray
    masks: npt.NDArray[np.uint64]
    ends: IntArray
    values: FloatArray
    value_start: IntArray
    outputs: IntArray
    output_start: IntArray
    n_outputs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Queries:
    """Rows with one column's value taken from elsewhere.

    Attributes
    ----------
    row, column, value : ndarray of int of shape (queries,)
        Which row, which raw column (its position among those used; -1: one that no tree looks at), and which of the
        values lent to the column.
    """

    row: IntArray
    column: IntArray
    value: IntArray


def blocks(ensemble: Ensemble, *, places: IntArray) -> Blocks:
    """Return the ensemble in blocks; ``places`` maps its columns to positions of raw columns."""
    flat = tree_codes.flatten(ensemble, places=places)
    parts = [_tree(flat, tree) for tree in range(len(ensemble.trees))]
    counts = np.cumsum([0, *(len(part[0]) for part in parts)])
    values = [block for part in parts for block in part[3]]
    outputs = [tree.outputs for tree, part in zip(ensemble.trees, parts, strict=True) for _ in part[3]]
    return Blocks(
        flat=flat,
        tests=np.concatenate([part[0] for part in parts]),
        masks=np.concatenate([part[1] for part in parts]),
        ends=np.concatenate([part[2] + begin for part, begin in zip(parts, counts, strict=False)]),
        values=np.concatenate(values),
        value_start=np.cumsum([0, *(len(block) for block in values)])[:-1],
        outputs=np.array([o for some in outputs for o in some], dtype=np.int64),
        output_start=np.cumsum([0, *(len(some) for some in outputs)]),
        n_outputs=len(ensemble.offset),
    )


def _tree(
    flat: FlatEnsemble, tree: int
) -> tuple[IntArray, npt.NDArray[np.uint64], IntArray, list[FloatArray]]:
    """Return a tree's tests, their masks, where its blocks end, and their leaves' values."""
    from explain_step.explainers import tree_mask_kernels

    nodes = slice(int(flat.start[tree]), int(flat.start[tree + 1]))
    left = flat.left[nodes]
    n_leaves = int((left < 0).sum())
    most = -(-n_leaves // tree_mask_kernels.LEAVES)
    room = tree_mask_kernels.room(left, flat.right[nodes])
    tests, masks = np.empty((room, 2), np.int64), np.empty((room, 2), np.uint64)
    ends, leaves = np.empty(most, np.int64), np.empty(n_leaves, np.int64)
    tree_mask_kernels.tests_of(
        left, flat.right[nodes], flat.place[nodes], nodes.start, tests, masks, ends, leaves
    )
    width = int(flat.output_start[tree + 1] - flat.output_start[tree])
    own = flat.values[flat.value_start[tree] : flat.value_start[tree] + len(left) * width].reshape(-1, width)
    size = tree_mask_kernels.LEAVES
    values = np.zeros((len(ends), size + 1, width))
    for block in range(len(ends)):
        some = leaves[block * size : (block + 1) * size]
        values[block, : len(some)] = own[some]
    return tests, masks, ends, list(values.reshape(len(ends), -1))


def exchanged(forest: Blocks, rows: Coding, lent: Coding, queries: Queries, *, columns: int) -> FloatArray:
    """Return the trees' summed output for rows with one column's value taken from elsewhere.

    Parameters
    ----------
    rows : Coding of n rows
    lent : Coding of v rows
        Row i holds the i-th value that each column is lent.
    queries : Queries
    columns : int
        Number of used raw columns.

    Returns
    -------
    ndarray of shape (queries, outputs)
        Without the ensemble's offset.
    """
    from explain_step.explainers import tree_mask_kernels

    n = rows.codes.shape[1]
    asked = np.flatnonzero(queries.column >= 0)
    cell = queries.column[asked] * n + queries.row[asked]
    order = np.argsort(cell, kind="stable")
    begin = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=columns * n))])
    of_row = begin[np.arange(columns)[:, None] * n + np.arange(n + 1)]
    held = np.zeros(columns, dtype=np.int64)
    np.maximum.at(held, queries.column[asked], queries.value[asked] + 1)
    which = queries.value[asked][order]
    total, change = np.zeros((n, forest.n_outputs)), np.zeros((len(order), forest.n_outputs))

    def part(ends: tuple[int, int]) -> None:
        some, flat = slice(*ends), forest.flat
        tree_mask_kernels.exchange(
            total[some], change, rows.codes[:, some], lent.codes, held, of_row[:, ends[0] : ends[1] + 1], which,
            forest.tests, forest.masks, forest.ends, forest.values, forest.value_start, forest.outputs,
            forest.output_start, rows.line, lent.line, flat.limit, flat.category, flat.sides,
        )  # fmt: skip

    threads = processors()  # no number depends on it
    ends = np.linspace(0, n, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(part, pairwise(ends)))
    out = total[queries.row]
    out[asked[order]] += change
    return out


def walked(
    forest: Blocks,
    rows: Coding,
    others: Coding,
    order: npt.NDArray[np.int32],
    *,
    used: int,
    row: IntArray,
    partner: IntArray,
) -> FloatArray:
    """Return the trees' summed output along walks from background rows to explained rows.

    Parameters
    ----------
    rows, others : Coding of n and of m rows
    order : ndarray of int of shape (pairs, columns)
        Columns in the order in which the forward walk switches them, the backward walk from the end: positions among the
        ``used`` raw columns, and ``used`` for columns that no tree looks at.
    row, partner : ndarray of int of shape (pairs,)
        Where each pair of walks ends, and where it begins.

    Returns
    -------
    ndarray of shape (pairs, 2, columns + 1, outputs)
        Without the ensemble's offset.
    """
    from explain_step.explainers import tree_walk_kernels

    out = np.zeros((len(order), 2, order.shape[1] + 1, forest.n_outputs))

    def part(ends: tuple[int, int]) -> None:
        some, flat = slice(*ends), forest.flat
        shown, of_row = np.unique(row[some], return_inverse=True)
        begun, of_partner = np.unique(partner[some], return_inverse=True)
        tree_walk_kernels.add_walks(
            out[some], order[some], used, of_row, of_partner, rows.codes[:, shown], others.codes[:, begun],
            forest.tests, forest.masks, forest.ends, forest.values, forest.value_start, forest.outputs,
            forest.output_start, rows.line, others.line, flat.limit, flat.category, flat.sides,
        )  # fmt: skip

    threads = processors()  # no number depends on it
    ends = np.linspace(0, len(order), threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(part, pairwise(ends)))
    return np.cumsum(out, axis=2)
