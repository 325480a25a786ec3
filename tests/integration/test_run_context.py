"""Runs that have to be explained are marked from their start, also when nothing of ours runs at their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import mlflow
import pytest
from audit_kit import POLICY, train
from sklearn.linear_model import LogisticRegression
from tracking_kit import Store, rows

import explain_step
from explain_step.tracking.run_context import RequiredExplanation

STATUS = "explain_step.status"
PATIENCE = 120.0
SCRIPT = """
import sys, time, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(experiment_id=sys.argv[2])
mlflow.start_run()
print("started", flush=True)
time.sleep(600)
"""


def status(run: mlflow.ActiveRun) -> str | None:
    return mlflow.MlflowClient().get_run(run.info.run_id).data.tags.get(STATUS)


def test_it_is_registered_with_mlflow() -> None:
    found = entry_points(group="mlflow.run_context_provider")
    assert [e.load() for e in found if e.name == "explain_step"] == [RequiredExplanation]


@pytest.mark.parametrize("value", [None, "", "0", "false", "No"])
def test_nothing_is_marked_where_nothing_is_required(
    active_store: Store, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("EXPLAIN_STEP_REQUIRED", raising=False)
    else:
        monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", value)
    with mlflow.start_run() as run:
        pass
    assert status(run) is None


@pytest.mark.parametrize("value", ["1", "true", "YES", "tests", "other, tests", "id"])
def test_runs_are_marked_where_it_is_required(
    active_store: Store, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    asked = active_store.experiment_id if value == "id" else value
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", asked)
    with mlflow.start_run() as run:
        assert status(run) == "pending"
    tags = mlflow.MlflowClient().get_run(run.info.run_id).data.tags
    assert f"EXPLAIN_STEP_REQUIRED={asked}" in tags["explain_step.reason"]


def test_the_experiment_of_the_run_counts_not_the_active_one(
    active_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = active_store.client.create_experiment("sandbox", artifact_location=tmp_path.as_uri())
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "sandbox")
    with mlflow.start_run() as here:
        pass
    with mlflow.start_run(experiment_id=other) as there:
        pass
    assert (status(here), status(there)) == (None, "pending")


def test_given_tags_win(active_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "1")
    with mlflow.start_run(tags={STATUS: "waived"}) as run:
        pass
    assert status(run) == "waived"


def test_an_unknown_experiment_is_marked_rather_than_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "tests")
    assert RequiredExplanation().in_context()  # not asked by mlflow.start_run: nobody says which experiment


def test_an_explained_run_and_its_model_lose_the_mark(
    active_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "1")
    made = train(active_store, tmp_path)
    client = active_store.client
    assert client.get_run(made.run_id).data.tags[STATUS] == "degraded"
    assert client.get_logged_model(made.model_id).tags[STATUS] == "degraded"
    left = train(active_store, tmp_path, explained=False, C=0.1)
    assert client.get_logged_model(left.model_id).tags[STATUS] == "pending"  # models are marked like runs
    found = explain_step.audit(policy=POLICY)
    assert sorted(found[found["verdict"] == "fail"]["kind"]) == ["model", "run"]


def test_training_run_judges_runs_that_the_plugin_marked(
    active_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "1")
    with explain_step.training_run() as parent, explain_step.training_run(nested=True) as child:
        pass
    assert (status(parent), status(child)) == ("incomplete", "incomplete")
    with pytest.raises(ZeroDivisionError), explain_step.training_run() as broken:
        1 / 0  # noqa: B018
    assert status(broken) == "failed"
    made = train(active_store, tmp_path)
    with explain_step.training_run(run_id=made.run_id) as resumed:
        assert status(resumed) == "degraded"
    assert status(resumed) == "degraded"  # what was explained stays explained


def test_training_run_with_autologging(active_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "1")
    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        with explain_step.training_run() as run:
            LogisticRegression().fit(*rows())
        LogisticRegression().fit(*rows())  # autologging starts a run of its own
    finally:
        mlflow.sklearn.autolog(disable=True)
    assert status(run) == "incomplete"
    found = active_store.client.search_runs([active_store.experiment_id])
    assert sorted(r.data.tags[STATUS] for r in found) == ["incomplete", "pending"]


def test_a_killed_script_leaves_a_visible_mark(store: Store, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    process = subprocess.Popen(
        [sys.executable, str(script), store.uri, store.experiment_id],
        env={**environment, "EXPLAIN_STEP_REQUIRED": "tests"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        process.stdout.close()
    (run,) = store.client.search_runs([store.experiment_id])
    assert (run.info.status, run.data.tags[STATUS]) == ("RUNNING", "pending")
    found = explain_step.audit(tracking_uri=store.uri, policy=POLICY)
    row = found[found["kind"] == "run"].iloc[0]
    assert (row["status"], row["codes"], row["tag_status"]) == ("incomplete", "AUD001", "pending")


def test_it_is_light_and_loads_without_mlflow() -> None:
    start = (
        "import sys; import explain_step.tracking.run_context as r; r.RequiredExplanation().in_context(); "
    )
    code = f"{start}print('mlflow' in sys.modules, 'sklearn' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False False"


def test_a_store_that_does_not_answer_marks(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    from explain_step.tracking import run_context

    monkeypatch.setattr(run_context, "started_in", lambda: "no-such-experiment")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("EXPLAIN_STEP_REQUIRED", "tests")
    assert RequiredExplanation().in_context()
