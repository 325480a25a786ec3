"""Control variates per column: take out of each walk what is known about its background row.

A column's contribution in a walk depends on the value it is switched from. How much, is estimated from all walks
of all rows together: the mean contribution per bin of the column's background values. Its mean over the whole
background is known, so the difference between the drawn background rows and the whole background is removed from
every contribution (a control variate, Owen 2013, "Monte Carlo theory, methods and examples", chapter 8). For
models that are near additive this removes most of the noise.

Measured, typical error of a value relative to its size, without and with: mortgage data, 58 pairs: 0.13 and 0.09
(boosted trees, log-odds), 0.11 and 0.06 (forest), 0.14 and 0.10 (neural network); 300 columns, 4 pairs: 0.57 and
0.41 (neural network).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from explain_step import dates
from explain_step.explainers.masking import BoolArray, Pool
from explain_step.explainers.walks import Sample, is_balanced
from explain_step.types import FloatArray, IntArray

MAX_BINS = 16
WALKS_PER_BIN = 20
SHRINKAGE = 2.0
"""Walks without any change that each bin is given in addition to its own."""


def adjust(sample: Sample, *, pool: Pool, start: FloatArray, active: BoolArray) -> tuple[Sample, FloatArray]:
    """Return the sample without the known effects of background values, and the outputs that go with it.

    The mean over the whole background of what is removed is zero, in the contributions and in the outputs.
    Columns that never contributed in any row stay at exactly zero. One that did not in one row is treated as
    in the others: a change may be rare, and rows chosen by what was seen would bias the mean. Where every
    background row is used equally often nothing is to be gained, and nothing changes.

    Parameters
    ----------
    sample : Sample
    pool : Pool
        With the m background rows of the sample.
    start : ndarray of shape (m, n_outputs)
        Outputs on the background.
    active : ndarray of bool of shape (n, d)
        Whether the row differs from any background row in the column; where not, zero is exact.

    Returns
    -------
    sample : Sample
    start : ndarray of shape (m, n_outputs)
        The contributions of a walk still sum to the explained row's output minus this.
    """
    n, pairs, d, _ = sample.contributions.shape
    bins = min(MAX_BINS, n * pairs // WALKS_PER_BIN)
    if pairs < 2 or bins < 2 or is_balanced(sample, len(start)):
        return sample, start
    contributions, left = sample.contributions.copy(), start.copy()
    for j in range(d):
        column = sample.contributions[:, :, j]
        if not column.any():
            continue
        bin_of = background_bins(pool.columns[j][pool.n :], pool.codes[pool.n :, j], bins=bins)
        effect = _effects(column, bin_of[sample.partner], bins=bins)[bin_of]
        effect = effect - effect.mean(axis=0)
        contributions[:, :, j] -= np.where(active[:, j, None, None], effect[sample.partner], 0.0)
        left += effect
    return dataclasses.replace(sample, contributions=contributions), left


def _effects(column: FloatArray, bin_of: IntArray, *, bins: int) -> FloatArray:
    """Return the effect of each bin (bins, k) on contributions (n, pairs, k), whose bins are (n, pairs)."""
    pairs = column.shape[1]
    # a row's own mean holds a part of each of its pairs
    centred = (column - column.mean(axis=1, keepdims=True)) * (pairs / (pairs - 1))
    where = bin_of.ravel()
    count = np.bincount(where, minlength=bins) + SHRINKAGE
    sums = [
        np.bincount(where, weights=centred[:, :, k].ravel(), minlength=bins) for k in range(column.shape[2])
    ]
    return np.stack(sums, axis=1) / count[:, None]


def background_bins(values: Any, codes: IntArray, *, bins: int) -> IntArray:
    """Return the bin (m,) of each of m background values: about equally many in each, equal ones together.

    Numbers and times are binned by size, everything else by frequency, so that frequent levels have their own.

    Parameters
    ----------
    values : array of shape (m,)
    codes : ndarray of int of shape (m,)
        Equal codes = equal values.
    bins : int

    Examples
    --------
    >>> background_bins(np.array([3.0, 1.0, 2.0, 2.0]), np.array([0, 1, 2, 2]), bins=2).tolist()
    [1, 0, 0, 0]
    """
    level, inverse, count = np.unique(codes, return_inverse=True, return_counts=True)
    first = np.empty(len(level), dtype=np.int64)
    first[inverse] = np.arange(len(codes))
    order = np.argsort(_key(values, first, count), kind="stable")
    below = np.empty(len(level), dtype=np.int64)
    below[order] = np.cumsum(count[order]) - count[order]
    return np.asarray((below * bins // len(codes))[inverse], dtype=np.int64)


def _key(values: Any, first: IntArray, count: IntArray) -> FloatArray:
    """Return what the levels are sorted by; ``first`` has the position of one value of each."""
    series = pd.Series(values).iloc[first]
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_complex_dtype(series.dtype):
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    if dates.is_dates(series):
        return dates.days(series)
    return -count.astype(np.float64)
