"""Confidence intervals, rank intervals and multiplicity adjustment. Pure functions over arrays.

Every function treats rows as the sampling unit: intervals cover the variation from drawing other held-out rows from the
same population with this fitted model. They say nothing about refitting the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from explain_step.types import FloatArray, IntArray

LEVEL = 0.95
RESAMPLES = 999
BLOCK = 1 << 16
"""Rows whose powers are made at a time: of millions, each would be as large as the column."""
CACHED = 1 << 15
"""Drawn positions at a time: fresh memory for all of them would cost as much as drawing them."""
EXPANSION_ROWS = 100
MOST_SKEWNESS, MOST_KURTOSIS = 0.3, 0.05
"""From so many rows, and for means whose own skewness and excess kurtosis are at most this, the quantiles of the
studentised mean come from its expansion: resampling would change nothing but the time. Of eight distributions with 100, 250
and 500 rows, its coverage was within half a point of the resamples' where they let it in (0.7 for lognormal ones)."""
BOOTSTRAP_ROWS = 20_000
"""Above this many rows they always do."""

LEAST_ERROR = 1 / 3
"""Standard error of a resample, at least, in units of the sample's own."""


def mean_interval(
    values: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    weights: FloatArray | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean and studentised-bootstrap interval of each column of ``values``.

    The studentised (bootstrap-t) interval keeps its coverage for skewed quantities such as absolute attributions, where
    percentile and Student intervals are too short (Hall 1988, doi:10.1214/aos/1176350933). From `EXPANSION_ROWS`
    rows its quantiles come from their expansion, wherever that is close.

    Parameters
    ----------
    values : array-like of shape (n,) or (n, d)
        One column per quantity.
    rng : Generator
        Source of the resamples.
    weights : ndarray of shape (n,), optional
        Sample weights of the rows.
    level : float
        Nominal coverage.
    resamples : int
        Number of bootstrap resamples.

    Returns
    -------
    mean, low, high : ndarray of shape (d,) (or scalars' shape () for one-dimensional input)
        With fewer than two rows (of positive weight) the bounds are NaN.

    Examples
    --------
    >>> mean, low, high = mean_interval(np.arange(50.0), rng=np.random.default_rng(0))
    >>> bool(low < 24.5 < high)
    True
    """
    array = np.asarray(values, dtype=np.float64)
    flat = array.reshape(len(array), -1)
    w = np.ones(len(flat)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not w.all():  # rows without weight tell nothing
        flat, w = flat[w > 0], w[w > 0]
    n, d = flat.shape
    if n < 2 or not w.sum() > 0:
        mean = flat.mean(axis=0) if n else np.full(d, np.nan)
        blank = np.full(d, np.nan)
        return _shape(mean, array), _shape(blank, array), _shape(blank.copy(), array)
    share = w / w.sum()
    mean, se = _mean_and_error(flat, share)
    t_low, t_high, close = _expanded(flat, share, mean=mean, n=len(array), level=level)
    drawn = ~close | (n < EXPANSION_ROWS)
    if n <= BOOTSTRAP_ROWS and drawn.any():
        t_low[drawn], t_high[drawn] = _studentised(
            flat[:, drawn], w, mean=mean[drawn], rng=rng, level=level, resamples=resamples
        )
    return _shape(mean, array), _shape(mean - t_high * se, array), _shape(mean - t_low * se, array)


def _shape(values: FloatArray, like: FloatArray) -> FloatArray:
    return np.asarray(values.reshape(like.shape[1:]), dtype=np.float64)


def _blocks(flat: FloatArray, w: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
    for start in range(0, len(flat), BLOCK):
        yield flat[start : start + BLOCK], w[start : start + BLOCK]


def _mean_and_error(flat: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted means (d,) and their standard errors, for weights (n,) whose sum is one."""
    mean, square, cross = np.sum([_sums(x, own) for x, own in _blocks(flat, w)], axis=0)
    variance = square - 2 * mean * cross + mean**2 * float((w * w).sum())
    return mean, np.sqrt(np.maximum(variance, 0.0))


def _sums(x: FloatArray, w: FloatArray) -> FloatArray:
    square = w * w
    return np.stack([w @ x, square @ (x * x), square @ x])


def _expanded(
    flat: FloatArray, w: FloatArray, *, mean: FloatArray, n: int, level: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return the studentised mean's quantiles from its Edgeworth expansion, and where that is close.

    The skewness of the mean moves both quantiles by ``skewness (2 z^2 + 1) / 6`` (Hall 1992, The Bootstrap and
    Edgeworth Expansion, doi:10.1007/978-1-4612-4384-7, section 2.6); on top of Student's quantiles.
    """
    reach = np.max([np.abs(x - mean).max(axis=0) for x, _ in _blocks(flat, w)], axis=0)
    scale = np.maximum(reach, 1e-300)
    powers = [_powers((x - mean) / scale, own) for x, own in _blocks(flat, w)]
    second, third, fourth = np.sum(powers, axis=0)
    variance = np.maximum(second, 1e-60)
    skewness, kurtosis = third / variance**1.5, fourth / variance**2
    low, high = skewed_quantiles(skewness, n=n, level=level)  # of all rows, as sums know them
    close = (np.abs(skewness) <= MOST_SKEWNESS) & (kurtosis <= MOST_KURTOSIS)
    return low, high, close


def _powers(x: FloatArray, w: FloatArray) -> FloatArray:
    """Return the sums of second to fourth powers of weighted rows: array of (3, d)."""
    square, w_square = x * x, w * w  # products are many times faster than powers
    return np.stack(
        [w_square @ square, (w_square * w) @ (square * x), (w_square * w_square) @ (square * square)]
    )


def skewed_quantiles(skewness: FloatArray, *, n: int, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Return the quantiles of the studentised mean of n rows, given the skewness of the mean."""
    z = float(stats.t.ppf(0.5 + level / 2, max(n - 1, 1)))
    shift = np.clip(skewness, -MOST_SKEWNESS, MOST_SKEWNESS) * (2 * z**2 + 1) / 6
    return np.minimum(-z - shift, -z), np.maximum(z - shift, z)


def resampled_counts(
    n: int, *, size: int, rng: np.random.Generator, chosen: IntArray | None = None
) -> FloatArray:
    """Return how often each of n rows is in ``size`` bootstrap resamples: array of shape (size, n).

    Parameters
    ----------
    chosen : ndarray of shape (m,), optional
        The rows that are drawn from, with repetitions; default: each row once.

    Examples
    --------
    >>> resampled_counts(4, size=3, rng=np.random.default_rng(0)).sum(axis=1).tolist()
    [4.0, 4.0, 4.0]
    """
    # counting drawn positions is many times faster than multinomial variates
    counts = np.empty((size, n))
    block = max(1, CACHED // max(n, 1))
    for start in range(0, size, block):
        some = min(block, size - start)
        drawn = rng.integers(n if chosen is None else len(chosen), size=(some, n))
        places = drawn if chosen is None else chosen[drawn]
        places += n * np.arange(some)[:, None]
        counts[start : start + some] = np.bincount(places.ravel(), minlength=some * n).reshape(some, n)
    return counts


def _studentised(
    flat: FloatArray,
    w: FloatArray,
    *,
    mean: FloatArray,
    rng: np.random.Generator,
    level: float,
    resamples: int,
) -> tuple[FloatArray, FloatArray]:
    n = len(flat)
    centred = flat - mean
    scale = np.maximum(np.abs(centred).max(axis=0), 1e-300)
    ratios = []
    # a resample without any of a column's few large rows has almost no error of its own, and its ratio no bound
    _, whole = resampled_mean_and_error(centred / scale, counts=np.ones((1, n)), weights=w)
    least = whole * LEAST_ERROR
    for start in range(0, resamples, 100):
        counts = resampled_counts(n, size=min(100, resamples - start), rng=rng)
        m, s = resampled_mean_and_error(centred / scale, counts=counts, weights=w)
        s = np.maximum(s, least)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(np.where(s > 1e-12, m / s, 0.0))
    t = np.concatenate(ratios)
    tail = (1 - level) / 2
    low, high = np.quantile(t, [tail, 1 - tail], axis=0)
    # a bootstrap-t quantile inside Student's comes from a degenerate column or from a few rows (of two, every other resample
    # is one row twice), not from knowledge; the errors above are without the n - 1 of his
    bound = float(stats.t.ppf(0.5 + level / 2, n - 1)) * np.sqrt(n / (n - 1))
    return np.minimum(low, -bound), np.maximum(high, bound)


def resampled_mean_and_error(
    flat: FloatArray, *, counts: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return weighted means (r, d) and standard errors of resamples given as counts (r, n)."""
    d = flat.shape[1]
    equal = bool((weights == weights[:1]).all())  # then the weights cancel, and one product holds all sums
    w = counts if equal else counts * weights
    square = w if equal else w * weights
    total = w.sum(axis=1, keepdims=True)
    total[total == 0] = 1.0
    sums = square @ np.concatenate([flat, flat**2], axis=1)
    mean = (sums[:, :d] if equal else w @ flat) / total
    size = total if equal else square.sum(axis=1, keepdims=True)
    variance = sums[:, d:] - 2 * mean * sums[:, :d] + mean**2 * size
    return mean, np.sqrt(np.maximum(variance, 0.0)) / total


def rank_interval(
    values: FloatArray, *, weights: FloatArray | None = None, level: float = LEVEL
) -> tuple[IntArray, IntArray]:
    """Return simultaneous rank intervals of the column means of ``values`` (1 = largest mean).

    A column's best rank is one plus the number of columns that are significantly larger, its worst rank d minus the
    number that are significantly smaller; the paired differences of all pairs are tested together with Holm's
    correction, so all intervals hold at once (Mogstad, Romano, Shaikh and Wilhelm 2024, doi:10.1093/restud/rdad006).

    Parameters
    ----------
    values : ndarray of shape (n, d)
    weights : ndarray of shape (n,), optional
    level : float

    Returns
    -------
    low, high : ndarray of int of shape (d,)

    Examples
    --------
    >>> low, high = rank_interval(np.array([[3.0, 1.0, 1.1]] * 30) + np.random.default_rng(0).normal(size=(30, 3)) / 9)
    >>> int(low[0]), int(high[0])
    (1, 1)
    """
    d = values.shape[1]
    separated, difference = separated_pairs(values, weights=weights, level=level)
    low = 1 + (separated & (difference < 0)).sum(axis=1)
    high = d - (separated & (difference > 0)).sum(axis=1)
    return low.astype(np.int64), high.astype(np.int64)


def separated_pairs(
    values: FloatArray, *, weights: FloatArray | None = None, level: float = LEVEL
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which pairs of column means differ significantly (all pairs together, Holm), and the differences.

    Parameters
    ----------
    values : ndarray of shape (n, d)
    weights : ndarray of shape (n,), optional
    level : float

    Returns
    -------
    separated : ndarray of bool of shape (d, d)
    difference : ndarray of shape (d, d)
        Mean of the row's column minus mean of the column's column.
    """
    n, d = values.shape
    n = n if weights is None else int(np.count_nonzero(weights))
    separated = np.zeros((d, d), dtype=bool)
    if n < 2 or d < 2:
        return separated, np.zeros((d, d))
    w = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    mean = w @ values
    centred = (values - mean) * w[:, None]
    cov = centred.T @ centred
    return separated_means(mean, cov, n=n, level=level)


def separated_means(
    mean: FloatArray, covariance: FloatArray, *, n: int, level: float = LEVEL
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return what `separated_pairs` does, from d means over n rows and the covariance (d, d) of the means."""
    d = len(mean)
    separated = np.zeros((d, d), dtype=bool)
    difference = mean[:, None] - mean[None, :]
    own = np.diag(covariance)
    error = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0))
    floor = 1e-12 * max(float(np.abs(mean).max()), 1e-300)
    t = np.where(np.abs(difference) <= floor, 0.0, difference / np.maximum(error, floor))
    upper = np.triu_indices(d, 1)
    adjusted = holm(2 * stats.t.sf(np.abs(t[upper]), max(n - 1, 1)))
    separated[upper] = adjusted < 1 - level
    separated |= separated.T
    return separated, difference


def holm(p: npt.ArrayLike) -> FloatArray:
    """Return Holm-adjusted p-values (NaN stays NaN and does not count).

    Examples
    --------
    >>> holm([0.01, 0.04]).tolist()
    [0.02, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    m = len(order)
    out[order] = np.minimum(np.maximum.accumulate(values[order] * (m - np.arange(m))), 1.0)
    return out


def bootstrap(
    statistic: Callable[[IntArray], float],
    *,
    n: int,
    rng: np.random.Generator,
    resamples: int = 200,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the percentile-bootstrap interval of ``statistic(row positions)``; NaN where it is not defined.

    Resamples on which the statistic is not finite are dropped; with fewer than half left the bounds are NaN.
    """
    if n < 2:
        return float("nan"), float("nan")
    drawn = np.array([statistic(rng.integers(0, n, size=n)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < resamples / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(successes: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Examples
    --------
    >>> [round(v, 3) for v in wilson(5, 10)]
    [0.237, 0.763]
    """
    if n <= 0:
        return float("nan"), float("nan")
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))
    return max(0.0, centre - half), min(1.0, centre + half)


def area(value: float, *, hits: float, misses: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of an area under the ROC curve that rests on few rows of a class.

    Newcombe's method 5 (2006, doi:10.1002/sim.2324): the bounds are the areas whose own standard error, of the
    Hanley-McNeil form, just reaches the observed one. It holds at 0 and 1; a resample of five hits knows only these five.

    Examples
    --------
    >>> [round(v, 2) for v in area(0.9, hits=5, misses=195)]
    [0.66, 0.97]
    """
    if not (np.isfinite(value) and min(hits, misses) > 0):
        return float("nan"), float("nan")
    z = float(stats.norm.ppf(0.5 + level / 2))
    half = (hits + misses) / 2 - 1

    def beyond(true: float) -> float:
        variance = true * (1 - true) * (1 + half * ((1 - true) / (2 - true) + true / (1 + true)))
        return (true - value) ** 2 - z**2 * variance / (hits * misses)

    near, far = 1e-9, 1 - 1e-9  # at 0 and 1 themselves the error is zero
    middle = min(max(value, near), far)
    low = 0.0 if value <= near or beyond(near) <= 0 else float(optimize.brentq(beyond, near, middle))
    high = 1.0 if value >= far or beyond(far) <= 0 else float(optimize.brentq(beyond, middle, far))
    return low, high
