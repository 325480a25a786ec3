"""Compiled kernel of `walk_scores`: what trees answer along walks, from the leaves that each column of a row allows.

This module imports Numba and is itself imported late, by `walk_scores`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_mask_kernels import COLUMN, EVERY, LEAVES, NODE, keep
from explain_step.explainers.tree_vectors import first_bit

FORWARD, BACKWARD = 0, 1


@njit(cache=True, nogil=True)
def add_walks(
    changes, order, used, row, partner, codes, others, tests, masks, ends, values, value_start, outputs, output_start,
    line, other_line, limit, category, sides,
):  # fmt: skip
    """Add what the trees answer at the start of pairs of walks, and how each step changes it.

    Parameters
    ----------
    changes : ndarray of shape (pairs, 2, columns + 1, outputs)
        Of the forward and the backward walk: the answer to the background row, then the change with each switched column.
    order : ndarray of int of shape (pairs, columns)
        Columns in the order in which the forward walk switches them, by their position among the ``used`` ones that trees
        look at; ``used`` itself stands for the others.
    row, partner : ndarray of int of shape (pairs,)
        The explained row and the background row of each pair, as positions in ``codes`` and ``others``.
    codes, others : ndarray of shape (lines, rows) and (lines, background rows)
        ``line`` and ``other_line`` say which line a node compares.
    tests, masks, ends, values, value_start, outputs, output_start
        `tree_masks.Blocks`.
    """
    columns = order.shape[1]
    most = min(used, LEAVES) + 1  # a block has fewer splits than leaves
    mine, theirs = np.empty((codes.shape[1], most), np.uint64), np.empty((others.shape[1], most), np.uint64)
    mask = np.empty(max(codes.shape[1], others.shape[1]), np.uint64)
    slot_of, step = np.empty(used + 1, np.int64), np.empty(columns + 1, np.int64)
    own, other = np.empty(columns + 1, np.uint64), np.empty(columns + 1, np.uint64)
    rest, first = np.empty(columns + 1, np.uint64), 0
    for block in range(len(ends)):
        last = ends[block]
        to = outputs[output_start[block] : output_start[block + 1]]
        leaves = values[value_start[block] :]
        some, allowed = tests[first:last], masks[first:last]
        _allowed(mine, slot_of, mask, codes, some, allowed, line, limit, category, sides)
        _allowed(theirs, slot_of, mask, others, some, allowed, other_line, limit, category, sides)
        for u in range(len(row)):
            # the columns that allow the two rows different leaves, in the order in which they are switched
            same, count = EVERY, 0
            for t in range(columns):
                s = slot_of[order[u, t]]
                a, b = mine[row[u], s], theirs[partner[u], s]
                same &= a if a == b else EVERY
                step[count], own[count], other[count] = t, a, b
                count += 1 if a != b else 0
            rest[count] = same
            for i in range(count - 1, -1, -1):
                rest[i] = rest[i + 1] & other[i]
            begin, now = first_bit(rest[0]), EVERY
            _add(changes[u, FORWARD, 0], leaves, begin, to)
            _add(changes[u, BACKWARD, 0], leaves, begin, to)
            here = begin
            for i in range(count):
                now &= own[i]
                leaf = first_bit(now & rest[i + 1])
                _change(changes[u, FORWARD, step[i] + 1], leaves, here, leaf, to)
                here = leaf
            # backward, what is left to switch comes before
            rest[0] = same
            for i in range(count):
                rest[i + 1] = rest[i] & other[i]
            here, now = begin, EVERY
            for i in range(count - 1, -1, -1):
                now &= own[i]
                leaf = first_bit(now & rest[i])
                _change(changes[u, BACKWARD, columns - step[i]], leaves, here, leaf, to)
                here = leaf
        first = last


@njit(cache=True, nogil=True)
def _allowed(out, slot_of, mask, codes, tests, masks, line, limit, category, sides):
    """Write the leaves of a block that each tested column allows each row, and which slot of ``out`` a column has.

    The columns that the block does not test share the slot after the others: they allow every leaf.
    """
    size, first, tested = codes.shape[1], 0, 0
    slot_of[:] = -1
    while first < len(tests):
        column = tests[first, COLUMN]
        mask[:size] = EVERY
        while first < len(tests) and tests[first, COLUMN] == column:
            node = tests[first, NODE]
            keep(mask[:size], codes, masks[first], line[node], limit[node], category[node], sides)
            first += 1
        for r in range(size):
            out[r, tested] = mask[r]
        slot_of[column] = tested
        tested += 1
    out[:, tested] = EVERY
    for c in range(len(slot_of)):
        if slot_of[c] < 0:
            slot_of[c] = tested


@njit(cache=True, nogil=True)
def _add(total, values, leaf, outputs):
    """Add the values of a leaf."""
    width = len(outputs)
    for o in range(width):
        total[outputs[o]] += values[leaf * width + o]


@njit(cache=True, nogil=True)
def _change(total, values, before, after, outputs):
    """Add what changes from one leaf to another."""
    width = len(outputs)
    for o in range(width):
        total[outputs[o]] += values[after * width + o] - values[before * width + o]
