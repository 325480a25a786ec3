"""A store with one explained and one unexplained version, for tests of the gate's client side."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tracking_kit import current_store, fitted, log, rows

import explain_step

NAME = "mortgage"
EXPLAINED, UNEXPLAINED, OTHER = f"models:/{NAME}/1", f"models:/{NAME}/2", f"models:/{NAME}/3"


@dataclass(frozen=True, kw_only=True)
class Mortgage:
    """Version 1 and 3 are explained (the same logged model), version 2 is not."""

    uri: str
    client: MlflowClient
    model: Path
    """Folder of the explained logged model's files."""
    unexplained: Path

    def alias(self, alias: str = "champion") -> str | None:
        found = self.client.get_registered_model(NAME).aliases.get(alias)
        return None if found is None else str(found)

    def tags(self, version: str = "1") -> dict[str, str]:
        return dict(self.client.get_model_version(NAME, version).tags)

    @property
    def decisions(self) -> Path:
        return self.model / "explanations" / "decisions"


def dispose(uri: str) -> None:
    """Close the connections that MLflow keeps for a store, so that none is found open later."""
    from mlflow.tracking._model_registry.utils import _get_store as registry_store
    from mlflow.tracking._tracking_service.utils import _get_store as tracking_store

    for store in (tracking_store(uri), registry_store(uri)):
        store.engine.dispose()


@pytest.fixture(name="made", scope="session")
def made_fixture(_migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train, register and explain once; it takes seconds."""
    folder = tmp_path_factory.mktemp("promotion")
    shutil.copyfile(_migrated, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = MlflowClient(tracking_uri=uri).create_experiment(
        "tests", artifact_location=(folder / "artifacts").as_uri()
    )
    X, y = rows()
    with current_store(uri, experiment):
        for explained in (True, False):
            with mlflow.start_run():
                model = fitted(C=1.0 if explained else 0.1)
                log(model, registered=NAME)
                if explained:
                    explain_step.log_explanations(
                        model, X, y, background=X, segments=["age"], on_error="raise"
                    )
        client = MlflowClient()
        first = client.get_model_version(NAME, "1")
        client.create_model_version(NAME, first.source, run_id=first.run_id)
    dispose(uri)
    shutil.copytree(folder / "artifacts", folder / "kept")
    return folder


@pytest.fixture(name="mortgage")
def mortgage_fixture(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mortgage]:
    """Return a database of its own; the artifacts, whose place is fixed, are put back afterwards."""
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    shutil.copyfile(made / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    places = [
        Path(client.get_model_version_download_uri(NAME, v).removeprefix("file://")) for v in ("1", "2")
    ]
    try:
        yield Mortgage(uri=uri, client=client, model=places[0], unexplained=places[1])
    finally:
        dispose(uri)
        shutil.rmtree(made / "artifacts")
        shutil.copytree(made / "kept", made / "artifacts")
