"""Shares of rows and their differences, with intervals that hold at 0% and 100% too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from explain_step.intervals import LEVEL, wilson
from explain_step.types import FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A weighted proportion; ``size`` is the effective number of rows, ``n`` the counted one."""

    value: float
    size: float
    n: int

    def interval(self, *, level: float = LEVEL) -> tuple[float, float]:
        """Return the Wilson interval."""
        if not self.n:
            return float("nan"), float("nan")
        low, high = wilson(self.value * self.size, self.size, level=level)
        return (0.0 if self.value == 0 else low), (1.0 if self.value == 1 else high)


def share(hits: npt.NDArray[np.bool_], weights: FloatArray | None) -> Share:
    """Return the share of hits; weighted rows count as (sum w)² / sum w² rows (Kish 1965).

    Examples
    --------
    >>> share(np.array([True, False]), None)
    Share(value=0.5, size=2.0, n=2)
    """
    n = len(hits)
    if n == 0:
        return Share(value=float("nan"), size=0.0, n=0)
    if weights is None:
        return Share(value=float(hits.mean()), size=float(n), n=n)
    total = float(weights.sum())
    if not total > 0:
        return Share(value=float("nan"), size=0.0, n=0)
    size = total**2 / max(float((weights**2).sum()), 1e-300)
    return Share(value=float(weights @ hits / total), size=size, n=n)


def newcombe(a: Share, b: Share, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the difference of two independent proportions from their Wilson intervals.

    Newcombe 1998, method 10, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.

    Examples
    --------
    >>> a, b = Share(value=56 / 70, size=70, n=70), Share(value=48 / 80, size=80, n=80)
    >>> [round(v, 4) for v in newcombe(a, b)]
    [0.0524, 0.3339]
    """
    if a.n == 0 or b.n == 0:
        return float("nan"), float("nan")
    (low_a, high_a), (low_b, high_b) = a.interval(level=level), b.interval(level=level)
    gap = a.value - b.value
    down = np.hypot(a.value - low_a, high_b - b.value)
    up = np.hypot(high_a - a.value, b.value - low_b)
    return float(gap - down), float(gap + up)


def equality(a: Share, b: Share) -> float:
    """Return the two-sided p-value that two independent proportions are equal (score test, pooled variance).

    Examples
    --------
    >>> half = Share(value=0.5, size=40, n=40)
    >>> equality(half, half)
    1.0
    """
    if a.n == 0 or b.n == 0:
        return float("nan")
    pooled = (a.value * a.size + b.value * b.size) / (a.size + b.size)
    error = float(np.sqrt(pooled * (1 - pooled) * (1 / a.size + 1 / b.size)))
    gap = abs(a.value - b.value)
    if error <= 1e-12:
        return 1.0 if gap <= 1e-12 else 0.0
    return float(2 * stats.norm.sf(gap / error))
