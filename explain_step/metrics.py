"""Performance metrics by name, over a model's `Response`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from explain_step.errors import InvalidInput, NotApplicable
from explain_step.ties import score_ranks
from explain_step.types import Direction, FittedModel, FloatArray, Reads, Response, Task

LEAST_PROBABILITY = float(np.finfo(np.float64).eps)
"""A label that was given less chance than this counts as if it had been given this, as in scikit-learn's log loss."""

Scorer = Callable[[npt.NDArray[Any], Response, FittedModel, FloatArray | None], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A named performance metric; ``score`` returns NaN where it is not defined on the given rows.

    ``reads`` names what it uses of a `Response`: "probability" stands for the output where there is none.
    """

    name: str
    direction: Direction
    tasks: tuple[Task, ...]
    score: Scorer
    reads: Reads


def _probability(response: Response) -> FloatArray:
    if response.probability is None:
        msg = "the model gives no class probabilities"
        raise NotApplicable(msg)
    return response.probability


def positive_hits(y: Any, model: FittedModel) -> npt.NDArray[np.bool_]:
    """Return which labels of a binary task are the positive class."""
    return np.asarray(np.asarray(y) == _classes(model)[model.positive or 0], dtype=np.bool_)


def positive_score(response: Response, model: FittedModel) -> FloatArray:
    """Return a ranking score of the positive class: its probability, or the margin where there is none."""
    if response.probability is not None and model.positive is not None:
        return response.probability[:, model.positive]
    return response.output[:, 0]


def auc(hit: npt.NDArray[np.bool_], score: FloatArray, *, weights: FloatArray | None = None) -> float:
    """Return the area under the ROC curve: the chance that a hit outscores a miss, ties counted half; NaN for one class.

    Own code because resampling calls it thousands of times.

    Examples
    --------
    >>> auc(np.array([True, False, True]), np.array([0.9, 0.1, 0.1]))
    0.75
    """
    w = np.ones(len(hit)) if weights is None else weights
    position = score_ranks(score)
    hits = np.bincount(position, weights=w * hit)
    misses = np.bincount(position, weights=w * ~hit)
    total = hits.sum() * misses.sum()
    if not total > 0:
        return float("nan")
    return float((hits * (np.cumsum(misses) - misses / 2)).sum() / total)


def curves(y: Any, response: Response, model: FittedModel) -> list[tuple[npt.NDArray[np.bool_], FloatArray]]:
    """Return hits and scores of each ROC curve: one of two classes, of more each class against all others."""
    if model.task == "binary":
        return [(positive_hits(y, model), positive_score(response, model))]
    labels, p = np.asarray(y), _probability(response)
    return [(np.asarray(labels == c, dtype=np.bool_), p[:, k]) for k, c in enumerate(_classes(model))]


def _roc_auc(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    aucs = [auc(hit, score, weights=w) for hit, score in curves(y, r, model)]
    known = [value for value in aucs if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _log_loss(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    p = np.clip(_probability(r), LEAST_PROBABILITY, 1.0)
    position = {label: k for k, label in enumerate(_classes(model))}
    columns = np.array([position[label] for label in y.tolist()])
    return float(np.average(-np.log(p[np.arange(len(y)), columns]), weights=w))


def _brier(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    p = _probability(r)
    hits = np.stack([y == label for label in _classes(model)], axis=1)
    scale = 0.5 if model.task == "binary" else 1.0
    return float(np.average(((p - hits) ** 2).sum(axis=1) * scale, weights=w))


def _accuracy(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    return float(np.average(y == r.label, weights=w))


def _balanced_accuracy(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    weight = np.ones(len(y)) if w is None else w
    recalls = [
        np.average((r.label == c)[y == c], weights=weight[y == c])
        for c in _classes(model)
        if weight[y == c].sum() > 0
    ]
    return float(np.mean(recalls)) if recalls else float("nan")


def _f1(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    labels = [_classes(model)[model.positive or 0]] if model.task == "binary" else list(_classes(model))
    weight = np.ones(len(y)) if w is None else w
    scores = []
    for label in labels:
        true, said = y == label, r.label == label
        both = weight[true].sum() + weight[said].sum()
        scores.append(2 * weight[true & said].sum() / both if both > 0 else 0.0)
    return float(np.mean(scores))


def _rmse(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    return float(np.sqrt(np.average(_squared(y, r), weights=w)))


def _mae(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    return float(np.average(np.abs(r.predicted - y.reshape(r.predicted.shape)).mean(axis=1), weights=w))


def _r2(y: npt.NDArray[Any], r: Response, model: FittedModel, w: FloatArray | None) -> float:
    target = y.reshape(r.predicted.shape).astype(np.float64)
    spread = np.average((target - np.average(target, axis=0, weights=w)) ** 2, axis=0, weights=w).mean()
    return float("nan") if spread <= 0 else float(1 - np.average(_squared(y, r), weights=w) / spread)


def _squared(y: npt.NDArray[Any], r: Response) -> FloatArray:
    return np.asarray(((r.predicted - y.reshape(r.predicted.shape)) ** 2).mean(axis=1), dtype=np.float64)


def _classes(model: FittedModel) -> tuple[Any, ...]:
    if model.classes is None:
        msg = "the model has no classes"
        raise NotApplicable(msg)
    return model.classes


CLASSIFICATION: tuple[Task, ...] = ("binary", "multiclass")
METRICS: tuple[Metric, ...] = (
    Metric(name="roc_auc", direction="higher", tasks=CLASSIFICATION, score=_roc_auc, reads="probability"),
    Metric(name="log_loss", direction="lower", tasks=CLASSIFICATION, score=_log_loss, reads="probability"),
    Metric(name="brier", direction="lower", tasks=CLASSIFICATION, score=_brier, reads="probability"),
    Metric(name="accuracy", direction="higher", tasks=CLASSIFICATION, score=_accuracy, reads="label"),
    Metric(
        name="balanced_accuracy",
        direction="higher",
        tasks=CLASSIFICATION,
        score=_balanced_accuracy,
        reads="label",
    ),
    Metric(name="f1", direction="higher", tasks=CLASSIFICATION, score=_f1, reads="label"),
    Metric(name="rmse", direction="lower", tasks=("regression",), score=_rmse, reads="output"),
    Metric(name="mae", direction="lower", tasks=("regression",), score=_mae, reads="output"),
    Metric(name="r2", direction="higher", tasks=("regression",), score=_r2, reads="output"),
)
PROBABILISTIC = ("log_loss", "brier")
DEFAULT_METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "accuracy"),
    "multiclass": ("accuracy", "log_loss", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
}


def choose_metrics(names: tuple[str, ...], model: FittedModel, response: Response) -> tuple[Metric, ...]:
    """Return the metrics called ``names``, or the task's default ones that the model supports; the chosen one first."""
    known = {m.name: m for m in METRICS if model.task in m.tasks}
    for name in names:
        if name not in known:
            msg = (
                f"Option metrics must name metrics of a {model.task} task ({', '.join(known)}), got {name!r}."
            )
            raise InvalidInput(msg)
    usable = [
        n
        for n in names or DEFAULT_METRICS[model.task]
        if response.probability is not None or n not in PROBABILISTIC
    ]
    return tuple(known[name] for name in dict.fromkeys(usable))
