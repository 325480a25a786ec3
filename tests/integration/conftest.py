"""The gated server that the tests of the gate share: one process and one explained model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it imports MLflow, which takes seconds and most tests do not need
    from gate_kit import World

HOOKS = {"ALLOWED_SCHEMES": "http", "ALLOW_PRIVATE_IPS": "true", "CACHE_TTL": "1"}
"""With these the server sends web hooks to the tests, and notices new ones within a second."""


@pytest.fixture(scope="session")
def migrated(_migrated: Path) -> Path:
    """Return a database that has MLflow's tables."""
    return _migrated


@pytest.fixture(scope="session")
def world(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start the gated server and explain one version."""
    import server_kit
    from gate_kit import GATE_POLICY, explained_in
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("Gated")  # a store may lie in a folder with capital letters
    env = {f"MLFLOW_WEBHOOK_{key}": value for key, value in HOOKS.items()}
    with server_kit.serving(folder, policy=GATE_POLICY, migrated=migrated, env=env) as server:
        client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
        yield explained_in("gate", server, client)
