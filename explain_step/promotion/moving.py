"""Moving an alias: the decision is logged first, the evidence is judged again afterwards, and the move taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from explain_step.errors import ExplainStepError
from explain_step.promotion.recording import write

if TYPE_CHECKING:
    from explain_step.gate.decision import GateDecision
    from explain_step.gate.evidence import Evidence
    from explain_step.promotion.asked import Asked


def carry_out(asked: Asked, decision: GateDecision, evidence: Evidence) -> GateDecision:
    """Log, move, and look again.

    Raises
    ------
    ExplainStepError
        The log could not be written, or the alias could not be moved or moved back.
    """
    from explain_step.tracking.registry import move_alias, server_refusal, version_behind

    before = version_behind(asked.registered, asked.alias)
    try:
        write(asked, "decision", decision, before=before)
    except Exception as error:
        msg = f"The decision could not be logged, so alias {asked.alias!r} was not moved: {error}"
        raise ExplainStepError(msg) from error
    try:
        found, glass = asked.registered, asked.break_glass
        move_alias(found, asked.alias, to=found.version, break_glass=glass)
    except Exception as error:
        reason = server_refusal(error)
        if reason is None:
            msg = (
                f"Alias {asked.alias!r} could not be moved to version {asked.registered.version}; "
                f"look where it points before you try again. {type(error).__name__}: {error}"
            )
            raise ExplainStepError(msg) from error
        refused = _with(decision, "PROMOTE001", f"the server refused to move the alias: {reason}")
        write(asked, "refused_by_server", refused, before=before)
        return refused
    return _look_again(asked, decision, evidence, before=before)


def _look_again(asked: Asked, first: GateDecision, evidence: Evidence, *, before: str | None) -> GateDecision:
    from explain_step.tracking.registry import version_behind

    try:
        again = _judge_again(asked, evidence)
    except BaseException:  # also an interrupt: an alias that was not checked after its move goes back
        _undo(asked, before=before)
        raise
    changes = _changes(first, again)
    if changes:
        said = _undo(asked, before=before)
        message = f"the evidence changed while the alias was moved ({', '.join(changes)}); {said}"
        reverted = _with(again, "PROMOTE002", message)
        write(asked, "reverted", reverted, before=before)
        return reverted
    now = version_behind(asked.registered, asked.alias)
    if now != asked.registered.version:
        message = f"the alias was moved and then moved on by somebody else: it points to {_shown(now)}"
        overtaken = _with(first, "PROMOTE003", message, outcome="undecided")
        write(asked, "overtaken", overtaken, before=before)
        return overtaken
    return first


def _judge_again(asked: Asked, evidence: Evidence) -> GateDecision:
    """Decide on the evidence as it is after the move; drift is still measured against the former champion."""
    from explain_step.gate.decision import decide
    from explain_step.tracking.evidence import gather

    found = asked.registered
    without_drift = asked.policy.model_copy(update={"drift": None})
    again = gather(found.name, found.version, client=found.client, policy=without_drift)
    again = replace(again, champion=evidence.champion)
    if asked.break_glass is not None:  # it held when it was used a moment ago
        again = replace(again, now=evidence.now)
    return decide(again, asked.policy, request=asked.request, break_glass=asked.break_glass)


def _changes(first: GateDecision, again: GateDecision) -> list[str]:
    """Return in words what the second look found different."""
    facts = (
        ("another snapshot", first.snapshot_id, again.snapshot_id),
        ("another manifest", first.manifest_sha256, again.manifest_sha256),
        ("other model files", first.model_digest, again.model_digest),
        (f"the decision is {again.outcome!r} now", first.outcome, again.outcome),
    )
    return [words for words, old, new in facts if old != new]


def _undo(asked: Asked, *, before: str | None) -> str:
    """Move the alias back where it still points to our version; say what was done."""
    from explain_step.tracking.registry import move_alias, version_behind

    alias, ours = asked.alias, asked.registered.version
    try:
        now = version_behind(asked.registered, alias)
        if now != ours:
            return f"somebody else let the alias point to {_shown(now)} meanwhile, and it was left"
        if before == ours:
            return "the alias pointed to this version before, and was left"
        move_alias(asked.registered, alias, to=before)
    except Exception as error:
        msg = (
            f"Alias {alias!r} points to version {ours}, whose evidence does not hold, and could not be moved back to "
            f"{_shown(before)}: {type(error).__name__}: {error} Move it by hand."
        )
        raise ExplainStepError(msg) from error
    return f"the alias points to {_shown(before)} again"


def _shown(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


def _with(
    decision: GateDecision, code: str, message: str, *, outcome: Literal["refuse", "undecided"] = "refuse"
) -> GateDecision:
    """Return the decision with what happened to the alias as its first finding."""
    from explain_step.types import Finding

    verdict: Literal["fail", "undecided"] = "fail" if outcome == "refuse" else "undecided"
    finding = Finding(code=code, verdict=verdict, message=message, evidence={})
    return replace(decision, outcome=outcome, findings=(finding, *decision.findings))
