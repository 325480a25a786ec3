"""The guarded stores in this process: what is not known refuses, faults refuse, and dry-run only records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from explain_step.server import artifact_repository, registry_store

if TYPE_CHECKING:
    from gate_kit import World

pytestmark = pytest.mark.slow


@pytest.fixture
def store(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Open a copy of the shared server's registry behind the gate."""
    shutil.copyfile(world.server.folder / "mlflow.db", tmp_path / "mlflow.db")
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    destination = f"explain-gate+{world.server.artifacts.as_uri()}"
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", destination)
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    monkeypatch.setenv("EXPLAIN_STEP_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    opened = registry_store.open_store(f"explain-gate+{database}", database)
    yield opened
    opened.judge.tracking().engine.dispose()
    opened.engine.dispose()


def outcomes(folder: Path) -> list[str]:
    return [json.loads(line)["outcome"] for line in (folder / "audit.jsonl").read_text().splitlines()]


def test_every_method_of_the_stores_is_classified() -> None:
    from mlflow.store.model_registry.abstract_store import AbstractStore

    assert registry_store.unclassified(AbstractStore) == []
    assert registry_store.unclassified(SqlAlchemyStore) == []
    assert artifact_repository.unclassified(ArtifactRepository) == []
    assert artifact_repository.unclassified(LocalArtifactRepository) == []
    for name in registry_store.GUARDED:
        assert name in vars(registry_store.RegistryGuards), name


def test_every_mixin_of_the_repositories_is_known() -> None:
    from mlflow.store.artifact import artifact_repo

    known = artifact_repository.READS | artifact_repository.WRITES
    known |= artifact_repository.MULTIPART | artifact_repository.STREAMS
    for name in (
        "MultipartUploadMixin",
        "MultipartDownloadMixin",
        "PresignedUploadMixin",
        "StreamUploadMixin",
    ):
        mixin = getattr(artifact_repo, name, None)
        if mixin is not None:
            assert {method for method in vars(mixin) if not method.startswith("_")} <= known


def test_a_writing_method_that_is_not_known_refuses() -> None:
    class Newer:
        def promote_everything(self) -> str:
            return "promoted"

        def get_everything(self) -> str:
            return "read"

    guarded = registry_store.guarded_class(Newer)()
    guarded.judge = _Refuser()
    with pytest.raises(MlflowException, match="does not know promote_everything"):
        guarded.promote_everything()
    assert guarded.get_everything() == "read"


class _Refuser:
    def refuse(self, action: str, message: str, **facts: Any) -> None:
        raise MlflowException(message)


def test_dry_run_only_records(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_registered_model("dry")
    store.create_model_version("dry", "dummy-source")
    with pytest.raises(MlflowException, match="may not get alias"):
        store.set_registered_model_alias("dry", "champion", "1")
    monkeypatch.setenv("EXPLAIN_STEP_GATE", "dry-run")
    store.set_registered_model_alias("dry", "champion", "1")
    assert store.get_registered_model("dry").aliases == {"champion": 1}
    assert outcomes(tmp_path) == ["refuse", "would_refuse"]


def test_a_typing_error_in_the_mode_enforces(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_registered_model("typo")
    store.create_model_version("typo", "dummy-source")
    monkeypatch.setenv("EXPLAIN_STEP_GATE", "dryrun")
    with pytest.raises(MlflowException, match="may not get alias"):
        store.set_registered_model_alias("typo", "champion", "1")


def test_evidence_that_is_not_read_in_time_refuses(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set_registered_model_alias("mortgage", "champion", "1")
    monkeypatch.setenv("EXPLAIN_STEP_GATE_TIMEOUT", "0.000001")
    with pytest.raises(MlflowException, match="was not read within") as caught:
        store.set_registered_model_alias("mortgage", "champion", "1")
    assert caught.value.error_code == "PERMISSION_DENIED"


def test_an_artifact_store_that_fails_refuses(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(location: str, **_: Any) -> Any:
        message = "the bucket does not answer"
        raise ConnectionError(message)

    monkeypatch.setattr("explain_step.server.places.open_at", broken)
    with pytest.raises(MlflowException, match="the bucket does not answer"):
        store.set_registered_model_alias("mortgage", "champion", "1")


def test_an_allow_that_cannot_be_recorded_is_not_carried_out(
    world: World, tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.delete_registered_model_alias("mortgage", "champion")
    (tmp_path / "audit.jsonl").unlink(missing_ok=True)
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(MlflowException, match="audit log of the server cannot be written") as caught:
        store.set_registered_model_alias("mortgage", "champion", "1")
    assert caught.value.get_http_status_code() == 403  # MLflow's client would repeat a 500 for minutes
    assert "champion" not in store.get_registered_model("mortgage").aliases
    store.create_registered_model("unrecorded")
    store.create_model_version("unrecorded", "dummy-source")
    with pytest.raises(MlflowException, match="refused all the same: models:/unrecorded/1 may not get"):
        store.set_registered_model_alias("unrecorded", "champion", "1")


def test_files_that_do_not_go_through_the_sealed_store_are_refused(
    store: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from explain_step.errors import ExplainStepError
    from explain_step.server import places

    deployment = store.judge.deployment
    location = world.good.folder.as_uri()
    for elsewhere in (
        location,
        "mlflow-artifacts://other:5000/1",
        "s3://bucket/1",
        "mlflow-artifacts:/1/../2",
    ):
        with pytest.raises(ExplainStepError, match="does not go through the sealed artifact store"):
            places.open_at(elsewhere, deployment=deployment)
    monkeypatch.setenv("EXPLAIN_STEP_ALLOW_UNSEALED", "1")
    assert places.open_at(location, deployment=deployment).children()["MLmodel"] is False
