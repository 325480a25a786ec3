"""Segments of all rows: levels are withheld by the counts of all rows; the metric is theirs where sums tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from explain_step import intervals, privacy
from explain_step.artifacts import segment_statistics
from explain_step.artifacts.segment_rules import Partition
from explain_step.artifacts.segment_statistics import Difference, Estimate
from explain_step.artifacts.segment_suppression import withheld_of
from explain_step.artifacts.segment_table import ALL, COLUMNS, TEXT, typed
from explain_step.config import Config
from explain_step.streaming import moments
from explain_step.streaming.moments import Moments
from explain_step.streaming.of_measures import SEGMENT_INTERVAL, Measured, bounds, estimates
from explain_step.streaming.plan import Plan, Segment
from explain_step.streaming.totals import Totals
from explain_step.types import Artifact, Caveat, FloatArray

SECTION = "segments"
SAID = ("empty_segment", "segments_withheld", "segment_wholly_withheld", "segments_few_explained")
"""Caveats that depend on how many rows there are."""
METRIC = tuple(name for name in COLUMNS if name.startswith("metric"))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    """One level of one segment with the numbers of all rows."""

    segment: Segment
    name: str
    n: int
    hidden: bool
    mean: FloatArray
    half: FloatArray
    gap: Difference | None
    family: tuple[str, int]
    metric: Estimate | None = None
    metric_gap: Estimate = field(default_factory=Estimate)


def segments(
    artifact: Artifact, plan: Plan, totals: Totals, *, config: Config, known: Measured | None = None
) -> Artifact:
    """Return the table ``segments`` with the counts and importance of all rows, and what is withheld by these counts.

    ``n`` and ``n_explained`` count all rows. The metric is that of ``known``, where that tells it. Else it stays as it was
    measured, on all rows or on the sample; it is missing where a level was withheld there.
    """
    old = artifact.table
    metric = old["metric"].iloc[0]
    if known is not None and (metric is None or not known.knows(metric)):
        known = None
    ruled = {s.name for s in plan.segments}
    kept = old[old["segment"].isin(set(plan.kept) - ruled)]
    levels = _measured(_levels(plan, totals, config=config), known, metric=metric)
    adjusted, metrics = _adjusted(levels), _adjusted_metrics(levels)
    records = _overall(old, plan, totals, known=known)
    for level in levels:
        records += _records(level, old, plan, adjusted=adjusted, metrics=metrics, config=config)
    parts = [typed(records, COLUMNS, text=TEXT), *([kept] if len(kept) else [])]
    said = (_said if plan.pairs else _said_of_metric)(artifact, plan, totals, known=known)
    kept_names = list(map(repr, kept["segment"].unique()))
    meta = {
        **artifact.meta,
        **said,
        "rows_of": _rows_of(plan, totals, kept=kept_names, measured=known is not None),
        "withheld_levels": sum(level.hidden and level.n > 0 for level in levels),
        "empty_levels": sum(level.n == 0 for level in levels),
    }
    if plan.pairs:
        meta["p_adjusted"] = _adjustment(len(adjusted), plan, totals, known=known)
    return replace(artifact, table=pd.concat(parts, ignore_index=True), meta=meta)


def _said(artifact: Artifact, plan: Plan, totals: Totals, *, known: Measured | None) -> dict[str, str]:
    """Return how the intervals are made."""
    old = "".join(str(artifact.meta.get("interval", "")).partition("Metric:")[1:])
    text = (
        f"95%, over drawing other rows with this fitted model, one segment at a time. Mean |attribution|: Student, over all "
        f"{totals.rows:,} rows; its difference to the rest: Welch, too sure in small groups. "
    )
    return {"interval": text + (old if known is None else SEGMENT_INTERVAL)}


def _said_of_metric(
    artifact: Artifact, plan: Plan, totals: Totals, *, known: Measured | None
) -> dict[str, str]:
    old = str(artifact.meta.get("interval", ""))
    return {"interval": old if known is None else old.partition("Metric:")[0] + SEGMENT_INTERVAL}


def _adjustment(tests: int, plan: Plan, totals: Totals, *, known: Measured | None) -> str:
    of_all = known is not None or plan.measured_rows == totals.rows
    return (
        f"Holm over all {tests} tested importance differences of all rows, and separately over the metric differences"
        f"{'' if of_all else ' of the sample'}; the two levels of a cut in two are one test. Intervals are not adjusted."
    )


def _rows_of(plan: Plan, totals: Totals, *, kept: Sequence[str], measured: bool) -> str:
    everything, some = f"all {totals.rows:,} rows", f"a seeded sample of {plan.sample_rows:,}"
    if plan.measured_rows == totals.rows:
        rest = f"; importance in {', '.join(kept)}: of {some} of them" if kept else ""
        return f"Counts, metric and importance: of {everything}{rest}"
    rest = f"; so is all of {', '.join(kept)}" if kept else ""
    whole = ["counts", *(["metric"] if measured else []), *(["importance"] if plan.pairs else [])]
    some_of = [
        *([] if plan.pairs else ["importance"]),
        "where columns are cut",
        *([] if measured else ["metric"]),
    ]
    return f"{_listed(whole).capitalize()}: of {everything}; {_listed(some_of)}: of {some} of them{rest}"


def _listed(names: Sequence[str]) -> str:
    """Return names in a row.

    Examples
    --------
    >>> _listed(["counts", "metric", "importance"]), _listed(["counts"])
    ('counts, metric and importance', 'counts')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _levels(plan: Plan, totals: Totals, *, config: Config) -> list[_Level]:
    """Return every level of every segment; a last one, `privacy.OTHER`, for rows that the sample had none like."""
    found = []
    gone = hidden_levels(plan, totals, config=config)
    for segment, counts, hidden in zip(plan.segments, totals.segments, gone, strict=True):
        names = level_names(segment, counts)
        found += [_level(segment, counts, names, g, hidden=bool(hidden[g])) for g in range(len(names))]
    return found


def level_names(segment: Segment, counts: Moments) -> tuple[str, ...]:
    """Return the levels as all rows have them."""
    return (*segment.levels, privacy.OTHER)[: len(counts.n) - int(counts.n[-1] == 0)]


def hidden_levels(plan: Plan, totals: Totals, *, config: Config) -> tuple[npt.NDArray[np.bool_], ...]:
    """Return which levels of each segment, and of no level, are withheld by the counts of all rows."""
    assert totals.atoms is not None
    assert totals.sizes is not None
    partitions = [
        Partition(
            name=s.name,
            levels=(*s.levels, privacy.OTHER),
            codes=np.zeros(0, dtype=np.int64),
            origin=s.origin,
            columns=frozenset(s.columns),
            margins=s.margins,
        )
        for s in plan.segments
    ]
    return withheld_of(partitions, totals.atoms, sizes=totals.sizes, smallest=config.min_segment)


def _measured(levels: list[_Level], known: Measured | None, *, metric: str) -> list[_Level]:
    """Return the levels with the metric of all rows, where that is known."""
    if known is None:
        return levels
    found: list[_Level] = []
    for segment, group in groupby(levels, key=lambda level: level.segment):
        own = list(group)
        place = known.plan.segments.index(segment)
        both = estimates(known, metric, segment=place, levels=range(len(own)))
        for level, (value, gap) in zip(own, both, strict=True):
            found.append(level if level.hidden else replace(level, metric=value, metric_gap=gap))
    return found


def _adjusted_metrics(levels: Sequence[_Level]) -> dict[tuple[str, int], float]:
    raw = {x.family: x.metric_gap.p for x in levels if np.isfinite(x.metric_gap.p)}
    return dict(zip(raw, intervals.holm(list(raw.values())).tolist(), strict=True))


def _level(segment: Segment, counts: Moments, names: Sequence[str], g: int, *, hidden: bool) -> _Level:
    one = counts.take(slice(g, g + 1))
    others = counts.take(np.array([i for i in range(len(counts.n)) if i != g], dtype=np.int64))
    inside, outside = _statistics(one), _statistics(moments.pooled(others))
    n = int(one.n[0])
    reach = stats.t.ppf(0.5 + intervals.LEVEL / 2, max(n - 1, 1)) * one.error()[0]
    return _Level(
        segment=segment,
        name=names[g],
        n=n,
        hidden=hidden,
        mean=inside.mean,
        half=np.asarray(reach),
        gap=None if hidden or outside.n == 0 else segment_statistics.welch(inside, outside),
        family=(segment.name, 0 if len(names) == 2 else g),
    )


def _statistics(found: Moments) -> segment_statistics.Moments:
    """Return the moments of one group as `segment_statistics.moments` gives them."""
    n = int(found.n[0])
    blank = np.full(found.mean.shape[1], np.nan)
    if n == 0 or not found.weight[0] > 0:
        return segment_statistics.Moments(mean=blank, error=blank, n=n)
    error = found.error()[0] * np.sqrt(n / (n - 1)) if n > 1 else blank
    return segment_statistics.Moments(mean=found.mean[0], error=error, n=n)


def _adjusted(levels: Sequence[_Level]) -> dict[tuple[Any, ...], float]:
    raw = {
        (*level.family, i): float(p)
        for level in levels
        if level.gap is not None
        for i, p in enumerate(level.gap.p)
    }
    return dict(zip(raw, intervals.holm(list(raw.values())).tolist(), strict=True))


def _overall(
    old: pd.DataFrame, plan: Plan, totals: Totals, *, known: Measured | None
) -> list[dict[str, Any]]:
    """Return the rows of the whole data: importance from the moments of the single features."""
    records = [{str(k): v for k, v in r.items()} for r in old[old["segment"] == ALL].to_dict("records")]
    metric = {}
    if known is not None:
        name = str(old["metric"].iloc[0])
        low, high = bounds(known.whole(name), name, rows=totals.rows, weighted=plan.weighted)
        metric = {"metric_value": known.whole(name).value, "metric_ci_low": low, "metric_ci_high": high}
    if not plan.pairs:
        return [{**record, "n": totals.rows, **metric} for record in records]
    view = totals.views[0]
    half = stats.t.ppf(0.5 + intervals.LEVEL / 2, max(totals.rows - 1, 1)) * view.error()
    for record in records:
        k, j = plan.outputs.index(record["output"]), plan.features.index(record["feature"])
        mean = view.mean[k, j]
        record |= {"n": totals.rows, "n_explained": totals.rows, **metric}
        record |= {"mean_abs_shap": mean, "ci_low": mean - half[k, j], "ci_high": mean + half[k, j]}
    return records


def _records(
    level: _Level,
    old: pd.DataFrame,
    plan: Plan,
    *,
    adjusted: dict[tuple[Any, ...], float],
    metrics: dict[tuple[str, int], float],
    config: Config,
) -> list[dict[str, Any]]:
    same = old[(old["segment"] == level.segment.name) & (old["level"] == level.name)]
    metric = {name: same[name].iloc[0] for name in METRIC} if len(same) else {}
    if level.metric is not None:
        metric = _metric(level, metrics)
    head: dict[str, Any] = {
        "segment": level.segment.name,
        "level": level.name,
        "sensitive": bool(set(level.segment.columns) & set(config.sensitive)),
        "origin": level.segment.origin,
        "metric": old["metric"].iloc[0],
    }
    if level.hidden:
        why = f"under {config.min_segment} rows, or would reveal a segment that is"
        empty = level.n == 0
        return [head | {"withheld": "no rows" if empty else why, "n": 0.0 if empty else np.nan}]
    head |= metric | {"n": level.n}
    if not plan.pairs:  # importance is of the sample
        explained = [] if not len(same) or pd.notna(same["withheld"].iloc[0]) else same.to_dict("records")
        return [{**{str(k): v for k, v in r.items()}, **head} for r in explained] or [head]
    head["n_explained"] = level.n
    return [
        {
            **head,
            "output": plan.outputs[k],
            "feature": plan.features[j],
            "mean_abs_shap": level.mean[i],
            "ci_low": level.mean[i] - level.half[i],
            "ci_high": level.mean[i] + level.half[i],
            **_difference(level, i, adjusted),
        }
        for i, (k, j) in enumerate(plan.pairs)
    ]


def _metric(level: _Level, adjusted: dict[tuple[str, int], float]) -> dict[str, Any]:
    own, gap = level.metric or Estimate(), level.metric_gap
    return {
        "metric_value": own.value,
        "metric_ci_low": own.low,
        "metric_ci_high": own.high,
        "metric_difference": gap.value,
        "metric_difference_ci_low": gap.low,
        "metric_difference_ci_high": gap.high,
        "metric_p_adjusted": adjusted.get(level.family),
    }


def _difference(level: _Level, i: int, adjusted: dict[tuple[Any, ...], float]) -> dict[str, Any]:
    gap = level.gap
    if gap is None:
        return {}
    return {
        "difference": gap.value[i],
        "difference_ci_low": gap.low[i],
        "difference_ci_high": gap.high[i],
        "p_adjusted": adjusted.get((*level.family, i)),
    }


def segment_caveats(table: pd.DataFrame, plan: Plan, *, config: Config) -> list[Caveat]:
    """Return the caveats `SAID` as the counts of all rows have them."""
    declared = [s.name for s in plan.segments if s.origin == "declared"]
    heads = table.drop_duplicates(["segment", "level"])
    found = []
    for head in heads[heads["n"] == 0].to_dict("records"):
        text = f"Segment {head['segment']!r} selects no row."
        found.append(_caveat("empty_segment", text, degrades=head["origin"] == "declared"))
    hidden = heads[heads["withheld"].notna() & heads["n"].isna()]
    if len(hidden):
        text = (
            f"{len(hidden)} segment level(s) are withheld: they have under {config.min_segment} rows, or would reveal "
            "by subtraction a group that has."
        )
        found.append(_caveat("segments_withheld", text))
    shown = set(heads.loc[heads["withheld"].isna(), "segment"])
    for name in (n for n in declared if n not in shown):
        text = f"Every level of segment {name!r} is withheld: declare a coarser one, or lower 'min_segment'."
        found.append(_caveat("segment_wholly_withheld", text, degrades=True))
    return found


def _caveat(code: str, message: str, *, degrades: bool = False) -> Caveat:
    return Caveat(code=code, section=SECTION, message=message, degrades=degrades)
