"""Compiled predictions of trees: what the model answers, by the programs of `tree_programs`.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers.tree_kernels import ROWS, STATES, decide, index_of, leaf_patterns, step
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
                    for o in range(width):
                        sums[start + r, outputs[o]] += answers[i, index[r], o]
            else:
                here, mask = patterns[op[SIDE], op[LEVEL]], np.uint32((1 << op[PATH]) - 1)
                for r in range(size):
                    if here[r] & mask == mask:
                        for o in range(width):
                            sums[start + r, outputs[o]] += values[op[NODE] * width + o]
