"""Compiled predictions of trees: what the model answers.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def add_answers(sums, left, right, values, outputs, codes, line, limit, category, sides):
    """Add one tree's output for every row, from the root to its leaf; ``sums`` has shape (rows, outputs)."""
    width = len(outputs)
    for r in range(len(sums)):
        node = 0
        while left[node] >= 0:
            code = codes[line[node], r]
            goes_left = sides[limit[node] + code] != 0 if category[node] else code <= limit[node]
            node = left[node] if goes_left else right[node]
        for o in range(width):
            sums[r, outputs[o]] += values[node * width + o]
