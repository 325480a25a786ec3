"""The MLproject's entry points run with ``mlflow run . --env-manager local``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def mlflow_run(*arguments: str, uri: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=560, check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_the_main_entry_point_works_in_the_run_that_mlflow_has_started(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("project", artifact_location=(tmp_path / "art").as_uri())
    told = mlflow_run("--experiment-name", "project", uri=uri, cwd=tmp_path)
    (run,) = client.search_runs([experiment])
    assert run.data.tags["explain_step.status"] == "complete"
    assert run.data.tags["mlflow.project.entryPoint"] == "main"
    assert "mortgage version 1 is explained: complete" in told


@pytest.mark.timeout(900)  # two whole runs, each in a process of its own
def test_train_then_explain_an_existing_version(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.create_experiment("project", artifact_location=(tmp_path / "art").as_uri())
    mlflow_run("-e", "train", "--experiment-name", "project", uri=uri, cwd=tmp_path)
    version = client.get_model_version("mortgage", "1")
    assert version.tags["explain_step.status"] == "complete"
    first = version.tags["explain_step.snapshot_id"]

    # explained before, so that a pickle of old MLflow is proven by its digest
    rows = tmp_path / "rows.parquet"
    pd.read_csv(ROOT / "examples/data/hmda.csv").tail(300).to_parquet(rows)
    mlflow_run(
        "-e", "explain", "--experiment-name", "project", "-P", "model_uri=models:/mortgage/1", "-P", f"data={rows}",
        "-P", "target=deny", "-P", "segments=afam", uri=uri, cwd=tmp_path,
    )  # fmt: skip
    assert client.get_model_version("mortgage", "1").tags["explain_step.snapshot_id"] != first


def test_entry_points_are_the_three_of_the_readme() -> None:
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    assert set(project["entry_points"]) == {"main", "train", "explain"}
