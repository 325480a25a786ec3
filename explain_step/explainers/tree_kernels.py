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
from explain_step.explainers.tree_programs import (
    BIT,
    COLUMNS,
    FIRST_COLUMN,
    FIRST_LEAF,
    FIRST_SPLIT,
    GROUP,
    GROUP_BITS,
    KIND,
    LEAVES,
    LEVEL,
    NODE,
    PATH,
    SIDE,
    SPLITS,
    STEP,
    TABLE,
)
from explain_step.explainers.tree_vectors import add_entries

STATES = 1 << GROUP_BITS
ALL, NONE = np.uint32(0xFFFFFFFF), np.uint32(0)
TOGETHER = 16
"""Groups whose entries are added in one pass over the sums: those of a tree of depth six."""
ROWS = 1024
"""Rows that go through all trees of a batch together: their sums stay in the second-level cache."""


@njit(cache=True, nogil=True)
def decide(out, codes, line, limit, category, sides, node, start):
    """Write whether the rows from ``start`` go left at ``node``: all bits or none, so that masks do without shifts."""
    values = codes[line[node], start : start + len(out)]
    if category[node]:
        first = limit[node]
        for r in range(len(out)):
            out[r] = ALL if sides[first + values[r]] else NONE
    else:
        most = codes.dtype.type(limit[node])
        for r in range(len(out)):
            out[r] = ALL if values[r] <= most else NONE


@njit(cache=True, nogil=True)
def step(patterns, op, goes_left):
    """Write the patterns of a step's children: the column's bit is cleared where the row goes the other way."""
    level, bit = op[LEVEL], patterns.dtype.type(1 << op[BIT])
    here, left, right = patterns[op[SIDE], level], patterns[0, level + 1], patterns[1, level + 1]
    others = ~bit
    for r in range(len(goes_left)):
        g = goes_left[r]
        left[r] = here[r] & (g | others)
        right[r] = here[r] & ~(g & bit)


@njit(cache=True, nogil=True)
def index_of(index, patterns, op, splits, goes_left, codes, line, limit, category, sides, start):
    """Write the rows' indices into a group's table."""
    here = patterns[op[SIDE], op[LEVEL]]
    mask = index.dtype.type((1 << op[PATH]) - 1)
    n = len(goes_left)
    for r in range(n):
        index[r] = here[r] & mask
    for s in range(op[SPLITS]):
        decide(goes_left, codes, line, limit, category, sides, splits[op[FIRST_SPLIT] + s], start)
        bit = index.dtype.type(1 << (op[PATH] + s))
        for r in range(n):
            index[r] |= goes_left[r] & bit


@njit(cache=True, nogil=True)
def count_states(program, splits, levels, codes, line, limit, category, sides):
    """Return the share of background rows with each index, per group: shape (operations, 256)."""
    n = codes.shape[1]
    shares = np.zeros((len(program), STATES))
    patterns = np.empty((2, levels, ROWS), np.uint32)
    goes_left, index = np.empty(ROWS, np.uint32), np.empty(ROWS, np.uint32)
    for start in range(0, n, ROWS):
        size = min(ROWS, n - start)
        patterns[0, 0, :size] = np.uint32(0xFFFFFFFF)
        for i in range(len(program)):
            op = program[i]
            if op[KIND] == STEP:
                decide(goes_left[:size], codes, line, limit, category, sides, op[NODE], start)
                step(patterns, op, goes_left[:size])
            elif op[KIND] == GROUP:
                index_of(
                    index, patterns, op, splits, goes_left[:size], codes, line, limit, category, sides, start
                )
                for r in range(size):
                    shares[i, index[r]] += 1.0
    return shares / n


@njit(cache=True, nogil=True)
def fill_tables(
    tables, program, layout, columns, leaves, tests, values, width, row_columns, pair_of,
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
        entry = row_columns if row_columns else layout[i, COLUMNS]
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
                    slots[j] = places[tests[leaf, j, 0]] if row_columns else tests[leaf, j, 0]
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
    sums, program, splits, columns, levels, tables, outputs, row_columns, codes, line, limit, category, sides, start, size,
    kind,
):  # fmt: skip
    """Add one tree's groups for ``size`` rows from ``start``; patterns and indices are of the type of ``kind``."""
    patterns = np.empty((2, levels, size), kind.dtype)
    goes_left, index = np.empty(size, kind.dtype), np.empty((TOGETHER, size), kind.dtype)
    patterns[0, 0] = ALL
    first, found = np.empty(TOGETHER, np.int64), 0
    width = len(outputs)
    for i in range(len(program)):
        op = program[i]
        if op[KIND] == STEP:
            decide(goes_left, codes, line, limit, category, sides, op[NODE], start)
            step(patterns, op, goes_left)
        elif op[KIND] == GROUP:
            index_of(
                index[found], patterns, op, splits, goes_left, codes, line, limit, category, sides, start
            )
            if row_columns:
                first[found] = op[TABLE]
                found += 1
                if found == TOGETHER:
                    _add_rows(sums, tables, first, index, outputs, width, row_columns, start)
                    found = 0
            else:
                places = columns[op[FIRST_COLUMN] : op[FIRST_COLUMN] + op[COLUMNS]]
                _add_columns(sums, tables[op[TABLE] :], index[0], outputs, width, places, start)
    if found:
        _add_rows(sums, tables, first[:found], index, outputs, width, row_columns, start)


@njit(cache=True, nogil=True)
def _add_rows(sums, tables, first, index, outputs, width, row_columns, start):
    """Add whole table rows of several groups: every used column has its place in them."""
    flat, size = sums.reshape(-1), np.int64(index.shape[1])
    stride, entry, many = (
        np.int64(sums.shape[1] * row_columns),
        np.int64(width * row_columns),
        np.int64(len(first)),
    )
    begin = np.empty(len(first), np.int64)
    for o in range(width):
        for eight in range(0, row_columns, 8):
            for g in range(len(first)):
                begin[g] = first[g] + o * row_columns + eight
            to = start * stride + outputs[o] * row_columns + eight
            for r in range(size):
                add_entries(flat, np.int64(to), tables, begin, index, np.int64(r), size, many, entry)
                to += stride


@njit(cache=True, nogil=True)
def _add_columns(sums, table, index, outputs, width, places, start):
    """Add the entries of a group's own columns, column by column: only what a group has is touched."""
    entry = width * len(places)
    for o in range(width):
        for j in range(len(places)):
            to = sums[outputs[o], places[j], start : start + len(index)]
            own = table[o * len(places) + j :]
            for r in range(len(index)):
                to[r] += own[np.int64(index[r]) * entry]


@njit(cache=True, nogil=True)
def add_batch(
    sums, starts, program, splits, columns, tables, outputs, levels, row_columns,
    limit, category, sides, codes, line, kind,
):  # fmt: skip
    """Add the groups of several trees for all rows.

    ``sums`` has shape (rows, outputs, columns) where a table entry has a place for every used column, else
    (outputs, columns, rows). ``starts[t]`` says where tree t begins in the joined arrays: nodes, program, splits, columns,
    tables, outputs; the last row is their end. ``kind`` is an empty array of the type of patterns and indices: bytes where
    no path has more columns than a byte has bits.
    """
    rows = codes.shape[1]
    for first in range(0, rows, ROWS):
        size = min(ROWS, rows - first)
        for t in range(len(starts) - 1):
            node, op, split, column, table, output = starts[t]
            end = starts[t + 1]
            add_groups(
                sums, program[op : end[1]], splits[split : end[2]], columns[column : end[3]], levels[t],
                tables[table : end[4]], outputs[output : end[5]], row_columns,
                codes, line[node : end[0]], limit[node : end[0]], category[node : end[0]], sides, first, size, kind,
            )  # fmt: skip
