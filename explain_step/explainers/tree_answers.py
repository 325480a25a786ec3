"""Compiled predictions of trees: what the model answers, by the programs of `tree_programs`.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_kernels import STATES, leaf_patterns
from explain_step.explainers.tree_patterns import ROWS, follow_from_root, index_of, place_of, step
from explain_step.explainers.tree_programs import (
    FIRST_LEAF,
    GROUP,
    KIND,
    LEAVES,
    LEVEL,
    NODE,
    PATH,
    SIDE,
    SPLITS,
    STEP,
)


@njit(cache=True, nogil=True)
def fill_answers(program, leaves, tests, values, width):
    """Return what each group adds to the output by index: shape (operations, 256, width)."""
    answers = np.zeros((len(program), STATES, width))
    pattern_of = np.empty(STATES, np.int64)
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
                        answers[i, state, o] = values[node * width + o]
    return answers


@njit(cache=True, nogil=True)
def add_answers(sums, program, splits, levels, answers, values, outputs, codes, line, limit, category, sides):
    """Add one tree's output for every row; ``sums`` has shape (rows, outputs)."""
    n, width = len(sums), len(outputs)
    patterns, index = np.empty(2 * levels * ROWS, np.uint32), np.empty(ROWS, np.uint32)
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
                    for o in range(width):
                        sums[start + r, outputs[o]] += answers[i, index[r], o]
            else:
                here = place_of(levels, ROWS, program[i, LEVEL], program[i, SIDE])
                mask, node = np.uint32((1 << program[i, PATH]) - 1), program[i, NODE]
                for r in range(size):
                    if patterns[here + np.uint64(r)] & mask == mask:
                        for o in range(width):
                            sums[start + r, outputs[o]] += values[node * width + o]
