"""Promotion: gather, decide, log, move the alias, look again, and move it back where the evidence changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explain_step.errors import ExplainStepError, InvalidInput

if TYPE_CHECKING:
    from explain_step.gate.decision import BreakGlassUse, GateDecision
    from explain_step.gate.evidence import Evidence, Request, Review
    from explain_step.gate.policy import Policy
    from explain_step.tracking.registry import Registered

    PolicySource = Policy | Mapping[str, Any] | str | Path | None

__all__ = ["gate", "promote", "review"]

logger = logging.getLogger("explain_step.promotion")

BREAK_GLASS_KEYS = {"owner", "reason", "expires"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """One promotion: which version to which alias, by which rules."""

    registered: Registered
    policy: Policy
    request: Request
    break_glass: BreakGlassUse | None

    @property
    def alias(self) -> str:
        return str(self.request.target)


def gate(
    model_uri: str,
    policy: PolicySource = None,
    *,
    approval_tag: str | None = None,
    dry_run: bool = False,
    tracking_uri: str | None = None,
) -> GateDecision:
    """Judge a registered version by a policy. Nothing is written, but the approval tag when one is asked for.

    Parameters
    ----------
    model_uri : str
        ``models:/name/3`` or ``models:/name@alias``.
    policy : Policy, mapping or path of a YAML/JSON file, optional
        Default: the built-in one (`explain_step.gate.policy.DEFAULT`).
    approval_tag : str, optional
        Name of a tag of the version that becomes ``approved`` or ``rejected``: the convention of Databricks
        deployment jobs. Whoever may set that tag may approve, so it is no evidence.
    dry_run : bool
        Do not write the approval tag.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Returns
    -------
    GateDecision
        ``.allowed``, ``.outcome``, ``.findings``, ``.summary``.

    Raises
    ------
    InvalidInput
        The policy breaks its schema, or there is no such version.
    """
    from explain_step.gate.decision import decide
    from explain_step.gate.evidence import Request
    from explain_step.gate.policy import load_policy
    from explain_step.tracking.evidence import gather
    from explain_step.tracking.registry import find, person

    rules = load_policy(policy)
    _check_approval_tag(approval_tag)
    registered = find(model_uri, tracking_uri=tracking_uri)
    evidence = gather(registered.name, registered.version, client=registered.client, policy=rules)
    decision = decide(evidence, rules, request=Request(by=person()))
    if not dry_run:
        _approve(registered, approval_tag, decision)
    return decision


def promote(
    model_uri: str,
    alias: str,
    *,
    policy: PolicySource = None,
    dry_run: bool = False,
    break_glass: BreakGlassUse | Mapping[str, Any] | None = None,
    by: str | None = None,
    approval_tag: str | None = None,
    tracking_uri: str | None = None,
) -> GateDecision:
    """Let an alias point to a version, where the policy allows it.

    The decision is written to the log before anything moves; without the log nothing moves. After the move the
    evidence is gathered and judged again; where it changed meanwhile, the alias is moved back, and the decision
    that is returned says so. The registry has no compare-and-set: between the last look at an alias and its move
    somebody else may still move it, and the later move holds.

    Parameters
    ----------
    model_uri : str
        ``models:/name/3`` or ``models:/name@alias``; an alias is resolved once, and that version is judged.
    alias : str
        For example ``champion``.
    policy : Policy, mapping or path of a YAML/JSON file, optional
        Default: the built-in one.
    dry_run : bool
        Decide, and write nothing at all.
    break_glass : BreakGlassUse or mapping, optional
        ``owner``, ``reason`` and ``expires`` (time zone aware time, ISO 8601 text, or the end of a date, UTC): promote
        against the rules. The policy must permit it; it is logged, also where the rules hold.
    by : str, optional
        Who asks, for the log. Default: ``MLFLOW_TRACKING_USERNAME``, or the user of the operating system.
    approval_tag : str, optional
        As in `gate`.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Returns
    -------
    GateDecision
        The alias points to the version only when it is ``.allowed``. Refusals by a server and evidence that
        changed are findings of it (``PROMOTE001``, ``PROMOTE002``).

    Raises
    ------
    InvalidInput
        The policy breaks its schema, there is no such version, break-glass is not permitted.
    ExplainStepError
        The log could not be written (nothing was moved), or the alias could not be moved or moved back.
    """
    from explain_step.gate.decision import decide
    from explain_step.gate.evidence import Request
    from explain_step.gate.policy import load_policy
    from explain_step.tracking import registry
    from explain_step.tracking.evidence import gather

    registry.check_alias(alias)
    _check_approval_tag(approval_tag)
    asked = _Asked(
        policy=load_policy(policy),
        break_glass=_break_glass(break_glass),
        registered=registry.find(model_uri, tracking_uri=tracking_uri),
        request=Request(action="alias", target=alias, by=by or registry.person()),
    )
    found = asked.registered
    evidence = gather(found.name, found.version, client=found.client, policy=asked.policy)
    try:
        decision = decide(evidence, asked.policy, request=asked.request, break_glass=asked.break_glass)
    except InvalidInput as error:
        if asked.break_glass is not None and not dry_run:
            _log_denied_break_glass(asked, asked.break_glass, str(error))
        raise
    if dry_run:
        return decision
    if decision.allowed:
        decision = _carry_out(asked, decision, evidence)
    else:
        _log_refusal(asked, decision)
    _approve(found, approval_tag, decision)
    return decision


def review(
    model_uri: str,
    *,
    decision: Literal["approve", "reject"],
    note: str,
    reviewer: str | None = None,
    dry_run: bool = False,
    tracking_uri: str | None = None,
) -> Review:
    """Approve or reject the explanation snapshot of a registered version; bound to the bytes that are there now.

    Parameters
    ----------
    model_uri : str
        ``models:/name/3`` or ``models:/name@alias``.
    decision : {"approve", "reject"}
    note : str
        What was looked at and why; not empty.
    reviewer : str, optional
        Default: ``MLFLOW_TRACKING_USERNAME``, or the user of the operating system.
    dry_run : bool
        Check everything and write nothing.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    InvalidInput
        No such version, an empty or too long note.
    SnapshotError
        The version has no snapshot that verifies.
    """
    from explain_step.tracking import reviews

    return reviews.review(
        model_uri,
        decision=decision,
        note=note,
        reviewer=reviewer,
        dry_run=dry_run,
        tracking_uri=tracking_uri,
    )


def _carry_out(asked: _Asked, decision: GateDecision, evidence: Evidence) -> GateDecision:
    """Log, move, and look again."""
    from explain_step.tracking.registry import move_alias, server_refusal, version_behind

    before = version_behind(asked.registered, asked.alias)
    try:
        _log(asked, "decision", decision, before=before)
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
        _log(asked, "refused_by_server", refused, before=before)
        return refused
    return _look_again(asked, decision, evidence, before=before)


def _look_again(
    asked: _Asked, first: GateDecision, evidence: Evidence, *, before: str | None
) -> GateDecision:
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
        _log(asked, "reverted", reverted, before=before)
        return reverted
    now = version_behind(asked.registered, asked.alias)
    if now != asked.registered.version:
        message = f"the alias was moved and then moved on by somebody else: it points to {_shown(now)}"
        overtaken = _with(first, "PROMOTE003", message, outcome="undecided")
        _log(asked, "overtaken", overtaken, before=before)
        return overtaken
    return first


def _judge_again(asked: _Asked, evidence: Evidence) -> GateDecision:
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


def _undo(asked: _Asked, *, before: str | None) -> str:
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


def _log(asked: _Asked, event: str, decision: GateDecision, *, before: str | None) -> None:
    from explain_step.tracking import decision_log

    record = {"event": event, "by": asked.request.by, "alias_before": before, **decision.record()}
    decision_log.write(asked.registered, record)


def _log_refusal(asked: _Asked, decision: GateDecision) -> None:
    """Log a decision that moves nothing; it stands also where it cannot be logged."""
    from explain_step.tracking.registry import version_behind

    try:
        _log(asked, "decision", decision, before=version_behind(asked.registered, asked.alias))
    except Exception as error:  # noqa: BLE001 - a refusal is safe without a log; stores raise types of their own
        logger.warning("explain_step: the refusal could not be written to the decision log: %s", error)


def _log_denied_break_glass(asked: _Asked, use: BreakGlassUse, why: str) -> None:
    """Log a use of break-glass that the policy does not permit: who tried what. The refusal stands without a log."""
    from dataclasses import asdict

    from explain_step.tracking import decision_log

    record = {
        "event": "break_glass_refused",
        "by": asked.request.by,
        "request": asdict(asked.request),
        "name": asked.registered.name,
        "version": asked.registered.version,
        "break_glass": {**asdict(use), "expires": use.expires.isoformat()},
        "reason": why,
        "policy_digest": asked.policy.digest,
    }
    try:
        decision_log.write(asked.registered, record)
    except Exception as error:  # noqa: BLE001 - a refusal is safe without a log; stores raise types of their own
        logger.warning("explain_step: the refused break-glass could not be written to the log: %s", error)


def _check_approval_tag(name: str | None) -> None:
    if name is not None and (not name.strip() or name.startswith(("explain_step.", "mlflow."))):
        msg = f"Argument approval_tag must be the name of a deployment task, got {name!r}."
        raise InvalidInput(msg)


def _approve(registered: Registered, approval_tag: str | None, decision: GateDecision) -> None:
    from explain_step.tracking.registry import set_tag

    if approval_tag is not None:
        set_tag(registered, approval_tag, "approved" if decision.allowed else "rejected")


def _break_glass(given: BreakGlassUse | Mapping[str, Any] | None) -> BreakGlassUse | None:
    from explain_step.gate.decision import BreakGlassUse

    if given is None or isinstance(given, BreakGlassUse):
        return given
    if set(given) != BREAK_GLASS_KEYS:
        msg = f"Argument break_glass must have owner, reason and expires, got {', '.join(map(str, given))}."
        raise InvalidInput(msg)
    expires = _moment(given["expires"])
    return BreakGlassUse(owner=str(given["owner"]), reason=str(given["reason"]), expires=expires)


def _moment(given: Any) -> datetime:
    """Return a time with its zone; a date means its end, and a time without zone is UTC."""
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
        if isinstance(given, str) and len(given.strip()) == len("2026-01-31"):
            found = date.fromisoformat(given.strip())
    except ValueError as error:
        msg = (
            f"Argument break_glass.expires must be an ISO 8601 time such as 2026-01-31T18:00Z, got {given!r}."
        )
        raise InvalidInput(msg) from error
    if isinstance(found, datetime):
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    if isinstance(found, date):
        return datetime.combine(found, time.max, tzinfo=UTC)
    msg = f"Argument break_glass.expires must be a time, got {type(given).__name__}."
    raise InvalidInput(msg)
