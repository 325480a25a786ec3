"""Compiled Shapley values and interactions of one leaf's indicator game; `tree_tables` tells the mathematics.

A leaf's game over k columns is described by ``worth``: for every pattern p of passed columns and every quadrature
node t, the sum over A within p of the share of rows that pass all columns but A, times t^|A|. Values and
interactions are differences of its entries, weighted by the size of p and summed over the nodes.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_vectors import add_eight, dot_eight, multiply_eight, scale_eight

MOST_TABLE = 16
"""Columns of a leaf up to which a table of all patterns may be made: eight nodes are exact."""
POWER, OUTSIDE, INSIDE, NEITHER, ONE, BOTH = range(6)
"""Weights by number of passed columns: of the sum, of a failed and a passed column, of pairs of columns."""
KINDS, SIZES = 6, MOST_TABLE + 1
NEAR = 9
"""Sums over this many bits stay in the first-level cache."""


@njit(cache=True, nogil=True)
def ones(pattern):
    """Return the number of set bits."""
    count = 0
    while pattern:
        pattern &= pattern - 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def weights_at(k, kind, size):
    """Return where in the flat weights the eight of k columns begin."""
    return ((k * KINDS + kind) * SIZES + size) * 8


@njit(cache=True, nogil=True)
def sum_subsets(worth, share, k, weights, sizes):
    """Write the game of a leaf whose background has the given share of rows with each pattern.

    Parameters
    ----------
    worth : ndarray of shape (8 * 2^k,) at least
    share : ndarray of shape (2^k,) at least
    weights : ndarray
        Flat, of shape (columns, kinds, sizes, 8); nodes beyond those of k columns have zeros.
    sizes : ndarray of shape (2^16,)
        Number of set bits of every number.
    """
    size, power = 1 << k, weights_at(k, POWER, 0)
    near = min(k, NEAR)
    for first in range(0, size, 1 << near):
        for p in range(first, first + (1 << near)):
            scale_eight(worth, p * 8, weights, power + sizes[p] * 8, share[size - 1 - p])
        _add_bits(worth, first, 1 << near, 0, near)
    _add_bits(worth, 0, size, near, k)


@njit(cache=True, nogil=True)
def _add_bits(worth, first, length, low, high):
    """Add to each pattern the one without a bit, for the bits from ``low`` to ``high``, two at a time."""
    bit = low
    while bit < high:
        half = 8 << bit
        pair = bit + 1 < high
        step = 4 * half if pair else 2 * half
        for block in range(8 * first, 8 * (first + length), step):
            for p in range(block, block + half, 8):
                add_eight(worth, p + half, worth, p)
                if pair:
                    add_eight(worth, p + 3 * half, worth, p + 2 * half)
                    add_eight(worth, p + 2 * half, worth, p)
                    add_eight(worth, p + 3 * half, worth, p + half)
        bit += 2 if pair else 1


@njit(cache=True, nogil=True)
def leaf_values(out, worth, pattern, k, weights, sizes):
    """Write the k Shapley values of a row with ``pattern``."""
    size = sizes[pattern]
    inside = weights_at(k, INSIDE, size)
    outside = -dot_eight(worth, pattern * 8, weights, weights_at(k, OUTSIDE, size))
    whole = dot_eight(worth, pattern * 8, weights, inside)
    for j in range(k):
        without = pattern & ~(1 << j)
        out[j] = outside if without == pattern else whole - dot_eight(worth, without * 8, weights, inside)


@njit(cache=True, nogil=True)
def leaf_pairs(out, worth, pattern, k, weights, sizes):
    """Write the Shapley interactions of a row with ``pattern``: those of (0, 1), (0, 2), ..., (k-2, k-1)."""
    size, here = sizes[pattern], pattern * 8
    one, both = weights_at(k, ONE, size), weights_at(k, BOTH, size)
    neither = dot_eight(worth, here, weights, weights_at(k, NEITHER, size))
    of_one, of_both = dot_eight(worth, here, weights, one), dot_eight(worth, here, weights, both)
    pair = 0
    for i in range(k):
        less = pattern & ~(1 << i)
        passes = less != pattern
        mixed = dot_eight(worth, less * 8, weights, one) - of_one if passes else 0.0
        left = dot_eight(worth, less * 8, weights, both) if passes else 0.0
        for j in range(i + 1, k):
            rest = pattern & ~(1 << j)
            if rest == pattern:
                out[pair] = mixed if passes else neither
            elif not passes:
                out[pair] = dot_eight(worth, rest * 8, weights, one) - of_one
            else:
                last = less & rest
                out[pair] = (of_both - left) - (
                    dot_eight(worth, rest * 8, weights, both) - dot_eight(worth, last * 8, weights, both)
                )
            pair += 1


@njit(cache=True, nogil=True)
def independent(share, ratios, k):
    """Write the share of each pattern where every column holds with its ratio, whatever the others do."""
    share[0] = 1.0
    for j in range(k):
        size = 1 << j
        for p in range(size):
            share[size + p] = share[p] * ratios[j]
            share[p] *= 1.0 - ratios[j]


@njit(cache=True, nogil=True)
def path_factors(factors, ratios, k, nodes, node_weights, count):
    """Write the factors of columns that a row fails and passes, at up to eight nodes; and the nodes' weights.

    ``factors``, of shape (16 * k + 8,) at least, serves `path_values` for all patterns of a leaf.
    """
    factors[: 16 * k + 8] = 0.0
    for t in range(count):
        factors[16 * k + t] = node_weights[t]
        for j in range(k):
            factors[16 * j + t] = (1.0 - nodes[t]) * ratios[j]
            factors[16 * j + 8 + t] = nodes[t] + (1.0 - nodes[t]) * ratios[j]


@njit(cache=True, nogil=True)
def path_values(out, pattern, ratios, k, factors, work):
    """Write the k path-dependent values of a row: columns outside the coalition hold with their ratio.

    Eight nodes are enough for 16 columns; ``work`` has room for 8 * (k + 1).
    """
    scale_eight(work, 8 * (k - 1), factors, 16 * k, 1.0)
    for j in range(k - 1, 0, -1):
        multiply_eight(work, 8 * (j - 1), work, 8 * j, factors, 16 * j + 8 * ((pattern >> j) & 1))
    before = 8 * k
    for t in range(8):
        work[before + t] = 1.0
    for j in range(k):
        out[j] = dot_eight(work, before, work, 8 * j) * (((pattern >> j) & 1) - ratios[j])
        multiply_eight(work, before, work, before, factors, 16 * j + 8 * ((pattern >> j) & 1))


@njit(cache=True, nogil=True)
def path_pairs(out, pattern, ratios, k, nodes, node_weights, count):
    """Write the path-dependent interactions of a row, in the order of `leaf_pairs`."""
    out[: k * (k - 1) // 2] = 0.0
    factors, after = np.empty(k), np.empty(k + 1)
    for t in range(count):
        x, w = nodes[t], node_weights[t]
        for j in range(k):
            factors[j] = x * ((pattern >> j) & 1) + (1.0 - x) * ratios[j]
        after[k] = 1.0
        for j in range(k - 1, -1, -1):
            after[j] = after[j + 1] * factors[j]
        before, pair = w, 0
        for i in range(k):
            between = before * (((pattern >> i) & 1) - ratios[i])
            for j in range(i + 1, k):
                out[pair] += between * (((pattern >> j) & 1) - ratios[j]) * after[j + 1]
                between *= factors[j]
                pair += 1
            before *= factors[i]


@njit(cache=True, nogil=True)
def pair_values(out, pattern, others, shares, sizes, k, plus, minus):
    """Write the k interventional values of a row from all distinct background patterns.

    Parameters
    ----------
    others : ndarray of shape (v,)
        Distinct patterns of the background, with their ``shares`` and the ``sizes`` of their complements.
    plus, minus : ndarray of shape (64, 64)
        Weights by the numbers of columns that only the row, and only the background row, passes.
    """
    out[:k] = 0.0
    full = ~(np.int64(-1) << k)
    missing = full & ~pattern
    fails = ones(missing)
    loss = 0.0
    for first in range(0, len(others), 32):
        some = others[first : first + 32]
        meet = False
        for v in range(len(some)):
            meet |= (missing & ~some[v]) == 0
        if not meet:
            continue
        for v in range(first, first + len(some)):
            if missing & ~others[v]:
                continue
            loss += shares[v] * minus[sizes[v], fails]
            weight = shares[v] * plus[sizes[v], fails]
            only = full & ~others[v]
            for j in range(k):
                out[j] += weight * ((only >> j) & 1)
    for j in range(k):
        if (missing >> j) & 1:
            out[j] = -loss


@njit(cache=True, nogil=True)
def ratios_of(out, node, leaf_columns, k, parent, place, cover):
    """Write the product of the cover ratios on the path to ``node``, per column of the leaf."""
    out[:k] = 1.0
    while parent[node] >= 0:
        above = parent[node]
        j = 0
        while leaf_columns[j] != place[above]:
            j += 1
        out[j] *= cover[node] / cover[above] if cover[above] > 0.0 else 0.0
        node = above


@njit(cache=True, nogil=True)
def parents(left, right):
    """Return each node's parent; -1 for the root."""
    out = np.full(len(left), -1, np.int64)
    for node in range(len(left)):
        if left[node] >= 0:
            out[left[node]] = node
            out[right[node]] = node
    return out
