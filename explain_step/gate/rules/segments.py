"""Segments: that the required ones are reported, and how far performance, importance and rates lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from explain_step.gate.evidence import Evidence
from explain_step.gate.naming import named, nearest, select
from explain_step.gate.policy import Policy
from explain_step.gate.rules.base import Number, Rule, condensed, found, limit, of_snapshot, worst
from explain_step.gate.rules.tables import Lacking, number, table
from explain_step.types import Finding

ALL = "(all rows)"
GAP = "(gap)"
EMPTY = "no rows"
"""What is withheld of a level that no row has: nothing is hidden there."""
METRIC = ("metric_value", "metric_difference", "metric_difference_ci_low", "metric_difference_ci_high")
IMPORTANCE = ("mean_abs_shap", "difference", "difference_ci_low", "difference_ci_high")
Judge = Callable[[str, pd.DataFrame], Iterator[Finding]]


def _required(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    wanted = policy.segments.required
    if not wanted:
        yield found("GATE040", "not_applicable", "the policy requires no segment")
        return
    frame = _table(evidence, numbers=("n", "metric_value", "mean_abs_shap"))
    if isinstance(frame, Lacking):
        yield found("GATE040", "fail", frame.reason)
        return
    yield from condensed(_of_segments("GATE040", frame, wanted, judge=partial(_reported, policy=policy)))


def _table(evidence: Evidence, *, numbers: tuple[str, ...]) -> pd.DataFrame | Lacking:
    """Return the table of segments without the rows on all data."""
    text = ("segment", "level", "metric", "output", "feature", "withheld")
    frame = table(evidence, "segments", text=text, numbers=numbers)
    return frame if isinstance(frame, Lacking) else frame[frame["segment"] != ALL]


def _of_segments(
    code: str, frame: pd.DataFrame, wanted: tuple[str, ...], *, judge: Judge
) -> Iterator[Finding]:
    """Yield what ``judge`` says of each segment that is meant; what is not there fails."""
    known = list(dict.fromkeys(frame["segment"].dropna()))
    chosen = select(wanted, known)
    for name in (*chosen.unknown, *chosen.unmatched):
        message = f"the segment {named(name)} is not reported; {nearest(name, known)}"
        yield found(code, "fail", message, segment=name)
    for name in chosen.found:
        yield from judge(name, frame[frame["segment"] == name])


def _reported(name: str, rows: pd.DataFrame, *, policy: Policy) -> Iterator[Finding]:
    hidden, shown = _hidden(rows), rows[rows["withheld"].isna()]
    known = shown[shown["metric_value"].notna() | shown["mean_abs_shap"].notna()]
    levels, empty = list(dict.fromkeys(known["level"])), sorted(set(shown["level"]) - set(known["level"]))
    facts = {"segment": name, "levels": levels, "withheld": hidden, "without_numbers": empty}
    if not levels:
        message = f"no level of the segment {named(name)} is shown: {_too_small(hidden)}"
        yield found("GATE040", "fail", message, **facts)
    elif (hidden or empty) and not policy.segments.allow_withheld:
        message = f"the segment {named(name)} is not wholly shown: {_too_small([*hidden, *empty])}"
        yield found("GATE040", "undecided", message, **facts)
    else:
        yield found("GATE040", "pass", f"the segment {named(name)} is reported", **facts)


def _hidden(rows: pd.DataFrame) -> list[str]:
    """Return the levels that have rows and are withheld."""
    gone = rows[rows["withheld"].notna() & (rows["withheld"] != EMPTY)]
    return [str(level) for level in dict.fromkeys(gone["level"])]


def _too_small(levels: list[str]) -> str:
    if not levels:
        return "it has no level with numbers"
    shown = ", ".join(named(level) for level in levels[:5]) + (" …" if len(levels) > 5 else "")
    return f"{shown} withheld or without numbers (too few rows)"


def _performance_gap(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    most = policy.segments.max_performance_gap
    if most is None:
        yield found("GATE041", "not_applicable", "the policy bounds no performance gap")
        return
    frame = _table(evidence, numbers=METRIC)
    if isinstance(frame, Lacking):
        yield found("GATE041", "fail", frame.reason)
    elif not frame["metric_value"].notna().any():
        yield found("GATE041", "fail", "no segment has a performance: there are no labels, or no segments")
    else:
        yield from _gaps("GATE041", frame, policy, most=most, gaps=_metric_gaps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A difference, and what it is a difference of."""

    value: Number
    what: str


def _gaps(
    code: str,
    frame: pd.DataFrame,
    policy: Policy,
    *,
    most: float,
    gaps: Callable[[pd.DataFrame], list[Gap]],
) -> Iterator[Finding]:
    """Yield the findings of all segments whose gaps are bounded."""
    judge = partial(_of_segment, code=code, most=most, gaps=gaps, policy=policy)
    yield from condensed(_of_segments(code, frame, policy.segments.compared, judge=judge))


def _of_segment(
    name: str,
    rows: pd.DataFrame,
    *,
    code: str,
    most: float,
    gaps: Callable[[pd.DataFrame], list[Gap]],
    policy: Policy,
) -> Iterator[Finding]:
    """Yield the gap of a segment that stands worst, and levels that cannot be judged."""
    hidden = _hidden(rows)
    if hidden and not policy.segments.allow_withheld:
        message = f"the gap of the segment {named(name)} is not known: {_too_small(hidden)}"
        yield found(code, "undecided", message, segment=name, withheld=hidden)
    judged = [(gap.value.size.verdict(most=most), gap) for gap in gaps(rows[rows["withheld"].isna()])]
    if not judged:
        yield found(code, "undecided", f"the segment {named(name)} has no gap to judge", segment=name)
        return
    verdict = worst(*(v for v, _ in judged))
    gap = max((g for v, g in judged if v == verdict), key=lambda g: _large(g.value.size))
    message = f"in the segment {named(name)} {gap.what} {gap.value.text()}; at most {limit(most)} is allowed"
    yield found(code, verdict, message, segment=name, **gap.value.facts(), max_gap=most)


def _large(value: Number) -> float:
    return value.value if math.isfinite(value.value) else math.inf


def _metric_gaps(rows: pd.DataFrame) -> list[Gap]:
    return [
        Gap(
            value=number(row, *METRIC[1:]),
            what=f"{named(row['metric'])} of the level {named(row['level'])} differs from the rest by",
        )
        for row in rows.drop_duplicates("level").to_dict("records")
    ]


def _importance_gap(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    most = policy.segments.max_importance_gap
    if most is None:
        yield found("GATE042", "not_applicable", "the policy bounds no importance gap")
        return
    text = ("segment", "level", "output", "feature", "withheld")
    whole = table(evidence, "segments", text=text, numbers=IMPORTANCE)
    if isinstance(whole, Lacking):
        yield found("GATE042", "fail", whole.reason)
        return
    overall = whole[whole["segment"] == ALL].set_index(["output", "feature"])["mean_abs_shap"].to_dict()
    frame = whole[whole["segment"] != ALL]
    # a level with too few explained rows shows its performance and no feature
    frame = frame.assign(withheld=frame["withheld"].where(frame["feature"].notna(), "too few rows"))
    frame = frame.assign(withheld=frame["withheld"].mask(_empty(whole.loc[frame.index]), EMPTY))
    yield from _gaps("GATE042", frame, policy, most=most, gaps=partial(_importance_gaps, overall=overall))


def _empty(rows: pd.DataFrame) -> pd.Series[bool]:
    return rows["withheld"] == EMPTY


def _importance_gaps(rows: pd.DataFrame, *, overall: Mapping[Any, float]) -> list[Gap]:
    """Return the differences of mean |SHAP| as fractions of the overall mean, which counts as known."""
    gaps = []
    for row in rows.to_dict("records"):
        mean = overall.get((row["output"], row["feature"]), math.nan)
        if mean == 0 and row["mean_abs_shap"] == 0:
            continue
        what = (
            f"the mean |SHAP| of {named(row['feature'])} in the level {named(row['level'])} differs from the "
            f"rest, as a fraction of its overall mean, by"
        )
        scale = mean if mean > 0 else math.nan
        gaps.append(Gap(value=_scaled(number(row, *IMPORTANCE[1:]), scale), what=what))
    return gaps


def _scaled(gap: Number, scale: float) -> Number:
    return Number(value=gap.value / scale, low=gap.low / scale, high=gap.high / scale)


def _rate_gap(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    bounds = policy.segments.max_rate_gap
    if not bounds:
        yield found("GATE043", "not_applicable", "the policy bounds no gap of rates")
        return
    text = ("segment", "level", "output", "rate", "high_level", "low_level", "withheld")
    frame = table(evidence, "segment_rates", text=text, numbers=("value", "ci_low", "ci_high"))
    if isinstance(frame, Lacking):
        yield found("GATE043", "fail", f"{frame.reason}; rates need a classifier and segments")
        return
    for rate, most in bounds.items():
        own = frame[(frame["segment"] != ALL) & (frame["rate"] == rate)]
        if own.empty:
            message = f"no segment has the rate {rate}: there are no labels, or no segments"
            yield found("GATE043", "fail", message, rate=rate)
        else:
            yield from _gaps("GATE043", own, policy, most=most, gaps=_rate_gaps)


def _rate_gaps(rows: pd.DataFrame) -> list[Gap]:
    return [
        Gap(
            value=number(row, "value", "ci_low", "ci_high"),
            what=(
                f"the {row['rate']} of {named(row['output'])} differs between {named(row['high_level'])} and "
                f"{named(row['low_level'])} by"
            ),
        )
        for row in rows[rows["level"] == GAP].to_dict("records")
    ]


SEGMENTS = (
    Rule(code="GATE040", title="Required segments are reported", check=of_snapshot("GATE040", _required)),
    Rule(
        code="GATE041",
        title="Performance differs little between segments",
        check=of_snapshot("GATE041", _performance_gap),
    ),
    Rule(
        code="GATE042",
        title="Importance differs little between segments",
        check=of_snapshot("GATE042", _importance_gap),
    ),
    Rule(
        code="GATE043",
        title="Rates differ little between the levels of a segment",
        check=of_snapshot("GATE043", _rate_gap),
    ),
)
