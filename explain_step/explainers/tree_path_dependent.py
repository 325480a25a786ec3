"""Path-dependent values: another quantity from the same tables, to compare with libraries' own values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, tree_tables
from explain_step.explainers.ensembles import BoolArray, Ensemble, Tree
from explain_step.types import FloatArray, IntArray

MOST_COLUMNS = 16
"""Leaves with more columns are refused: their tables would not fit."""


def path_dependent(
    ensemble: Ensemble, rows: FloatArray, *, sources: Sequence[int] | IntArray, n_features: int
) -> tuple[FloatArray, FloatArray]:
    """Return path-dependent values: another quantity, for comparison with libraries' own contributions.

    Columns outside the coalition follow the training cover of the tree's branches instead of background
    rows. The same tables answer it, with the histogram of independent columns whose bits hold with the
    product of cover ratios.

    Parameters and results are those of `interventional`, without a background.

    Raises
    ------
    NotApplicable
        A leaf has too many columns for a table.
    """
    raw = np.asarray(sources, dtype=np.int64)
    out = np.zeros((len(ensemble.offset), n_features, rows.shape[1]))
    base = ensemble.offset.astype(np.float64).copy()
    for tree in ensemble.trees:
        decisions = ensembles.decide(tree, rows)
        for node, ratios, bits in paths(tree, raw, decisions):
            histogram = independent(list(ratios.values()))
            base[list(tree.outputs)] += tree.values[node] * histogram[-1]
            if ratios:
                sums = tree_tables.subset_sums(histogram[None, :], k=len(ratios))
                values = tree_tables.values_at(sums, bits, game=0, k=len(ratios))
                for output, weight in zip(tree.outputs, tree.values[node], strict=True):
                    out[output, list(ratios)] += weight * values
    return out.transpose(2, 1, 0), base


def independent(ratios: Sequence[float]) -> FloatArray:
    """Return the distribution of patterns whose bits hold independently with the given probabilities."""
    if len(ratios) > MOST_COLUMNS:
        msg = f"a leaf has {len(ratios)} columns, more than path-dependent tables hold"
        raise NotApplicable(msg)
    histogram = np.ones(1)
    for ratio in ratios:
        histogram = np.concatenate([histogram * (1.0 - ratio), histogram * ratio])
    return histogram


def paths(
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
