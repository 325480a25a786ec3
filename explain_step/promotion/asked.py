"""What is asked for: one version to one alias, by which rules, and with whose word against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

from explain_step.errors import InvalidInput

if TYPE_CHECKING:
    from explain_step.gate.decision import BreakGlassUse
    from explain_step.gate.evidence import Request
    from explain_step.gate.policy import Policy
    from explain_step.tracking.registry import Registered

BREAK_GLASS_KEYS = {"owner", "reason", "expires"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One promotion: which version to which alias, by which rules."""

    registered: Registered
    policy: Policy
    request: Request
    break_glass: BreakGlassUse | None

    @property
    def alias(self) -> str:
        """The alias that shall point to the version."""
        return str(self.request.target)


def break_glass_use(given: BreakGlassUse | Mapping[str, Any] | None) -> BreakGlassUse | None:
    """Return a use of break-glass from what the caller gave; raise `InvalidInput` where it is none."""
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
