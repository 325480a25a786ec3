"""Rows followed through a tree's program: the patterns of a block of rows, and their indices into tables.

Patterns of a level lie one after the other, those of both children of a level's step in two halves; positions are unsigned,
which spares a look at their sign and lets loops become vectors. No views are made for a node: a block has few rows.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_programs import BIT, FIRST_SPLIT, LEVEL, NODE, PATH, SIDE, SPLITS

ROWS = 1024
"""Rows that go through a tree together: their patterns stay in the cache."""
EVERY = np.int64(-1)
"""Nothing is failed: all bits are set, also those of smaller types."""


@njit(cache=True, nogil=True)
def write_codes(codes, values, thresholds):
    """Write the number of thresholds below each value, plus one; 1 for NaN. A multiple of four thresholds are given."""
    below = np.empty(ROWS, np.int64)
    for start in range(0, len(values), ROWS):
        some = values[start : start + ROWS]
        below[:] = 1
        for t in range(0, len(thresholds), 4):
            a, b, c, d = thresholds[t], thresholds[t + 1], thresholds[t + 2], thresholds[t + 3]
            for r in range(len(some)):
                value = some[r]
                below[r] += (
                    np.int64(a < value) + np.int64(b < value) + np.int64(c < value) + np.int64(d < value)
                )
        for r in range(len(some)):
            codes[start + r] = below[r]


@njit(cache=True, nogil=True)
def place_of(levels, room, level, side):
    """Return where the patterns of a level begin, each level having ``room`` for rows."""
    return np.uint64((side * levels + level) * room)


@njit(cache=True, nogil=True)
def follow_from_root(patterns, n):
    """Write the root's patterns: nothing is failed yet."""
    for r in range(np.uint64(n)):
        patterns[r] = patterns.dtype.type(EVERY)


@njit(cache=True, nogil=True)
def step(patterns, room, levels, program, i, codes, line, limit, category, sides, start, n):
    """Write the patterns of a step's children: the column's bit is cleared where the row goes the other way.

    Parameters
    ----------
    patterns : ndarray of shape (2 * levels * room,)
    codes : ndarray of shape (lines, rows)
        Those of `tree_codes.Coding`; the rows from ``start`` are followed.
    """
    node, level = program[i, NODE], program[i, LEVEL]
    here = place_of(levels, room, level, program[i, SIDE])
    left, right = place_of(levels, room, level + 1, 0), place_of(levels, room, level + 1, 1)
    bit = patterns.dtype.type(1 << program[i, BIT])
    flat, at = codes.reshape(-1), np.uint64(line[node] * codes.shape[1] + start)
    if category[node]:
        first = np.uint64(limit[node])
        for r in range(np.uint64(n)):
            _split(patterns, here + r, left + r, right + r, bit, sides[first + flat[at + r]] != 0)
    else:
        most = codes.dtype.type(limit[node])
        for r in range(np.uint64(n)):
            _split(patterns, here + r, left + r, right + r, bit, flat[at + r] <= most)


@njit(cache=True, nogil=True)
def _split(patterns, here, left, right, bit, goes_left):
    held = patterns[here] & bit
    rest, mine = patterns[here] ^ held, held if goes_left else patterns.dtype.type(0)
    patterns[left] = rest | mine
    patterns[right] = rest | (held ^ mine)


@njit(cache=True, nogil=True)
def index_of(
    index, patterns, room, levels, program, i, splits, codes, line, limit, category, sides, start, n
):
    """Write the rows' indices into a group's table: the path's bits, then one for each split below."""
    here, path = place_of(levels, room, program[i, LEVEL], program[i, SIDE]), program[i, PATH]
    mask, none = index.dtype.type((1 << path) - 1), index.dtype.type(0)
    flat = codes.reshape(-1)
    for r in range(np.uint64(n)):
        index[r] = patterns[here + r] & mask
    for s in range(program[i, SPLITS]):
        node, bit = splits[program[i, FIRST_SPLIT] + s], index.dtype.type(1 << (path + s))
        at = np.uint64(line[node] * codes.shape[1] + start)
        if category[node]:
            first = np.uint64(limit[node])
            for r in range(np.uint64(n)):
                index[r] |= bit if sides[first + flat[at + r]] else none
        else:
            most = codes.dtype.type(limit[node])
            for r in range(np.uint64(n)):
                index[r] |= bit if flat[at + r] <= most else none


@njit(cache=True, nogil=True)
def narrow(patterns, column, node, leftwards, codes, line, limit, category, sides):
    """Clear the bit of a column where the row does not go the way that leads to a leaf."""
    keep, lose = patterns.dtype.type(EVERY), ~patterns.dtype.type(1 << column)
    flat, at = codes.reshape(-1), np.uint64(line[node] * codes.shape[1])
    if category[node]:
        first = np.uint64(limit[node])
        for r in range(np.uint64(len(patterns))):
            patterns[r] &= keep if (sides[first + flat[at + r]] != 0) == leftwards else lose
    else:
        most = codes.dtype.type(limit[node])
        for r in range(np.uint64(len(patterns))):
            patterns[r] &= keep if (flat[at + r] <= most) == leftwards else lose
