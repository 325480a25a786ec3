"""Evidence and policy to a decision. Pure: the same evidence and policy give the same decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from explain_step.errors import InvalidInput
from explain_step.gate.evidence import Evidence, Request
from explain_step.gate.naming import person
from explain_step.gate.policy import Policy, Waiver
from explain_step.gate.rules import INTEGRITY, RULES, Rule
from explain_step.types import Finding

Outcome = Literal["allow", "refuse", "undecided"]
WAIVER = "GATE090"
"""Code of the lines about waivers: they are shown whether needed, used or past."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakGlassUse:
    """A person's word to promote against the rules: who, why, until when."""

    owner: str
    reason: str
    expires: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class GateDecision:
    """What the gate says about one version, and everything that it rests on.

    Attributes
    ----------
    outcome : {"allow", "refuse", "undecided"}
        ``undecided``: an interval straddles its bound, or evidence could not be read. Only ``allow`` promotes.
    findings : tuple of Finding
        One per rule and object, in the order of the codes; a waived one has ``evidence["waived"]``.
    break_glass : BreakGlassUse, optional
        Given for this request; kept also where it was not needed.
    """

    outcome: Outcome
    name: str
    version: str
    request: Request
    findings: tuple[Finding, ...]
    policy_name: str
    policy_digest: str
    snapshot_id: str | None
    manifest_sha256: str | None
    model_digest: str | None
    decided_at: datetime
    break_glass: BreakGlassUse | None = None

    @property
    def allowed(self) -> bool:
        """Whether the version may be promoted."""
        return self.outcome == "allow"

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that stand against it: failed or undecided, and not waived."""
        return tuple(f for f in self.findings if _blocks(f))

    @property
    def summary(self) -> str:
        """One line for people: the outcome and the first reason."""
        against, rest = self.blocking, f" (and {len(self.blocking) - 1} more)"
        first = f"{against[0].code} {against[0].message}{rest if len(against) > 1 else ''}" if against else ""
        if self.break_glass is not None:
            word = f"break-glass by {self.break_glass.owner} ({self.break_glass.reason})"
            return f"{word} against {first}" if against else f"{word}; every rule holds without it"
        if self.outcome != "allow":
            return first or "no rule has anything to judge"
        waived = sum("waived" in f.evidence for f in self.findings)
        told = "1 finding is waived" if waived == 1 else f"{waived} findings are waived"
        return f"{told}, every other rule holds" if waived else "every rule holds"

    def record(self) -> dict[str, Any]:
        """Return the decision as plain JSON values, for logs and machines."""
        plain = asdict(self)
        plain["decided_at"] = self.decided_at.isoformat()
        plain["summary"] = self.summary
        if self.break_glass is not None:
            plain["break_glass"]["expires"] = self.break_glass.expires.isoformat()
        return plain


def decide(
    evidence: Evidence,
    policy: Policy,
    *,
    request: Request | None = None,
    break_glass: BreakGlassUse | None = None,
    rules: Sequence[Rule] = RULES,
) -> GateDecision:
    """Judge one version.

    Parameters
    ----------
    evidence : Evidence
    policy : Policy
    request : Request, optional
        What is asked for; it is recorded, and no rule depends on it.
    break_glass : BreakGlassUse, optional
        Checked against ``policy.break_glass``.
    rules : sequence of Rule

    Returns
    -------
    GateDecision

    Raises
    ------
    InvalidInput
        ``break_glass`` is given and not permitted: switched off, by somebody else, without a reason, too long.
    """
    if break_glass is not None:
        check_break_glass(break_glass, policy, now=evidence.now)
    found = [finding for rule in rules for finding in rule.check(evidence, policy)]
    judged = [_waived(finding, evidence, policy) for finding in found]
    findings = (*judged, *_waivers(judged, evidence, policy))
    return GateDecision(
        outcome="allow" if break_glass is not None else _outcome(findings),
        name=evidence.name,
        version=evidence.version,
        request=request or Request(),
        findings=findings,
        policy_name=policy.name,
        policy_digest=policy.digest,
        snapshot_id=evidence.snapshot_id,
        manifest_sha256=evidence.manifest_sha256,
        model_digest=evidence.model_digest,
        decided_at=evidence.now,
        break_glass=break_glass,
    )


def check_break_glass(use: BreakGlassUse, policy: Policy, *, now: datetime) -> None:
    """Raise `InvalidInput` unless the policy permits this use."""
    rule = policy.break_glass
    if not rule.allowed:
        msg = "Break-glass is not permitted by the policy (break_glass.allowed is false)."
    elif not use.owner.strip() or not use.reason.strip():
        msg = "Break-glass needs an owner and a reason; one of them is empty."
    elif rule.owners and person(use.owner) not in {person(o) for o in rule.owners}:
        msg = f"Break-glass is permitted to {', '.join(rule.owners)}, not to {use.owner!r}."
    elif use.expires.tzinfo is None:
        msg = f"Break-glass must expire at a time with a time zone, got {use.expires.isoformat()}."
    elif use.expires <= now:
        msg = f"Break-glass expired at {use.expires.isoformat()}."
    elif use.expires > now + timedelta(hours=rule.max_hours):
        msg = f"Break-glass must expire within {rule.max_hours:g} hours, not at {use.expires.isoformat()}."
    else:
        return
    raise InvalidInput(msg)


def _blocks(finding: Finding) -> bool:
    waived = "waived" in finding.evidence and finding.code not in INTEGRITY
    return finding.verdict in ("fail", "undecided") and not waived


def _outcome(findings: Sequence[Finding]) -> Outcome:
    verdicts = {f.verdict for f in findings if _blocks(f)}
    if "fail" in verdicts:
        return "refuse"
    if "undecided" in verdicts:
        return "undecided"
    return "allow" if any(f.verdict == "pass" for f in findings) else "refuse"


def _waived(finding: Finding, evidence: Evidence, policy: Policy) -> Finding:
    """Note the waiver that covers a finding which stands against the version; a past one changes nothing."""
    plain = {key: value for key, value in finding.evidence.items() if key != "waived"}
    waiver = next((w for w in _current(evidence, policy) if finding.code in w.rules), None)
    if waiver is None or finding.verdict not in ("fail", "undecided") or finding.code in INTEGRITY:
        return replace(finding, evidence=plain)
    words = {"owner": waiver.owner, "reason": waiver.reason, "expires": waiver.expires.isoformat()}
    return replace(finding, evidence={**plain, "waived": words})


def _current(evidence: Evidence, policy: Policy) -> list[Waiver]:
    own = (w for w in policy.waivers if w.covers(evidence.name, evidence.version))
    return [w for w in own if w.state(evidence.now, max_days=policy.max_waiver_days) == "current"]


def _waivers(findings: Sequence[Finding], evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    """Yield a line for each waiver of this version, also where it does not hold or was not needed."""
    used = {f.code for f in findings if "waived" in f.evidence}
    for waiver in policy.waivers:
        if not waiver.covers(evidence.name, evidence.version):
            continue
        facts = {"rules": list(waiver.rules), "owner": waiver.owner, "reason": waiver.reason}
        state = _state(waiver, evidence, policy, needed=bool(used & set(waiver.rules)))
        message = (
            f"the waiver of {', '.join(waiver.rules)} by {waiver.owner} until {waiver.expires.isoformat()} "
            f"{state}: {waiver.reason}"
        )
        dated = {**facts, "expires": waiver.expires.isoformat(), "state": state}
        yield Finding(code=WAIVER, verdict="not_applicable", message=message, evidence=dated)


def _state(waiver: Waiver, evidence: Evidence, policy: Policy, *, needed: bool) -> str:
    """Return in words what a waiver does."""
    most = policy.max_waiver_days
    found = waiver.state(evidence.now, max_days=most)
    if found == "current":
        return "is used" if needed else "is not needed"
    if found == "past":
        return "has expired and changes nothing"
    return f"ends more than {most} days ahead (max_waiver_days) and changes nothing until it is shortened"
