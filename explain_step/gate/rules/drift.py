"""Drift: how far the shares of features moved from the version that an alias points to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from explain_step.gate.evidence import Evidence, Reference
from explain_step.gate.naming import folded, named
from explain_step.gate.policy import Policy
from explain_step.gate.rules.base import Number, Rule, condensed, found, limit, of_snapshot
from explain_step.gate.rules.tables import (
    AGGREGATE,
    Effect,
    Lacking,
    as_mapping,
    effects,
    effects_of,
    perturbation,
    quantity,
)
from explain_step.types import Finding

SAME = ("output_space", "outputs", "target")
"""What two snapshots must share for their numbers to mean the same."""
NOTED = ("background_rows", "method", "exact", "rows")
ABSENT = Number(value=0.0, low=0.0, high=0.0)
"""The share of a feature that a model does not have."""


def _drift(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    if policy.drift is None:
        yield found("GATE050", "not_applicable", "the policy bounds no drift")
        return
    alias, champion = policy.drift.alias, evidence.champion
    if champion is None:
        message = f"no version has the alias {named(alias)} yet: there is nothing to drift from"
        yield found("GATE050", "not_applicable", message, alias=alias)
        return
    label = f"version {champion.version} ({alias})"
    facts = {"alias": alias, "version": champion.version, "snapshot_id": champion.snapshot_id}
    if folded(champion.name) == folded(evidence.name) and champion.version == evidence.version:
        yield found("GATE050", "not_applicable", f"{label} is this version", **facts)
        return
    problem = _unlike(evidence, champion)
    if problem is not None:
        yield found("GATE050", "undecided", f"{label} cannot be compared: {problem}", **facts)
    elif champion.snapshot_id is not None and champion.snapshot_id == evidence.snapshot_id:
        yield found("GATE050", "pass", f"{label} has the same snapshot", **facts)
    else:
        most = policy.drift.max_share_change
        yield from _changes(evidence, champion, label=label, most=most, facts=facts)


def _unlike(evidence: Evidence, champion: Reference) -> str | None:
    """Return why two snapshots are not of the same quantity: these are never compared."""
    if champion.problem is not None:
        return champion.problem
    ours, theirs = quantity(evidence), as_mapping(champion.quantity)
    if not theirs:
        return "its snapshot does not say what it explains"
    for key in SAME:
        if ours.get(key) != theirs.get(key) or ours.get(key) is None:
            return f"its {key} is {named(theirs.get(key))}, this version's is {named(ours.get(key))}"
    before, now = perturbation(theirs), perturbation(ours)
    return None if before == now else f"its values are {named(before)}, this version's are {named(now)}"


def _changes(
    evidence: Evidence, champion: Reference, *, label: str, most: float, facts: Mapping[str, Any]
) -> Iterator[Finding]:
    now, before = effects(evidence), effects_of(champion.tables.get("importance"))
    if isinstance(now, Lacking):
        yield found("GATE050", "fail", now.reason, **facts)
        return
    if isinstance(before, Lacking):
        yield found("GATE050", "undecided", f"{label} cannot be compared: {before.reason}", **facts)
        return
    noted = {k: [as_mapping(champion.quantity).get(k), quantity(evidence).get(k)] for k in NOTED}
    listed = [
        _change(feature, output, old, new, label=label, most=most, facts={**facts, "quantity": noted})
        for output in dict.fromkeys([*now, *before])
        if output != AGGREGATE
        for feature, old, new in _pairs(before.get(output, {}), now.get(output, {}))
    ]
    listed.sort(key=lambda f: -abs(f.evidence["value"] or 0.0))
    yield from condensed(listed)


def _pairs(before: Mapping[str, Effect], now: Mapping[str, Effect]) -> Iterator[tuple[str, Number, Number]]:
    for feature in dict.fromkeys([*now, *before]):
        old = before[feature].share if feature in before else ABSENT
        new = now[feature].share if feature in now else ABSENT
        yield feature, old, new


def _change(
    feature: str,
    output: str,
    old: Number,
    new: Number,
    *,
    label: str,
    most: float,
    facts: Mapping[str, Any],
) -> Finding:
    change = new.minus(old)
    message = (
        f"the share of {named(feature)} for {named(output)} went from {old.text(percent=True)} in {label} to "
        f"{new.text(percent=True)}: a change of {change.text(percent=True)}; at most {limit(most, percent=True)} "
        f"either way is allowed"
    )
    more = {"before": old.facts(), "now": new.facts(), **change.facts(), "max_share_change": most}
    verdict = change.size.verdict(most=most)
    return found("GATE050", verdict, message, **facts, feature=feature, output=output, **more)


DRIFT = (
    Rule(
        code="GATE050",
        title="Shares of features stay near the current version's",
        check=of_snapshot("GATE050", _drift),
    ),
)
