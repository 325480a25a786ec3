"""Mean |SHAP| of estimated attributions, without what their sampling noise adds to it.

The size of a noisy value is on average larger than the size of the true one. Let ``M(t)`` be the mean size over
rows with t times the noise variance of the values: M(1) is seen, M(0) is wanted. M(2) and M(4) are seen in
halves and quarters of the random draws (or, without parts, follow from normal noise), which shows how M grows,
and M is extrapolated to no noise (Cook and Stefanski 1994, doi:10.1080/01621459.1994.10476871). Its slope F(t)
is the density at zero of the noisy values, up to scale, so only rows that may have either sign count; the
extrapolation takes ``1 / F²`` to be linear in t, which is exact for values that are all zero and for normally
distributed ones. No method is unbiased for every distribution (Cai and Low 2011, doi:10.1214/10-AOS849).

Measured in simulations of 500 rows, in units of the standard error s of one value. The plain mean is too large
by 0.79 (no effect), 0.73 (no effect in 90% of the rows), 0.49, 0.33, 0.18 and 0.06 (normal effects of 0.5, 1, 2
and 5 s). Of that 0.13, 0.10 and at most 0.05 in size are left; the worst found is -0.11, for effects of exactly
plus or minus s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from explain_step.types import Attributions, FloatArray

NOISE = (
    "Noise of the estimated values makes |SHAP| larger on average. What it adds is judged by how much more halves and "
    "quarters of the draws give, extrapolated to no noise (Cook and Stefanski 1994), and subtracted; "
    "mean_abs_shap_raw is the plain mean."
)
STEEPEST = 0.25
"""A square root is differentiated no nearer to zero than here, see `_extrapolated`."""
SOLVE_STEPS = 20
NEGLIGIBLE = 1e-9
"""Of the largest mean size: noise below it is rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What each row adds to a mean |SHAP|.

    Attributes
    ----------
    rows : ndarray of shape (n, d, k)
        Sizes, corrected for noise; a single one may be negative, their mean over rows is not.
    ceiling : ndarray of shape (d, k), optional
        No lower bound of a mean may exceed it; None where the values are exact.
    """

    rows: FloatArray
    ceiling: FloatArray | None


def sizes(attributions: Attributions, *, weights: FloatArray | None = None) -> Sizes:
    """Return the sizes |SHAP| of all rows (n, d, k), corrected where the values have a standard error.

    The mean over rows of the corrected sizes is at most the mean of the plain ones and at least the size of
    the mean signed value, hence never negative. Each row carries its influence on the correction, so that an
    interval of the mean covers both the choice of rows and the noise.

    Parameters
    ----------
    attributions : Attributions of n rows, d features and k outputs
    weights : ndarray of shape (n,), optional
        Sample weights of the rows.
    """
    values, error = attributions.values, attributions.standard_error
    if error is None or not len(values):
        return Sizes(rows=np.abs(values), ceiling=None)
    w = np.ones(len(values)) if weights is None else weights
    w = w / w.sum()
    rows, ceiling = np.empty_like(values), np.empty(values.shape[1:])
    for k in range(values.shape[2]):
        parts = None if attributions.parts is None else attributions.parts[..., k]
        rows[:, :, k] = corrected(values[:, :, k], error[:, :, k], parts=parts, weights=w)
        ceiling[:, k] = _ceiling(values[:, :, k], error[:, :, k], weights=w)
    return Sizes(rows=rows, ceiling=ceiling)


def corrected(
    values: FloatArray, error: FloatArray, *, parts: FloatArray | None = None, weights: FloatArray
) -> FloatArray:
    """Return corrected sizes (n, d) of values with standard errors (n, d); weights (n,) sum to one.

    Parameters
    ----------
    values, error : ndarray of shape (n, d)
    parts : ndarray of shape (4, n, d), optional
        Values from quarters of the draws; without them the noise is taken as normal.
    weights : ndarray of shape (n,)

    Examples
    --------
    >>> true, noise = np.random.default_rng(0).normal(size=(2, 4000, 1))
    >>> found = corrected(true + noise, np.ones((4000, 1)), weights=np.full(4000, 1 / 4000))
    >>> [round(float(v.mean()), 1) for v in (np.abs(true), np.abs(true + noise), found)]
    [0.8, 1.1, 0.8]
    """
    rise = _rise_of_normal(values, error) if parts is None else _rise_of_parts(values, parts)
    floor = NEGLIGIBLE * float((weights @ np.abs(values)).max(initial=0.0))
    rows = np.abs(values) - _excess(*rise, weights=weights, floor=floor)
    signed = weights @ values
    # the mean size is at least the size of the mean, which noise does not bias
    return np.where(weights @ rows >= np.abs(signed), rows, np.sign(signed) * values)


def _rise_of_parts(values: FloatArray, parts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how much sizes rise (n, d) from all draws to halves, and from halves to quarters.

    A row's size rises only where its parts have different signs.
    """
    quarter = np.abs(parts).mean(axis=0)
    pairs = list(combinations(range(len(parts)), 2))
    half = np.zeros_like(quarter)
    for a, b in pairs:
        half += np.abs(parts[a] + parts[b]) / (2 * len(pairs))
    return np.maximum(half - np.abs(values), 0.0), quarter - half


def _rise_of_normal(values: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the same for normal noise: from one to two and from two to four times its variance."""
    double, fourfold = (_folded(values, scale * error) for scale in (1.0, np.sqrt(3.0)))
    return double - np.abs(values), fourfold - double


def _folded(values: FloatArray, error: FloatArray) -> FloatArray:
    """Return the mean size of normal variables with these means and standard deviations."""
    from scipy import special

    scaled = np.divide(values, error, out=np.zeros(values.shape), where=error > 0)
    added = error * np.sqrt(2 / np.pi) * np.exp(-(scaled**2) / 2) + values * special.erf(scaled / np.sqrt(2))
    return np.asarray(np.where(error > 0, added, np.abs(values)))


def _excess(to_half: FloatArray, to_quarter: FloatArray, *, weights: FloatArray, floor: float) -> FloatArray:
    """Return what noise adds to the sizes: rows (n, d) whose mean is the excess of the mean.

    The excess is ``f1 * factor(f1 / f2)`` of two means over rows; the rows are its linear expansion in them. Means below
    ``floor`` are rounding errors, whose ratio is another on every processor: they are left as they are.
    """
    first, second = to_half, to_quarter / 2
    f1, f2 = weights @ first, weights @ second
    some = (f1 > max(floor, 1e-200)) & (f2 > max(floor, 1e-200))
    f1, f2 = np.where(some, f1, 1.0), np.where(some, f2, 1.0)
    ratio = f1 / f2
    factor, slope = _extrapolated(ratio)
    rows = factor * f1 + (factor + slope * ratio) * (first - f1) - slope * ratio**2 * (second - f2)
    return np.asarray(np.where(some, rows, first))


def _extrapolated(ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return M(1) - M(0) as a multiple of f1 = M(2) - M(1), and its slope in ``ratio``.

    ``ratio`` is f1 / f2, with f2 = (M(4) - M(2)) / 2. With ``G = 1 / F²`` linear in t and G(1) = 1 the mean of
    F from a to b is ``2 / (sqrt(G(a)) + sqrt(G(b)))``, and ``a = sqrt(G(2))`` solves a quadratic equation. G(0)
    is zero at a ratio of sqrt(2), where all values are zero; it cannot be smaller.
    """
    r = np.clip(ratio, np.sqrt(2 / 3) / (1 + np.sqrt(2 / 3)), np.sqrt(2.0))
    a = (r * (r - 1) + np.sqrt((r * (r - 1)) ** 2 + (3 - (r - 1) ** 2) * (r**2 + 2))) / (3 - (r - 1) ** 2)
    none, four = np.sqrt(np.maximum(2 - a**2, 0.0)), np.sqrt(np.maximum(3 * a**2 - 2, 0.0))
    factor = (1 + a) / (1 + none)
    # infinitely steep where G(0) is zero: no expansion holds there, and the slope is limited
    by_a = 1 / (1 + none) + (1 + a) * a / ((1 + none) ** 2 * np.maximum(none, STEEPEST))
    a_by_r = (1 + a) ** 2 * four / ((four + 3 * a) * (1 + a) - (a + four) * four)
    return factor, by_a * a_by_r


def _ceiling(values: FloatArray, error: FloatArray, *, weights: FloatArray) -> FloatArray:
    """Return the root mean square (d,) that the values have beyond their noise, less what chance may add.

    A root mean square is at least the mean size; zero says that the values cannot be told from noise.
    """
    beyond = weights @ (values**2 - error**2)
    chance = 1.96 * np.sqrt(2.0 * (weights**2 @ error**4))
    return np.asarray(np.sqrt(np.maximum(beyond - chance, 0.0)))


def error_of_sums(error: FloatArray, partition: Sequence[Sequence[int]]) -> FloatArray:
    """Return standard errors (n, sets, k) of sums of columns, from those of the columns (n, d, k).

    The values of a row sum exactly to a known number, so their errors sum to zero. They are taken as
    independent errors given that sum: with independent variances v the variance of a set is ``v_set (1 -
    v_set / v_all)``. That is exact for one column, for all columns, and for all but one.
    """
    square = error**2
    free = square.copy()
    for _ in range(SOLVE_STEPS):
        free = square / (1.0 - np.minimum(_part(free, free.sum(axis=1, keepdims=True)), 0.5))
    total = free.sum(axis=1)
    sums = []
    for members in partition:
        inside = free[:, list(members)].sum(axis=1)
        spread = np.sqrt(np.maximum(inside * (1.0 - _part(inside, total)), 0.0))
        sums.append(error[:, members[0]] if len(members) == 1 else spread)
    return np.stack(sums, axis=1)


def _part(upper: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(upper, whole, out=np.zeros_like(upper), where=whole > 0)
