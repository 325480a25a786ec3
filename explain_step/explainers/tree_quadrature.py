"""Constants of the compiled tree engine: nodes and weights by number of columns."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.special import comb

from explain_step.types import FloatArray, IntArray

MOST_COLUMNS, MOST_TABLE = 64, 16


@cache
def quadrature() -> tuple[Any, ...]:
    """Return the constants of the values by number of columns k.

    Gauss-Legendre nodes and weights on [0, 1] with ceil(k/2) nodes, exact for degree k-1, and the numbers of nodes;
    the weights of pairs of patterns by the numbers of columns that only one of two rows passes; the weights of
    `tree_units.sum_subsets`; and the number of set bits of small numbers.
    """
    half = (MOST_COLUMNS + 1) // 2
    nodes, node_weights = np.zeros((MOST_COLUMNS, half)), np.zeros((MOST_COLUMNS, half))
    counts = np.array([max(1, (k + 1) // 2) for k in range(MOST_COLUMNS)])
    for k in range(MOST_COLUMNS):
        x, w = np.polynomial.legendre.leggauss(int(counts[k]))
        nodes[k, : len(x)], node_weights[k, : len(x)] = (x + 1) / 2, w / 2
    a, b = np.meshgrid(np.arange(MOST_COLUMNS), np.arange(MOST_COLUMNS), indexing="ij")
    choose = comb(a + b, a)
    plus = np.divide(1.0, a * choose, out=np.zeros(a.shape), where=a > 0)
    minus = np.divide(1.0, b * choose, out=np.zeros(a.shape), where=b > 0)
    sizes = np.array([number.bit_count() for number in range(1 << 16)])
    weights = _table_weights(nodes, node_weights, counts)
    return nodes, node_weights, counts, plus, minus, weights, sizes


def _table_weights(nodes: FloatArray, node_weights: FloatArray, counts: IntArray) -> FloatArray:
    """Return the flat weights of `tree_units.sum_subsets`, by columns, kind, size and node; others have zeros."""
    weights = np.zeros((MOST_TABLE + 1, 6, MOST_TABLE + 1, 8))
    for k in range(MOST_TABLE + 1):
        t, w = nodes[k, : counts[k]], node_weights[k, : counts[k]]
        for size in range(k + 1):
            rest = float(k - size)
            weights[k, :, size, : len(t)] = (
                t**size,
                w * (1 - t) ** (rest - 1),
                w / t * (1 - t) ** rest,
                w * (1 - t) ** (rest - 2),
                w / t * (1 - t) ** (rest - 1),
                w / t**2 * (1 - t) ** rest,
            )
    return weights.ravel()
