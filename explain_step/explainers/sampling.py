"""Seeded choice of rows: spread evenly over segments and the model's output, so that few rows stand for many."""

from __future__ import annotations

import numpy as np

from explain_step.ties import APART, dense_ranks
from explain_step.types import FloatArray, IntArray


def output_order(output: FloatArray) -> IntArray:
    """Return row positions sorted by the output that varies most.

    Ties keep row order, those that only rounding noise tells apart among them, so that every number of threads draws
    the same rows.

    Examples
    --------
    >>> output_order(np.array([[0.3, 0.0], [0.1, 0.0], [0.2, 0.0]])).tolist()
    [1, 2, 0]
    """
    spread = output.var(axis=0)
    widest = int(np.argmax(spread >= spread.max() * (1 - APART)))
    return np.argsort(dense_ranks(output[:, widest]), kind="stable").astype(np.int64)


def spread_rows(
    output: FloatArray, size: int, *, rng: np.random.Generator, strata: IntArray | None = None
) -> IntArray:
    """Return ``size`` distinct row positions, ascending, by systematic sampling along the sorted output.

    Every row has the same chance ``size / n`` to be drawn (Madow and Madow 1944,
    doi:10.1214/aoms/1177731312), so plain means over the drawn rows estimate means over all rows without
    bias.

    Parameters
    ----------
    output : ndarray of shape (n, n_outputs)
    size : int
        With ``size >= n`` all rows are returned.
    rng : Generator
    strata : ndarray of int of shape (n,), optional
        Segment of each row: each gets its share of the drawn rows, up to one row, spread over its outputs.

    Examples
    --------
    >>> spread_rows(np.arange(6.0)[:, None], 3, rng=np.random.default_rng(0)).tolist()
    [1, 3, 5]
    """
    n = len(output)
    if size >= n:
        return np.arange(n, dtype=np.int64)
    steps = (np.arange(size) + rng.random()) * (n / size)
    order = output_order(output)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    return np.sort(order[np.minimum(steps.astype(np.int64), n - 1)])


def stratified_partners(output: FloatArray, *, rows: int, draws: int, rng: np.random.Generator) -> IntArray:
    """Return background positions (rows, draws): one from each of ``draws`` strata of the sorted output.

    Each row has its own draws, and every background row the same expected number of them: a mean over the
    draws is unbiased for the mean over the background. The strata come in random order, so that any first
    draws are a fair sample too.
    """
    m = len(output)
    strata = rng.permuted(np.tile(np.arange(draws), (rows, 1)), axis=1)
    position = (strata + rng.random((rows, draws))) * (m / draws)
    return output_order(output)[np.minimum(position.astype(np.int64), m - 1)]
