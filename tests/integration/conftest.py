"""The gated server that the tests of the gate share: one process and one explained model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it imports MLflow, which takes seconds and most tests do not need
    from gate_kit import World


@pytest.fixture(scope="session")
def migrated(_migrated: Path) -> Path:
    """Return a database that has MLflow's tables."""
    return _migrated


@pytest.fixture(scope="session")
def world(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start the gated server and explain one version."""
    import server_kit
    import tracking_kit
    from gate_kit import GATE_POLICY, Version, World, log_explained
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("gated")
    with server_kit.serving(folder, policy=GATE_POLICY, migrated=migrated) as server:
        client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
        experiment_id = client.create_experiment("gate")
        with contextlib.chdir(folder), tracking_kit.current_store(server.url, experiment_id):
            logged = log_explained(server.url, "mortgage")
        assert logged.status == "complete", logged.reason
        path = client.get_logged_model(logged.model_id).artifact_location.removeprefix("mlflow-artifacts:/")
        good = Version(
            name="mortgage",
            version="1",
            model_id=logged.model_id,
            run_id=logged.run_id,
            path=path,
            folder=server.artifacts / path,
            snapshot_id=logged.id,
        )
        yield World(server=server, client=client, experiment_id=experiment_id, good=good)
