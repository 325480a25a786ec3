"""Compiled kernels of `tree_masks`: which leaves of a block each column of a row allows, and what is left of them.

This module imports Numba and is itself imported late, by `tree_masks`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_vectors import first_bit

LEAVES = 64
"""Leaves of a block: one bit each."""
ROWS = 256
"""Rows that go through all blocks together."""
EVERY, NO = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0)
NODE, COLUMN = 0, 1


@njit(cache=True, nogil=True)
def number_leaves(left, right, first, middle, last, order):
    """Write of each split where the leaves below it begin, part and end, from left to right; return their number.

    ``order`` gets the leaves' nodes.
    """
    stack = np.empty((len(left), 2), np.int64)
    stack[0, 0], stack[0, 1], depth, count = 0, 0, 1, 0
    while depth > 0:
        node, visit = stack[depth - 1]
        if left[node] < 0:
            order[count] = node
            count += 1
            depth -= 1
        elif visit == 0:
            first[node], stack[depth - 1, 1] = count, 1
            stack[depth, 0], stack[depth, 1] = left[node], 0
            depth += 1
        elif visit == 1:
            middle[node], stack[depth - 1, 1] = count, 2
            stack[depth, 0], stack[depth, 1] = right[node], 0
            depth += 1
        else:
            last[node] = count
            depth -= 1
    return count


@njit(cache=True, nogil=True)
def bits(begin, end):
    """Return the mask of the bits from ``begin`` to before ``end``, as far as there are `LEAVES` of them."""
    low, high = max(begin, 0), min(end, LEAVES)
    if low >= high:
        return NO
    return (EVERY >> np.uint64(LEAVES - (high - low))) << np.uint64(low)


@njit(cache=True, nogil=True)
def room(left, right):
    """Return the number of tests of all blocks of a tree: a split is tested in each block that has leaves below it."""
    size = len(left)
    first, middle, last = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    number_leaves(left, right, first, middle, last, np.empty(size, np.int64))
    count = 0
    for node in range(size):
        if left[node] >= 0:
            count += (last[node] - 1) // LEAVES - first[node] // LEAVES + 1
    return count


@njit(cache=True, nogil=True)
def tests_of(left, right, place, start, tests, masks, ends, leaves):
    """Write the tests of one tree's blocks, sorted by column within a block; return the numbers of tests and blocks.

    Parameters
    ----------
    start : int
        Where the tree's nodes begin.
    tests : ndarray of shape (room, 2)
        Node and column.
    masks : ndarray of shape (room, 2)
        The leaves that a row keeps that goes right, and that one keeps that goes left.
    ends : ndarray of shape (blocks,)
        Where each block's tests end.
    leaves : ndarray of shape (leaves,)
        The leaves' nodes, from left to right.
    """
    size = len(left)
    first, middle, last = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    blocks = -(-number_leaves(left, right, first, middle, last, leaves) // LEAVES)
    count = 0
    for block in range(blocks):
        begin, origin = count, block * LEAVES
        for node in range(len(left)):
            if left[node] < 0 or first[node] >= origin + LEAVES or last[node] <= origin:
                continue
            at = count
            while at > begin and tests[at - 1, COLUMN] > place[node]:
                tests[at], masks[at] = tests[at - 1], masks[at - 1]
                at -= 1
            tests[at, NODE], tests[at, COLUMN] = start + node, place[node]
            masks[at, 0] = ~bits(first[node] - origin, middle[node] - origin)
            masks[at, 1] = ~bits(middle[node] - origin, last[node] - origin)
            count += 1
        ends[block] = count
    return count, blocks


@njit(cache=True, nogil=True)
def keep(mask, codes, masks, line, limit, category, sides):
    """Take from the masks of rows the leaves that a test excludes; ``codes`` has shape (lines, rows)."""
    values = codes[line]
    right, left = masks
    if category:
        for r in range(len(mask)):
            mask[r] &= left if sides[limit + values[r]] else right
    else:
        most = codes.dtype.type(limit)
        for r in range(len(mask)):
            mask[r] &= left if values[r] <= most else right


@njit(cache=True, nogil=True)
def exchange(
    total, change, codes, lent, held, queries, which, tests, masks, ends, values, value_start, outputs, output_start,
    line, lent_line, limit, category, sides,
):  # fmt: skip
    """Add the trees' output for rows, and how it changes with one column's value taken from elsewhere.

    Parameters
    ----------
    total : ndarray of shape (rows, outputs)
    change : ndarray of shape (queries, outputs)
    codes, lent : ndarray of shape (lines, rows) and (lines, most values)
        Rows, and the values that each column is lent, one after the other; ``line`` and ``lent_line`` say which line a node
        compares.
    held : ndarray of shape (columns,)
        How many values each column is lent; the rest of ``lent`` does not matter.
    queries : ndarray of shape (columns, rows + 1)
        The queries of column c and row r are ``queries[c, r]:queries[c, r + 1]``.
    which : ndarray of shape (queries,)
        The value that is lent.
    tests, masks, ends, values, value_start, outputs, output_start
        `tree_masks.Blocks`.
    """
    columns, n = len(held), codes.shape[1]
    mine, rest = np.empty((columns, ROWS), np.uint64), np.empty((columns, ROWS), np.uint64)
    whole, own = np.empty(ROWS, np.uint64), np.empty(lent.shape[1], np.uint64)
    after, present = np.empty(ROWS, np.uint64), np.empty(columns, np.int64)
    for begin in range(0, n, ROWS):
        size = min(ROWS, n - begin)
        some, first = codes[:, begin : begin + size], 0
        for block in range(len(ends)):
            last = ends[block]
            to = outputs[output_start[block] : output_start[block + 1]]
            leaves = values[value_start[block] :]
            count = _columns_of(
                present, mine, some, tests[first:last], masks[first:], line, limit, category, sides
            )
            _all_but_one(rest, whole[:size], after[:size], mine, present[:count])
            _add_leaves(total[begin : begin + size], whole, leaves, to)
            test = first
            for i in range(count):
                column = present[i]
                size_held = held[column]
                own[:size_held] = EVERY
                while test < last and tests[test, COLUMN] == column:
                    node = tests[test, NODE]
                    if size_held > 0:
                        keep(
                            own[:size_held],
                            lent,
                            masks[test],
                            lent_line[node],
                            limit[node],
                            category[node],
                            sides,
                        )
                    test += 1
                if size_held > 0:
                    _lend(change, rest[column], whole[:size], own, queries[column, begin:], which, leaves, to)
            first = last


@njit(cache=True, nogil=True)
def _columns_of(present, mine, codes, tests, masks, line, limit, category, sides):
    """Write which columns a block tests, and what each of them allows each row; return their number."""
    count, before, size = 0, -1, codes.shape[1]
    for t in range(len(tests)):
        node, column = tests[t]
        if column != before:
            present[count], before = column, column
            mine[column, :size] = EVERY
            count += 1
        keep(mine[column, :size], codes, masks[t], line[node], limit[node], category[node], sides)
    return count


@njit(cache=True, nogil=True)
def _all_but_one(rest, whole, after, mine, present):
    """Write what all columns of a block together allow each row, and what all but each one do."""
    size = len(whole)
    whole[:], after[:] = EVERY, EVERY
    for i in range(len(present)):
        rest[present[i], :size] = whole
        whole &= mine[present[i], :size]
    for i in range(len(present) - 1, -1, -1):
        rest[present[i], :size] &= after
        after &= mine[present[i], :size]


@njit(cache=True, nogil=True)
def _add_leaves(total, whole, values, outputs):
    """Add the values of the leaves that rows reach as they are."""
    width = len(outputs)
    for r in range(len(total)):
        leaf = first_bit(whole[r]) * width
        for o in range(width):
            total[r, outputs[o]] += values[leaf + o]


@njit(cache=True, nogil=True)
def _lend(change, rest, whole, own, queries, which, values, outputs):
    """Add what changes with the leaves that rows reach with what they are lent in one column."""
    width, only = len(outputs), outputs[0]
    for r in range(len(whole)):
        if rest[r] == NO:
            continue
        leaf = first_bit(whole[r]) * width
        if width == 1:
            for q in range(queries[r], queries[r + 1]):
                change[q, only] += values[first_bit(rest[r] & own[which[q]])] - values[leaf]
            continue
        for q in range(queries[r], queries[r + 1]):
            lent = first_bit(rest[r] & own[which[q]]) * width
            for o in range(width):
                change[q, outputs[o]] += values[lent + o] - values[leaf + o]
