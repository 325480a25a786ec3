"""Compiled values of leaves with more columns than a group's table holds: each leaf for all rows at once.

A leaf's pattern is found for every row, distinct patterns are valued once, and the rows take the values of
theirs. Interventional values of a pattern come from a table of all 2^k patterns or from pairs with the
background's distinct patterns, whichever costs less; both are exact.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers import tree_units
from explain_step.explainers.tree_kernels import DEEP, KIND, MOST_PATH, NODE, PATH, decide

SLOTS = 1 << tree_units.MOST_TABLE
ALWAYS_TABLE = 13
"""Leaves of up to so many columns have a table of all patterns; beyond, where it costs less than pairs."""
USUAL_PATTERNS = 300
"""Distinct patterns of explained rows that the choice counts on: it must not depend on the rows themselves."""
PAIR_COST, ENTRY_COST = 2.0, 3.0
"""Rough nanoseconds of one pair of patterns, and of one entry of a table at one quadrature node."""


@njit(cache=True, nogil=True)
def add_deep(
    sums, row_columns, program, values, outputs, left, right, parent, place, cover, limit, category, sides,
    codes, line, other_codes, other_line, path_dependent, quadrature,
):  # fmt: skip
    """Add the values of one tree's deep leaves; ``sums`` has shape (rows, outputs, columns)."""
    n, m = codes.shape[1], other_codes.shape[1]
    patterns, others = np.empty(n, np.uint32), np.empty(m, np.uint32)
    goes_left = np.empty(max(n, m), np.uint32)
    slots = np.full(SLOTS, -1, np.int32)
    path, columns = np.empty(len(left), np.int64), np.empty(MOST_PATH + 1, np.int64)
    for i in range(len(program)):
        op = program[i]
        if op[KIND] != DEEP:
            continue
        node, k = op[NODE], op[PATH]
        length = path_to(path, columns, node, parent, place)
        leaf_pattern(
            patterns, path[:length], columns, left, place, goes_left, codes, line, limit, category, sides
        )
        listed, where = _distinct(patterns, k, slots)
        if path_dependent:
            units = _path_units(listed, node, columns, k, parent, place, cover, quadrature)
        else:
            leaf_pattern(
                others, path[:length], columns, left, place, goes_left, other_codes, other_line, limit, category, sides
            )  # fmt: skip
            units = _units(listed, others, k, slots, quadrature)
        mine = values[node * len(outputs) : (node + 1) * len(outputs)]
        if row_columns:
            _spread_rows(sums, units, where, mine, outputs, columns[:k], row_columns)
        else:
            _spread(sums, units, where, mine, outputs, columns[:k])


@njit(cache=True, nogil=True)
def path_to(path, columns, node, parent, place):
    """Write the nodes from the root to ``node`` and the distinct columns in their order; return the length."""
    length, at = 0, node
    while at >= 0:
        path[length] = at
        length += 1
        at = parent[at]
    for i in range(length // 2):
        path[i], path[length - 1 - i] = path[length - 1 - i], path[i]
    k = 0
    for i in range(length - 1):
        j = 0
        while j < k and columns[j] != place[path[i]]:
            j += 1
        if j == k:
            columns[k] = place[path[i]]
            k += 1
    return length


@njit(cache=True, nogil=True)
def leaf_pattern(patterns, path, columns, left, place, goes_left, codes, line, limit, category, sides):
    """Write every row's pattern at the leaf at the end of ``path``."""
    n, one = len(patterns), np.uint32(1)
    patterns[:] = np.uint32(0xFFFFFFFF)
    for i in range(len(path) - 1):
        node = path[i]
        decide(goes_left[:n], codes, line, limit, category, sides, node, 0)
        j = 0
        while columns[j] != place[node]:
            j += 1
        bit = np.uint32(j)
        passes_right = np.uint32(left[node] != path[i + 1])
        for r in range(n):
            patterns[r] &= ~((goes_left[r] ^ one ^ passes_right) << bit)


@njit(cache=True, nogil=True)
def _distinct(patterns, k, slots):
    """Return the distinct patterns, in order, and each row's position among them."""
    mask = np.uint32((np.int64(1) << k) - 1)
    where = np.empty(len(patterns), np.int32)
    if k > tree_units.MOST_TABLE:
        listed = np.unique(patterns & mask)
        for r in range(len(patterns)):
            where[r] = np.searchsorted(listed, patterns[r] & mask)
        return listed, where
    for r in range(len(patterns)):
        slots[patterns[r] & mask] = 0
    count = 0
    for pattern in range(1 << k):
        if slots[pattern] == 0:
            slots[pattern] = count
            count += 1
    listed = np.empty(count, np.uint32)
    for r in range(len(patterns)):
        where[r] = slots[patterns[r] & mask]
        listed[where[r]] = patterns[r] & mask
    slots[: 1 << k] = -1
    return listed, where


@njit(cache=True, nogil=True)
def _units(listed, others, k, slots, quadrature):
    """Return the interventional values of the listed patterns: shape (listed, k)."""
    if k <= ALWAYS_TABLE:
        return _table_units(listed, others, k, quadrature)
    entries = (1 << min(k, 30)) * quadrature[3][k]
    if k <= tree_units.MOST_TABLE:
        theirs, _ = _distinct(others, k, slots)
        if ENTRY_COST * entries < PAIR_COST * USUAL_PATTERNS * len(theirs):
            return _table_units(listed, others, k, quadrature)
    return _pair_units(listed, others, k, slots, quadrature)


@njit(cache=True, nogil=True)
def _pair_units(listed, others, k, slots, quadrature):
    """Return the values of the listed patterns from their pairs with the background's."""
    theirs, where = _distinct(others, k, slots)
    shares, sizes = np.zeros(len(theirs)), np.empty(len(theirs), np.int64)
    for r in range(len(others)):
        shares[where[r]] += 1.0
    shares /= len(others)
    for v in range(len(theirs)):
        sizes[v] = k - tree_units.ones(np.int64(theirs[v]))
    units = np.zeros((len(listed), k))
    for u in range(len(listed)):
        tree_units.pair_values(units[u], listed[u], theirs, shares, sizes, k, quadrature[4], quadrature[5])
    return units


@njit(cache=True, nogil=True)
def _table_units(listed, others, k, quadrature):
    """Return the values of the listed patterns from sums over all patterns."""
    _, _, weights, counts, _, _, sizes = quadrature
    share, sums = np.zeros(1 << k), np.empty((3, 1 << k))
    mask = np.uint32((np.int64(1) << k) - 1)
    for r in range(len(others)):
        share[others[r] & mask] += 1.0
    share /= len(others)
    tree_units.subset_sums(sums, share, k, weights[k], counts[k], sizes)
    units = np.empty((len(listed), k))
    for u in range(len(listed)):
        for j in range(k):
            units[u, j] = tree_units.value_at(sums, np.int64(listed[u]), j)
    return units


@njit(cache=True, nogil=True)
def _path_units(listed, node, columns, k, parent, place, cover, quadrature):
    """Return the path-dependent values of the listed patterns: shape (listed, k)."""
    ratios, units = np.empty(k), np.empty((len(listed), k))
    tree_units.ratios_of(ratios, node, columns, k, parent, place, cover)
    nodes, node_weights, _, counts, _, _, _ = quadrature
    for u in range(len(listed)):
        tree_units.path_values(units[u], np.int64(listed[u]), ratios, k, nodes[k], node_weights[k], counts[k])
    return units


@njit(cache=True, nogil=True)
def _live(units):
    """Return which patterns have values: a pattern has none where no background row can bring it to the leaf."""
    live = np.zeros(len(units), np.bool_)
    for u in range(len(units)):
        for j in range(units.shape[1]):
            live[u] |= units[u, j] != 0.0
    return live


@njit(cache=True, nogil=True)
def _spread(sums, units, where, values, outputs, columns):
    """Add each row's values to the places of the leaf's columns."""
    live = _live(units)
    for r in range(len(where)):
        u = where[r]
        if live[u]:
            for o in range(len(outputs)):
                for j in range(len(columns)):
                    sums[r, outputs[o], columns[j]] += values[o] * units[u, j]


@njit(cache=True, nogil=True)
def _spread_rows(sums, units, where, values, outputs, columns, row_columns):
    """Add each row's values as whole rows of columns."""
    live, flat = _live(units), sums.reshape(-1)
    stride = sums.shape[1] * row_columns
    for o in range(len(outputs)):
        table = np.zeros(len(units) * row_columns)
        for u in range(len(units)):
            for j in range(len(columns)):
                table[u * row_columns + columns[j]] = values[o] * units[u, j]
        to = outputs[o] * row_columns
        for r in range(len(where)):
            if live[where[r]]:
                for eight in range(0, row_columns, 8):
                    tree_units.add_eight(flat, to + eight, table, np.int64(where[r]) * row_columns + eight)
            to += stride
