"""Versions whose files are a run's own, as MLflow 2 made them: the run keeps the evidence, and the gate finds it."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from tracking_kit import REQUIREMENTS, Store, fitted, rows

import explain_step

pytestmark = [pytest.mark.slow, pytest.mark.oldest]


@pytest.fixture
def version(active_store: Store, tmp_path: Path) -> str:
    """Return the URI of a version of plain files, and explain it."""
    X, y = rows()
    model = fitted()
    folder = tmp_path / "saved"
    mlflow.sklearn.save_model(model, folder, serialization_format="skops", pip_requirements=REQUIREMENTS)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    client = active_store.client
    client.create_registered_model("old")
    client.create_model_version("old", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    logged = explain_step.log_explanations(X=X, y=y, model_uri="models:/old/1", run_id=run.info.run_id)
    assert (logged.status, logged.model_id) == ("complete", None), logged.reason
    return "models:/old/1"


def test_the_gate_finds_the_evidence_of_the_run(active_store: Store, version: str) -> None:
    decision = explain_step.promote(version, "champion", tracking_uri=active_store.uri)
    assert decision.allowed, decision.summary
    assert active_store.client.get_model_version_by_alias("old", "champion").version == 1
    model = explain_step.load_model(version, tracking_uri=active_store.uri)
    assert model.coef_.shape == (1, 3)


def test_changed_files_of_the_run_are_refused(active_store: Store, version: str) -> None:
    (weights,) = active_store.artifacts.rglob("model/model.*")
    weights.write_bytes(weights.read_bytes() + b" ")
    decision = explain_step.gate(version, tracking_uri=active_store.uri)
    assert decision.outcome == "refuse"
    assert decision.blocking[0].code == "GATE004"


def test_evidence_of_another_run_does_not_count(active_store: Store, version: str) -> None:
    client = active_store.client
    source = client.get_run(client.get_model_version("old", "1").run_id).info
    theirs = mlflow.artifacts.download_artifacts(run_id=source.run_id, artifact_path="")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(theirs)
    client.create_model_version("old", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    decision = explain_step.gate("models:/old/2", tracking_uri=active_store.uri)
    assert decision.outcome == "refuse"
    assert [f.code for f in decision.blocking] == ["GATE005"]


@pytest.mark.parametrize("elsewhere", ["{root}/../other/model", "{root}-other/model"])
def test_files_that_are_not_the_runs_are_never_judged_by_its_evidence(
    active_store: Store, version: str, elsewhere: str
) -> None:
    client = active_store.client
    run = client.get_run(client.get_model_version("old", "1").run_id).info
    client.create_model_version("old", elsewhere.format(root=run.artifact_uri), run_id=run.run_id)
    decision = explain_step.gate("models:/old/2", tracking_uri=active_store.uri)
    assert decision.outcome == "undecided"
    assert f"not among the artifacts of run {run.run_id}" in decision.summary
