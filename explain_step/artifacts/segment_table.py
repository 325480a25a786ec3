"""The long table of segments: one row per level, output and feature, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from explain_step.artifacts import segment_performance as performance
from explain_step.artifacts.performance import measure
from explain_step.artifacts.segment_cells import RESAMPLES, SECTION, Cell, View, metric_of
from explain_step.artifacts.segment_statistics import Estimate
from explain_step.artifacts.segment_tests import MOST_ROWS, told
from explain_step.config import Config
from explain_step.intervals import holm, mean_interval
from explain_step.metrics import Metric
from explain_step.quantity import quantity
from explain_step.seeds import Seeds
from explain_step.types import Artifact, Attributions, Subject

ALL, ALL_LEVEL = "(all rows)", "(all)"
"""Segment and level of the first rows of the table: the whole data, for comparison."""
COLUMNS = (
    "segment", "level", "sensitive", "origin", "n", "n_explained", "metric", "metric_value", "metric_ci_low",
    "metric_ci_high", "metric_difference", "metric_difference_ci_low", "metric_difference_ci_high",
    "metric_p_adjusted", "output", "feature", "mean_abs_shap", "ci_low", "ci_high", "difference",
    "difference_ci_low", "difference_ci_high", "p_adjusted", "withheld",
)  # fmt: skip
TEXT = ("segment", "level", "origin", "metric", "output", "feature", "withheld")


def table_artifact(
    cells: Sequence[Cell],
    subject: Subject,
    attributions: Attributions,
    *,
    view: View,
    config: Config,
    seeds: Seeds,
) -> Artifact:
    """Return the artifact ``segments``."""
    metric = metric_of(subject, config=config)
    records = _overall(subject, view, metric=metric, seeds=seeds)
    importance, metrics = _adjusted(cells)
    for cell in cells:
        records.extend(
            _records(cell, view, metric=metric, importance=importance, metrics=metrics, config=config)
        )
    meta = _meta(cells, view, subject, metric=metric, config=config, tests=(len(importance), len(metrics)))
    meta["quantity"] = quantity(subject, attributions)
    return Artifact(name="segments", kind=SECTION, table=typed(records, COLUMNS, text=TEXT), meta=meta)


def typed(
    records: Sequence[Mapping[str, Any]], columns: Sequence[str], *, text: Sequence[str]
) -> pd.DataFrame:
    """Return records as a frame: text columns of str or None, ``sensitive`` bool, everything else float64."""
    table = pd.DataFrame(
        {c: [r.get(c) for r in records] for c in columns}, columns=list(columns), dtype=object
    )
    for column in columns:
        if column == "sensitive":
            table[column] = table[column].astype(bool)
        elif column not in text:
            table[column] = pd.to_numeric(table[column]).astype(np.float64)
    return table


def _adjusted(cells: Sequence[Cell]) -> tuple[dict[tuple[Any, ...], float], dict[tuple[str, int], float]]:
    """Return Holm-adjusted p-values by hypothesis; the two levels of a cut in two are one hypothesis."""
    raw: dict[tuple[Any, ...], float] = {}
    metric: dict[tuple[str, int], float] = {}
    for cell in cells:
        if cell.gap is not None:
            raw.update({(*cell.family, i): float(p) for i, p in enumerate(cell.gap.p)})
        if np.isfinite(cell.metric_gap.p):
            metric[cell.family] = cell.metric_gap.p
    return (
        dict(zip(raw, holm(list(raw.values())).tolist(), strict=True)),
        dict(zip(metric, holm(list(metric.values())).tolist(), strict=True)),
    )


def _overall(subject: Subject, view: View, *, metric: Metric | None, seeds: Seeds) -> list[dict[str, Any]]:
    everything = np.arange(len(subject.X))
    drawn = Estimate()
    if metric is not None:  # the same numbers as in the table of performance
        whole = measure(subject, metric, seeds=seeds)
        drawn = Estimate(value=whole["value"], low=whole["ci_low"], high=whole["ci_high"])
    rng = seeds.rng(SECTION, "importance", ALL)
    mean, low, high = mean_interval(view.values, rng=rng, weights=view.weights, resamples=RESAMPLES)
    head = {"segment": ALL, "level": ALL_LEVEL, "sensitive": False, "origin": "all", "n": len(everything)}
    head |= {"n_explained": len(view.rows), **_metric_values(metric, drawn)}
    return [
        {
            **head,
            "output": output,
            "feature": feature,
            "mean_abs_shap": mean[i],
            "ci_low": low[i],
            "ci_high": high[i],
        }
        for i, (output, feature) in enumerate(view.pairs)
    ]


def _metric_values(metric: Metric | None, found: Estimate) -> dict[str, Any]:
    return {
        "metric": None if metric is None else metric.name,
        "metric_value": found.value,
        "metric_ci_low": found.low,
        "metric_ci_high": found.high,
    }


def _records(
    cell: Cell,
    view: View,
    *,
    metric: Metric | None,
    importance: Mapping[tuple[Any, ...], float],
    metrics: Mapping[tuple[str, int], float],
    config: Config,
) -> list[dict[str, Any]]:
    head: dict[str, Any] = {
        "segment": cell.partition.name,
        "level": cell.partition.levels[cell.level],
        "sensitive": bool(cell.partition.columns & set(config.sensitive)),
        "origin": cell.partition.origin,
        "withheld": cell.withheld,
    }
    if cell.withheld is not None:
        return [
            head | {"n": 0.0 if cell.n == 0 else np.nan, "metric": None if metric is None else metric.name}
        ]
    head |= {
        "n": cell.n,
        **_metric_values(metric, cell.metric),
        "metric_difference": cell.metric_gap.value,
        "metric_difference_ci_low": cell.metric_gap.low,
        "metric_difference_ci_high": cell.metric_gap.high,
        "metric_p_adjusted": metrics.get(cell.family),
    }
    if cell.hides_importance:
        return [head]
    head["n_explained"] = cell.n_explained
    return [
        {**head, "output": output, "feature": feature, **_importance(cell, i, importance)}
        for i, (output, feature) in enumerate(view.pairs)
    ]


def _importance(cell: Cell, i: int, adjusted: Mapping[tuple[Any, ...], float]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "mean_abs_shap": cell.mean[i],
        "ci_low": cell.low[i],
        "ci_high": cell.high[i],
    }
    if cell.gap is not None:
        values |= {
            "difference": cell.gap.value[i],
            "difference_ci_low": cell.gap.low[i],
            "difference_ci_high": cell.gap.high[i],
            "p_adjusted": adjusted.get((*cell.family, i)),
        }
    return values


def _meta(
    cells: Sequence[Cell],
    view: View,
    subject: Subject,
    *,
    metric: Metric | None,
    config: Config,
    tests: tuple[int, int],
) -> dict[str, Any]:
    weighted = "weighted by the sample weights" if view.weights is not None else "unweighted"
    return {
        "method": "mean absolute attribution and performance by segment, against all other rows",
        "metric": None if metric is None else metric.name,
        "metric_direction": None if metric is None else metric.direction,
        "interval": (
            "95%, over drawing other rows with this fitted model, one segment at a time. Mean "
            "|attribution|: "
            f"studentised bootstrap, {RESAMPLES} resamples; its difference to the rest: Welch, with up to {MOST_ROWS:,} "
            "rows on a side studentised against groups drawn by chance. Metric: "
            f"percentile bootstrap, {performance.RESAMPLES} resamples (from 40,000 rows on as performance), for means over "
            "rows studentised, for accuracy Wilson, for areas of few rows of a class Newcombe (all rows: as in the table of "
            f"performance); its difference: {told(metric, subject.model.task)}. None where resamples do not vary. "
            f"Means are {weighted}; n counts rows."
        ),
        "p_adjusted": (
            f"Holm over all {tests[0]} tested importance differences of this table, and separately over all "
            f"{tests[1]} metric differences; the two levels of a cut in two are one test. Intervals are not "
            "adjusted."
        ),
        "features": f"the {config.top_features} leading features of each output over all rows",
        "min_segment": config.min_segment,
        "withheld": (
            f"levels under {config.min_segment} rows are withheld, and further ones until none can be "
            "computed from "
            "the published counts, their totals and the margins of intersections"
        ),
        "withheld_levels": sum(c.withheld is not None and c.n > 0 for c in cells),
        "empty_levels": sum(c.n == 0 for c in cells),
        "undefined_metric": (
            "an empty metric means that it is not defined on the rows of the level, for instance with one "
            "class only"
        ),
    }
