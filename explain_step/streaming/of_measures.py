"""Performance, and the metric and rates of segments, from sums over all rows: values as one machine has them.

Intervals too, where these have a formula. Where one machine would resample the rows themselves (means and areas of small
segments, other metrics of under 40,000 rows), a formula takes its place, and the tables say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import intervals
from explain_step.artifacts import metric_deltas, segment_performance, segment_rates
from explain_step.artifacts.metric_influence import limit_around, limit_of_mean
from explain_step.artifacts.performance import FEW_ROWS
from explain_step.artifacts.proportions import Share
from explain_step.artifacts.segment_performance import Draws
from explain_step.artifacts.segment_statistics import NAN, Estimate
from explain_step.artifacts.segment_tests import Shuffled, Side, by_chance_of
from explain_step.config import Config
from explain_step.metrics import METRICS
from explain_step.streaming import areas as areas_room
from explain_step.streaming.areas import Area, Areas
from explain_step.streaming.measures import Group, Measures, take
from explain_step.streaming.plan import Measure, Plan
from explain_step.types import Artifact, Caveat, FittedModel

AREA = areas_room.NAME
NONE = np.empty(0)
INTERVAL = (
    "95% interval over drawing other held-out rows, for this fitted model, from sums over all rows: for means over rows "
    "(log loss, Brier score, RMSE, MAE) Student's with the skewness taken into account; for the area under the ROC curve "
    "its normal limit (logit scale), of two classes with under 50 rows of one, or an area of 0 or 1, Newcombe's, and of "
    "several classes too sure with under 100 rows of one; Wilson score interval for unweighted accuracy; for F1, balanced "
    "accuracy and R² normal, by the slopes of their sums. What is of the sample has the interval of its rows, resampled. "
    "Refitting the model is not covered."
)
SEGMENT_INTERVAL = (
    "Metric: from sums over all rows, as in the table of performance, for accuracy Wilson; its difference: Newcombe's and "
    "a score test for accuracy, for the area under the ROC curve normal (DeLong), of two classes by the larger of the "
    "variance under equal areas and that of each side, for means over rows in groups of up to 1,000 studentised against "
    "groups of the sample drawn by chance, else normal; F1, balanced accuracy and R² are too sure in groups of under 100 "
    "rows. None where rows do not vary."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The sums of all rows with what reads them."""

    plan: Plan
    measures: Measures
    areas: Areas | None
    model: FittedModel
    made: Shuffled | None = None
    """Losses of the sample in shuffled orders, for `segment_tests.by_chance_of`."""

    @property
    def measure(self) -> Measure:
        """What was summed."""
        assert self.plan.measure is not None
        return self.plan.measure

    def knows(self, metric: str) -> bool:
        """Return whether the sums tell a metric."""
        if metric == AREA:
            return self.areas is not None
        if metric in metric_deltas.CONFUSION:
            return self.measure.classes
        return metric in self.measure.losses or (metric == "r2" and bool(self.measure.targets))

    def unknown(self) -> list[str]:
        """Return the metrics that sums do not tell."""
        return [name for name in self.measure.metrics if not self.knows(name)]

    def whole(self, metric: str) -> Draws:
        """Return a metric over all rows."""
        area = None if self.areas is None or metric != AREA else self.areas.whole()
        return _draws(self, metric, self.measures[0], area)

    def level(self, metric: str, segment: int, level: int, *, rest: bool) -> Draws:
        """Return a metric over the rows of a level, or over those outside of it."""
        group = self.measures[segment + 1]
        places = [g for g in range(len(group.losses.n)) if (g == level) != rest]
        area = None
        if self.areas is not None and metric == AREA:
            area = self.areas.of(self.plan, segment, level, rest=rest)
        return _draws(self, metric, take(group, places), area)


def _draws(known: Measured, metric: str, group: Group, area: Area | None) -> Draws:
    """Return value and interval of a metric over one group of rows."""
    if metric == AREA:
        assert area is not None
        value = areas_room.value_of(area)
        return Draws(
            value=value,
            resampled=NONE,
            limit=areas_room.limit_of(area),
            area=areas_room.area_of(area),
        )
    if metric in metric_deltas.CONFUSION:
        value, error = metric_deltas.of_confusion(metric, group.weight[0], group.square[0], known.model)
        return _smooth(value, error)
    if metric == "r2":
        return _smooth(*metric_deltas.of_squares(group.squares.mean[0], group.squares.squared_error()[0]))
    return _of_mean(known.measure, metric, group)


def _smooth(value: float, error: float) -> Draws:
    limit = limit_around(value, error) if np.isfinite(value) else None
    return Draws(value=value, resampled=NONE, limit=limit)


def _of_mean(measure: Measure, metric: str, group: Group) -> Draws:
    j, losses = measure.losses.index(metric), group.losses
    n, mean, error = int(losses.n[0]), float(losses.mean[0, j]), float(losses.error()[0, j])
    weight, square = float(losses.weight[0]), float(losses.square[0])
    if n == 0 or not weight > 0:
        return Draws(value=NAN, resampled=NONE)
    value = float(np.sqrt(mean)) if metric == "rmse" else mean
    share = Share(value=value, size=weight**2 / square, n=n) if metric == "accuracy" else None
    limit = None
    if n > 1 and np.isfinite(mean) and error > 0:
        skewness = _cube(measure, group, j) / (error * weight) ** 3
        low, high = intervals.skewed_quantiles(np.array(skewness), n=n)
        limit = limit_of_mean(
            mean, float(mean - high * error), float(mean - low * error), error=error, metric=metric
        )
    return Draws(value=value, resampled=NONE, share=share, limit=limit)


def _cube(measure: Measure, group: Group, j: int) -> float:
    """Return the sum of (weight times distance to the mean) cubed."""
    scale = measure.scales[j]
    zero, one, two, three = group.cubes[0, j]
    m = (float(group.losses.mean[0, j]) - measure.centres[j]) / scale
    return float(three - 3 * m * two + 3 * m**2 * one - m**3 * zero) * scale**3


# --- tables


def performance(artifact: Artifact, known: Measured, *, rows: int) -> Artifact:
    """Return the table ``performance`` of all rows; a metric that sums do not tell keeps the sample's line."""
    old = artifact.table.set_index("metric", drop=False)
    by_name = {m.name: m for m in METRICS}
    records = []
    for name in known.measure.metrics:
        if known.knows(name):
            low, high = bounds(known.whole(name), name, rows=rows, weighted=known.plan.weighted)
            value = known.whole(name).value
            records.append((name, value, low, high, by_name[name].direction, float(rows)))
        elif name in old.index:
            records.append(tuple(old.loc[name]))
    table = pd.DataFrame(records, columns=list(artifact.table.columns))
    kept = [str(r[0]) for r in records if not known.knows(str(r[0]))]
    said = f"{'everything else' if kept else 'everything here'} is of all {rows:,} rows"
    if kept:
        said = f"{', '.join(kept)}: of a seeded sample of {known.plan.sample_rows:,} rows; {said}"
    method = {"weighted": known.plan.weighted, "from": "sums over all rows"}
    method |= {"resamples": artifact.meta["method"]["resamples"]} if kept else {}
    meta = {**artifact.meta, "interval": INTERVAL, "method": method, "rows_of": said}
    return replace(artifact, table=table, meta=meta)


def bounds(found: Draws, metric: str, *, rows: int, weighted: bool) -> tuple[float, float]:
    """Return the interval of a metric over all rows, as the table of performance has it."""
    if metric == "accuracy" and not weighted:
        return intervals.wilson(found.value * rows, rows)
    if not np.isfinite(found.value):
        return NAN, NAN
    if found.limit is None:  # rows that do not vary
        return found.value, found.value
    return found.limit.low, found.limit.high


def estimates(known: Measured, metric: str, *, segment: int, levels: Sequence[int]) -> list[Any]:
    """Return the metric of each of the first levels of a segment, and its difference to the rest.

    The two levels of a cut in two are one comparison.
    """
    found: list[tuple[Estimate, Estimate]] = []
    for level in levels:
        own = known.level(metric, segment, level, rest=False)
        rest = known.level(metric, segment, level, rest=True)
        gap = _gap(known, metric, own, rest, sides=_sides(known, metric, segment, level))
        if len(levels) == 2 and level == levels[1]:
            gap = found[0][1].negated()
        found.append((segment_performance.interval(own), gap))
    return found


def _gap(known: Measured, metric: str, own: Draws, rest: Draws, *, sides: tuple[Side, Side]) -> Estimate:
    """Return the difference to the rest; of small groups against groups of the sample drawn by chance."""
    if min(side.n for side in sides) == 0:
        return Estimate()
    of_mean = metric in known.measure.losses and metric != "accuracy"
    found = None if known.made is None or not of_mean else by_chance_of(known.made, *sides)
    return segment_performance.difference(own, rest) if found is None else found


def _sides(known: Measured, metric: str, segment: int, level: int) -> tuple[Side, Side]:
    """Return the rows of a level and those outside of it, with the metric where it is a function of a mean."""
    group = known.measures[segment + 1]
    others = [g for g in range(len(group.losses.n)) if g != level]
    return _side(known.measure, metric, take(group, [level])), _side(
        known.measure, metric, take(group, others)
    )


def _side(measure: Measure, metric: str, group: Group) -> Side:
    n = int(group.losses.n[0])
    if metric not in measure.losses or n < 2:
        return Side(value=NAN, error=NAN, n=n)
    j = measure.losses.index(metric)
    value, error = float(group.losses.mean[0, j]), float(group.losses.error()[0, j] * np.sqrt(n / (n - 1)))
    if metric == "rmse":
        value = float(np.sqrt(value))
        error = error / (2 * max(value, 1e-300))
    return Side(value=value, error=error, n=n)


def rates(
    artifact: Artifact,
    known: Measured,
    *,
    names: Sequence[tuple[str, ...]],
    hidden: Sequence[npt.NDArray[np.bool_]],
    config: Config,
    rows: int,
) -> Artifact:
    """Return the table ``segment_rates`` of all rows.

    Parameters
    ----------
    names : sequence of tuple of str
        The levels of each of the plan's segments, as all rows have them.
    hidden : sequence of ndarray of bool
        Which of them are withheld.
    """
    counted = []
    for segment, levels, group in zip(known.plan.segments, names, known.measures[1:], strict=True):
        parts = {k: getattr(group, k)[: len(levels)] for k in ("rows", "weight", "square")}
        counted.append(
            segment_rates.Counted(
                name=segment.name, levels=levels, columns=frozenset(segment.columns), **parts
            )
        )
    gone = [h[: len(levels)] for h, levels in zip(hidden, names, strict=True)]
    table = segment_rates.rates_table(counted, gone, known.model, config=config)
    ruled = {s.name for s in known.plan.segments}
    kept = artifact.table[artifact.table["segment"].isin(set(known.plan.kept) - ruled)]
    said = f"everything {'else ' if len(kept) else ''}here is of all {rows:,} rows"
    if len(kept):
        table = pd.concat([table, kept], ignore_index=True)
        which = ", ".join(map(repr, kept["segment"].unique()))
        said = f"{which}: of a seeded sample of {known.plan.sample_rows:,} rows; {said}"
    return replace(artifact, table=table, meta={**artifact.meta, "rows_of": said})


# --- caveats

SAID = ("metric_undefined", "few_of_a_class", "segment_metric_undefined")
"""Caveats that depend on how many rows there are."""


def measured_caveats(said: Sequence[Caveat], tables: dict[str, Artifact], known: Measured) -> list[Caveat]:
    """Return the caveats `SAID` as all rows have them."""
    found = []
    table = tables["performance"].table if "performance" in tables else pd.DataFrame()
    for record in table.to_dict("records"):
        if np.isnan(record["value"]):
            text = f"The metric {record['metric']} is not defined on these rows: {_why(known)}."
            found.append(Caveat(code="metric_undefined", section="performance", message=text, degrades=True))
    found += _few_of_a_class(said, known)
    if "segments" in tables:
        found += _undefined_in_levels(tables["segments"].table, table)
    return found


def _why(known: Measured) -> str:
    if not float(known.measures[0].losses.weight.sum() + known.measures[0].weight.sum()) > 0:
        return "no row has a positive weight; give weights above zero"
    return "all labels that count are equal; give rows with other labels"


def _few_of_a_class(said: Sequence[Caveat], known: Measured) -> list[Caveat]:
    old = [c for c in said if c.code == "few_of_a_class"]
    if not old or not known.measure.classes:
        return old
    many = known.measures[0].rows[0].sum(axis=1)
    if (many[many > 0] < FEW_ROWS).any():
        return old
    text = (
        f"A class has under {FEW_ROWS} rows with labels in the sample of {known.plan.sample_rows:,} rows: the interval of "
        "permutation importance rests on these few rows and is too short; give more rows of that class."
    )
    return [replace(old[0], message=text)]


def _undefined_in_levels(segments: pd.DataFrame, performance: pd.DataFrame) -> list[Caveat]:
    """Name the levels on which the metric has no value, where it has one on all rows."""
    heads = segments.drop_duplicates(["segment", "level"])
    if not len(heads) or np.isnan(heads["metric_value"].iloc[0]) or not len(performance):
        return []
    without = heads[heads["withheld"].isna() & (heads["n"] > 0) & heads["metric_value"].isna()]
    if not len(without):
        return []
    named = [f"{r['segment']}: {r['level']}" for r in without.to_dict("records")]
    where = f"{len(without)} segment level(s), for instance in {named[0]!r}"
    text = (
        f"The metric {heads['metric'].iloc[0]} is not defined in {where}: all labels that count are equal there; give "
        "rows of every class."
    )
    wanted = bool((without["origin"] != "found").any())
    return [Caveat(code="segment_metric_undefined", section="segments", message=text, degrades=wanted)]
