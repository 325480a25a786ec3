"""Standard errors of metrics that are smooth functions of means over rows, from the sums alone (the delta method).

The labels that were true and said, counted, tell accuracy by class and F1; the moments of errors and labels tell R². A
row's influence is the gradient at the means, so that the variance needs no second look at the rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from explain_step.intervals import BLOCK
from explain_step.metrics import Metric
from explain_step.types import FittedModel, FloatArray, Subject

CONFUSION = ("balanced_accuracy", "f1")
"""Metrics that are a function of how often each class was true and said."""
LEAST_SPREAD = 1e-12
"""Of the mean square distance to the centre: labels that vary less are equal but for rounding."""


def confusion(
    subject: Subject, codes: npt.NDArray[np.integer] | None = None, *, groups: int = 1
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return rows, weights and squared weights by group, true class and said class: arrays of (groups, classes, classes).

    Without labels there is one "true" class of all rows.
    """
    model, said = subject.model, subject.response.label
    classes = model.classes or ()
    if said is None:
        msg = "counts of classes need predicted labels"
        raise ValueError(msg)
    true = np.zeros(len(said), dtype=np.int64) if subject.y is None else _positions(subject.y, classes)
    shape = (groups, 1 if subject.y is None else len(classes), len(classes))
    group = np.zeros(len(said), dtype=np.int64) if codes is None else codes
    flat = np.ravel_multi_index((group, true, _positions(said, classes)), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).astype(np.float64)
    counts = np.asarray(counts.reshape(shape))
    if subject.weights is None:
        return counts, counts, counts
    w = subject.weights
    weight, square = (
        np.bincount(flat, weights=v, minlength=counts.size).astype(np.float64) for v in (w, w**2)
    )
    return counts, weight.reshape(shape), square.reshape(shape)


def _positions(labels: npt.NDArray[np.generic], classes: tuple[object, ...]) -> npt.NDArray[np.int64]:
    found = np.zeros(len(labels), dtype=np.int64)
    for k, label in enumerate(classes):
        found[np.asarray(labels == label, dtype=np.bool_)] = k
    return found


def of_confusion(
    metric: str, weight: FloatArray, square: FloatArray, model: FittedModel
) -> tuple[float, float]:
    """Return a metric of `CONFUSION` and its standard error, from sums of weights and of their squares (classes, classes).

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> counts = np.array([[30.0, 10.0], [5.0, 55.0]])
    >>> of_confusion("balanced_accuracy", counts, counts, SimpleNamespace(task="binary"))[0].__round__(4)
    0.8333
    """
    parts = _recalls(weight) if metric == "balanced_accuracy" else _f1(weight, model)
    if not parts:
        return float("nan"), float("nan")
    value = float(np.mean([v for v, _ in parts]))
    slope = np.mean([g for _, g in parts], axis=0)
    return value, float(np.sqrt((slope**2 * square).sum()))


def _recalls(weight: FloatArray) -> list[tuple[float, FloatArray]]:
    """Return the share of each true class that was said, and its slope in every cell."""
    found = []
    for k, row in enumerate(weight):
        if not row.sum() > 0:
            continue
        slope = np.zeros_like(weight)
        slope[k] = -row[k] / row.sum() ** 2
        slope[k, k] += 1 / row.sum()
        found.append((float(row[k] / row.sum()), slope))
    return found


def _f1(weight: FloatArray, model: FittedModel) -> list[tuple[float, FloatArray]]:
    found = []
    for k in [model.positive or 0] if model.task == "binary" else range(len(weight)):
        slope, both = np.zeros_like(weight), float(weight[k].sum() + weight[:, k].sum())
        value = 2 * float(weight[k, k]) / both if both > 0 else 0.0
        if both > 0:
            slope[k] -= value / both
            slope[:, k] -= value / both
            slope[k, k] += 2 / both
        found.append((value, slope))
    return found


def square_columns(y: FloatArray, predicted: FloatArray, *, centre: FloatArray) -> FloatArray:
    """Return the columns whose moments tell R²: squared error, squared distance to the centre, distances by target."""
    away = y - centre
    return np.column_stack([((predicted - y) ** 2).mean(axis=1), (away**2).mean(axis=1), away])


def of_squares(mean: FloatArray, covariance: FloatArray) -> tuple[float, float]:
    """Return R² and its standard error, from the means of `square_columns` and the covariance of these means."""
    error, distance, gaps = float(mean[0]), float(mean[1]), mean[2:]
    spread = distance - float((gaps**2).mean())
    if not spread > LEAST_SPREAD * distance:
        return float("nan"), float("nan")
    slope = np.concatenate([[-1 / spread, error / spread**2], -2 * gaps / len(gaps) * error / spread**2])
    return 1 - error / spread, float(np.sqrt(max(float(slope @ covariance @ slope), 0.0)))


def of_rows(metric: Metric, subject: Subject) -> float | None:
    """Return the metric's standard error from the rows themselves; None for metrics that are no function of such means."""
    if metric.name in CONFUSION and subject.response.label is not None:
        _, weight, square = confusion(subject)
        return of_confusion(metric.name, weight[0], square[0], subject.model)[1]
    if metric.name != "r2":
        return None
    predicted = subject.response.predicted
    y = targets(subject)
    w = np.ones(len(y)) if subject.weights is None else subject.weights
    share = w / w.sum()
    centre = share @ y
    blocks = [slice(start, start + BLOCK) for start in range(0, len(y), BLOCK)]
    columns = partial(square_columns, centre=centre)
    mean = np.sum([share[b] @ columns(y[b], predicted[b]) for b in blocks], axis=0)
    away = ((columns(y[b], predicted[b]) - mean) * share[b, None] for b in blocks)
    return of_squares(mean, sum(part.T @ part for part in away))[1]


def targets(subject: Subject) -> FloatArray:
    """Return the labels as numbers, in the shape of the answers."""
    return np.asarray(subject.y).reshape(subject.response.predicted.shape).astype(np.float64, copy=False)
