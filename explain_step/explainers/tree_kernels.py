"""Compiled kernels of the tree engine: one pass over a tree per block of rows, then table look-ups.

The game, the grouping of leaves and the tables are those of `tree_groups` and `tree_tables`; here they are
written as loops over numbers for Numba. A tree becomes a *program*: steps that update the rows' patterns, and
groups that turn a pattern into a table index. Leaves that are too deep for a table are done one by one
(`tree_deep`). Sums are in double precision and in the order of the trees; nothing is reassociated.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from explain_step.explainers import tree_units

GROUP_BITS = 8
"""Tables have at most this many index bits; see `tree_groups.MERGED_BITS`."""
STATES = 1 << GROUP_BITS
MOST_PATH = 31
"""Distinct columns on a path that fit a packed pattern here."""
STEP, GROUP, DEEP = 0, 1, 2
ROWS = 1024
"""Rows that go through all trees of a batch together: their sums stay in the second-level cache."""
# columns of a program
KIND, NODE, LEVEL, SIDE, PATH, BIT, SPLITS, FIRST_SPLIT, COLUMNS, FIRST_COLUMN, LEAVES, FIRST_LEAF, TABLE = (
    range(13)
)


@njit(cache=True, nogil=True)
def splits_below(left, right):
    """Return for each node the number of splits in its subtree."""
    count = np.zeros(len(left), np.int64)
    order = np.empty(len(left), np.int64)
    stack = np.empty(len(left) + 1, np.int64)
    stack[0], depth, seen = 0, 1, 0
    while depth > 0:
        depth -= 1
        node = stack[depth]
        order[seen] = node
        seen += 1
        if left[node] >= 0:
            stack[depth], stack[depth + 1] = left[node], right[node]
            depth += 2
    for i in range(seen - 1, -1, -1):
        node = order[i]
        if left[node] >= 0:
            count[node] = 1 + count[left[node]] + count[right[node]]
    return count


@njit(cache=True, nogil=True)
def compile_tree(left, right, place):
    """Return a tree's program and what its groups are made of.

    Returns
    -------
    program : ndarray of shape (operations, 13)
    splits : ndarray
        Nodes of the groups' splits; a group's index has a bit for each after those of its path.
    columns : ndarray
        Raw places of the groups' columns; those of the path first.
    leaves : ndarray of shape (leaves, 2)
        Node and number of columns.
    tests : ndarray of shape (leaves, 8, 3)
        Per column of a leaf: its position in the group's columns, mask of index bits, wanted value.
    levels : int
        Levels of patterns that a run needs; -1: a path is too long.
    """
    nodes = len(left)
    below = splits_below(left, right)
    program = np.zeros((nodes, 13), np.int64)
    splits = np.empty(nodes, np.int64)
    columns = np.empty(nodes * GROUP_BITS, np.int64)
    leaves = np.empty((nodes, 2), np.int64)
    tests = np.empty((nodes, GROUP_BITS, 3), np.int64)
    paths = np.empty((nodes + 1, MOST_PATH + 1), np.int64)
    stack = np.empty((nodes + 1, 4), np.int64)  # node, level, side, path length
    stack[0] = 0
    depth, operations, n_splits, n_columns, n_leaves, levels = 1, 0, 0, 0, 0, 1
    while depth > 0:
        depth -= 1
        node, level, side, length = stack[depth]
        op = program[operations]
        operations += 1
        op[NODE], op[LEVEL], op[SIDE], op[PATH] = node, level, side, length
        levels = max(levels, level + 1)
        path = paths[level]
        if below[node] == 0 and length > GROUP_BITS:
            op[KIND] = DEEP
        elif length + below[node] <= GROUP_BITS:
            op[KIND] = GROUP
            op[SPLITS], op[FIRST_SPLIT] = below[node], n_splits
            op[FIRST_COLUMN], op[FIRST_LEAF] = n_columns, n_leaves
            found = _group(
                node, path[:length], left, right, place,
                splits[n_splits:], columns[n_columns:], leaves[n_leaves:], tests[n_leaves:],
            )  # fmt: skip
            op[COLUMNS], op[LEAVES] = found
            n_splits, n_columns, n_leaves = n_splits + below[node], n_columns + found[0], n_leaves + found[1]
        else:
            bit = 0
            while bit < length and path[bit] != place[node]:
                bit += 1
            if bit >= MOST_PATH:
                levels = -1
                break
            op[KIND], op[BIT] = STEP, bit
            paths[level + 1, :length] = path[:length]
            paths[level + 1, bit] = place[node]
            longer = max(length, bit + 1)
            for side in range(2):  # the left one is taken up first
                stack[depth, 0] = left[node] if side else right[node]
                stack[depth, 1], stack[depth, 2], stack[depth, 3] = level + 1, 1 - side, longer
                depth += 1
    return (
        program[:operations],
        splits[:n_splits].copy(),
        columns[:n_columns].copy(),
        leaves[:n_leaves].copy(),
        tests[:n_leaves].copy(),
        levels,
    )


@njit(cache=True, nogil=True)
def _group(top, path, left, right, place, splits, columns, leaves, tests):
    """Write the group under ``top``; return its numbers of columns and leaves."""
    length, n_splits, n_leaves = len(path), 0, 0
    n_columns = length
    columns[:length] = path
    stack = np.empty(2 * GROUP_BITS + 2, np.int64)
    masks = np.zeros((2 * GROUP_BITS + 2, GROUP_BITS, 2), np.int64)  # per column: mask, wanted; mask 0: free
    for i in range(length):
        masks[0, i] = 1 << i
    stack[0], depth = top, 1
    while depth > 0:
        depth -= 1
        node, mine = stack[depth], masks[depth].copy()
        if left[node] < 0:
            k = 0
            for i in range(n_columns):
                if mine[i, 0] != 0:
                    tests[n_leaves, k, 0], tests[n_leaves, k, 1] = i, mine[i, 0]
                    tests[n_leaves, k, 2] = mine[i, 1]
                    k += 1
            leaves[n_leaves, 0], leaves[n_leaves, 1] = node, k
            n_leaves += 1
            continue
        column = 0
        while column < n_columns and columns[column] != place[node]:
            column += 1
        if column == n_columns:
            columns[n_columns] = place[node]
            n_columns += 1
        bit = 1 << (length + n_splits)
        splits[n_splits] = node
        n_splits += 1
        for side in range(2):
            masks[depth + side] = mine
            masks[depth + side, column, 0] |= bit
            masks[depth + side, column, 1] |= bit * side
        stack[depth], stack[depth + 1] = right[node], left[node]
        depth += 2
    return n_columns, n_leaves


@njit(cache=True, nogil=True)
def decide(out, codes, line, limit, category, sides, node, start):
    """Write whether the rows from ``start`` go left at ``node``."""
    values = codes[line[node], start : start + len(out)]
    if category[node]:
        first = limit[node]
        for r in range(len(out)):
            out[r] = sides[first + values[r]]
    else:
        most = codes.dtype.type(limit[node])
        for r in range(len(out)):
            out[r] = np.uint32(values[r] <= most)


@njit(cache=True, nogil=True)
def _step(patterns, op, goes_left):
    """Write the patterns of a step's children: the column's bit is cleared where the row goes the other way."""
    level, bit = op[LEVEL], np.uint32(op[BIT])
    here, left, right = patterns[op[SIDE], level], patterns[0, level + 1], patterns[1, level + 1]
    one = np.uint32(1)
    for r in range(len(goes_left)):
        g = goes_left[r]
        left[r] = here[r] & ~((one - g) << bit)
        right[r] = here[r] & ~(g << bit)


@njit(cache=True, nogil=True)
def _index(index, patterns, op, splits, goes_left, codes, line, limit, category, sides, start):
    """Write the rows' indices into a group's table."""
    here = patterns[op[SIDE], op[LEVEL]]
    mask = np.uint32((1 << op[PATH]) - 1)
    n = len(goes_left)
    for r in range(n):
        index[r] = here[r] & mask
    for s in range(op[SPLITS]):
        decide(goes_left, codes, line, limit, category, sides, splits[op[FIRST_SPLIT] + s], start)
        place = np.uint32(op[PATH] + s)
        for r in range(n):
            index[r] |= goes_left[r] << place


@njit(cache=True, nogil=True)
def count_states(program, splits, levels, codes, line, limit, category, sides):
    """Return the share of background rows with each index, per group: shape (operations, 256)."""
    n = codes.shape[1]
    shares = np.zeros((len(program), STATES))
    patterns = np.empty((2, levels, ROWS), np.uint32)
    goes_left, index = np.empty(ROWS, np.uint32), np.empty(ROWS, np.uint32)
    for start in range(0, n, ROWS):
        size = min(ROWS, n - start)
        patterns[0, 0, :size] = np.uint32(0xFFFFFFFF)
        for i in range(len(program)):
            op = program[i]
            if op[KIND] == STEP:
                decide(goes_left[:size], codes, line, limit, category, sides, op[NODE], start)
                _step(patterns, op, goes_left[:size])
            elif op[KIND] == GROUP:
                _index(
                    index, patterns, op, splits, goes_left[:size], codes, line, limit, category, sides, start
                )
                for r in range(size):
                    shares[i, index[r]] += 1.0
    return shares / n


@njit(cache=True, nogil=True)
def place_tables(program, width, row_columns):
    """Write where each group's table begins; return the size of all. ``row_columns`` 0: a group's own eight."""
    end = 0
    for i in range(len(program)):
        op = program[i]
        if op[KIND] == GROUP:
            op[TABLE] = end
            end += (1 << (op[PATH] + op[SPLITS])) * width * (row_columns if row_columns else GROUP_BITS)
    return end


@njit(cache=True, nogil=True)
def fill_tables(
    tables, program, columns, leaves, tests, values, width, row_columns, shares, parent, place, cover, quadrature
):  # fmt: skip
    """Add every leaf's unit values, times its own, to the tables of its group.

    ``shares`` (of `count_states`) makes interventional values; without rows, path-dependent ones.
    """
    pattern_of = np.empty(STATES, np.int64)
    unit = np.empty((STATES, GROUP_BITS))
    entry = row_columns if row_columns else GROUP_BITS
    for i in range(len(program)):
        op = program[i]
        if op[KIND] != GROUP:
            continue
        states = 1 << (op[PATH] + op[SPLITS])
        table = tables[op[TABLE] : op[TABLE] + states * width * entry]
        places = columns[op[FIRST_COLUMN] : op[FIRST_COLUMN] + op[COLUMNS]]
        for leaf in range(op[FIRST_LEAF], op[FIRST_LEAF] + op[LEAVES]):
            node, k = leaves[leaf]
            leaf_patterns(pattern_of, tests[leaf], k, states)
            if len(shares):
                _interventional(unit, shares[i], pattern_of, states, k, quadrature)
            else:
                _path_dependent(unit, node, tests[leaf], places, k, parent, place, cover, quadrature)
            for state in range(states):
                for o in range(width):
                    weight = values[node * width + o]
                    at = (state * width + o) * entry
                    for j in range(k):
                        position = tests[leaf, j, 0]
                        to = places[position] if row_columns else position
                        table[at + to] += weight * unit[pattern_of[state], j]


@njit(cache=True, nogil=True)
def _interventional(unit, shares, pattern_of, states, k, quadrature):
    """Write a leaf's values for every pattern, against the background's shares of its group's indices."""
    share, sums = np.zeros(STATES), np.empty((3, STATES))
    for state in range(states):
        share[pattern_of[state]] += shares[state]
    _, _, weights, counts, _, _, sizes = quadrature
    tree_units.subset_sums(sums, share, k, weights[k], counts[k], sizes)
    for pattern in range(1 << k):
        for j in range(k):
            unit[pattern, j] = tree_units.value_at(sums, pattern, j)


@njit(cache=True, nogil=True)
def _path_dependent(unit, node, tests, places, k, parent, place, cover, quadrature):
    """Write a leaf's values for every pattern, where absent columns follow the training cover."""
    mine, ratios = np.empty(GROUP_BITS, np.int64), np.empty(GROUP_BITS)
    for j in range(k):
        mine[j] = places[tests[j, 0]]
    tree_units.ratios_of(ratios, node, mine, k, parent, place, cover)
    nodes, node_weights, _, counts, _, _, _ = quadrature
    for pattern in range(1 << k):
        tree_units.path_values(unit[pattern], pattern, ratios, k, nodes[k], node_weights[k], counts[k])


@njit(cache=True, nogil=True)
def leaf_patterns(out, tests, k, states):
    """Write a leaf's pattern for each index of its group."""
    for state in range(states):
        pattern = 0
        for j in range(k):
            pattern |= ((state & tests[j, 1]) == tests[j, 2]) << j
        out[state] = pattern


@njit(cache=True, nogil=True)
def add_groups(
    sums, program, splits, columns, levels, tables, outputs, row_columns, codes, line, limit, category, sides, start
):  # fmt: skip
    """Add one tree's groups for the rows from ``start``; ``sums`` has shape (rows, outputs, columns)."""
    size = len(sums)
    patterns = np.empty((2, levels, size), np.uint32)
    goes_left, index = np.empty(size, np.uint32), np.empty(size, np.uint32)
    patterns[0, 0] = np.uint32(0xFFFFFFFF)
    width = len(outputs)
    for i in range(len(program)):
        op = program[i]
        if op[KIND] == STEP:
            decide(goes_left, codes, line, limit, category, sides, op[NODE], start)
            _step(patterns, op, goes_left)
        elif op[KIND] == GROUP:
            _index(index, patterns, op, splits, goes_left, codes, line, limit, category, sides, start)
            table = tables[op[TABLE] :]
            if row_columns:
                _add_rows(sums, table, index, outputs, width, row_columns)
            else:
                places = columns[op[FIRST_COLUMN] : op[FIRST_COLUMN] + op[COLUMNS]]
                _add_columns(sums, table, index, outputs, width, places)


@njit(cache=True, nogil=True)
def _add_rows(sums, table, index, outputs, width, row_columns):
    """Add whole table rows: every used column has its place in them."""
    flat = sums.reshape(-1)
    stride = sums.shape[1] * row_columns
    for o in range(width):
        to = outputs[o] * row_columns
        for r in range(len(index)):
            at = (np.int64(index[r]) * width + o) * row_columns
            for eight in range(0, row_columns, 8):
                tree_units.add_eight(flat, to + eight, table, at + eight)
            to += stride


@njit(cache=True, nogil=True)
def _add_columns(sums, table, index, outputs, width, places):
    """Add the entries of a group's own columns, each to its place."""
    for o in range(width):
        output = outputs[o]
        for r in range(len(sums)):
            at = (np.int64(index[r]) * width + o) * GROUP_BITS
            for j in range(len(places)):
                sums[r, output, places[j]] += table[at + j]


@njit(cache=True, nogil=True)
def add_batch(
    sums, starts, program, splits, columns, tables, outputs, levels, row_columns,
    limit, category, sides, codes, line,
):  # fmt: skip
    """Add the groups of several trees for all rows; ``sums`` has shape (rows, outputs, columns).

    ``starts[t]`` says where tree t begins in the joined arrays: nodes, program, splits, columns, tables, outputs;
    the last row is their end.
    """
    for first in range(0, len(sums), ROWS):
        part = sums[first : first + ROWS]
        for t in range(len(starts) - 1):
            node, op, split, column, table, output = starts[t]
            end = starts[t + 1]
            add_groups(
                part, program[op : end[1]], splits[split : end[2]], columns[column : end[3]], levels[t],
                tables[table : end[4]], outputs[output : end[5]], row_columns,
                codes, line[node : end[0]], limit[node : end[0]], category[node : end[0]], sides, first,
            )  # fmt: skip


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
                _step(patterns, op, goes_left[:size])
            elif op[KIND] == GROUP:
                _index(
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
