"""Mean absolute attributions inside and outside of a segment, and whether they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from explain_step.types import FloatArray

NAN = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A value with its interval and, for a difference, its two-sided p-value."""

    value: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN

    def negated(self) -> Estimate:
        """Return the difference the other way round."""
        return Estimate(value=-self.value, low=-self.high, high=-self.low, p=self.p)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Weighted mean of each column, its standard error and the number of rows."""

    mean: FloatArray
    error: FloatArray
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Differences of means with interval and two-sided p-value, one per column."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray

    def negated(self) -> Difference:
        """Return the difference the other way round."""
        return Difference(value=-self.value, low=-self.high, high=-self.low, p=self.p)

    def with_column(self, column: int, found: Estimate) -> Difference:
        """Return the differences with another estimate of one of them."""
        changed = {name: getattr(self, name).copy() for name in self.__slots__}
        for name, values in changed.items():
            values[column] = getattr(found, name)
        return Difference(**changed)


def moments(values: FloatArray, weights: FloatArray | None = None) -> Moments:
    """Return the (weighted) mean of each column of ``values`` (n, d) and its standard error.

    The error of a weighted mean is the linearised one, sum of w²(x - mean)² over the squared sum of w, times
    n/(n-1).

    Examples
    --------
    >>> m = moments(np.array([[1.0], [3.0]]))
    >>> float(m.mean[0]), float(m.error[0])
    (2.0, 1.0)
    """
    n, d = values.shape
    w = np.ones(n) if weights is None else weights
    if n == 0 or not w.sum() > 0:
        return Moments(mean=np.full(d, np.nan), error=np.full(d, np.nan), n=n)
    share = w / w.sum()
    mean = share @ values
    if n == 1:
        return Moments(mean=mean, error=np.full(d, np.nan), n=1)
    error = np.sqrt(share**2 @ (values - mean) ** 2 * n / (n - 1))
    return Moments(mean=mean, error=error, n=n)


def welch(inside: Moments, outside: Moments, *, level: float = 0.95) -> Difference:
    """Return the difference of two means with Welch's interval and p-value.

    Unequal variances and sizes are allowed for (Welch 1947, doi:10.1093/biomet/34.1-2.28). Columns without
    any variation on either side get a degenerate interval, p = 1 where the means agree and p = 0 where they
    do not.

    Examples
    --------
    >>> a, b = moments(np.array([[0.0], [2.0]])), moments(np.array([[0.0], [2.0]]))
    >>> float(welch(a, b).p[0])
    1.0
    """
    gap = inside.mean - outside.mean
    variance = inside.error**2 + outside.error**2
    error = np.sqrt(variance)
    size = np.maximum(np.abs(inside.mean), np.abs(outside.mean))
    flat = error <= 1e-12 * np.maximum(size, 1e-300)
    safe = np.where(flat, 1.0, error)
    degrees = np.where(flat, 1.0, _degrees(inside, outside, variance=np.where(flat, 1.0, variance)))
    half = np.where(flat, 0.0, stats.t.ppf(0.5 + level / 2, degrees) * safe)
    same = np.abs(gap) <= 1e-12 * np.maximum(size, 1e-300)
    p = np.where(flat, np.where(same, 1.0, 0.0), 2 * stats.t.sf(np.abs(gap) / safe, degrees))
    p = np.where(np.isnan(gap) | np.isnan(error), np.nan, p)
    return Difference(value=gap, low=gap - half, high=gap + half, p=p)


def _degrees(inside: Moments, outside: Moments, *, variance: FloatArray) -> FloatArray:
    """Return the Welch-Satterthwaite degrees of freedom."""
    parts = inside.error**4 / max(inside.n - 1, 1) + outside.error**4 / max(outside.n - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = variance**2 / parts
    return np.asarray(np.where(np.isfinite(degrees), degrees, 1.0), dtype=np.float64)
