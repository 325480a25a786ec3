"""What a score is, its random control, and the resampling of rows that all scores share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from explain_step import intervals
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Direction, FloatArray, MethodSpec, Score, Subject

CONTROL = "control_random"
RESAMPLES = 500
LEVEL = 0.95
CHUNK = 4_000_000
GROUPS = 1_000
"""More rows than this are resampled in so many random groups: as good for a mean, and the cost no longer grows."""
ROWS_INTERVAL = (
    "95% percentile bootstrap over this model's explained rows (in 1,000 groups where they are more)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """One score: its name, direction and source, and the function that gives its variants.

    ``score(scorer, subject, attributions, *, config, seeds)`` returns one `Score` per variant, the random
    control last, or raises `NotApplicable` with the reason why the score is not defined.
    """

    name: str
    direction: Direction
    source: str
    score: Callable[..., tuple[Score, ...]]

    def result(
        self,
        variant: str,
        value: float,
        *,
        n: int,
        seeds: Seeds,
        interval: tuple[float, float] | None = None,
        params: Mapping[str, Any] | None = None,
        reason: str | None = None,
        budget: str | None = None,
    ) -> Score:
        """Return a `Score`; a value that is not finite becomes None with ``reason``."""
        known = bool(np.isfinite(value))
        bounded = known and interval is not None and bool(np.isfinite(interval).all())
        return Score(
            name=self.name,
            variant=variant,
            value=float(value) if known else None,
            ci_low=float(interval[0]) if interval and bounded else None,
            ci_high=float(interval[1]) if interval and bounded else None,
            direction=self.direction,
            n=n,
            method=MethodSpec(
                name=self.name,
                version="1",
                params=dict(params or {}),
                seed=seeds.seed,
                exact=False,
                budget=budget,
            ),
            source=self.source,
            reason=reason if not (known and bounded) else None,
        )


def random_attributions(attributions: Attributions, *, seeds: Seeds, same_total: bool = True) -> FloatArray:
    """Return random values (n, d, n_outputs): what an explanation that knows nothing of the model would say.

    Normal values of each row's size; with ``same_total`` they are shifted to each row's sum, so that
    additivity is not what gives them away.
    """
    values = attributions.values
    size = np.sqrt((values**2).mean(axis=1, keepdims=True))
    random = seeds.rng("scores", "control").normal(size=values.shape) * size
    if not same_total:
        return np.asarray(random, dtype=np.float64)
    shift = (values.sum(axis=1, keepdims=True) - random.sum(axis=1, keepdims=True)) / values.shape[1]
    return np.asarray(random + shift, dtype=np.float64)


def all_zero(attributions: Attributions) -> bool:
    """Return whether there is no effect at all; rounding has been set to zero before."""
    return not attributions.values.any()


def row_weights(subject: Subject, attributions: Attributions) -> FloatArray:
    """Return the sample weights of the explained rows; ones where there are none."""
    if subject.weights is None:
        return np.ones(len(attributions.rows))
    return subject.weights[attributions.rows]


def resampled_means(
    values: FloatArray, *, weights: FloatArray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> FloatArray:
    """Return the weighted column means of ``resamples`` bootstrap resamples of the rows, `in_groups` where they are many.

    Parameters
    ----------
    values : ndarray of shape (n, ...)
    weights : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (resamples, ...)
    """
    values, weights = in_groups(values, weights=weights, rng=rng)
    n = len(values)
    flat = values.reshape(n, -1)
    means = np.empty((resamples, flat.shape[1]))
    size = max(1, CHUNK // n)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        w = intervals.resampled_counts(n, size=count, rng=rng) * weights
        total = w.sum(axis=1, keepdims=True)
        means[start : start + count] = (w @ flat) / np.where(total > 0, total, np.nan)
    return np.asarray(means.reshape(resamples, *values.shape[1:]))


def in_groups(
    values: FloatArray, *, weights: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the weighted means and the weights of `GROUPS` random groups of rows; few rows are returned as they are.

    The weighted mean over groups is that over rows, and so is its variance under resampling, on average over groupings.

    Examples
    --------
    >>> means, sizes = in_groups(np.arange(3000.0), weights=np.ones(3000), rng=np.random.default_rng(0))
    >>> means.shape, float(np.average(means, weights=sizes))
    ((1000,), 1499.5)
    """
    n = len(values)
    if n <= GROUPS:
        return values, weights
    order = rng.permutation(n)
    starts = np.arange(GROUPS) * n // GROUPS
    sizes = np.add.reduceat(weights[order], starts)
    flat = values.reshape(n, -1)
    sums = np.add.reduceat(flat[order] * weights[order, None], starts, axis=0)
    means = np.divide(sums, sizes[:, None], out=np.zeros_like(sums), where=sizes[:, None] > 0)
    return means.reshape(GROUPS, *values.shape[1:]), sizes


def percentiles(drawn: FloatArray) -> tuple[float, float] | None:
    """Return the percentile interval of bootstrap values; None where fewer than half of them are defined."""
    known = drawn[np.isfinite(drawn)]
    if len(known) < max(2, len(drawn) / 2):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def over_outputs(values: FloatArray) -> FloatArray:
    """Return the mean over the last axis (outputs) of the defined values; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))
