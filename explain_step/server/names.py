"""What a policy measures or excuses by a name: who takes the name away would lose the measure, or inherit the excuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from explain_step.gate import INTEGRITY, Policy, decide, folded
from explain_step.server.judge import Judge
from explain_step.server.protection import version_behind
from explain_step.server.user import current_user


def waiver_problem(policy: Policy, *names: str) -> str | None:
    """Say why a registered model may not lose or get a name: versions of another one would inherit a waiver."""
    now = datetime.now(UTC)
    for waiver in policy.waivers:
        if now <= waiver.ends and folded(waiver.registered_model) in {folded(name) for name in names}:
            uri = f"models:/{waiver.registered_model}/{waiver.version}"
            return (
                f"the policy waives rules for {uri}, and another model of that name would inherit the waiver"
            )
    return None


def baseline_problem(judge: Judge, policy: Policy, name: str, alias: str) -> str | None:
    """Say why an alias may not be taken away: without it, nothing bounds the drift of the next version.

    It may go where the version behind it has lost its evidence, and by break-glass.
    """
    if policy.drift is None or folded(alias) != folded(policy.drift.alias):
        return None
    version = version_behind(judge.registry, name, alias)
    if version is None or _has_lost_evidence(judge, policy, name, version):
        return None
    if judge.break_glass(name, version, policy, current_user()) is not None:
        return None
    return f"the policy measures drift from {alias!r}; let it point to another version instead"


def _has_lost_evidence(judge: Judge, policy: Policy, name: str, version: str) -> bool:
    """Whether the evidence is gone or was changed, which no client can bring about through the server."""
    try:
        evidence: Any = judge.evidence(name, version, policy=policy)
    except Exception:  # noqa: BLE001 - what cannot be asked for is not known to be lost
        return False
    found = decide(evidence, policy).findings
    return any(f.verdict == "fail" and f.code in INTEGRITY for f in found)
