"""Protected places: what holds them, and whether the gate's rules would have let it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from explain_step.gate import Evidence, GateDecision, Policy, Request, matches
from explain_step.gate.policy import Waiver
from explain_step.secret_masking import told
from explain_step.tracking.audit_rows import (
    EXPLAINED,
    NOT_APPLICABLE,
    UNDECIDED,
    Kind,
    Row,
    failing,
    lies,
    undecided,
)
from explain_step.tracking.decision_log import DecisionLog, decisions_of, log_place
from explain_step.tracking.registry import find
from explain_step.tracking.verifying import history
from explain_step.types import Finding

INTEGRITY = {"GATE002": "AUD003", "GATE003": "AUD007", "GATE004": "AUD008", "GATE005": "AUD009"}
PLACES: dict[Kind, str] = {"alias": "AUD004", "stage": "AUD005", "registered model": "AUD006"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A protected place that a version holds."""

    kind: Kind
    target: str

    @property
    def request(self) -> Request:
        """What a gate would have been asked."""
        action = {"alias": "alias", "stage": "stage", "registered model": "registered_model"}[self.kind]
        return Request(action=action, target=self.target)  # type: ignore[arg-type]


def held_by(name: str, version: Any, aliases: Sequence[str], policy: Policy) -> tuple[Held, ...]:
    """Return the protected places that a version holds; names are compared folded."""
    protected = policy.protected
    held = [Held(kind="alias", target=alias) for alias in aliases if matches(alias, protected.aliases)]
    stage = str(version.current_stage or "None")
    if matches(stage, protected.stages):
        held.append(Held(kind="stage", target=stage))
    if matches(name, protected.registered_models):
        held.append(Held(kind="registered model", target=name))
    return tuple(held)


def row_of_decision(decision: GateDecision, facts: Mapping[str, Any], *, evidence: Evidence) -> Row:
    """Return the row of a version that was judged by the gate's rules, on every byte."""
    found = [
        failing(INTEGRITY[f.code], f.message) if f.verdict == "fail" else undecided("AUD013", f.message)
        for f in decision.findings
        if f.verdict in ("fail", "undecided") and (f.code in INTEGRITY or f.code == "GATE001")
    ]
    status, reason = _status(evidence, found)
    there = {} if evidence.snapshot_id is None else {evidence.snapshot_id: str(evidence.manifest_sha256)}
    return Row(
        **facts,
        status=status,
        reason=reason,
        snapshot_id=evidence.snapshot_id if status in EXPLAINED else None,
        manifest_sha256=evidence.manifest_sha256 if status in EXPLAINED else None,
        verified="bytes" if status in EXPLAINED and evidence.usable else "",
        findings=(*found, *lies(facts["tags"], status=status, snapshot_ids=there)),
    )


def _status(evidence: Evidence, found: Sequence[Finding]) -> tuple[str, str]:
    if any(f.verdict == "undecided" for f in found):
        return UNDECIDED, next(f.message for f in found if f.verdict == "undecided")
    if not found:
        return str(evidence.manifest["status"]), str(evidence.manifest["reason"])
    return "incomplete", found[0].message


def place_row(row: Row, place: Held, decision: GateDecision, policy: Policy) -> Row:
    """Return the row of a protected place: whether its version may hold it."""
    findings: tuple[Finding, ...] = ()
    reason = decision.summary
    if not decision.allowed:
        code = PLACES[place.kind]
        message = f"{_named(row, place)} is protected and holds version {row.version[1] if row.version else ''}: {reason}"
        make = undecided if decision.outcome == "undecided" else failing
        findings = (make(code, message, blocking=[f.code for f in decision.blocking]),)
        findings += tuple(
            _idle(w, decision, policy) for w in policy.waivers if _was_meant(w, row, decision, policy)
        )
    waived = decision.allowed and any("waived" in f.evidence for f in decision.findings)
    return replace(
        row,
        kind=place.kind,
        name=_named(row, place),
        label=row.name,
        status="waived" if waived else row.status,
        reason=reason,
        findings=findings,
        tags={},
    )


def log_findings(row: Row, *, tracking_uri: str) -> tuple[DecisionLog | None, tuple[Finding, ...]]:
    """Return the log of the decisions on a version in a protected place, and what is wrong with its chain."""
    try:
        log = decisions_of(row.name, tracking_uri=tracking_uri)
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; told in the row, and never a pass
        return None, (undecided("AUD012", f"the decision log could not be read: {told(error, most=300)}"),)
    if not log.breaks:
        return log, ()
    more = f" (and {len(log.breaks) - 3} more)" if len(log.breaks) > 3 else ""
    return log, (failing("AUD012", f"the decision log is broken: {'; '.join(log.breaks[:3])}{more}"),)


def history_findings(row: Row, manifest: Mapping[str, Any], *, tracking_uri: str) -> tuple[Finding, ...]:
    """Return what is wrong with the snapshots that a verified one of a protected place comes after, and forks.

    Two steps at the same moment make a fork as a second history does: it is told and fails nothing.
    """
    try:
        found, broken = history(log_place(find(row.name, tracking_uri=tracking_uri)), manifest)
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; told in the row, and never a pass
        return (undecided("AUD013", f"the snapshots before it could not be read: {told(error, most=300)}"),)
    forked = [
        replace(
            failing(
                "AUD017",
                f"the snapshot {fork['snapshot_id'][:12]}… follows {fork['previous'][:12]}… as well: two histories",
            ),
            verdict="not_applicable",
        )
        for fork in found.get("forks", ())
    ]
    return (*(failing("AUD007", finding.message) for finding in broken), *forked)


def _named(row: Row, place: Held) -> str:
    name = row.version[0] if row.version else ""
    if place.kind == "alias":
        return f"models:/{name}@{place.target}"
    return f"models:/{name}/{place.target}" if place.kind == "stage" else f"models:/{name}"


def unread_place(row: Row, place: Held, error: BaseException) -> Row:
    """Return the row of a protected place whose version could not be judged."""
    message = f"{_named(row, place)} is protected; its version could not be judged: {type(error).__name__}"
    return replace(
        row,
        kind=place.kind,
        name=_named(row, place),
        label=row.name,
        findings=(undecided(PLACES[place.kind], message),),
        tags={},
    )


def _was_meant(waiver: Waiver, row: Row, decision: GateDecision, policy: Policy) -> bool:
    """Tell whether a waiver that does not hold was written for what stands against this version."""
    if row.version is None or _why_idle(waiver, policy, now=decision.decided_at) is None:
        return False
    same = waiver.covers(*row.version)
    return same and bool({f.code for f in decision.blocking} & set(waiver.rules))


def _idle(waiver: Waiver, decision: GateDecision, policy: Policy) -> Finding:
    why = _why_idle(waiver, policy, now=decision.decided_at)
    message = f"the waiver of {', '.join(waiver.rules)} by {waiver.owner} ({waiver.reason}) {why}"
    return failing("AUD011", message, decided_at=decision.decided_at.isoformat())


def _why_idle(waiver: Waiver, policy: Policy, *, now: datetime) -> str | None:
    """Say why a waiver does not hold at a moment; None where it does."""
    state = waiver.state(now, max_days=policy.max_waiver_days)
    if state == "current":
        return None
    day = waiver.expires.isoformat()
    return (
        f"expired on {day}"
        if state == "past"
        else f"ends on {day}, more than {policy.max_waiver_days} days ahead"
    )


def idle_waivers(policy: Policy, *, now: datetime) -> list[Row]:
    """Return a row for each waiver that does not hold; it fails nothing by itself."""
    reasons = ((w, _why_idle(w, policy, now=now)) for w in policy.waivers)
    return [
        Row(
            kind="waiver",
            name=f"models:/{w.registered_model}/{w.version}",
            label=", ".join(w.rules),
            status=NOT_APPLICABLE,
            reason=f"{why} (owner {w.owner}): remove it from the policy, or renew it",
            version=(w.registered_model, w.version),
            findings=(replace(failing("AUD011", f"the waiver {why}"), verdict="not_applicable"),),
        )
        for w, why in reasons
        if why is not None
    ]
