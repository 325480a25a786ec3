"""Shapley interaction values of tree ensembles on NumPy: the twin of the compiled engine's pair tables.

The interaction of two columns is the mean, over the coalitions of the others as Shapley's values weigh them, of what
the two together do beyond the sum of what each does alone (Grabisch and Roubens 1999, doi:10.1007/s001820050125).
It is the integral of the multilinear extension's mixed derivative, so that the subset sums of `tree_tables` answer it:
for columns i and j that the row both passes, sums over the patterns with and without each; signs and weights follow
from how many of the two the row fails.

References ---------- Lundberg et al. 2020, Nature Machine Intelligence 2, doi:10.1038/s42256-019-0138-9 (the matrix whose
rows sum to the values); Nadel & Wettenstein, WOODELF, arXiv:2511.09376 (tables of pairs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, groupby

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, tree_groups, tree_tables
from explain_step.explainers.ensembles import BoolArray, Ensemble, Tree
from explain_step.explainers.tree_groups import Group, Indices
from explain_step.types import FloatArray, IntArray

MOST_COLUMNS = 16
"""Leaves with more columns are refused: their tables would not fit."""
ENTRIES_AT_ONCE = 1 << 20


def interactions(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    places: IntArray,
    pair_of: IntArray,
) -> FloatArray:
    """Return the interactions of `tree_compiled.interactions`, whose parameters these are: (rows, outputs, pairs).

    Raises
    ------
    NotApplicable
        A leaf has too many columns for a table.
    """
    out = np.zeros((len(ensemble.offset), int(pair_of.max(initial=-1)) + 1, rows.shape[1]))
    for tree in ensemble.trees:
        if tree.left[0] < 0:
            continue
        if background is None:
            _add_paths(out, tree, rows, places=places, pair_of=pair_of)
        else:
            _add_tree(out, tree, rows, background, places=places, pair_of=pair_of)
    return out.transpose(2, 0, 1)


def _add_tree(
    out: FloatArray,
    tree: Tree,
    rows: FloatArray,
    background: FloatArray,
    *,
    places: IntArray,
    pair_of: IntArray,
) -> None:
    """Add one tree's interventional interactions: tables of groups of leaves, looked up by every row."""
    plan = tree_groups.arrange(tree, sources=places)
    groups = list(tree_groups.groups(plan))
    ours = list(tree_groups.row_indices(plan, ensembles.decide(tree, rows)))
    theirs = list(tree_groups.row_indices(plan, ensembles.decide(tree, background)))
    games = sorted(_games(groups, ours, theirs), key=lambda game: len(game[1]))
    for k, same in groupby(games, key=lambda game: len(game[1])):
        _refuse(k)
        _add_games(out, tree, list(same), pair_of=pair_of, k=k)


_Game = tuple[int, tuple[int, ...], IntArray, FloatArray]
"""A leaf, its columns, the rows' patterns, and the share of the background with each pattern."""


def _games(groups: Sequence[Group], ours: Sequence[Indices], theirs: Sequence[Indices]) -> Iterator[_Game]:
    for group, mine, others in zip(groups, ours, theirs, strict=True):
        for leaf in group.leaves:
            columns = tuple(group.columns[row] for row in leaf.rows)
            if len(columns) < 2:
                continue
            _refuse(len(columns))
            patterns = tree_groups.leaf_patterns(leaf, others).astype(np.intp)
            shares = np.bincount(patterns, minlength=1 << len(columns)) / len(patterns)
            yield leaf.node, columns, tree_groups.leaf_patterns(leaf, mine).astype(np.int64), shares


def _refuse(k: int) -> None:
    if k > MOST_COLUMNS:
        msg = f"a leaf has {k} columns, more than tables of interactions hold"
        raise NotApplicable(msg)


def _add_paths(out: FloatArray, tree: Tree, rows: FloatArray, *, places: IntArray, pair_of: IntArray) -> None:
    """Add one tree's path-dependent interactions, leaf by leaf."""
    decisions = ensembles.decide(tree, rows)
    for node, ratios, patterns in _paths(tree, places, decisions):
        if len(ratios) > 1:
            shares = _independent(list(ratios.values()))
            _add_games(out, tree, [(node, tuple(ratios), patterns, shares)], pair_of=pair_of, k=len(ratios))


def _independent(ratios: Sequence[float]) -> FloatArray:
    """Return the distribution of patterns whose bits hold independently with the given probabilities."""
    _refuse(len(ratios))
    histogram = np.ones(1)
    for ratio in ratios:
        histogram = np.concatenate([histogram * (1.0 - ratio), histogram * ratio])
    return histogram


def _paths(
    tree: Tree, sources: IntArray, decisions: BoolArray
) -> Iterator[tuple[int, dict[int, float], IntArray]]:
    """Yield each leaf with the cover ratio of every raw column on its path and the rows' patterns."""
    stack: list[tuple[int, dict[int, float], dict[int, BoolArray]]] = [(0, {}, {})]
    while stack:
        node, ratios, holds = stack.pop()
        if tree.left[node] < 0:
            bits = np.zeros(decisions.shape[1], dtype=np.int64)
            for place, held in enumerate(holds.values()):
                bits |= held.astype(np.int64) << place
            yield node, ratios, bits
            continue
        column, left = int(sources[tree.column[node]]), decisions[tree.split[node]]
        for child, goes in ((int(tree.right[node]), ~left), (int(tree.left[node]), left)):
            whole = float(tree.cover[node])
            ratio = float(tree.cover[child]) / whole if whole > 0.0 else 0.0  # no training weight came here
            stack.append(
                (
                    child,
                    {**ratios, column: ratios.get(column, 1.0) * ratio},
                    {**holds, column: holds[column] & goes if column in holds else goes},
                )
            )


def _add_games(out: FloatArray, tree: Tree, games: list[_Game], *, pair_of: IntArray, k: int) -> None:
    """Add the interactions of leaves of k columns each."""
    nodes = len(tree_tables.subset_nodes(k))
    step = max(1, ENTRIES_AT_ONCE // (nodes << k))
    for start in range(0, len(games), step):
        batch = games[start : start + step]
        worth = tree_tables.subset_worth(np.stack([game[3] for game in batch]), k=k)
        for place, (node, columns, patterns, _) in enumerate(batch):
            asked = [(i, j) for i, j in combinations(range(k), 2) if pair_of[columns[i], columns[j]] >= 0]
            listed, where = np.unique(patterns, return_inverse=True)
            for (i, j), unit in pair_units(worth[..., place], listed, asked, k=k):
                if unit.any():
                    to, values = int(pair_of[columns[i], columns[j]]), unit[where]
                    for output, weight in zip(tree.outputs, tree.values[node], strict=True):
                        out[output, to] += weight * values


def pair_units(
    worth: FloatArray, patterns: IntArray, pairs: Sequence[tuple[int, int]], *, k: int
) -> Iterator[tuple[tuple[int, int], FloatArray]]:
    """Yield the interactions of one indicator game, for some pairs of columns: ((i, j), array of shape (patterns,)).

    Parameters
    ----------
    worth : ndarray of shape (2^k, nodes)
        `tree_tables.subset_worth`.
    patterns : ndarray of int

    Examples
    --------
    >>> worth = tree_tables.subset_worth(np.array([[1.0, 0.0, 0.0, 0.0]]), k=2)[..., 0]  # a background that fails both
    >>> [unit.tolist() for _, unit in pair_units(worth, np.array([0b11, 0b01]), [(0, 1)], k=2)]
    [[1.0, 0.0]]
    """
    t, w = tree_tables.subset_nodes(k).T
    size = ((patterns[:, None] >> np.arange(k)) & 1).sum(axis=1)[:, None]
    rest = k - size.astype(np.float64)
    both, one, neither = w / t**2 * (1 - t) ** rest, w / t * (1 - t) ** (rest - 1), w * (1 - t) ** (rest - 2)
    whole = worth[patterns]
    less = [worth[patterns & ~(1 << i)] for i in range(k)]
    passes = [(patterns >> i) & 1 == 1 for i in range(k)]
    fails_both = (whole * neither).sum(axis=1)
    for i, j in pairs:
        last = worth[patterns & ~(1 << i) & ~(1 << j)]
        in_both = ((whole - less[i] - less[j] + last) * both).sum(axis=1)
        in_one = ((np.where(passes[i][:, None], less[i], less[j]) - whole) * one).sum(axis=1)
        unit = np.where(passes[i] & passes[j], in_both, np.where(passes[i] | passes[j], in_one, fails_both))
        yield (i, j), unit
