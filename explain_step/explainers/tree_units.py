"""Compiled Shapley values of one leaf's indicator game; the mathematics is told in `tree_tables`.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

MOST_TABLE = 16
"""Columns of a leaf up to which a table of all patterns may be made."""


@intrinsic
def add_eight(_typing, out, to, source, at):
    """Add eight neighbouring doubles of ``source`` to those of ``out``, as one vector; bounds are not checked.

    Written in the compiler's own terms, since a loop is not turned into vectors where arrays could overlap.
    """

    def generate(context, builder, signature, arguments):
        eight = ir.VectorType(ir.DoubleType(), 8).as_pointer()

        def place(which):
            data = context.make_array(signature.args[which])(context, builder, arguments[which]).data
            return builder.bitcast(builder.gep(data, [arguments[which + 1]]), eight)

        total = builder.fadd(builder.load(place(0), align=8), builder.load(place(2), align=8))
        builder.store(total, place(0), align=8)
        return context.get_dummy_value()

    return types.void(out, to, source, at), generate


@njit(cache=True, nogil=True)
def ones(pattern):
    """Return the number of set bits."""
    count = 0
    while pattern:
        pattern &= pattern - 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def subset_sums(sums, share, k, weights, count, sizes):
    """Write ``sums[0..2]``: outside, inside and below of `tree_tables.Sums`, of shape (3, 2^k).

    Parameters
    ----------
    share : ndarray of shape (2^k,)
        Share of the background with each pattern.
    weights : ndarray of shape (nodes, 4, columns + 1)
        For k columns: power, outside, inside, below by number of set bits.
    count : int
        Number of quadrature nodes.
    sizes : ndarray of shape (2^16,)
        Number of set bits of every number.
    """
    size = 1 << k
    sums[:, :size] = 0.0
    work = np.empty(size)
    for t in range(count):
        power, outside, inside, below = weights[t, 0], weights[t, 1], weights[t, 2], weights[t, 3]
        for p in range(size):
            work[p] = share[size - 1 - p] * power[sizes[p]]
        for bit in range(k):
            half = 1 << bit
            for block in range(0, size, 2 * half):
                low, high = work[block : block + half], work[block + half : block + 2 * half]
                for p in range(half):
                    high[p] += low[p]
        for p in range(size):
            bits = sizes[p]
            sums[0, p] += work[p] * outside[bits]
            sums[1, p] += work[p] * inside[bits]
            sums[2, p] += work[p] * below[bits]


@njit(cache=True, nogil=True)
def value_at(sums, pattern, j):
    """Return the Shapley value of column j for a row with ``pattern``."""
    bit = 1 << j
    if pattern & bit:
        return sums[1, pattern] - sums[2, pattern ^ bit]
    return -sums[0, pattern]


@njit(cache=True, nogil=True)
def path_values(out, pattern, ratios, k, nodes, node_weights, count):
    """Write the k path-dependent values of a row: columns outside the coalition hold with their ratio."""
    out[:k] = 0.0
    before, after = np.empty(k + 1), np.empty(k + 1)
    for t in range(count):
        x, w = nodes[t], node_weights[t]
        before[0], after[k] = 1.0, 1.0
        for j in range(k):
            before[j + 1] = before[j] * (x * ((pattern >> j) & 1) + (1.0 - x) * ratios[j])
        for j in range(k - 1, -1, -1):
            after[j] = after[j + 1] * (x * ((pattern >> j) & 1) + (1.0 - x) * ratios[j])
        for j in range(k):
            out[j] += w * before[j] * after[j + 1] * (((pattern >> j) & 1) - ratios[j])


@njit(cache=True, nogil=True)
def pair_values(out, pattern, others, shares, sizes, k, plus, minus):
    """Write the k interventional values of a row from all distinct background patterns.

    Parameters
    ----------
    others : ndarray of shape (v,)
        Distinct patterns of the background, with their ``shares`` and the ``sizes`` of their complements.
    plus, minus : ndarray of shape (32, 32)
        Weights by the numbers of columns that only the row, and only the background row, passes.
    """
    out[:k] = 0.0
    full = np.uint32((np.int64(1) << k) - 1)
    missing = full & ~pattern
    fails = ones(np.int64(missing))
    loss = 0.0
    for v in range(len(others)):
        if missing & ~others[v]:
            continue
        loss += shares[v] * minus[sizes[v], fails]
        weight = shares[v] * plus[sizes[v], fails]
        only = np.int64(full & ~others[v])
        for j in range(k):
            out[j] += weight * ((only >> j) & 1)
    for j in range(k):
        if (missing >> np.uint32(j)) & np.uint32(1):
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
