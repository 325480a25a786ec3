"""Effect curves of one column: means of attributions, partial dependence, accumulated local effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from explain_step import intervals
from explain_step.artifacts import columns
from explain_step.explainers.lending import Lending
from explain_step.types import FloatArray, IntArray

STUDENT_ROWS = 500
"""Bins with more rows use the Student interval: within a bin attributions are nearly normal."""
RESAMPLES = 399
DENSITY_BINS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A curve over g points for k outputs.

    Attributes
    ----------
    x : ndarray of shape (g,)
    value, low, high : ndarray of shape (g, k)
    count : ndarray of shape (g,)
        Explained rows at (or nearest to) each point.
    """

    x: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    count: FloatArray


def nearest(values: FloatArray, grid: FloatArray) -> IntArray:
    """Return for each value the position of the nearest grid point; -1 for NaN."""
    middle = (grid[1:] + grid[:-1]) / 2
    found = np.searchsorted(middle, np.nan_to_num(values), side="left")
    return np.where(np.isnan(values), -1, found).astype(np.int64)


def bin_codes(values: FloatArray, edges: FloatArray, *, smallest: int) -> tuple[IntArray, IntArray]:
    """Return each value's bin between ``edges``, and the ends of the bins; small bins join the next.

    Parameters
    ----------
    values : ndarray of shape (n,)
        NaN gets code -1; values beyond the ends belong to the outer bins.
    edges : ndarray of shape (g,), g >= 2
    smallest : int
        Rows that a bin must hold.

    Returns
    -------
    codes : ndarray of int of shape (n,)
    starts : ndarray of int of shape (bins + 1,)
        Positions in ``edges`` of the bins' ends.
    """
    raw = np.clip(np.searchsorted(edges, np.nan_to_num(values), side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(raw[~np.isnan(values)], minlength=len(edges) - 1)
    starts, held = [0], 0
    for i, c in enumerate(counts.tolist()):
        held += c
        if held >= smallest:
            starts.append(i + 1)
            held = 0
    if starts[-1] != len(edges) - 1:
        starts = [*starts[:-1], len(edges) - 1] if len(starts) > 1 else [0, len(edges) - 1]
    ends = np.array(starts, dtype=np.int64)
    codes = np.searchsorted(ends, raw, side="right") - 1
    return np.where(np.isnan(values), -1, codes).astype(np.int64), ends


def density(
    values: FloatArray, grid: FloatArray, *, smallest: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return edges of bins of equal width and the rows in each, over the part of the axis that is worth drawing.

    That is all of it, or without the outer 1% where these would fill it. With ``smallest``, bins of fewer rows are
    empty, and the ends are the grid's.
    """
    low, high = float(grid[0]), float(grid[-1])
    inner = np.nanquantile(values, [0.01, 0.99])
    if smallest is None and inner[1] > inner[0] and high - low > 2 * (inner[1] - inner[0]):
        low, high = float(max(low, inner[0])), float(min(high, inner[1]))
    edges = np.linspace(low, high, DENSITY_BINS + 1)
    counts = np.histogram(values[(values >= low) & (values <= high)], bins=edges)[0].astype(np.float64)
    if smallest is not None:
        counts[counts < smallest] = 0.0
    return edges, counts


def group_means(
    values: FloatArray, codes: IntArray, *, groups: int, weights: FloatArray | None, rng: np.random.Generator
) -> Curve:
    """Return the mean of ``values`` (n, k) in each group of rows, with 95% intervals over rows."""
    parts = [
        _mean(values[codes == g], None if weights is None else weights[codes == g], rng)
        for g in range(groups)
    ]
    value, low, high = (np.stack([p[i] for p in parts]) for i in range(3))
    counts = np.bincount(codes[codes >= 0], minlength=groups).astype(np.float64)
    return Curve(x=np.arange(groups, dtype=np.float64), value=value, low=low, high=high, count=counts)


def _mean(
    values: FloatArray, weights: FloatArray | None, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    n, k = values.shape
    if n == 0:
        blank = np.full(k, np.nan)
        return blank, blank, blank
    if n <= STUDENT_ROWS:
        return intervals.mean_interval(values, rng=rng, weights=weights, resamples=RESAMPLES)
    w = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    mean = w @ values
    half = stats.t.ppf(0.5 + intervals.LEVEL / 2, n - 1) * np.sqrt((w**2) @ (values - mean) ** 2)
    return mean, mean - half, mean + half


def settings(reference: pd.DataFrame, feature: str, *, values: Any) -> Lending:
    """Return the m reference rows with ``feature`` set to each of g values: what partial dependence asks about.

    Parameters
    ----------
    reference : DataFrame of m rows
    values : array of g values
        In the column's dtype.
    """
    m, g = len(reference), len(values)
    return Lending(
        base=reference,
        feature=feature,
        values=values,
        row=np.tile(np.arange(m), g),
        value=np.repeat(np.arange(g), m),
    )


def partial_dependence(
    answers: FloatArray, *, points: int, rng: np.random.Generator
) -> tuple[Curve, FloatArray]:
    """Return the mean prediction of the reference rows with a feature set to each value.

    Friedman 2001, doi:10.1214/aos/1013203451.

    Parameters
    ----------
    answers : ndarray of shape (g * m, k)
        The model's outputs on `settings`.
    points : int
        The number g of values.

    Returns
    -------
    curve : Curve over g points
        ``count`` is NaN; the caller knows the data's density.
    lines : ndarray of shape (m, g, k)
        The single rows' curves (individual conditional expectation).
    """
    lines = np.ascontiguousarray(answers.reshape(points, -1, answers.shape[1]).swapaxes(0, 1))
    m, g, k = lines.shape
    mean, low, high = intervals.mean_interval(lines.reshape(m, g * k), rng=rng, resamples=RESAMPLES)
    curve = Curve(
        x=np.arange(g, dtype=np.float64),
        value=mean.reshape(g, k),
        low=low.reshape(g, k),
        high=high.reshape(g, k),
        count=np.full(g, np.nan),
    )
    return curve, lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """The steps of n rows across their bins: what an accumulated local effect asks about.

    Attributes
    ----------
    asked : Lending
        The rows with the feature at the lower ends of their bins, then with it at the upper ends.
    codes, values, weights : ndarray of shape (n,)
        Bin, value of the feature, and sample weight (optional) of each row.
    edges : ndarray of shape (bins + 1,)
    """

    asked: Lending
    codes: IntArray
    edges: FloatArray
    values: FloatArray
    weights: FloatArray | None


def local_steps(
    rows: pd.DataFrame, feature: str, *, edges: FloatArray, weights: FloatArray | None = None
) -> Steps | None:
    """Return the steps of a numeric or date column; None below two edges or rows with a value and a weight."""
    values = columns.numbers(rows[feature])
    counted = ~np.isnan(values) & (True if weights is None else weights > 0)
    values = values[counted]
    if len(edges) < 2 or len(values) < 2:
        return None
    # a bin holds the values above its lower edge up to its upper one, so that a value on an edge moves
    # downwards
    codes = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    return Steps(
        asked=Lending(
            base=rows,
            feature=feature,
            values=columns.cast(edges, rows[feature]),
            row=np.tile(np.flatnonzero(counted), 2),
            value=np.concatenate([codes, codes + 1]),
        ),
        codes=codes,
        edges=edges,
        values=values,
        weights=None if weights is None else weights[counted],
    )


def level_steps(
    rows: pd.DataFrame,
    feature: str,
    *,
    values: Any,
    codes: IntArray,
    weights: FloatArray | None = None,
) -> Steps:
    """Return the steps of a two-level column: one bin, from the first level to the second."""
    return Steps(
        asked=settings(rows, feature, values=values),
        codes=np.zeros(len(rows), dtype=np.int64),
        edges=np.array([0.0, 1.0]),
        values=codes.astype(np.float64),
        weights=weights,
    )


def accumulated_local_effects(steps: Steps, answers: FloatArray, *, rng: np.random.Generator) -> Curve:
    """Return the accumulated local effect from the model's outputs (2 n, k) on what the steps ask about.

    Apley and Zhu 2020, doi:10.1111/rssb.12377.
    Each row's prediction changes between the two edges around its own value, with its other columns kept;
    the changes are averaged per bin, accumulated, and centred to mean zero over the rows. The interval is a
    percentile bootstrap over rows.
    """
    below, above = np.split(answers, 2)
    return accumulated(
        above - below,
        steps.codes,
        edges=steps.edges,
        values=steps.values,
        rng=rng,
        weights=steps.weights,
    )


def accumulated(
    change: FloatArray,
    codes: IntArray,
    *,
    edges: FloatArray,
    values: FloatArray,
    rng: np.random.Generator,
    weights: FloatArray | None = None,
) -> Curve:
    """Return the centred running sum of mean changes per bin, with a percentile-bootstrap interval over rows.

    Parameters
    ----------
    change : ndarray of shape (n, k)
        Each row's change across its bin.
    codes : ndarray of int of shape (n,)
        Bin of each row.
    edges : ndarray of shape (bins + 1,)
    values : ndarray of shape (n,)
        The column's values: the curve is centred over them (linear between edges).
    weights : ndarray of shape (n,), optional
        Sample weights, not all zero.
    """
    n, bins = len(change), len(edges) - 1
    weight = np.ones(n) if weights is None else weights
    member = np.zeros((n, bins))
    member[np.arange(n), codes] = 1.0
    # share of every edge in the mean of the interpolated curve over the rows
    inside = np.clip((values - edges[codes]) / (edges[codes + 1] - edges[codes]), 0.0, 1.0)
    overall = _overall_steps(member * weight[:, None], change)
    whole = _accumulate(weight[None, :], member, change=change, inside=inside, overall=overall)[0]
    counts = intervals.resampled_counts(n, size=RESAMPLES, rng=rng) * weight
    drawn = _accumulate(counts, member, change=change, inside=inside, overall=overall)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    at_edge = np.bincount(nearest(values, edges), minlength=bins + 1).astype(np.float64)
    return Curve(
        x=edges, value=whole, low=np.minimum(low, whole), high=np.maximum(high, whole), count=at_edge
    )


def _overall_steps(held: FloatArray, change: FloatArray) -> FloatArray:
    """Return each bin's mean change (bins, k) from the rows' weights in the bins (n, bins); 0 where it is empty."""
    total = held.sum(axis=0)
    return np.asarray((held.T @ change) / np.where(total > 0, total, 1.0)[:, None], dtype=np.float64)


def _accumulate(
    counts: FloatArray, member: FloatArray, *, change: FloatArray, inside: FloatArray, overall: FloatArray
) -> FloatArray:
    """Return centred curves (r, bins + 1, k) of r resamples given as (weighted) counts (r, n)."""
    r, bins, k = len(counts), member.shape[1], change.shape[1]
    held = counts @ member
    curves = np.zeros((r, bins + 1, k))
    low_share, high_share = (counts * (1 - inside)) @ member, (counts * inside) @ member
    share = np.zeros((r, bins + 1))
    share[:, :-1] += low_share
    share[:, 1:] += high_share
    everything = counts.sum(axis=1, keepdims=True)
    share /= np.where(everything > 0, everything, 1.0)
    for output in range(k):
        total = counts @ (member * change[:, [output]])
        # a bin that a resample missed keeps its overall mean
        step = np.where(held > 0, total / np.where(held > 0, held, 1.0), overall[None, :, output])
        curves[:, 1:, output] = np.cumsum(step, axis=1)
    centre = (share[:, :, None] * curves).sum(axis=1, keepdims=True)
    return np.asarray(curves - centre, dtype=np.float64)
