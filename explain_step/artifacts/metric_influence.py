"""How much each row moves a metric: intervals from the rows' own shares of it, without resampling the metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from explain_step import intervals
from explain_step.artifacts import metric_deltas
from explain_step.labels import counted
from explain_step.metrics import LEAST_PROBABILITY, Metric, curves, positive_hits, positive_score
from explain_step.ties import score_ranks
from explain_step.types import Direction, FloatArray, Subject

MANY_ROWS = 1_000
FEWEST_OF_A_CLASS = 100
"""Rows, and rows of each class for areas, from where a metric is close to its normal limit."""
FEW_OF_A_CLASS = 50
"""Below so many rows of a class, resamples make the interval of an area too short (78% coverage with five hits)."""
SMOOTH_ROWS = 40_000
"""From so many rows on a formula takes the place of resamples, which would cost hundreds of passes."""
NORMAL = float(stats.norm.ppf(0.975))
ROW_METRICS = ("log_loss", "brier", "accuracy", "rmse", "mae")
"""Metrics that are a function of a mean over rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """Standard error and interval of a metric."""

    error: float
    low: float
    high: float


def row_losses(metric: str, subject: Subject) -> FloatArray | None:
    """Return each row's share of a metric that is a mean over rows (rmse: before the root), or None."""
    y, response, model = np.asarray(subject.y), subject.response, subject.model
    if metric == "accuracy":
        return None if response.label is None else np.asarray(y == response.label, dtype=np.float64)
    if metric in ("log_loss", "brier"):
        if response.probability is None or model.classes is None:
            return None
        hits = np.stack([y == label for label in model.classes], axis=1)
        if metric == "log_loss":
            own = (np.clip(response.probability, LEAST_PROBABILITY, 1.0) * hits).sum(axis=1)
            return np.asarray(-np.log(np.where(hits.any(axis=1), own, np.nan)), dtype=np.float64)
        scale = 0.5 if model.task == "binary" else 1.0
        return np.asarray(((response.probability - hits) ** 2).sum(axis=1) * scale, dtype=np.float64)
    if metric in ("rmse", "mae"):
        error = response.predicted - y.reshape(response.predicted.shape).astype(np.float64)
        return np.asarray((error**2 if metric == "rmse" else np.abs(error)).mean(axis=1), dtype=np.float64)
    return None


def limit(metric: Metric, part: Subject, *, value: float, rng: np.random.Generator) -> Limit | None:
    """Return the metric's standard error and interval over drawing other rows; None where resampling them is better.

    Means over rows get the studentised interval of `intervals.mean_interval`: percentiles of resamples are too short for
    errors with outliers (RMSE of a segment of 25 rows: 84% coverage for normal errors, 61% for lognormal ones). The area
    under the ROC curve has, on many rows, a normal one on the logit scale, from the rows' placement values (Sen 1960;
    DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595); of several classes from the mean of a row's values on all
    curves. Where one of two classes has few rows, and at 0 and 1, it gets `intervals.area`. On `SMOOTH_ROWS` rows and more
    F1, accuracy by class and R² have the normal limit that the slopes of their sums give (`metric_deltas`).

    Parameters
    ----------
    metric : Metric
    part : Subject of n rows
        With labels.
    value : float
        The metric on these rows.
    rng : Generator
        For the resamples of means.
    """
    n = len(part.X)
    if not np.isfinite(value):
        return None
    known = _known(metric, part, value=value, rng=rng)
    if known is None and n >= SMOOTH_ROWS:
        error = metric_deltas.of_rows(metric, part)
        return None if error is None else limit_around(value, error, direction=metric.direction)
    return known


def _known(metric: Metric, part: Subject, *, value: float, rng: np.random.Generator) -> Limit | None:
    """Return the limit that the metric's formula gives."""
    if metric.name == "roc_auc":
        return (_of_area if part.model.task == "binary" else _of_areas)(part, value=value)
    if len(part.X) < MANY_ROWS and metric.name == "accuracy":  # a proportion, whose ratios are coarse
        return None
    if len(part.X) > 1 and metric.name in ROW_METRICS:
        losses = row_losses(metric.name, part)
        return None if losses is None else _of_mean(losses, part.weights, metric=metric.name, rng=rng)
    return None


def _of_mean(
    losses: FloatArray, weights: FloatArray | None, *, metric: str, rng: np.random.Generator
) -> Limit | None:
    if not np.isfinite(losses).all():
        return None
    mean, low, high = (part[0] for part in intervals.mean_interval(losses[:, None], rng=rng, weights=weights))
    return limit_of_mean(mean, low, high, error=_error(losses - mean, weights), metric=metric)


def limit_of_mean(mean: float, low: float, high: float, *, error: float, metric: str) -> Limit | None:
    """Return the limit of a metric that is a function of a mean over rows; None where the rows do not vary."""
    if not error > 1e-12 * max(abs(mean), 1e-300):
        return None
    if metric == "rmse":
        low, mean, high = np.sqrt([max(low, 0.0), mean, high])
        error /= 2 * mean
    bounds = (0.0, 1.0) if metric == "accuracy" else (0.0, np.inf)
    return Limit(error=float(error), low=float(max(low, bounds[0])), high=float(min(high, bounds[1])))


def limit_around(value: float, error: float, *, direction: Direction = "higher") -> Limit | None:
    """Return the normal interval within the metric's bounds; None where it has no length."""
    if not error > 1e-12 * max(abs(value), 1e-300):  # also where it is not a number
        return None
    bounds = (0.0, np.inf) if direction == "lower" else (-np.inf, 1.0)
    return Limit(
        error=error, low=max(value - NORMAL * error, bounds[0]), high=min(value + NORMAL * error, bounds[1])
    )


def _of_area(part: Subject, *, value: float) -> Limit | None:
    hit, score = positive_hits(part.y, part.model), positive_score(part.response, part.model)
    hits, misses = _sizes(hit, part.weights)
    if min(hits, misses) < FEW_OF_A_CLASS or not 0 < value < 1:
        low, high = intervals.area(value, hits=hits, misses=misses)
        return Limit(error=(high - low) / (2 * stats.norm.ppf(0.975)), low=low, high=high)
    if _is_few(hit, part.weights):
        return None
    return limit_of_area(value, _error(area_influence(hit, score, weights=part.weights), part.weights))


def _of_areas(part: Subject, *, value: float) -> Limit | None:
    """Return the limit of the mean area of several classes, each against all others."""
    y = np.asarray(part.y)
    if _is_few(y, part.weights):
        return None
    w = np.ones(len(y)) if part.weights is None else part.weights
    known = [
        (hit, score)
        for hit, score in curves(y, part.response, part.model)
        if min(w[hit].sum(), w[~hit].sum()) > 0
    ]
    moved = np.zeros(len(y))
    for hit, score in known:  # one at a time: there may be many classes
        moved += area_influence(hit, score, weights=part.weights) / len(known)
    return limit_of_area(value, _error(moved, part.weights))


def _is_few(labels: npt.NDArray[Any], weights: FloatArray | None) -> bool:
    """Return whether rows, or those of a class, are so few that an area is far from its normal limit."""
    if len(labels) >= SMOOTH_ROWS:
        return False
    sizes = np.unique(counted(labels, weights), return_counts=True)[1]
    return len(labels) < MANY_ROWS or int(sizes.min()) < FEWEST_OF_A_CLASS


def limit_of_area(value: float, error: float) -> Limit | None:
    """Return the normal limit of an area under the ROC curve with this standard error; None where it is zero."""
    if not error > 0:
        return None
    # on the logit scale the bounds stay between 0 and 1
    centre, half = np.log(value / (1 - value)), stats.norm.ppf(0.975) * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-np.array([centre - half, centre + half])))
    return Limit(error=error, low=float(low), high=float(high))


def _sizes(hit: npt.NDArray[np.bool_], weights: FloatArray | None) -> tuple[float, float]:
    """Return how many hits and misses there are; of weighted rows how many of equal weight know as much (Kish 1965)."""
    w = np.ones(len(hit)) if weights is None else weights
    hits, misses = (float(own.sum() ** 2 / max((own**2).sum(), 1e-300)) for own in (w[hit], w[~hit]))
    return hits, misses


def area_influence(
    hit: npt.NDArray[np.bool_], score: FloatArray, *, weights: FloatArray | None = None
) -> FloatArray:
    """Return how much each row moves the area under the ROC curve: its placement value, centred and scaled; (n,).

    The weighted mean is zero; the weighted mean square over n is the variance of the area.

    Examples
    --------
    >>> area_influence(np.array([True, True, False]), np.array([0.9, 0.1, 0.5])).round(2).tolist()
    [0.75, -0.75, 0.0]
    """
    w = np.ones(len(hit)) if weights is None else weights
    place = placements(hit, score, weights=w)
    area = float((w * hit * place).sum() / (w * hit).sum())
    of_class = np.where(hit, (w * hit).sum(), (w * ~hit).sum()) / w.sum()
    return np.asarray((place - area) / of_class)


def placements(hit: npt.NDArray[np.bool_], score: FloatArray, *, weights: FloatArray) -> FloatArray:
    """Return each hit's share of misses below it and each miss's share of hits above it, ties counted half; (n,)."""
    place = score_ranks(score)
    up, down = np.bincount(place, weights=weights * hit), np.bincount(place, weights=weights * ~hit)
    below = (np.cumsum(down) - down / 2)[place] / down.sum()
    above = 1 - (np.cumsum(up) - up / 2)[place] / up.sum()
    return np.asarray(np.where(hit, below, above))


def _error(influence: FloatArray, weights: FloatArray | None) -> float:
    """Return the standard error of a mean of centred rows."""
    if weights is None:
        return float(np.sqrt((influence * influence).sum()) / len(influence))
    return float(np.sqrt(((weights * influence) ** 2).sum()) / weights.sum())
