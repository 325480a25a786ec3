"""Bounds on the quality of the explanation and on the performance of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from explain_step.gate.evidence import Evidence
from explain_step.gate.naming import named, nearest
from explain_step.gate.policy import Bound, Policy
from explain_step.gate.rules.base import Number, Rule, condensed, found, limit, of_snapshot
from explain_step.gate.rules.tables import Lacking, number, table
from explain_step.types import Finding

CONTROL = "control"
"""Variants that start so are the score of random values: never the score itself."""
INTERVAL = ("value", "ci_low", "ci_high")


def _scores(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    if not policy.scores:
        yield found("GATE020", "not_applicable", "the policy bounds no score")
        return
    frame = table(evidence, "scores", text=("score", "variant"), numbers=INTERVAL)
    if isinstance(frame, Lacking):
        yield found("GATE020", "fail", frame.reason)
        return
    frame = frame.assign(
        variant=frame["variant"].fillna(""), reason=np.array(_reasons(evidence), dtype=object)
    )
    own = frame[~frame["variant"].str.startswith(CONTROL)]
    yield from condensed(f for bound in policy.scores for f in _bounded_score(own, bound))


def _reasons(evidence: Evidence) -> list[str | None]:
    """Return why scores have no value; an older table has no such column."""
    frame = table(evidence, "scores", text=("reason",))
    if isinstance(frame, Lacking):
        return [None] * len(evidence.tables["scores"])
    return list(frame["reason"])


def _bounded_score(frame: pd.DataFrame, bound: Bound) -> Iterator[Finding]:
    rows = frame[frame["score"] == bound.name]
    if rows.empty:
        known = nearest(bound.name, sorted(set(frame["score"].dropna())))
        yield found("GATE020", "fail", f"there is no score {named(bound.name)}; {known}", score=bound.name)
        return
    undefined = rows[rows["variant"] == ""]
    if bound.variant is not None and undefined.empty:
        kept = rows[rows["variant"] == bound.variant]
        if kept.empty:
            known = nearest(bound.variant, sorted(set(rows["variant"])))
            message = f"the score {named(bound.name)} has no variant {named(bound.variant)}; {known}"
            yield found("GATE020", "fail", message, score=bound.name, variant=bound.variant)
            return
        rows = kept
    for row in rows.to_dict("records"):
        yield _score(row, bound)


def _score(row: Any, bound: Bound) -> Finding:
    value, variant = number(row, *INTERVAL), row["variant"]
    label = f"the score {named(bound.name)}" + (f" ({variant})" if variant else "")
    # some scores have no interval by nature (a largest error): these stand for themselves
    verdict = value.alone(least=bound.min, most=bound.max)
    reason = f": {row['reason']}" if row["reason"] and not value.bounded else ""
    message = f"{label} is {value.text()}{reason}; {_allowed(bound)}"
    return found("GATE020", verdict, message, score=bound.name, variant=variant, **_facts(value, bound))


def _performance(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    if not policy.performance:
        yield found("GATE021", "not_applicable", "the policy bounds no performance")
        return
    frame = table(evidence, "performance", text=("metric",), numbers=INTERVAL)
    if isinstance(frame, Lacking):
        yield found("GATE021", "fail", frame.reason)
        return
    yield from condensed(f for bound in policy.performance for f in _bounded_metric(frame, bound))


def _bounded_metric(frame: pd.DataFrame, bound: Bound) -> Iterator[Finding]:
    rows = frame[frame["metric"] == bound.name]
    if rows.empty:
        known = nearest(bound.name, sorted(set(frame["metric"].dropna())))
        message = (
            f"the metric {named(bound.name)} was not measured; {known}: explain with metrics={bound.name}"
        )
        yield found("GATE021", "fail", message, metric=bound.name)
    for row in rows.to_dict("records"):
        value = number(row, *INTERVAL)
        verdict = value.verdict(least=bound.min, most=bound.max)
        message = f"{named(bound.name)} is {value.text()}; {_allowed(bound)}"
        yield found("GATE021", verdict, message, metric=bound.name, **_facts(value, bound))


def _allowed(bound: Bound) -> str:
    least = "" if bound.min is None else f"at least {limit(bound.min)}"
    most = "" if bound.max is None else f"at most {limit(bound.max)}"
    return " and ".join(part for part in (least, most) if part) + " is required"


def _facts(value: Number, bound: Bound) -> dict[str, Any]:
    return {**value.facts(), "min": bound.min, "max": bound.max}


QUALITY = (
    Rule(
        code="GATE020",
        title="The explanation's scores are within bounds",
        check=of_snapshot("GATE020", _scores),
    ),
    Rule(
        code="GATE021",
        title="The model's performance is within bounds",
        check=of_snapshot("GATE021", _performance),
    ),
)
