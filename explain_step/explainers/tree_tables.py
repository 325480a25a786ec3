"""Shapley values of one leaf's indicator game, for every pattern of the explained row at once.

A leaf depends on k distinct columns. Bit i of a row's *pattern* says whether the row's value of column i
satisfies all conditions on column i along the path. With the row's pattern p and a background row's pattern
q, the hybrid row that takes the columns S from the row and the rest from the background row reaches the
leaf exactly when every column i has its bit set in p (i in S) or in q (i not in S). The Shapley values of
that 0/1 game have a closed form in ``A = not q`` (columns that only the row passes) and ``B = not p``
(columns that only the background row passes): ``(|A|-1)! |B|! / (|A|+|B|)!`` for i in A, ``-|A|! (|B|-1)! /
(|A|+|B|)!`` for i in B, 0 elsewhere; when some column fails in both, the leaf is out of reach and the
values are 0.

What is averaged over the background depends on the rows only through the histogram of q, so that one table
per leaf answers every explained row.

References ---------- Nadel & Wettenstein, WOODELF, arXiv:2511.09376 (leaf-pattern tables); Yang,
arXiv:2109.09847 (weights in closed form); Owen, Multilinear extensions of games, Management Science 18
(1972), doi:10.1287/mnsc.18.5.64 (the Beta integral).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import comb

from explain_step.types import FloatArray, IntArray, frozen_array

Patterns = npt.NDArray[np.unsignedinteger[npt.NBitBase]]
_PAIRS_AT_ONCE = 1 << 22
"""Pattern pairs tested in one go by `paired_tables`: bounds memory, changes no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weights:
    """Constants of `dense_tables` for k columns: they depend on nothing but k."""

    powers: FloatArray  # (2^k, nodes): t^|A|
    outside: FloatArray  # (2^k, nodes): weight of the columns that the row fails
    inside: FloatArray  # (2^k, nodes): weight of the pattern itself
    below: FloatArray  # (2^k, nodes): weight of the pattern without one of its columns
    without: IntArray  # (k, 2^k): pattern with bit i cleared
    has: npt.NDArray[np.bool_]  # (k, 2^k): bit i is set


@cache
def _weights(k: int) -> _Weights:
    """Return the quadrature weights."""
    t, w = subset_nodes(k).T
    patterns = np.arange(1 << k)
    bits = 1 << np.arange(k)[:, None]
    has = (patterns & bits) != 0
    size = has.sum(axis=0)[:, None]
    return _Weights(
        powers=frozen_array(t**size),
        outside=frozen_array(w * (1 - t) ** (k - size - 1.0)),
        inside=frozen_array(w / t * (1 - t) ** (k - size)),
        below=frozen_array(w / t * (1 - t) ** (k - size - 1.0)),
        without=frozen_array(patterns & ~bits, dtype=np.int64),
        has=frozen_array(has, dtype=np.bool_),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """What the values of games over k columns are made of, by pattern: arrays of shape (games, 2^k).

    A column that the row fails has the value ``-outside[p]``; a column i that the row passes has the value
    ``inside[p] - below[p without i]``.
    """

    outside: FloatArray
    inside: FloatArray
    below: FloatArray


@cache
def subset_nodes(k: int) -> FloatArray:
    """Return nodes and weights on [0, 1], of shape (nodes, 2): Gauss-Legendre, exact for degree k-1."""
    nodes, weights = np.polynomial.legendre.leggauss(max(1, (k + 1) // 2))
    return frozen_array(np.stack([(nodes + 1) / 2, weights / 2], axis=1))


def subset_worth(histograms: FloatArray, *, k: int) -> FloatArray:
    """Return ``sum over A subset of p of h[not A] t^|A|`` for all patterns p and nodes t: (2^k, nodes, games).

    Parameters
    ----------
    histograms : ndarray of shape (games, 2^k)
        Share of the background with each pattern.
    k : int
        Number of columns, at least 1.
    """
    by_missing = histograms[:, ::-1].T[:, None, :]  # entry A holds the share of q = not A
    sums = _weights(k).powers[:, :, None] * by_missing
    flat = sums.reshape(1 << k, -1)
    for bit in range(k):
        split = flat.reshape(-1, 2, 1 << bit, flat.shape[1])
        split[:, 1] += split[:, 0]
    return sums


def subset_sums(histograms: FloatArray, *, k: int) -> Sums:
    """Return the sums behind the Shapley values of indicator games, for all patterns.

    The Shapley value is the integral over t in [0, 1] of the multilinear extension's derivative. For each
    quadrature node, one subset-sum transform gives ``sum over A subset of p of h[not A] t^|A|`` for all p.

    Parameters
    ----------
    histograms : ndarray of shape (games, 2^k)
        Share of the background with each pattern.
    k : int
        Number of columns, at least 1.
    """
    c = _weights(k)
    sums = subset_worth(histograms, k=k)
    outside, inside, below = (
        np.ascontiguousarray(np.einsum("ptg,pt->pg", sums, weight).T)
        for weight in (c.outside, c.inside, c.below)
    )
    return Sums(outside=outside, inside=inside, below=below)


def dense_tables(sums: Sums, *, k: int) -> FloatArray:
    """Return the Shapley values for all patterns: ``[game, column, pattern]``, of shape (games, k, 2^k).

    Examples
    --------
    >>> dense_tables(subset_sums(np.array([[0.25, 0.75]]), k=1), k=1)[0, 0].tolist()
    [-0.75, 0.25]
    """
    c = _weights(k)
    tables = np.take(sums.below, c.without, axis=1)
    np.subtract(sums.inside[:, None, :], tables, out=tables)
    np.copyto(tables, -sums.outside[:, None, :], where=~c.has)
    return tables


def values_at(sums: Sums, patterns: IntArray, *, game: int, k: int) -> FloatArray:
    """Return one game's Shapley values for some rows' patterns: array of shape (k, rows).

    The same numbers as looking the patterns up in `dense_tables`, cheaper for fewer rows than patterns.
    """
    bits = 1 << np.arange(k)[:, None]
    values = np.take(sums.below[game], patterns & ~bits)
    np.subtract(sums.inside[game][patterns], values, out=values)
    np.copyto(values, -sums.outside[game][patterns], where=(patterns & bits) == 0)
    return values


@cache
def _pair_weights(k: int) -> tuple[FloatArray, FloatArray]:
    """Return the weights of columns in A and in B, indexed by (|A|, |B|)."""
    a, b = np.meshgrid(np.arange(k + 1), np.arange(k + 1), indexing="ij")
    choose = comb(a + b, a)
    plus = np.divide(1.0, a * choose, out=np.zeros(a.shape), where=a > 0)
    minus = np.divide(1.0, b * choose, out=np.zeros(a.shape), where=b > 0)
    return frozen_array(plus), frozen_array(minus)


def pattern_bits(patterns: Patterns, *, k: int) -> npt.NDArray[np.bool_]:
    """Return the bits of packed patterns: array of shape (len(patterns), k)."""
    shifts = np.arange(k, dtype=patterns.dtype)
    bits: npt.NDArray[np.bool_] = ((patterns[:, None] >> shifts) & patterns.dtype.type(1)).astype(np.bool_)
    return bits


def paired_tables(patterns: Patterns, background: Patterns, shares: FloatArray, *, k: int) -> FloatArray:
    """Return the Shapley values of one indicator game for the given patterns only.

    For leaves with many columns, where 2^k entries would not fit: every pair of an explained pattern and a
    background pattern that can reach the leaf is summed.

    Parameters
    ----------
    patterns : ndarray of shape (u,)
        Patterns of explained rows.
    background : ndarray of shape (v,)
        Patterns of background rows, of the same unsigned dtype.
    shares : ndarray of shape (v,)
        Share of the background with each pattern.

    Returns
    -------
    ndarray of shape (k, u)
    """
    step = max(1, _PAIRS_AT_ONCE // max(1, len(background)))
    parts = [
        _pairs(patterns[start : start + step], background, shares, k=k)
        for start in range(0, len(patterns), step)
    ]
    return np.concatenate(parts, axis=1) if parts else np.zeros((k, 0))


def _pairs(patterns: Patterns, background: Patterns, shares: FloatArray, *, k: int) -> FloatArray:
    plus_weight, minus_weight = _pair_weights(k)
    ours, theirs = pattern_bits(patterns, k=k), pattern_bits(background, k=k)
    if patterns.dtype == object:
        meet = _disjoint(~ours, ~theirs)
    else:
        meet = (patterns[:, None] | background[None, :]) == patterns.dtype.type((1 << k) - 1)
    reached = np.flatnonzero(meet)
    row = reached // len(background)
    other = reached - row * len(background)
    a, b = k - theirs.sum(axis=1)[other], k - ours.sum(axis=1)[row]
    share = shares[other]
    minus = np.bincount(row, weights=share * minus_weight[a, b], minlength=len(patterns))
    starts = np.searchsorted(row, np.arange(len(patterns) + 1))
    plus = csr_matrix((share * plus_weight[a, b], other, starts), shape=(len(patterns), len(background)))
    values: FloatArray = np.where(ours, plus @ (~theirs).astype(np.float64), -minus[:, None]).T
    return values


def _disjoint(some: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which two rows of bits have none in common; a product of matrices would wait for BLAS's threads."""
    common = np.zeros((len(some), len(others)), dtype=np.bool_)
    for a, b in zip(*(np.packbits(bits, axis=1).T for bits in (some, others)), strict=True):
        common |= (a[:, None] & b) != 0
    return ~common
