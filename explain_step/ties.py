"""Which numbers are one number but for rounding noise.

A forest adds the answers of its trees in the order in which threads end: equal answers differ in their last bits, and
otherwise on each run. Whatever sorts rows by the model's output has to take them for ties, or another run draws other
rows and ranks other pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explain_step.types import FloatArray, IntArray

APART = 1e-12
"""Of their size: neighbours that are closer are ties. The mean of a thousand trees has noise of about 4e-15."""
APART_INSIDE = 1e-10
"""Of the smaller distance to 0 and 1: a sure classifier's probabilities may truly differ by 1e-15."""


def dense_ranks(values: FloatArray) -> IntArray:
    """Return 0, 1, … of n values in ascending order, the same for values that only noise tells apart.

    Examples
    --------
    >>> dense_ranks(np.array([0.3, 0.1, 0.1 + 0.2])).tolist(), 0.1 + 0.2 > 0.3
    ([1, 0, 1], True)
    """
    order = np.argsort(values)
    ordered: Any = values[order]
    return _ranks(order, ordered[1:] > just_above(ordered[:-1]))


def score_ranks(values: FloatArray, *, unit: bool | None = None) -> IntArray:
    """Return `dense_ranks` of ranking scores: where all are in [0, 1], values near 1 are told apart as those near 0 are.

    Parameters
    ----------
    values : ndarray of shape (n,)
    unit : bool, optional
        Whether all are in [0, 1], where these values are only some of them.

    Examples
    --------
    >>> score_ranks(np.array([1 - 1e-15, 0.5, 1 - 3e-15])).tolist()
    [2, 0, 1]
    """
    if not (is_unit(values) if unit is None else unit):
        return dense_ranks(values)
    order = np.argsort(values)
    ordered: Any = values[order]
    room = np.minimum(ordered[:-1], 1 - ordered[1:])
    return _ranks(order, ordered[1:] - ordered[:-1] > APART_INSIDE * room)


def is_unit(values: FloatArray) -> bool:
    """Return whether there are scores and all of them are in [0, 1].

    Examples
    --------
    >>> is_unit(np.array([0.0, 1.0])), is_unit(np.array([0.5, 1.1])), is_unit(np.array([]))
    (True, False, False)
    """
    return bool(len(values) and values.min() >= 0 and values.max() <= 1)


def _ranks(order: IntArray, above: Any) -> IntArray:
    ranks = np.zeros(len(order), dtype=np.int64)
    ranks[order[1:]] = np.cumsum(above)
    return ranks


def just_above(values: Any) -> Any:
    """Return the number up to which others are tied with ``values``.

    Examples
    --------
    >>> 0.1 + 0.2 > 0.3, bool(0.1 + 0.2 > just_above(0.3))
    (True, False)
    """
    return values + APART * np.abs(values)
