"""Compiled values and interactions of leaves with more columns than a group's table holds: each for all rows at once.

A leaf's pattern is found for every row, distinct patterns are valued once, and the rows take the values of
theirs. Interventional values of a pattern come from a table of all 2^k patterns or from pairs with the
background's distinct patterns, whichever costs less; both are exact.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers import tree_units
from explain_step.explainers.tree_kernels import add_table
from explain_step.explainers.tree_patterns import EVERY, follow_from_root, narrow, place_of, step
from explain_step.explainers.tree_programs import (
    DEEP,
    DEEP_STEP,
    KIND,
    LEVEL,
    MOST_PATH,
    NODE,
    PATH,
    SIDE,
    STEP,
    padded,
)

MOST_TABLE = tree_units.MOST_TABLE
SLOTS = 1 << MOST_TABLE
USUAL_PATTERNS = 300
"""Distinct patterns of explained rows that the choice counts on: it must not depend on the rows themselves."""
PAIR_COST, ENTRY_COST = 0.4, 8.0
"""Rough nanoseconds of one pair of patterns, and of one entry of a table."""


@njit(cache=True, nogil=True)
def add_deep(
    sums, program, levels, values, outputs, left, parent, place, cover, limit, category, sides,
    codes, line, other_codes, other_line, path_dependent, pair_of, most_kept, quadrature,
):  # fmt: skip
    """Add the values of one tree's deep leaves; ``sums`` has the shape that `tree_kernels.add_batch` tells.

    Patterns are kept for every level of the tree; of a background of more than ``most_kept`` rows they are made
    anew for each leaf, which bounds the memory.

    Returns whether all leaves could be done: interactions against a background need tables.
    """
    n, m = codes.shape[1], 0 if path_dependent else other_codes.shape[1]
    kept = m if m <= most_kept else 0
    patterns, others = np.empty(2 * levels * n, np.int64), np.empty(2 * levels * kept, np.int64)
    follow_from_root(patterns, n)
    follow_from_root(others, kept)
    anew = np.empty(m - kept, np.int64)
    path = np.empty(len(left), np.int64)
    slots, share = np.full(SLOTS, -1, np.int32), np.zeros(SLOTS)
    counts = np.zeros((2, SLOTS), np.int32)
    worth = np.empty(8)
    columns, targets = np.empty(MOST_PATH + 1, np.int64), np.empty((MOST_PATH + 1) ** 2, np.int64)
    needed = _leads_to_deep(program, levels)
    for i in range(len(program)):
        op = program[i]
        if needed[i]:
            step(patterns, n, levels, program, i, codes, line, limit, category, sides, 0, n)
            if kept:
                step(others, m, levels, program, i, other_codes, other_line, limit, category, sides, 0, m)
        if op[KIND] != DEEP:
            continue
        node, k = op[NODE], op[PATH]
        length = path_to(path, columns, node, parent, place)
        count = _targets(targets, columns, k, pair_of)
        if count == 0:
            continue
        begins = place_of(levels, n, op[LEVEL], op[SIDE])
        listed, where = _distinct(patterns[begins : begins + n], k, slots)
        units = np.empty((len(listed), k * (k - 1) // 2 if len(pair_of) else k))
        if path_dependent:
            _path_units(units, listed, node, columns, k, parent, place, cover, len(pair_of) > 0, quadrature)
        else:
            begins = place_of(levels, kept, op[LEVEL], op[SIDE])
            here = others[begins : begins + kept]
            if len(anew):
                leaf_pattern(
                    anew, path[:length], columns, left, place, other_codes, other_line, limit, category, sides
                )
                here = anew
            theirs, shares = _shares(here, k, counts)
            if len(pair_of) and k > MOST_TABLE:
                return False
            if len(pair_of) or _fits(k, len(theirs)):
                if len(worth) < 8 << k:
                    worth = np.empty(8 << k)
                _table_units(units, listed, theirs, shares, k, share, worth, len(pair_of) > 0, quadrature)
            else:
                _pair_units(units, listed, theirs, shares, k, quadrature)
        mine = values[node * len(outputs) : (node + 1) * len(outputs)]
        _spread(sums, units, where, mine, outputs, targets[: units.shape[1]])
    return True


@njit(cache=True, nogil=True)
def _leads_to_deep(program, levels):
    """Return which steps have a deep leaf below them; operations are listed from the root down."""
    needed, below = np.zeros(len(program), np.bool_), np.zeros(levels + 1, np.bool_)
    for i in range(len(program) - 1, -1, -1):
        op = program[i]
        if op[KIND] in (STEP, DEEP_STEP):
            needed[i] = below[op[LEVEL] + 1]
            below[op[LEVEL] + 1] = False
        below[op[LEVEL]] |= op[KIND] == DEEP or needed[i]
    return needed


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
def leaf_pattern(patterns, path, columns, left, place, codes, line, limit, category, sides):
    """Write every row's pattern at the leaf at the end of ``path``."""
    patterns[:] = EVERY
    for i in range(len(path) - 1):
        node = path[i]
        j = 0
        while columns[j] != place[node]:
            j += 1
        narrow(patterns, j, node, left[node] == path[i + 1], codes, line, limit, category, sides)


@njit(cache=True, nogil=True)
def _targets(targets, columns, k, pair_of):
    """Write where a leaf's values go, its columns or pairs of columns; return how many are asked for."""
    if len(pair_of) == 0:
        targets[:k] = columns[:k]
        return k
    pair, asked = 0, 0
    for i in range(k):
        for j in range(i + 1, k):
            targets[pair] = pair_of[columns[i], columns[j]]
            asked += targets[pair] >= 0
            pair += 1
    return asked


@njit(cache=True, nogil=True)
def _distinct(patterns, k, slots):
    """Return the distinct patterns, in order, and each row's position among them."""
    mask = ~(np.int64(-1) << k)
    where = np.empty(len(patterns), np.int32)
    if k > MOST_TABLE:
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
    listed = np.empty(count, np.int64)
    for r in range(len(patterns)):
        where[r] = slots[patterns[r] & mask]
        listed[where[r]] = patterns[r] & mask
    slots[: 1 << k] = -1
    return listed, where


@njit(cache=True, nogil=True)
def _shares(others, k, counts):
    """Return the background's distinct patterns, in order, and their shares.

    ``counts``, of shape (2, 2^16), is zeros before and after; equal neighbours are not counted in the same place.
    """
    mask, m = ~(np.int64(-1) << k), len(others)
    if k > MOST_TABLE:
        ordered = np.sort(others & mask)
        listed = np.unique(ordered)
        found = np.searchsorted(ordered, listed, side="right") - np.searchsorted(ordered, listed)
        return listed, found / m
    even, odd = counts[0], counts[1]
    for r in range(0, m - 1, 2):
        even[others[r] & mask] += 1
        odd[others[r + 1] & mask] += 1
    if m % 2:
        even[others[m - 1] & mask] += 1
    number = 0
    for pattern in range(1 << k):
        even[pattern] += odd[pattern]
        odd[pattern] = 0
        number += even[pattern] > 0
    listed, shares = np.empty(number, np.int64), np.empty(number)
    number = 0
    for pattern in range(1 << k):
        if even[pattern]:
            listed[number], shares[number] = pattern, even[pattern] / m
            number += 1
            even[pattern] = 0
    return listed, shares


@njit(cache=True, nogil=True)
def _fits(k, others):
    """Return whether a table of all patterns costs less than pairs with the background's distinct ones."""
    return k <= MOST_TABLE and ENTRY_COST * (1 << k) < PAIR_COST * USUAL_PATTERNS * others


@njit(cache=True, nogil=True)
def _pair_units(units, listed, theirs, shares, k, quadrature):
    """Write the values of the listed patterns from their pairs with the background's."""
    sizes = np.empty(len(theirs), np.int64)
    for v in range(len(theirs)):
        sizes[v] = k - tree_units.ones(theirs[v])
    for u in range(len(listed)):
        tree_units.pair_values(units[u], listed[u], theirs, shares, sizes, k, quadrature[3], quadrature[4])


@njit(cache=True, nogil=True)
def _table_units(units, listed, theirs, shares, k, share, worth, pairs, quadrature):
    """Write the values, or interactions, of the listed patterns from sums over all patterns."""
    weights, sizes = quadrature[5], quadrature[6]
    for v in range(len(theirs)):
        share[theirs[v]] = shares[v]
    tree_units.sum_subsets(worth, share, k, weights, sizes)
    for v in range(len(theirs)):
        share[theirs[v]] = 0.0
    for u in range(len(listed)):
        if pairs:
            tree_units.leaf_pairs(units[u], worth, listed[u], k, weights, sizes)
        else:
            tree_units.leaf_values(units[u], worth, listed[u], k, weights, sizes)


@njit(cache=True, nogil=True)
def _path_units(units, listed, node, columns, k, parent, place, cover, pairs, quadrature):
    """Write the path-dependent values, or interactions, of the listed patterns."""
    ratios = np.empty(k)
    tree_units.ratios_of(ratios, node, columns, k, parent, place, cover)
    nodes, node_weights, count = quadrature[0][k], quadrature[1][k], quadrature[2][k]
    if pairs:
        for u in range(len(listed)):
            tree_units.path_pairs(units[u], listed[u], ratios, k, nodes, node_weights, count)
        return
    factors, work = (
        np.empty(16 * k + 8),
        np.empty(8 * k + 8),
    )  # of more than `MOST_TABLE` columns the tree is walked
    tree_units.path_factors(factors, ratios, k, nodes, node_weights, count)
    for u in range(len(listed)):
        tree_units.path_values(units[u], listed[u], ratios, k, factors, work)


@njit(cache=True, nogil=True)
def _spread(sums, units, where, values, outputs, targets):
    """Add each row's values to the places of the leaf's columns or pairs of columns, those that are asked for."""
    asked = np.flatnonzero(targets >= 0)
    flat, entry, first = sums.reshape(-1), padded(len(asked)), np.empty(len(asked), np.int64)
    table = np.zeros(len(units) * entry)
    for o in range(len(outputs)):
        for j in range(len(asked)):
            first[j] = (outputs[o] * sums.shape[1] + targets[asked[j]]) * sums.shape[2]
            for u in range(len(units)):
                table[u * entry + j] = values[o] * units[u, asked[j]]
        add_table(flat, first, len(asked), table, 0, entry, where, len(where))
