"""Path-dependent values: another quantity of the same trees, to compare with libraries' own values.

Columns outside the coalition follow the training cover of the tree's branches instead of background rows. This is the
twin of the compiled `tree_paths`, which tells the mathematics: a product is carried down the tree, and sums over leaves
are carried up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain_step.explainers import ensembles, tree_tables
from explain_step.explainers.ensembles import BoolArray, Ensemble, Tree
from explain_step.types import FloatArray, IntArray

NUMBERS_AT_ONCE = 1 << 22
"""Numbers held for a block of rows, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """What leads to a node from ``top``: the node above, its column, and the last edge above about the same column.

    ``share`` is this edge's part in the column's cover ratio on the way; ``before`` and ``ratio`` are the ratios without
    and with it. ``columns`` and ``level`` count the distinct columns and the edges from the root to here.
    """

    top: int
    column: int
    above: int
    before: float
    ratio: float
    share: float
    columns: int
    level: int


def path_dependent(
    ensemble: Ensemble, rows: FloatArray, *, sources: Sequence[int] | IntArray, n_features: int
) -> tuple[FloatArray, FloatArray]:
    """Return path-dependent values: another quantity, for comparison with libraries' own contributions.

    Parameters and results are those of `tree.interventional`, without a background.
    """
    raw = np.asarray(sources, dtype=np.int64)
    out = np.zeros((len(ensemble.offset), n_features, rows.shape[1]))
    base = ensemble.offset.astype(np.float64).copy()
    for tree in ensemble.trees:
        edges = _edges(tree, raw)
        longest = max((edge.columns for edge in edges.values()), default=0)
        base[list(tree.outputs)] += _base(tree, edges)
        x, weights = (line[:, None] for line in tree_tables.subset_nodes(longest).T)
        held = (
            (1 + max((edge.level for edge in edges.values()), default=0)) * len(x) * (1 + len(tree.outputs))
        )
        block = max(64, NUMBERS_AT_ONCE // held)
        for start in range(0, rows.shape[1], block):
            part = slice(start, start + block)
            _add_tree(
                out[:, :, part], tree, edges, ensembles.decide(tree, rows[:, part]), x=x, weights=weights
            )
    return out.transpose(2, 1, 0), base


def _edges(tree: Tree, sources: IntArray) -> dict[int, Edge]:
    """Return the edges by the node that they lead to, from the root down."""
    edges, stack = dict[int, Edge](), [0]
    while stack:
        top = stack.pop()
        if tree.left[top] < 0:
            continue
        column, whole = int(sources[tree.column[top]]), float(tree.cover[top])
        above = top
        while above and edges[above].column != column:
            above = edges[above].top
        before = edges[above].ratio if above else 1.0
        columns = (edges[top].columns if top else 0) + (above == 0)
        level = 1 + (edges[top].level if top else 0)
        for node in (int(tree.left[top]), int(tree.right[top])):
            share = float(tree.cover[node]) / whole if whole > 0.0 else 0.0  # no training weight came here
            edges[node] = Edge(
                top=top, column=column, above=above, before=before, ratio=before * share, share=share,
                columns=columns, level=level,
            )  # fmt: skip
            stack.append(node)
    return edges


def _base(tree: Tree, edges: dict[int, Edge]) -> FloatArray:
    """Return the mean output over the training cover."""
    weight = {0: 1.0}
    for node, edge in edges.items():
        weight[node] = weight[edge.top] * edge.share
    base = np.zeros(len(tree.outputs))
    for node, part in weight.items():
        if tree.left[node] < 0:
            base += part * tree.values[node]
    return base


def _add_tree(
    out: FloatArray,
    tree: Tree,
    edges: dict[int, Edge],
    left: BoolArray,
    *,
    x: FloatArray,
    weights: FloatArray,
) -> None:
    """Add one tree's values; ``left`` has shape (splits, rows), ``x`` and ``weights`` (quadrature nodes, 1)."""
    shape = (len(x), left.shape[1])
    passed, failed = {0: np.ones(shape[1], dtype=np.bool_)}, dict[int, BoolArray]()
    products, below = {0: np.ones(shape)}, dict[int, FloatArray]()
    stack = [(0, False)]
    while stack:
        node, done = stack.pop()
        edge = edges.get(node)
        if not done:
            if edge is not None:
                goes = left[tree.split[edge.top]] == (tree.left[edge.top] == node)
                passed[node], failed[node] = passed[edge.above] & goes, passed[edge.above] & ~goes
                products[node] = products[edge.top] * _factors(edge, passed[node], failed[node], x=x)
            inner = bool(tree.left[node] >= 0)
            below[node] = (0.0 if inner else 1.0) * tree.values[node][:, None, None] * products[node]
            stack.append((node, True))
            stack += [(int(tree.right[node]), False), (int(tree.left[node]), False)] if inner else []
        elif edge is not None:
            below[edge.top] += below[node]
            changes = _changes(edge, passed[node], failed[node], x=x, weights=weights)
            out[list(tree.outputs), edge.column] += (below[node] * changes).sum(axis=1)
            for kept in (passed, failed, products, below):
                del kept[node]


def _factors(edge: Edge, passed: BoolArray, failed: BoolArray, *, x: FloatArray) -> FloatArray:
    """Return what the product of each row is multiplied with."""
    old, new = x + (1.0 - x) * edge.before, x + (1.0 - x) * edge.ratio
    return np.where(passed, new / old, np.where(failed, (1.0 - x) * edge.ratio / old, edge.share))


def _changes(
    edge: Edge, passed: BoolArray, failed: BoolArray, *, x: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return what the product is multiplied with to be part of the column's value, less what the edge above has counted."""
    old, new = x + (1.0 - x) * edge.before, x + (1.0 - x) * edge.ratio
    counted = weights * (1.0 - edge.before) / old
    yes, no = weights * (1.0 - edge.ratio) / new - counted, -weights / (1.0 - x) - counted
    return np.where(passed, yes, np.where(failed, no, 0.0))
