"""How a tree's leaves are arranged for table look-ups, and how rows become table indices.

Leaves that share a path are looked up together: a *group* is a node with all leaves under it. Its index has
one bit per distinct column on the path to the node (all conditions on that column hold) and one bit per
split below the node. A group that is a single leaf is the plain case. Grouping changes the number of
look-ups, never the game.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from explain_step.explainers.ensembles import Tree
from explain_step.types import IntArray

MERGED_BITS = 8
"""Leaves are grouped while the index has at most this many bits: tables stay in the first-level cache."""
MOST_BITS = 63
"""Paths of more distinct columns than this have patterns of Python's integers, which are as long as it takes."""
Indices: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One leaf of a group.

    Attributes
    ----------
    node : int
        The leaf in the tree.
    rows : tuple of int
        Positions in the group's columns of the columns that the leaf depends on; the first are the path's.
    plain : int
        Index bits that are pattern bits as they stand.
    tests : tuple of (int, int, int)
        Pattern bits that need several index bits: (bit, mask of index bits, wanted value under the mask).
    """

    node: int
    rows: tuple[int, ...]
    plain: int
    tests: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A node whose leaves share one table: ``path`` column bits, then one bit per split in ``splits``."""

    columns: tuple[int, ...]
    path: int
    splits: tuple[int, ...]
    leaves: tuple[Leaf, ...]

    @property
    def bits(self) -> int:
        """Number of bits of the index."""
        return self.path + len(self.splits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A split above the groups: its row in the decision matrix, the bit of its column, and what follows."""

    split: int
    bit: int
    left: Step | Group
    right: Step | Group


def arrange(tree: Tree, *, sources: IntArray) -> Step | Group:
    """Return the look-up plan of a tree; ``sources`` maps the tree's columns to raw columns."""
    below = _splits_below(tree)
    done: dict[int, Step | Group] = {}
    stack: list[tuple[int, tuple[int, ...], bool]] = [(0, (), False)]
    while stack:
        node, path, children_done = stack.pop()
        if below[node] == 0 or len(path) + below[node] <= MERGED_BITS:
            done[node] = _group(tree, node, path, sources=sources)
            continue
        column = int(sources[tree.column[node]])
        longer = path if column in path else (*path, column)
        left, right = int(tree.left[node]), int(tree.right[node])
        if children_done:
            done[node] = Step(
                split=int(tree.split[node]),
                bit=longer.index(column),
                left=done.pop(left),
                right=done.pop(right),
            )
            continue
        stack += [(node, path, True), (left, longer, False), (right, longer, False)]
    return done[0]


def _splits_below(tree: Tree) -> IntArray:
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        if tree.left[node] >= 0:
            stack += [int(tree.left[node]), int(tree.right[node])]
    count = np.zeros(len(tree.left), dtype=np.int64)
    for node in reversed(order):
        if tree.left[node] >= 0:
            count[node] = 1 + count[tree.left[node]] + count[tree.right[node]]
    return count


def _group(tree: Tree, top: int, path: tuple[int, ...], *, sources: IntArray) -> Group:
    columns, splits = list(path), list[int]()
    found: list[tuple[int, tuple[tuple[int, int, int], ...]]] = []
    stack: list[tuple[int, tuple[tuple[int, int, int], ...]]] = [(top, ())]
    while stack:
        node, taken = stack.pop()
        if tree.left[node] < 0:
            found.append((node, taken))
            continue
        column, bit = int(sources[tree.column[node]]), len(path) + len(splits)
        splits.append(int(tree.split[node]))
        if column not in columns:
            columns.append(column)
        row = columns.index(column)
        stack.append((int(tree.left[node]), (*taken, (row, bit, 1))))
        stack.append((int(tree.right[node]), (*taken, (row, bit, 0))))
    leaves = tuple(_leaf(node, taken, path=len(path)) for node, taken in found)
    return Group(columns=tuple(columns), path=len(path), splits=tuple(splits), leaves=leaves)


def _leaf(node: int, taken: tuple[tuple[int, int, int], ...], *, path: int) -> Leaf:
    """Turn the decisions below the group's node into tests, one per column that they touch."""
    touched: dict[int, tuple[int, int]] = {}
    for row, bit, side in taken:
        mask, wanted = touched.get(row, (1 << row, 1 << row) if row < path else (0, 0))
        touched[row] = (mask | 1 << bit, wanted | side << bit)
    rows = (*range(path), *sorted(row for row in touched if row >= path))
    plain = sum(1 << row for row in range(path) if row not in touched)
    tests = tuple((rows.index(row), mask, wanted) for row, (mask, wanted) in touched.items())
    return Leaf(node=node, rows=rows, plain=plain, tests=tests)


def leaf_patterns(leaf: Leaf, indices: Indices) -> Indices:
    """Return the leaf's patterns for the group's indices, in the same dtype."""
    kind = indices.dtype.type
    patterns: Indices = indices & kind(leaf.plain)
    for bit, mask, wanted in leaf.tests:
        patterns |= ((indices & kind(mask)) == kind(wanted)).astype(indices.dtype) << kind(bit)
    return patterns


def groups(plan: Step | Group) -> Iterator[Group]:
    """Yield the groups of a plan in the order of `row_indices`."""
    stack = [plan]
    while stack:
        item = stack.pop()
        if isinstance(item, Group):
            yield item
        else:
            stack += [item.right, item.left]


def row_indices(plan: Step | Group, decisions: npt.NDArray[np.bool_]) -> Iterator[Indices]:
    """Yield each group's index of every row.

    Parameters
    ----------
    decisions : ndarray of shape (splits, rows)
        Whether the row goes left at the split.

    Yields
    ------
    ndarray of shape (rows,)
        Unsigned integers; the same dtype for all groups of the plan.
    """
    bits = max(group.bits for group in groups(plan))
    dtype = np.dtype(np.uint16 if bits <= 16 else np.uint64 if bits <= MOST_BITS else object)
    kind: Any = dtype.type
    ones = ~kind(0)
    left = decisions.astype(dtype)
    stack: list[tuple[Step | Group, Indices]] = [(plan, np.full(decisions.shape[1], ones, dtype=dtype))]
    while stack:
        item, pattern = stack.pop()
        if isinstance(item, Group):
            index = pattern & kind((1 << item.path) - 1)
            for place, split in enumerate(item.splits, start=item.path):
                index |= left[split] << kind(place)
            yield index
            continue
        bit = kind(1 << item.bit)
        keep = left[item.split] * bit | (ones ^ bit)  # clears the column's bit where the row goes right
        stack.append((item.right, pattern & (keep ^ bit)))
        stack.append((item.left, pattern & keep))
