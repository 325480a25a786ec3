"""Compiled predictions of trees: what the model answers.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_kernels import STATES, leaf_patterns
from explain_step.explainers.tree_programs import FIRST_LEAF, GROUP, KIND, LEAVES, PATH, SPLITS, TABLE, padded


@njit(cache=True, nogil=True)
def fill_answers(tables, program, layout, leaves, tests, values, width):
    """Write what each group adds to the outputs, by index: the value of the leaf whose conditions all hold."""
    pattern_of, entry = np.empty(STATES, np.int64), padded(1)
    for i in range(len(program)):
        op = program[i]
        if op[KIND] != GROUP:
            continue
        states = 1 << (op[PATH] + op[SPLITS])
        for leaf in range(op[FIRST_LEAF], op[FIRST_LEAF] + op[LEAVES]):
            node, k = leaves[leaf]
            leaf_patterns(pattern_of, tests[leaf], k, states)
            for state in range(states):
                if pattern_of[state] == (1 << k) - 1:
                    for o in range(width):
                        tables[layout[i, TABLE] + (state * width + o) * entry] = values[node * width + o]


@njit(cache=True, nogil=True)
def add_answers(sums, left, right, values, outputs, codes, line, limit, category, sides):
    """Add one tree's output for every row, from the root to its leaf; ``sums`` has shape (outputs, rows)."""
    width = len(outputs)
    for r in range(sums.shape[1]):
        node = 0
        while left[node] >= 0:
            code = codes[line[node], r]
            goes_left = sides[limit[node] + code] != 0 if category[node] else code <= limit[node]
            node = left[node] if goes_left else right[node]
        for o in range(width):
            sums[outputs[o], r] += values[node * width + o]
