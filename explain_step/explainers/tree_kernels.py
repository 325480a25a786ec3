"""Compiled kernels of the tree engine: one pass over a tree per block of rows, then table look-ups.

The game, the grouping of leaves and the tables are those of `tree_groups` and `tree_tables`; here they are
written as loops over numbers for Numba. Leaves that are too deep for a table are done one by one
(`tree_deep`). Sums are in double precision and in the order of the trees; nothing is reassociated.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers import tree_units
from explain_step.explainers.tree_patterns import ROWS, follow_from_root, index_of, step
from explain_step.explainers.tree_programs import (
    COLUMNS,
    FIRST_COLUMN,
    FIRST_LEAF,
    GROUP,
    GROUP_BITS,
    KIND,
    LEAVES,
    PATH,
    SPLITS,
    STEP,
    TABLE,
    padded,
)
from explain_step.explainers.tree_vectors import add_columns

STATES = 1 << GROUP_BITS
MOST_ENTRIES = GROUP_BITS * GROUP_BITS
"""Columns, or pairs of them, of a group at most."""


@njit(cache=True, nogil=True)
def count_states(program, splits, levels, codes, line, limit, category, sides):
    """Return the share of background rows with each index, per group: shape (operations, 256)."""
    n = codes.shape[1]
    shares = np.zeros((len(program), STATES))
    patterns, index = np.empty(2 * levels * ROWS, np.uint8), np.empty(ROWS, np.uint8)
    for start in range(0, n, ROWS):
        size = min(ROWS, n - start)
        follow_from_root(patterns, size)
        for i in range(len(program)):
            if program[i, KIND] == STEP:
                step(patterns, ROWS, levels, program, i, codes, line, limit, category, sides, start, size)
            elif program[i, KIND] == GROUP:
                index_of(
                    index,
                    patterns,
                    ROWS,
                    levels,
                    program,
                    i,
                    splits,
                    codes,
                    line,
                    limit,
                    category,
                    sides,
                    start,
                    size,
                )
                for r in range(size):
                    shares[i, index[r]] += 1.0
    return shares / n


@njit(cache=True, nogil=True)
def fill_tables(
    tables, program, layout, columns, leaves, tests, values, width, pair_of,
    shares, parent, place, cover, weights, sizes,
):  # fmt: skip
    """Add every leaf's unit values, times its own, to the tables of its group.

    ``shares`` (of `count_states`) makes interventional values; without rows, path-dependent ones. ``layout`` is the
    program that says where tables and entries are; with ``pair_of`` the entries are pairs of columns.
    """
    pattern_of, slots = np.empty(STATES, np.int64), np.empty(GROUP_BITS * GROUP_BITS, np.int64)
    unit, worth = np.empty((STATES, GROUP_BITS * GROUP_BITS)), np.empty(8 * STATES)
    share, entry_of = np.empty(STATES), np.empty((GROUP_BITS, GROUP_BITS), np.int64)
    pairs = len(pair_of) > 0
    for i in range(len(program)):
        op = program[i]
        if op[KIND] != GROUP or layout[i, COLUMNS] == 0:
            continue
        states = 1 << (op[PATH] + op[SPLITS])
        entry = padded(layout[i, COLUMNS])
        table = tables[layout[i, TABLE] : layout[i, TABLE] + states * width * entry]
        places = columns[op[FIRST_COLUMN] : op[FIRST_COLUMN] + op[COLUMNS]]
        if pairs:
            _entries(entry_of, places, pair_of)
        for leaf in range(op[FIRST_LEAF], op[FIRST_LEAF] + op[LEAVES]):
            node, k = leaves[leaf]
            leaf_patterns(pattern_of, tests[leaf], k, states)
            if len(shares):
                share[: 1 << k] = 0.0
                for state in range(states):
                    share[pattern_of[state]] += shares[i, state]
            else:
                _cover_share(share, node, tests[leaf], places, k, parent, place, cover)
            tree_units.sum_subsets(worth, share, k, weights, sizes)
            for pattern in range(1 << k):
                if pairs:
                    tree_units.leaf_pairs(unit[pattern], worth, pattern, k, weights, sizes)
                else:
                    tree_units.leaf_values(unit[pattern], worth, pattern, k, weights, sizes)
            if pairs:
                count = _pair_slots(slots, tests[leaf], k, entry_of)
            else:
                count = k
                for j in range(k):
                    slots[j] = tests[leaf, j, 0]
            for state in range(states):
                mine = unit[pattern_of[state]]
                for o in range(width):
                    weight = values[node * width + o]
                    at = (state * width + o) * entry
                    for j in range(count):
                        if slots[j] >= 0:
                            table[at + slots[j]] += weight * mine[j]


@njit(cache=True, nogil=True)
def _entries(entry_of, places, pair_of):
    """Write which entry of its group's table each pair of columns has, in the order of `pair_program`."""
    count = 0
    for a in range(len(places)):
        for b in range(a + 1, len(places)):
            entry_of[a, b] = -1
            if pair_of[places[a], places[b]] >= 0:
                entry_of[a, b] = count
                count += 1


@njit(cache=True, nogil=True)
def _pair_slots(slots, tests, k, entry_of):
    """Write the entries of a leaf's pairs of columns; return their number."""
    count = 0
    for i in range(k):
        for j in range(i + 1, k):
            slots[count] = entry_of[tests[i, 0], tests[j, 0]]
            count += 1
    return count


@njit(cache=True, nogil=True)
def _cover_share(share, node, tests, places, k, parent, place, cover):
    """Write the share of each pattern where absent columns follow the training cover."""
    mine, ratios = np.empty(GROUP_BITS, np.int64), np.empty(GROUP_BITS)
    for j in range(k):
        mine[j] = places[tests[j, 0]]
    tree_units.ratios_of(ratios, node, mine, k, parent, place, cover)
    tree_units.independent(share, ratios, k)


@njit(cache=True, nogil=True)
def leaf_patterns(out, tests, k, states):
    """Write a leaf's pattern for each index of its group."""
    for state in range(states):
        pattern = 0
        for j in range(k):
            pattern |= ((state & tests[j, 1]) == tests[j, 2]) << j
        out[state] = pattern


@njit(cache=True, nogil=True)
def add_groups(
    sums, program, splits, targets, levels, tables, outputs, codes, line, limit, category, sides, start, size,
):  # fmt: skip
    """Add one tree's groups for ``size`` rows from ``start``."""
    patterns, index = np.empty(2 * levels * size, np.uint8), np.empty(size, np.uint8)
    flat, width, first = sums.reshape(-1), len(outputs), np.empty(MOST_ENTRIES, np.int64)
    follow_from_root(patterns, size)
    for i in range(len(program)):
        if program[i, KIND] == STEP:
            step(patterns, size, levels, program, i, codes, line, limit, category, sides, start, size)
        elif program[i, KIND] == GROUP:
            index_of(
                index,
                patterns,
                size,
                levels,
                program,
                i,
                splits,
                codes,
                line,
                limit,
                category,
                sides,
                start,
                size,
            )
            count, at = program[i, COLUMNS], program[i, FIRST_COLUMN]
            entry = padded(count)
            for o in range(width):
                for j in range(count):
                    first[j] = (outputs[o] * sums.shape[1] + targets[at + j]) * sums.shape[2] + start
                add_table(
                    flat, first, count, tables, program[i, TABLE] + o * entry, width * entry, index, size
                )


@njit(cache=True, nogil=True)
def add_table(out, first, count, tables, begin, entry, index, n):
    """Add the rows' entries of a table to ``count`` columns: ``out[first[j] + r]`` for column j of row r.

    An entry has `tree_programs.padded` places; that of row r is ``begin + index[r] * entry``.
    """
    whole = n - n % 8
    for r in range(0, whole, 8):
        add_columns(out, first, np.int64(count), np.int64(r), tables, np.int64(begin), np.int64(entry), index)
    for r in range(whole, n):
        own = begin + np.int64(index[r]) * entry
        for j in range(count):
            out[first[j] + r] += tables[own + j]


@njit(cache=True, nogil=True)
def add_batch(
    sums, starts, program, splits, targets, tables, outputs, levels, limit, category, sides, codes, line, begin, end,
):  # fmt: skip
    """Add the groups of several trees for the rows from ``begin`` to before ``end``.

    ``sums`` has shape (outputs, columns, rows or more). ``starts[t]`` says where tree t begins in the joined arrays:
    nodes, program, splits, targets, tables, outputs; the last row is their end.
    """
    for first in range(begin, end, ROWS):
        size = min(ROWS, end - first)
        for t in range(len(starts) - 1):
            node, op, split, target, table, output = starts[t]
            after = starts[t + 1]
            add_groups(
                sums, program[op : after[1]], splits[split : after[2]], targets[target : after[3]], levels[t],
                tables[table : after[4]], outputs[output : after[5]],
                codes, line[node : after[0]], limit[node : after[0]], category[node : after[0]], sides, first, size,
            )  # fmt: skip
