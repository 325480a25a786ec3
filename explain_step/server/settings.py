"""What the operator of the server has set: from the command line of ``mlflow server`` and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from explain_step.errors import InvalidInput
from explain_step.gate import Policy, load_policy

SCHEME = "explain-gate+"
POLICY = "EXPLAIN_STEP_POLICY"
MODE = "EXPLAIN_STEP_GATE"
AUDIT_LOG = "EXPLAIN_STEP_AUDIT_LOG"
TIMEOUT = "EXPLAIN_STEP_GATE_TIMEOUT"
UNSEALED = "EXPLAIN_STEP_ALLOW_UNSEALED"
DEFAULT_TIMEOUT = 60.0
"""Seconds in which the evidence must have been read; later is a refusal."""

Mode = Literal["enforce", "dry-run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """How ``mlflow server`` was started, as far as the gate depends on it."""

    registry_uri: str | None
    backend_uri: str | None
    destination: str | None
    serves_artifacts: bool
    artifacts_only: bool
    read_replica: str | None = None

    @property
    def guards_registry(self) -> bool:
        """Whether promotion goes through the gate."""
        return str(self.registry_uri or "").startswith(SCHEME)

    @property
    def seals_artifacts(self) -> bool:
        """Whether the artifacts that the server takes go through the gate."""
        return self.serves_artifacts and str(self.destination or "").startswith(SCHEME)


def stripped(uri: str) -> str:
    """Return a URI without the scheme of the gate.

    Examples
    --------
    >>> stripped("explain-gate+sqlite:///m.db")
    'sqlite:///m.db'
    """
    return uri.removeprefix(SCHEME)


def deployment_of_worker() -> Deployment:
    """Read what ``mlflow server`` hands to its worker processes."""
    env = os.environ.get
    return Deployment(
        registry_uri=env("_MLFLOW_SERVER_REGISTRY_STORE") or env("_MLFLOW_SERVER_FILE_STORE"),
        backend_uri=env("_MLFLOW_SERVER_FILE_STORE"),
        destination=env("_MLFLOW_SERVER_ARTIFACT_DESTINATION"),
        serves_artifacts=env("_MLFLOW_SERVER_SERVE_ARTIFACTS", "false") == "true",
        artifacts_only=env("_MLFLOW_SERVER_ARTIFACTS_ONLY", "false") == "true",
        read_replica=env("_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"),
    )


def deployment_of_command(params: Mapping[str, Any]) -> Deployment:
    """Read the options with which the ``mlflow server`` command starts its workers."""
    backend = params.get("file_store_path")
    return Deployment(
        registry_uri=params.get("registry_store_uri") or backend,
        backend_uri=backend,
        destination=params.get("artifacts_destination"),
        serves_artifacts=bool(params.get("serve_artifacts")),
        artifacts_only=bool(params.get("artifacts_only")),
        read_replica=params.get("read_replica_backend_store_uri"),
    )


def mode() -> Mode:
    """Return how refusals are treated; anything but ``dry-run`` enforces.

    Raises
    ------
    InvalidInput
        The environment variable has another value: a typing error must not switch the gate off or on.
    """
    value = os.environ.get(MODE, "").strip().casefold() or "enforce"
    if value == "dry-run":
        return "dry-run"
    if value == "enforce":
        return "enforce"
    msg = f"Environment variable {MODE} must be 'enforce' or 'dry-run', got {value!r}."
    raise InvalidInput(msg)


def current_policy() -> Policy:
    """Read the policy: at every decision, so that a changed file counts at once and an unreadable one refuses."""
    return load_policy(os.environ.get(POLICY) or None)


def timeout() -> float:
    """Return the seconds in which evidence must have been read.

    Raises
    ------
    InvalidInput
        Not a positive number.
    """
    text = os.environ.get(TIMEOUT) or str(DEFAULT_TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        msg = f"Environment variable {TIMEOUT} must be seconds above zero, got {text!r}."
        raise InvalidInput(msg)
    return seconds


def accepts_unsealed() -> bool:
    """Whether models may be promoted whose files do not go through the sealed artifact store."""
    return os.environ.get(UNSEALED, "").strip() == "1"


def audit_path() -> str | None:
    """Return the file of the audit log."""
    return os.environ.get(AUDIT_LOG) or None
