"""Compiled programs of trees: the steps and groups that the kernels run over blocks of rows.

The grouping of leaves is that of `tree_groups`. A tree becomes a *program*: steps that update the rows' patterns,
groups that turn a pattern into a table index, and deep leaves.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

GROUP_BITS = 8
"""Tables have at most this many index bits; see `tree_groups.MERGED_BITS`."""
MOST_PATH = 63
"""Distinct columns on a path that fit a packed pattern here; see `tree_deep`."""
STEP, GROUP, DEEP, DEEP_STEP = range(4)
"""A deep step has deep leaves below it only: its patterns have more bits than an index of a group."""
# columns of a program
KIND, NODE, LEVEL, SIDE, PATH, BIT, SPLITS, FIRST_SPLIT, COLUMNS, FIRST_COLUMN, LEAVES, FIRST_LEAF, TABLE = (
    range(13)
)


@njit(cache=True, nogil=True)
def from_root(left, right):
    """Return the nodes from the root down, a subtree's together, those to the left first."""
    order = np.empty(len(left), np.int64)
    stack = np.empty(len(left) + 1, np.int64)
    stack[0], depth, seen = 0, 1, 0
    while depth > 0:
        depth -= 1
        node = stack[depth]
        order[seen] = node
        seen += 1
        if left[node] >= 0:
            stack[depth], stack[depth + 1] = right[node], left[node]
            depth += 2
    return order[:seen].copy()


@njit(cache=True, nogil=True)
def splits_below(left, right):
    """Return for each node the number of splits in its subtree."""
    count = np.zeros(len(left), np.int64)
    for node in from_root(left, right)[::-1]:
        if left[node] >= 0:
            count[node] = 1 + count[left[node]] + count[right[node]]
    return count


@njit(cache=True, nogil=True)
def compile_tree(left, right, place):
    """Return a tree's program and what its groups are made of.

    Returns
    -------
    program : ndarray of shape (operations, 13)
    splits : ndarray
        Nodes of the groups' splits; a group's index has a bit for each after those of its path.
    columns : ndarray
        Raw places of the groups' columns; those of the path first.
    leaves : ndarray of shape (leaves, 2)
        Node and number of columns.
    tests : ndarray of shape (leaves, 8, 3)
        Per column of a leaf: its position in the group's columns, mask of index bits, wanted value.
    levels : int
        Levels of patterns that a run needs; -1: a path is too long.
    """
    nodes = len(left)
    below = splits_below(left, right)
    program = np.zeros((nodes, 13), np.int64)
    splits = np.empty(nodes, np.int64)
    columns = np.empty(nodes * GROUP_BITS, np.int64)
    leaves = np.empty((nodes, 2), np.int64)
    tests = np.empty((nodes, GROUP_BITS, 3), np.int64)
    paths = np.empty((nodes + 1, MOST_PATH + 1), np.int64)
    stack = np.empty((nodes + 1, 4), np.int64)  # node, level, side, path length
    stack[0] = 0
    depth, operations, n_splits, n_columns, n_leaves, levels = 1, 0, 0, 0, 0, 1
    while depth > 0:
        depth -= 1
        node, level, side, length = stack[depth]
        op = program[operations]
        operations += 1
        op[NODE], op[LEVEL], op[SIDE], op[PATH] = node, level, side, length
        levels = max(levels, level + 1)
        path = paths[level]
        if below[node] == 0 and length > GROUP_BITS:
            op[KIND] = DEEP
        elif length + below[node] <= GROUP_BITS:
            op[KIND] = GROUP
            op[SPLITS], op[FIRST_SPLIT] = below[node], n_splits
            op[FIRST_COLUMN], op[FIRST_LEAF] = n_columns, n_leaves
            found = _group(
                node, path[:length], left, right, place,
                splits[n_splits:], columns[n_columns:], leaves[n_leaves:], tests[n_leaves:],
            )  # fmt: skip
            op[COLUMNS], op[LEAVES] = found
            n_splits, n_columns, n_leaves = n_splits + below[node], n_columns + found[0], n_leaves + found[1]
        else:
            bit = 0
            while bit < length and path[bit] != place[node]:
                bit += 1
            if bit >= MOST_PATH:
                levels = -1
                break
            op[KIND] = STEP if max(length, bit + 1) <= GROUP_BITS else DEEP_STEP
            op[BIT] = bit
            paths[level + 1, :length] = path[:length]
            paths[level + 1, bit] = place[node]
            longer = max(length, bit + 1)
            for side in range(2):  # the left one is taken up first
                stack[depth, 0] = left[node] if side else right[node]
                stack[depth, 1], stack[depth, 2], stack[depth, 3] = level + 1, 1 - side, longer
                depth += 1
    return (
        program[:operations],
        splits[:n_splits].copy(),
        columns[:n_columns].copy(),
        leaves[:n_leaves].copy(),
        tests[:n_leaves].copy(),
        levels,
    )


@njit(cache=True, nogil=True)
def _group(top, path, left, right, place, splits, columns, leaves, tests):
    """Write the group under ``top``; return its numbers of columns and leaves."""
    length, n_splits, n_leaves = len(path), 0, 0
    n_columns = length
    columns[:length] = path
    stack = np.empty(2 * GROUP_BITS + 2, np.int64)
    masks = np.zeros((2 * GROUP_BITS + 2, GROUP_BITS, 2), np.int64)  # per column: mask, wanted; mask 0: free
    for i in range(length):
        masks[0, i] = 1 << i
    stack[0], depth = top, 1
    while depth > 0:
        depth -= 1
        node, mine = stack[depth], masks[depth].copy()
        if left[node] < 0:
            k = 0
            for i in range(n_columns):
                if mine[i, 0] != 0:
                    tests[n_leaves, k, 0], tests[n_leaves, k, 1] = i, mine[i, 0]
                    tests[n_leaves, k, 2] = mine[i, 1]
                    k += 1
            leaves[n_leaves, 0], leaves[n_leaves, 1] = node, k
            n_leaves += 1
            continue
        column = 0
        while column < n_columns and columns[column] != place[node]:
            column += 1
        if column == n_columns:
            columns[n_columns] = place[node]
            n_columns += 1
        bit = 1 << (length + n_splits)
        splits[n_splits] = node
        n_splits += 1
        for side in range(2):
            masks[depth + side] = mine
            masks[depth + side, column, 0] |= bit
            masks[depth + side, column, 1] |= bit * side
        stack[depth], stack[depth + 1] = right[node], left[node]
        depth += 2
    return n_columns, n_leaves


@njit(cache=True, nogil=True)
def padded(columns):
    """Return the places of a table entry for so many columns: two are loaded at once."""
    return columns + columns % 2


@njit(cache=True, nogil=True)
def place_tables(program, width):
    """Write where each group's table begins; return the size of all."""
    end = 0
    for i in range(len(program)):
        op = program[i]
        if op[KIND] == GROUP:
            op[TABLE] = end
            end += (1 << (op[PATH] + op[SPLITS])) * width * padded(op[COLUMNS])
    return end


@njit(cache=True, nogil=True)
def pair_program(program, columns, pair_of):
    """Return the program whose groups' entries are pairs of their columns, and the places of these pairs.

    Parameters
    ----------
    pair_of : ndarray of shape (used columns, used columns)
        Place of each pair of columns; negative: not asked for.
    """
    paired = program.copy()
    targets = np.empty(len(program) * GROUP_BITS * (GROUP_BITS - 1) // 2, np.int64)
    count = 0
    for i in range(len(program)):
        op = program[i]
        if op[KIND] != GROUP:
            continue
        paired[i, FIRST_COLUMN] = count
        mine = columns[op[FIRST_COLUMN] : op[FIRST_COLUMN] + op[COLUMNS]]
        for a in range(len(mine)):
            for b in range(a + 1, len(mine)):
                if pair_of[mine[a], mine[b]] >= 0:
                    targets[count] = pair_of[mine[a], mine[b]]
                    count += 1
        paired[i, COLUMNS] = count - paired[i, FIRST_COLUMN]
    return paired, targets[:count].copy()
