"""Weighted means and co-moments that merge: one pass over blocks of rows, in any order, without cancellation.

Two sets of rows merge by the pairwise update of Chan, Golub and LeVeque (1983, doi:10.1080/00031305.1983.10483115), with
weights as in Pebay et al. (2016, doi:10.1007/s00180-015-0637-z): the means move by their difference, and the co-moments
grow by the square of it. Merging is associative and commutative but for rounding.

The error of a weighted mean needs the squares of the weights (``sum w² (x - mean)²``), so that means and co-moments under
the squared weights are kept beside the mean itself; without weights the two means are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from explain_step.types import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Moments of c columns in each of g groups of rows.

    Attributes
    ----------
    n : ndarray of int of shape (g,)
        Rows.
    weight, square : ndarray of shape (g,)
        Sums of the weights and of their squares.
    mean, centre : ndarray of shape (g, c)
        Means under the weights, and under their squares; zero in groups without weight.
    spread : ndarray of shape (g, c) or (g, c, c)
        Squared (or products of) deviations from ``centre``, summed under the squared weights.
    """

    n: IntArray
    weight: FloatArray
    square: FloatArray
    mean: FloatArray
    centre: FloatArray
    spread: FloatArray

    def take(self, groups: IntArray | slice) -> Moments:
        """Return the given groups."""
        return Moments(**{name: getattr(self, name)[groups] for name in self.__slots__})

    def squared_error(self) -> FloatArray:
        """Return variances (g, c) or covariances (g, c, c) of the weighted means; 0 in groups without weight."""
        gap = self.centre - self.mean
        shape = (-1, *(1,) * (self.spread.ndim - 1))
        between = gap[:, :, None] * gap[:, None, :] if self.spread.ndim == 3 else gap**2
        total = np.where(self.weight > 0, self.weight, 1.0).reshape(shape)
        return np.asarray((self.spread + self.square.reshape(shape) * between) / total**2)

    def error(self) -> FloatArray:
        """Return the standard errors (g, c) of the weighted means."""
        found = self.squared_error()
        variance = found if found.ndim == 2 else np.diagonal(found, axis1=1, axis2=2)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def of(
    values: FloatArray,
    codes: IntArray | None = None,
    *,
    groups: int = 1,
    weights: FloatArray | None = None,
    full: bool = False,
) -> Moments:
    """Return the moments of the columns of ``values`` (n, c) in each group of rows.

    Parameters
    ----------
    codes : ndarray of int of shape (n,), optional
        Group of each row; -1 for none. Without codes all rows are one group.
    weights : ndarray of shape (n,), optional
    full : bool
        Products of all pairs of columns rather than squares; for one group only.

    Examples
    --------
    >>> found = of(np.array([[1.0], [2.0], [9.0]]), np.array([0, 0, 1]), groups=2)
    >>> found.mean.ravel().tolist(), found.spread.ravel().tolist()
    ([1.5, 9.0], [0.5, 0.0])
    """
    where = np.zeros(len(values), dtype=np.int64) if codes is None else codes
    known = where >= 0
    if not known.all():
        values, where = values[known], where[known]
        weights = None if weights is None else weights[known]
    n = np.bincount(where, minlength=groups).astype(np.int64)
    w = np.ones(len(values)) if weights is None else weights
    order = np.argsort(where, kind="stable")
    starts = np.concatenate([[0], np.cumsum(n)])
    weight, mean = _means(values, w, order=order, starts=starts)
    square, centre = (weight, mean) if weights is None else _means(values, w**2, order=order, starts=starts)
    away = values - centre[where]
    if full:
        spread = ((away * (w**2)[:, None]).T @ away)[None]
    else:
        spread = _sums(away**2 * (w**2)[:, None], order=order, starts=starts)
    return Moments(n=n, weight=weight, square=square, mean=mean, centre=centre, spread=spread)


def _means(
    values: FloatArray, w: FloatArray, *, order: IntArray, starts: IntArray
) -> tuple[FloatArray, FloatArray]:
    total = _sums(w[:, None], order=order, starts=starts)[:, 0]
    sums = _sums(values * w[:, None], order=order, starts=starts)
    return total, sums / np.where(total > 0, total, 1.0)[:, None]


def _sums(values: FloatArray, *, order: IntArray, starts: IntArray) -> FloatArray:
    """Return the column sums (g, c) of the groups ``order[starts[i]:starts[i + 1]]``."""
    groups = len(starts) - 1
    if groups == 1:
        return np.asarray(values.sum(axis=0, keepdims=True))
    out = np.zeros((groups, values.shape[1]))
    held = np.flatnonzero(np.diff(starts))
    if len(held):
        out[held] = np.add.reduceat(values[order], starts[held], axis=0)
    return out


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of both sets of rows, group by group.

    Examples
    --------
    >>> x = np.arange(6.0)[:, None]
    >>> both, whole = merge(of(x[:2]), of(x[2:])), of(x)
    >>> both.mean.item() == whole.mean.item(), both.spread.item() == whole.spread.item()
    (True, True)
    """
    weight, square = a.weight + b.weight, a.square + b.square
    gap = b.centre - a.centre
    factor = a.square * _part(b.square, square)
    products = gap[:, :, None] * gap[:, None, :] if a.spread.ndim == 3 else gap**2
    between = factor.reshape(-1, *(1,) * (products.ndim - 1)) * products
    return Moments(
        n=a.n + b.n,
        weight=weight,
        square=square,
        mean=a.mean + (b.mean - a.mean) * _part(b.weight, weight)[:, None],
        centre=a.centre + gap * _part(b.square, square)[:, None],
        spread=a.spread + b.spread + between,
    )


def _part(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def joined(parts: list[Moments]) -> Moments:
    """Return the groups of all parts, one after the other."""
    return Moments(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in Moments.__slots__})


def pooled(found: Moments) -> Moments:
    """Return all groups as one."""
    return reduce(merge, (found.take(slice(g, g + 1)) for g in range(len(found.n))))
