"""What MLflow finds under its entry points. It is read at every ``import mlflow``, so it imports next to nothing."""

from __future__ import annotations

import os
import sys
from typing import Any

_SCHEME = "explain-gate+"
_VARIABLES = (
    *("_MLFLOW_SERVER_REGISTRY_STORE", "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_ARTIFACT_DESTINATION"),
    *("MLFLOW_REGISTRY_STORE_URI", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"),
)


def registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """Return the guarded model-registry store (entry point ``mlflow.model_registry_store``)."""
    from explain_step.server.registry_store import open_store

    return open_store(store_uri, tracking_uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """Return the guarded artifact repository (entry point ``mlflow.artifact_repository``)."""
    from explain_step.server.artifact_repository import open_repository

    return open_repository(artifact_uri, tracking_uri, registry_uri)


def _is_gated_server() -> bool:
    """Whether this process is ``mlflow server``, or a worker of it, with a URI of ours."""
    words = [*sys.argv, *(os.environ.get(name, "") for name in _VARIABLES)]
    return any(_SCHEME in word for word in words)


if _is_gated_server():
    from explain_step.server.start import watch

    watch()
