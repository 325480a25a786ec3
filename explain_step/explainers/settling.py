"""From contributions per pair of walks to values that sum exactly, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explain_step.explainers.masking import BoolArray
from explain_step.explainers.walks import Sample, is_balanced
from explain_step.types import FloatArray

SHRINKAGE = 0.25
PRIOR = 4.0
PARTS = 4
"""The pairs of a row are dealt out to this many parts, whose values show how much the noise changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """Values and standard errors (n, d, k), and the values from each part of the pairs (`PARTS`, n, d, k).

    ``parts`` is None with fewer pairs than parts. Their mean is ``values``.
    """

    values: FloatArray
    error: FloatArray
    parts: FloatArray | None


def settle(sample: Sample, *, start: FloatArray, end: FloatArray, active: BoolArray) -> Settled:
    """Return values that sum exactly to output minus base value, with standard errors.

    A pair's contributions sum to the explained row's output minus its background row's output. The mean of
    the latter over the whole background is known, so it serves as a control variate: each column's
    contributions are regressed on it, per row, with the slopes drawn a little towards those of all rows. The
    slopes of all columns sum to -1, hence the values to the output minus the base value. Columns that never
    contributed in a row stay exactly zero; what that leaves over is shared in proportion to the values'
    variances.

    Parameters
    ----------
    sample : Sample
        With p pairs per row.
    start, end : ndarray of shape (m, n_outputs) and (n_given, n_outputs)
        Outputs on the background and on the explained rows.
    active : ndarray of bool of shape (n, d)
        Whether the row differs from any background row in the column.
    """
    base = start.mean(axis=0)
    drawn = start[sample.partner]
    pairs = drawn.shape[1]
    mean = sample.contributions.mean(axis=1)
    centred = sample.contributions - mean[:, None]
    drift = drawn - drawn.mean(axis=1, keepdims=True)
    square = (centred**2).sum(axis=1)
    cross = np.einsum("npdk,npk->ndk", centred, drift)
    spread = (drift**2).sum(axis=1)[:, None, :]
    touched = (square > 0) | (mean != 0)
    slope = _ratio(
        cross + SHRINKAGE * cross.mean(axis=0, keepdims=True),
        spread + SHRINKAGE * spread.mean(axis=0, keepdims=True),
    )
    slope = np.where(touched, slope, 0.0)
    values = mean - slope * (drawn.mean(axis=1) - base)[:, None, :]
    left = (end[sample.rows] - base) - values.sum(axis=1)
    values = values + left[:, None, :] * _shares(square, np.abs(mean), active)
    residual, degrees = np.maximum(square - 2 * slope * cross + slope**2 * spread, 0.0), max(pairs - 2, 1)
    changes = [centred[:, q::PARTS].mean(axis=1) for q in range(min(PARTS, pairs))]
    changes = [
        change - slope * drift[:, q::PARTS].mean(axis=1)[:, None, :] for q, change in enumerate(changes)
    ]
    if pairs >= 2 * len(start) and is_balanced(sample, len(start)):
        within = _within_partner(sample, len(start))
        residual, degrees = (within**2).sum(axis=1), pairs - len(start)
        # residuals are smaller than errors, as much as their degrees of freedom are fewer than the pairs
        within *= np.sqrt(pairs / degrees)
        changes = [within[:, q::PARTS].mean(axis=1) for q in range(min(PARTS, pairs))]
    # few pairs say little about their own variance: the other rows' lends it PRIOR degrees of freedom, also
    # where a column that could have changed never did
    typical = residual.mean(axis=0) / degrees
    variance = (residual + PRIOR * typical) / (degrees + PRIOR)
    return Settled(
        values=values,
        error=np.where(active[:, :, None], np.sqrt(variance / pairs), 0.0),
        parts=_around(values, np.stack(changes)) if pairs >= PARTS else None,
    )


def _around(values: FloatArray, changes: FloatArray) -> FloatArray:
    """Return values (parts, n, d, k) that differ as ``changes`` do and whose mean is ``values``."""
    return np.asarray(values + (changes - changes.mean(axis=0)))


def _within_partner(sample: Sample, m: int) -> FloatArray:
    """Return differences from the mean of pairs with the same background row (n, pairs, d, k), by round.

    Each background row was used equally often. The background then is no source of error: only pairs with
    the same background row are compared.
    """
    n, pairs = sample.partner.shape
    by_partner = np.argsort(sample.partner, axis=1, kind="stable")[:, :, None, None]
    grouped = np.take_along_axis(sample.contributions, by_partner, axis=1)
    grouped = grouped.reshape(n, m, pairs // m, *sample.contributions.shape[2:])
    centred = (grouped - grouped.mean(axis=2, keepdims=True)).swapaxes(1, 2)
    return np.asarray(centred.reshape(n, pairs, *sample.contributions.shape[2:]))


def _shares(square: FloatArray, size: FloatArray, active: BoolArray) -> FloatArray:
    """Return shares (n, d, k) of a remainder: by variance, else by size, else equal among active columns."""
    even = np.broadcast_to(active[:, :, None], square.shape).astype(np.float64)
    shares = [_ratio(part, part.sum(axis=1, keepdims=True)) for part in (square, size, even)]
    by_size = np.where(size.sum(axis=1, keepdims=True) > 0, shares[1], shares[2])
    return np.where(square.sum(axis=1, keepdims=True) > 0, shares[0], by_size)


def _ratio(upper: FloatArray, lower: FloatArray) -> FloatArray:
    return np.divide(
        upper, lower, out=np.zeros(np.broadcast_shapes(upper.shape, lower.shape)), where=lower > 0
    )
