"""Performance: how good the model is on the held-out rows, by each metric, with an interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from explain_step import intervals, metrics
from explain_step.artifacts.metric_influence import ROW_METRICS, limit
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.labels import counted
from explain_step.metrics import Metric
from explain_step.quantity import no_labels, quantity
from explain_step.seeds import Seeds
from explain_step.types import Artifact, Attributions, Caveat, IntArray, Section, Subject

MANY_ROWS = 10_000
MEDIAN = 0.5
FEW_ROWS = 10
"""Of a class: resamples of fewer do not show how much others would change a metric."""
INTERVAL = (
    "95% interval over drawing other held-out rows, for this fitted model: percentile bootstrap of the rows (from 40,000 "
    "rows on normal, by the slopes of their sums, for F1, balanced accuracy and R²); for means over rows (log loss, Brier "
    "score, RMSE, MAE) studentised; for the area under the ROC curve, on 1,000 rows and more with 100 of each class (or "
    "40,000 rows), its normal limit (logit scale); of two classes with under 50 rows of one, or an area of 0 or 1, "
    "Newcombe's; Wilson score interval for unweighted accuracy. Refitting the model is not covered."
)


def build(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Section:
    """Return the table ``performance``: metric, value, ci_low, ci_high, direction, n.

    All labelled rows are used, also those that were not explained; sample weights count. A metric that is not
    defined on these rows (one class only, constant labels) stays in the table without a value, and a caveat
    names it.

    Raises
    ------
    NotApplicable
        There are no labels.
    InvalidInput
        ``config.metrics`` names a metric that the task does not have.
    """
    if subject.y is None:
        msg = f"{no_labels(subject).replace('given', 'given (argument y)')}, so the model's performance is not known"
        raise NotApplicable(msg)
    chosen = metrics.choose_metrics(config.metrics, subject.model, subject.response)
    if not chosen:
        names = ", ".join(config.metrics)
        msg = f"none of the metrics {names} can be computed: the model gives no probabilities"
        raise NotApplicable(msg)
    rows, caveats = [], []
    for metric in chosen:
        try:
            row = measure(subject, metric, seeds=seeds)
        except NotApplicable as error:
            caveats.append(_caveat("metric_left_out", f"The metric {metric.name} is left out: {error}."))
            continue
        if np.isnan(row["value"]):
            text = f"The metric {metric.name} is not defined on these rows: {why_undefined(subject)}."
            caveats.append(_caveat("metric_undefined", text, degrades=True))
        rows.append(row)
    caveats += [*_few_of_a_class(subject, chosen), *_pooled_targets(subject, chosen), *_quantile(subject)]
    table = pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high", "direction", "n"])
    meta = {
        "quantity": quantity(subject, attributions),
        "interval": INTERVAL,
        "method": {"resamples": _resamples(len(subject.X)), "weighted": subject.weights is not None},
    }
    artifact = Artifact(name="performance", kind="performance", table=table, meta=meta)
    return Section(artifacts=(artifact,), caveats=tuple(caveats))


def _few_of_a_class(subject: Subject, chosen: tuple[Metric, ...]) -> list[Caveat]:
    """Say which intervals know too little of a class; that of the area of two classes allows for it."""
    if subject.y is None or subject.model.classes is None:
        return []
    known = pd.Series(counted(subject.y, subject.weights)).value_counts()
    if len(known) == 0 or known.min() >= FEW_ROWS:
        return []
    allowed = (*ROW_METRICS, *(("roc_auc",) if subject.model.task == "binary" else ()))
    short = [m.name for m in chosen if m.name not in allowed]
    text = (
        f"A class has under {FEW_ROWS} rows with labels: the intervals of {', '.join([*short, 'permutation importance'])} "
        "rest on these few rows and are too short; give more rows of that class."
    )
    return [_caveat("few_of_a_class", text)]


def _pooled_targets(subject: Subject, chosen: tuple[Metric, ...]) -> list[Caveat]:
    """Say that one number is of several targets, which may have several units."""
    count = len(subject.model.output_names)
    if subject.model.task != "regression" or count == 1:
        return []
    text = (
        f"{', '.join(m.name for m in chosen)}: errors of the {count} targets are averaged as they are, before a root is "
        "taken or they are divided by their variance; a target in large units outweighs the others."
    )
    return [_caveat("pooled_targets", text)]


def _quantile(subject: Subject) -> list[Caveat]:
    """Say how many labels lie below a predicted quantile: that is what it is for, and errors do not tell it."""
    level = subject.model.quantile
    if level in (None, MEDIAN) or subject.y is None or subject.response.predicted.shape[1] != 1:
        return []
    below = np.average(subject.y.ravel() <= subject.response.predicted[:, 0], weights=subject.weights)
    text = (
        f"The model predicts the quantile {level:g}, not the mean: errors of such a prediction are large by design. Of the "
        f"labels {below:.1%} lie at or below it ({level:.1%} would be right)."
    )
    return [_caveat("quantile_predicted", text)]


def _caveat(code: str, message: str, *, degrades: bool = False) -> Caveat:
    return Caveat(code=code, section="performance", message=message, degrades=degrades)


def measure(subject: Subject, metric: Metric, *, seeds: Seeds) -> dict[str, Any]:
    """Return a metric on all rows with its interval: one row of the table ``performance``.

    Raises
    ------
    NotApplicable
        The metric cannot be computed for this model.
    """
    n = len(subject.X)
    everything = np.arange(n, dtype=np.int64)
    value = _value(subject, metric, everything)
    low, high = _interval(subject, metric, value=value, rng=seeds.rng("performance", metric.name))
    return {
        "metric": metric.name,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "direction": metric.direction,
        "n": float(n),
    }


def _interval(
    subject: Subject, metric: Metric, *, value: float, rng: np.random.Generator
) -> tuple[float, float]:
    n = len(subject.X)
    if metric.name == "accuracy" and subject.weights is None:
        return intervals.wilson(value * n, n)
    if not np.isfinite(value):
        return float("nan"), float("nan")
    known = limit(metric, subject, value=value, rng=rng)
    if known is not None:
        return known.low, known.high
    return intervals.bootstrap(
        lambda rows: _value(subject, metric, rows), n=n, rng=rng, resamples=_resamples(n)
    )


def _value(subject: Subject, metric: Metric, rows: IntArray) -> float:
    y = subject.y
    weights = None if subject.weights is None else subject.weights[rows]
    if y is None or (weights is not None and not weights.sum() > 0):
        return float("nan")
    return metric.score(y[rows], subject.response.take(rows), subject.model, weights)


def _resamples(n: int) -> int:
    """Fewer resamples where each costs more and the interval is narrow anyway."""
    return 500 if n <= MANY_ROWS else 200


def why_undefined(subject: Subject) -> str:
    """Return why a metric has no value on the subject's rows, and what to do."""
    if subject.y is None:
        return "there are no labels to compare with"
    known = counted(subject.y, subject.weights)
    which = "all labels" if subject.weights is None else "all labels of rows with a positive weight"
    if len(known) == 0:
        return "no row has a positive weight; give weights above zero"
    if len(pd.DataFrame(known).drop_duplicates()) == 1:  # their value may be private
        remedy = (
            "give rows with other labels" if subject.model.classes is None else "give rows of every class"
        )
        return f"{which} are equal; {remedy}"
    return f"{len(known)} rows do not determine it; give more rows"
