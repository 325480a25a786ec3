"""Compiled path-dependent values of trees with many columns on a path: a walk over the nodes, for all rows at once.

Where absent columns follow the training cover, a leaf's game is a product over the columns of its path: a column gives 1
or 0, whether the row passes it, when it is present, and its cover ratio when it is not. Its values are integrals over x
in [0, 1] of the product of ``x * passed + (1 - x) * ratio`` over the other columns (Owen 1972,
doi:10.1287/mnsc.18.5.64), polynomials of a degree below the number of columns, for which Gauss-Legendre nodes are exact.
At each node of the quadrature the product is carried down and the sum over the leaves below is carried up, so that the
work is nodes of the tree times half of the columns of its longest path, however many those are. No factor is negative:
nothing cancels in a product of hundreds of them.

A column that comes again on a path exchanges its factor for a new one, and what its earlier edge counted of the leaves
below is taken back.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_programs import from_root
from explain_step.explainers.tree_vectors import add_chosen, at_most_eight, multiply_chosen

EIGHTS = 4
"""Times eight rows that walk together."""


@njit(cache=True, nogil=True)
def edges_of(left, right, place, cover):
    """Return what the edges of a tree need, each named by the node that it leads to.

    Returns
    -------
    order : ndarray
        The nodes from the root down, a subtree's together.
    level, parent : ndarray of shape (nodes,)
        Of the root 0 and -1.
    above : ndarray of shape (nodes,)
        The last edge above that is about the same column; 0: there is none.
    ratio, share : ndarray of shape (nodes,)
        The column's cover ratio on the way to the node, and this edge's part in it.
    longest : int
        Most distinct columns on a path.
    """
    size, order = len(left), from_root(left, right)
    level, parent = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    above, columns = np.zeros(size, np.int64), np.zeros(size, np.int64)
    ratio, share = np.ones(size), np.ones(size)
    for node in order:
        top = parent[node]
        if top >= 0:
            level[node] = level[top] + 1
            edge = top
            while edge > 0 and place[parent[edge]] != place[top]:
                edge = parent[edge]
            above[node], columns[node] = edge, columns[top] + (edge == 0)
            share[node] = cover[node] / cover[top] if cover[top] > 0.0 else 0.0
            ratio[node] = ratio[edge] * share[node]
        if left[node] >= 0:
            parent[left[node]] = parent[right[node]] = node
    return order, level, parent, above, ratio, share, columns.max()


@njit(cache=True, nogil=True)
def add_paths(
    sums, order, level, parent, above, ratio, share, nodes, weights,
    left, place, values, outputs, codes, line, limit, category, sides,
):  # fmt: skip
    """Add one tree's values for every row; ``sums`` has the shape (outputs, columns, rows, and up to a multiple of eight).

    ``nodes`` and ``weights`` are those of the quadrature; what begins with ``order`` is that of `edges_of`.
    """
    n, width, count = codes.shape[1], len(outputs), len(nodes)
    levels, room = level.max() + 1, 8 * count
    products, below = _aligned(levels * EIGHTS * room), _aligned(levels * EIGHTS * width * room)
    passed, failed = np.zeros(levels * EIGHTS, np.uint8), np.zeros(levels * EIGHTS, np.uint8)
    factors, changes = np.empty(2 * count), np.empty(levels * 2 * count)
    open_, sums_, codes_ = np.empty(levels, np.int64), sums.reshape(-1), codes.reshape(-1)
    products[: EIGHTS * room], below[: EIGHTS * width * room], passed[:EIGHTS] = 1.0, 0.0, 255
    for start in range(0, n, 8 * EIGHTS):
        size = min(8 * EIGHTS, n - start)
        eights, deepest = (size + 7) // 8, 0
        for i in range(1, len(order) + 1):
            node = order[i] if i < len(order) else 0
            while deepest > 0 and deepest >= level[node]:  # everything below this edge is done
                edge = open_[deepest]
                for o in range(width):
                    first = (outputs[o] * sums.shape[1] + place[parent[edge]]) * sums.shape[2] + start
                    leaf = left[edge] < 0
                    for eight in range(eights):
                        here = deepest * EIGHTS + eight
                        add_chosen(
                            sums_, first + 8 * eight, below, ((here - EIGHTS) * width + o) * room,
                            products if leaf else below, here * room if leaf else (here * width + o) * room,
                            values[edge * width + o] if leaf else 1.0, count,
                            passed[here], failed[here], changes, deepest * 2 * count,
                        )  # fmt: skip
                deepest -= 1
            if node == 0:
                break
            deepest = level[node]
            open_[deepest] = node
            _pass(
                passed, failed, node, level, parent, above, left, codes_, n, line, limit, category, sides, start, size,
            )  # fmt: skip
            _factors(factors, changes, deepest * 2 * count, ratio[node], ratio[above[node]], nodes, weights)
            for eight in range(eights):
                here = deepest * EIGHTS + eight
                multiply_chosen(
                    products, here * room, (here - EIGHTS) * room, count,
                    passed[here], failed[here], factors, 0, share[node],
                )  # fmt: skip
            if left[node] >= 0:
                begin = np.uint64(deepest * EIGHTS * width * room)
                for j in range(np.uint64(eights * width * room)):
                    below[begin + j] = 0.0


@njit(cache=True, nogil=True)
def _aligned(size):
    """Return room that begins where a line of the cache does: vectors of eight then never lie across two."""
    room = np.empty(size + 8)
    first = -room.ctypes.data % 64 // 8
    return room[first : first + size]


@njit(cache=True, nogil=True)
def _pass(
    passed, failed, node, level, parent, above, left, codes, n, line, limit, category, sides, start, size
):
    """Write which rows pass an edge, and which fail it that passed the one above about the same column."""
    top = parent[node]
    most, other = codes.dtype.type(limit[top]), np.uint8(0) if left[top] == node else np.uint8(255)
    here, before = level[node] * EIGHTS, level[above[node]] * EIGHTS
    for first in range(0, size, 8):
        at, goes = np.uint64(line[top] * n + start + first), np.uint8(0)
        if not category[top] and size - first >= 8:
            goes = at_most_eight(codes, at, most)
        else:
            for r in range(min(8, size - first)):
                code = codes[at + np.uint64(r)]
                holds = sides[np.uint64(limit[top]) + code] != 0 if category[top] else code <= most
                goes |= np.uint8(holds) << r
        held = passed[before + first // 8]
        passed[here + first // 8] = held & (goes ^ other)
        failed[here + first // 8] = held & ~(goes ^ other)


@njit(cache=True, nogil=True)
def _factors(factors, changes, first, ratio, before, nodes, weights):
    """Write two numbers by node of the quadrature: of rows that fail an edge, and that pass it, having passed the one above.

    ``factors`` is what the product is multiplied with. ``changes``, from ``first`` on, is what it is multiplied with to be
    part of the column's value, less what the edge above about the same column, of the ratio ``before``, has counted.
    """
    for t in range(len(nodes)):
        x, w = nodes[t], weights[t]
        old, new = 1.0 / (x + (1.0 - x) * before), x + (1.0 - x) * ratio
        counted = w * (1.0 - before) * old
        factors[2 * t], factors[2 * t + 1] = (1.0 - x) * ratio * old, new * old
        changes[first + 2 * t], changes[first + 2 * t + 1] = (
            -w / (1.0 - x) - counted,
            w * (1.0 - ratio) / new - counted,
        )
