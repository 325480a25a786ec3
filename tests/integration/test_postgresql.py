"""The client side on a real PostgreSQL: what SQLite forgives, it does not."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from tracking_kit import current_store, fitted, log, rows

import explain_step

if TYPE_CHECKING:
    from postgres import Postgres


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database(f"t{uuid.uuid4().hex}")


def test_the_step_marks_explains_and_is_read_back(database: str, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=database)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    X, y = rows()
    model = fitted()
    with current_store(database, experiment), explain_step.training_run() as run:
        log(model, registered="mortgage")
        logged = explain_step.log_explanations(model, X, y)
    assert (logged.status, logged.versions) == ("complete", (("mortgage", "1"),))
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert client.get_model_version("mortgage", "1").tags["explain_step.snapshot_id"] == logged.id
    client.set_registered_model_alias("mortgage", "champion", "1")
    shot = explain_step.read("models:/mortgage@champion", tracking_uri=database)
    assert shot.id == logged.id
    (finding,) = explain_step.verify("models:/mortgage/1", tracking_uri=database)
    assert finding.verdict == "pass"
