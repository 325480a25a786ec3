"""What promotion writes to the decision log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explain_step.gate.decision import BreakGlassUse, GateDecision
    from explain_step.promotion.asked import Asked

logger = logging.getLogger("explain_step.promotion")


def write(asked: Asked, event: str, decision: GateDecision, *, before: str | None) -> None:
    """Write a decision and what became of it."""
    from explain_step.tracking import decision_log

    record = {"event": event, "by": asked.request.by, "alias_before": before, **decision.record()}
    decision_log.write(asked.registered, record)


def write_refusal(asked: Asked, decision: GateDecision) -> None:
    """Log a decision that moves nothing; it stands also where it cannot be logged."""
    from explain_step.tracking.registry import version_behind

    try:
        write(asked, "decision", decision, before=version_behind(asked.registered, asked.alias))
    except Exception as error:  # noqa: BLE001 - a refusal is safe without a log; stores raise types of their own
        logger.warning("explain_step: the refusal could not be written to the decision log: %s", error)


def write_denied_break_glass(asked: Asked, use: BreakGlassUse, why: str) -> None:
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
