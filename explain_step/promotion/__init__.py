"""Promotion: gather, decide, log, move the alias, look again, and move it back where the evidence changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explain_step.errors import InvalidInput

if TYPE_CHECKING:
    from explain_step.gate.decision import BreakGlassUse, GateDecision
    from explain_step.gate.evidence import Review
    from explain_step.gate.policy import Policy
    from explain_step.tracking.registry import Registered

    PolicySource = Policy | Mapping[str, Any] | str | Path | None

__all__ = ["gate", "promote", "review"]


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
    from explain_step.promotion import moving, recording
    from explain_step.promotion.asked import Asked, break_glass_use
    from explain_step.tracking import registry
    from explain_step.tracking.evidence import gather

    registry.check_alias(alias)
    _check_approval_tag(approval_tag)
    asked = Asked(
        policy=load_policy(policy),
        break_glass=break_glass_use(break_glass),
        registered=registry.find(model_uri, tracking_uri=tracking_uri),
        request=Request(action="alias", target=alias, by=by or registry.person()),
    )
    found = asked.registered
    evidence = gather(found.name, found.version, client=found.client, policy=asked.policy)
    try:
        decision = decide(evidence, asked.policy, request=asked.request, break_glass=asked.break_glass)
    except InvalidInput as error:
        if asked.break_glass is not None and not dry_run:
            recording.write_denied_break_glass(asked, asked.break_glass, str(error))
        raise
    if dry_run:
        return decision
    if decision.allowed:
        decision = moving.carry_out(asked, decision, evidence)
    else:
        recording.write_refusal(asked, decision)
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


def _check_approval_tag(name: str | None) -> None:
    if name is not None and (not name.strip() or name.startswith(("explain_step.", "mlflow."))):
        msg = f"Argument approval_tag must be the name of a deployment task, got {name!r}."
        raise InvalidInput(msg)


def _approve(registered: Registered, approval_tag: str | None, decision: GateDecision) -> None:
    from explain_step.tracking.registry import set_tag

    if approval_tag is not None:
        set_tag(registered, approval_tag, "approved" if decision.allowed else "rejected")
