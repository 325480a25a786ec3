"""When estimates are precise enough, and what to draw next when they are not: more rows, or more pairs per row.

The decisions rest on counts and on the values drawn so far, never on the machine's speed. Each step enlarges the sample
by at least half, so that there are few looks; the interval that stops the growth is then hardly narrower than one of a
sample whose size was fixed beforehand (Glynn and Whitt 1992, doi:10.1214/aoap/1177005777: a rule that stops at a
width keeps its coverage as the width asked for shrinks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explain_step.types import FloatArray

TOO_NOISY = 0.5
"""Estimates whose standard error is more than this part of a typical value degrade the explanation."""
Z = 1.959964
LEAST, MOST = 1.5, 4.0
"""A step enlarges the rows at least and at most by these factors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How many rows are explained, with how many antithetic pairs each: fixed by counts, not by speed."""

    rows: int
    pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Width:
    """How wide the intervals of the leading columns' mean |value| are, as parts of the largest mean.

    Attributes
    ----------
    whole : float
        Half a 95% interval: it covers which rows were drawn, and the noise of the values.
    of_rows : float
        The part that more pairs of walks would leave.
    """

    whole: float
    of_rows: float


def width(values: FloatArray, error: FloatArray, *, top: int, weights: FloatArray | None = None) -> Width:
    """Return the widest interval among the ``top`` columns of any output.

    Parameters
    ----------
    values, error : ndarray of shape (n, d, k)
    top : int
        So many columns, by mean |value|, are looked at in each output.
    weights : ndarray of shape (n,), optional

    Examples
    --------
    >>> values = np.array([1.0, 3.0, 1.0, 3.0]).reshape(4, 1, 1)
    >>> round(width(values, np.zeros((4, 1, 1)), top=3).whole, 2)
    0.57
    """
    n = len(values)
    if n < 2:
        return Width(whole=np.inf, of_rows=np.inf)
    w = np.full(n, 1 / n) if weights is None or not weights.sum() > 0 else weights / weights.sum()
    size = np.abs(values)
    mean = np.einsum("n,ndk->dk", w, size)
    spread = np.einsum("n,ndk->dk", w**2, (size - mean) ** 2) * (n / (n - 1))
    noise = np.einsum("n,ndk->dk", w**2, error**2)
    leading = np.argsort(-mean, axis=0, kind="stable")[:top]
    scale = mean.max(axis=0)
    parts = [np.maximum(spread, noise), np.maximum(spread - noise, 0.0)]
    widths = [_widest(np.take_along_axis(np.sqrt(p), leading, axis=0), scale) for p in parts]
    return Width(whole=widths[0], of_rows=widths[1])


def _widest(half: FloatArray, scale: FloatArray) -> float:
    parts = np.divide(Z * half, scale, out=np.zeros_like(half), where=scale > 0)
    return float(parts.max(initial=0.0))


def noise(values: FloatArray, error: FloatArray) -> float:
    """Return the standard error of a typical value as a part of its size; 0 where all values are zero."""
    size = float(np.sqrt(np.mean(values**2)))
    return float(np.sqrt(np.mean(error**2))) / size if size > 0 else 0.0


def next_plan(
    now: Plan, *, most: Plan, work: int, width: Width, noise: float, precision: float | None
) -> Plan | None:
    """Return the enlarged sample that is needed next, or None where nothing more is to be gained.

    Parameters
    ----------
    now : Plan
        What is done.
    most : Plan
        Most rows and most pairs.
    work : int
        Most rows times pairs.
    width : Width
    noise : float
        See `noise`: above `TOO_NOISY` more pairs are drawn, whatever is asked for.
    precision : float, optional
        Largest width asked for; none without it.

    Examples
    --------
    >>> few, many = Plan(rows=100, pairs=10), Plan(rows=5000, pairs=400)
    >>> wide = Width(whole=0.1, of_rows=0.09)
    >>> next_plan(few, most=many, work=10**6, width=wide, noise=0.1, precision=0.07)
    Plan(rows=225, pairs=10)
    >>> next_plan(few, most=many, work=10**6, width=wide, noise=0.1, precision=0.2) is None
    True
    >>> next_plan(few, most=many, work=10**6, width=wide, noise=0.8, precision=None)
    Plan(rows=100, pairs=20)
    """
    wide = precision is not None and width.whole > precision
    if wide and now.rows < most.rows:
        factor = float(np.clip(1.1 * (width.whole / (precision or 1.0)) ** 2, LEAST, MOST))
        rows = min(most.rows, int(np.ceil(now.rows * factor)), work // now.pairs)
        if rows > now.rows:
            return Plan(rows=rows, pairs=now.pairs)
    worth = wide and precision is not None and width.of_rows < precision
    if noise > TOO_NOISY or worth:
        pairs = min(2 * now.pairs, most.pairs, work // now.rows)
        if pairs > now.pairs:
            return Plan(rows=now.rows, pairs=pairs)
    return None
