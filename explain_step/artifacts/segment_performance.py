"""A performance metric on a segment and its difference to the rest, with bootstrap intervals.

Resamples are drawn as counts per row, and the common metrics are computed for all resamples at once; the
others go through the metric's own function with the counts as weights. Means over rows, and areas on many rows, have an
interval from the rows' own shares instead (`metric_influence`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from explain_step.artifacts.metric_influence import ROW_METRICS, Limit, limit, row_losses
from explain_step.artifacts.proportions import Share, equality, newcombe, share
from explain_step.artifacts.segment_statistics import NAN, Estimate
from explain_step.artifacts.segment_tests import Area, area, areas
from explain_step.metrics import Metric, positive_hits, positive_score
from explain_step.ties import score_ranks
from explain_step.types import FloatArray, IntArray, Subject

RESAMPLES = 200
BLOCK = 4_000_000
"""Resample counts held in memory at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """A metric on some rows and on resamples of them (NaN where it is not defined).

    ``share`` is set where the metric is a proportion of rows: its intervals need no resampling, and hold at
    0 and 1; ``limit`` where the rows' own shares tell it; ``area`` where two areas can be compared without.
    """

    value: float
    resampled: FloatArray
    share: Share | None = None
    limit: Limit | None = None
    area: Area | None = None


def draws(metric: Metric, subject: Subject, rows: IntArray, *, rng: np.random.Generator) -> Draws:
    """Return the metric on the given rows and on `RESAMPLES` bootstrap resamples of them."""
    part = subject.take(rows)
    weights = np.ones(len(rows)) if part.weights is None else part.weights
    value = value_on(metric, part)
    n = len(rows)
    if metric.name == "accuracy" and part.y is not None and part.response.label is not None:
        right = np.asarray(part.response.label == part.y, dtype=np.bool_)
        return Draws(value=value, resampled=np.empty(0), share=share(right, part.weights))
    if n < 2:
        return Draws(value=value, resampled=np.full(RESAMPLES, np.nan))
    curve = (
        area(part)
        if metric.name == "roc_auc" and part.model.task == "binary" and np.isfinite(value)
        else None
    )
    known = limit(metric, part, value=value, rng=rng)
    if known is not None:
        return Draws(value=value, resampled=np.empty(0), limit=known, area=curve)
    block = max(1, min(RESAMPLES, BLOCK // n))
    found = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        counts = np.stack([np.bincount(rng.integers(0, n, size=n), minlength=n) for _ in range(size)])
        found.append(resampled(metric, part, counts * weights))
    return Draws(value=value, resampled=np.concatenate(found), area=curve)


def value_on(metric: Metric, part: Subject) -> float:
    """Return the metric on all rows of ``part``; NaN where it is not defined."""
    if len(part.X) == 0 or part.y is None or (part.weights is not None and not part.weights.sum() > 0):
        return NAN
    return float(metric.score(part.y, part.response, part.model, part.weights))


def resampled(metric: Metric, part: Subject, weights: FloatArray) -> FloatArray:
    """Return the metric of each weighting of the rows: weights of shape (r, n) to values of shape (r,)."""
    if metric.name in ROW_METRICS:
        losses = row_losses(metric.name, part)
        if losses is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = (weights @ losses) / weights.sum(axis=1)
            return np.asarray(np.sqrt(mean) if metric.name == "rmse" else mean, dtype=np.float64)
    if metric.name == "roc_auc" and part.model.task == "binary":
        return _areas(part, weights)
    return np.array([_one(metric, part, w) for w in weights])


def _one(metric: Metric, part: Subject, weights: FloatArray) -> float:
    drawn = np.flatnonzero(weights > 0)
    if part.y is None or len(drawn) == 0:
        return NAN
    some = part.take(drawn)
    assert some.y is not None
    return float(metric.score(some.y, some.response, some.model, weights[drawn]))


def _areas(part: Subject, weights: FloatArray) -> FloatArray:
    """Return the weighted area under the ROC curve of each row of ``weights``, ties counted half."""
    hit, score = positive_hits(part.y, part.model), positive_score(part.response, part.model)
    ranks = score_ranks(score)
    order = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(ranks[order]) > 0])
    ordered = weights[:, order]
    up = np.add.reduceat(ordered * hit[order], starts, axis=1)
    down = np.add.reduceat(ordered * ~hit[order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
    return np.asarray(area, dtype=np.float64)


def interval(drawn: Draws, *, level: float = 0.95) -> Estimate:
    """Return value and interval: percentile bootstrap, Wilson for a proportion, or the `limit` of the metric.

    There is none when over half of the resamples are undefined or none differs (a perfect score on few
    rows): the bootstrap then knows nothing.
    """
    if drawn.share is not None:
        low, high = drawn.share.interval(level=level)
        return Estimate(value=drawn.value, low=low, high=high)
    if drawn.limit is not None:
        return Estimate(value=drawn.value, low=drawn.limit.low, high=drawn.limit.high)
    known = drawn.resampled[np.isfinite(drawn.resampled)]
    if not np.isfinite(drawn.value) or not _error(drawn) > 0:
        return Estimate(value=drawn.value)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=drawn.value, low=float(low), high=float(high))


def difference(inside: Draws, rest: Draws, *, level: float = 0.95) -> Estimate:
    """Return inside minus rest with interval and p-value.

    Newcombe's interval and a score test for proportions, `segment_tests.areas` for areas of two classes; for others a
    normal interval from the standard errors (inside and rest are disjoint, so their resamples are independent).
    Means over rows of small segments are compared by `segment_tests.by_chance` instead.
    """
    gap = inside.value - rest.value
    if inside.share is not None and rest.share is not None:
        low, high = newcombe(inside.share, rest.share, level=level)
        return Estimate(value=gap, low=low, high=high, p=equality(inside.share, rest.share))
    if inside.area is not None and rest.area is not None:
        return areas(inside.area, rest.area, level=level)
    error = float(np.hypot(_error(inside), _error(rest)))
    if not np.isfinite(gap + error):
        return Estimate(value=gap if np.isfinite(gap) else NAN)
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = float(2 * stats.norm.sf(abs(gap) / error))
    return Estimate(value=gap, low=gap - z * error, high=gap + z * error, p=p)


def _error(drawn: Draws) -> float:
    """Return the standard error; NaN where it is not known."""
    if drawn.limit is not None:
        return drawn.limit.error
    known = drawn.resampled[np.isfinite(drawn.resampled)]
    if len(known) < RESAMPLES / 2:
        return NAN
    error = float(np.std(known, ddof=1))
    return error if error > 1e-12 * max(abs(drawn.value), 1e-300) else NAN
