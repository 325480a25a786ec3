"""``GET /explain-step/health``: whether the gate is active, and with which policy."""

from __future__ import annotations

from typing import Any

from explain_step import __version__
from explain_step.errors import ExplainStepError
from explain_step.server import settings
from explain_step.server.audit_log import check_writable
from explain_step.server.client import registry_of_server, tracking_of_server
from explain_step.server.registry_store import RegistryGuards
from explain_step.server.settings import Deployment
from explain_step.server.tracking_store import TrackingGuards

ROUTE = "/explain-step/health"


def report(deployment: Deployment) -> tuple[dict[str, Any], int]:
    """Return the state of the gate in this worker, and 503 where promotions are refused because of it."""
    facts: dict[str, Any] = {
        "version": __version__,
        "registry": _guarded(registry_of_server, RegistryGuards),
        "tracking": _guarded(tracking_of_server, TrackingGuards),
        "artifacts": _artifacts(deployment),
        "audit_log": "file" if settings.audit_path() else "logger only",
    }
    problems = [f"{part} is {facts[part]}" for part in ("registry", "tracking") if facts[part] != "guarded"]
    unwritable = check_writable(settings.audit_path())
    problems += [] if unwritable is None else [unwritable]
    try:
        policy = settings.current_policy()
        facts |= {"mode": settings.mode(), "policy": {"name": policy.name, "digest": policy.digest}}
        facts["protected"] = policy.protected.model_dump(mode="json")
    except ExplainStepError as error:
        problems.append(str(error))
    facts |= {"active": not problems, "problems": problems}
    return facts, 503 if problems else 200


def _guarded(store: Any, guards: type) -> str:
    return "guarded" if isinstance(store(), guards) else "open"


def _artifacts(deployment: Deployment) -> str:
    if not deployment.serves_artifacts:
        return "not served here"
    return "sealed" if deployment.seals_artifacts else "open"
