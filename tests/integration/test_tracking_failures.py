"""Promise 1: the run, its model and its metrics survive whatever happens to the explanation."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from requests.exceptions import ConnectionError as NoConnection
from tracking_kit import Store, current_store, fitted, hand_made, log, rows

import explain_step
from explain_step.errors import BindingError, ExplainStepError
from explain_step.tracking import mark, mark_failure, resolve, training_run, upload
from explain_step.tracking.marks import unreachable


def explanation_of(tags: dict[str, str]) -> tuple[str | None, str | None]:
    return tags.get("explain_step.status"), tags.get("explain_step.reason")


def test_a_training_run_with_an_explanation_stays_as_it_was_judged(
    active_store: Store, tmp_path: Path
) -> None:
    with training_run(run_name="weekly") as run:
        client = MlflowClient()
        assert explanation_of(client.get_run(run.info.run_id).data.tags)[0] == "pending"
        log(fitted())
        upload(hand_made(tmp_path, status="degraded"), resolve())
    done = client.get_run(run.info.run_id)
    assert done.info.status == "FINISHED"
    assert explanation_of(done.data.tags)[0] == "degraded"


def test_a_run_that_forgets_the_explanation_is_incomplete_and_finished(active_store: Store) -> None:
    with training_run() as run:
        mlflow.log_metric("auc", 0.8)
        info = log(fitted(), registered="mortgage")
    client = active_store.client
    done = client.get_run(run.info.run_id)
    assert (done.info.status, done.data.metrics["auc"]) == ("FINISHED", 0.8)
    for tags in (
        done.data.tags,
        client.get_logged_model(info.model_id).tags,
        client.get_model_version("mortgage", "1").tags,
    ):
        status, reason = explanation_of(tags)
        assert status == "incomplete"
        assert "explain_step.log_explanations" in str(reason)


def test_a_body_that_raises_fails_as_with_mlflow(active_store: Store) -> None:
    with pytest.raises(RuntimeError, match="no data"), training_run() as run:
        raise RuntimeError("no data")
    done = active_store.client.get_run(run.info.run_id)
    assert done.info.status == "FAILED"
    assert explanation_of(done.data.tags) == (
        "failed",
        "the run failed before it was explained: RuntimeError: no data",
    )


def test_a_body_that_raises_after_the_explanation_keeps_it(active_store: Store, tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), training_run() as run:
        log(fitted())
        upload(hand_made(tmp_path), resolve())
        raise RuntimeError("later")
    done = active_store.client.get_run(run.info.run_id)
    assert (done.info.status, explanation_of(done.data.tags)[0]) == ("FAILED", "complete")


def test_marking_that_fails_does_not_fail_the_run(
    active_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("403")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with caplog.at_level(logging.WARNING, logger="explain_step"), training_run() as run:
        pass
    assert active_store.client.get_run(run.info.run_id).info.status == "FINISHED"
    assert "could not be marked: 403" in caplog.text


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Put a file where the folder would be: nobody, not even root, can write below it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    yield
    assert folder.read_text() == "in the way"


def test_a_store_that_refuses_writes_leaves_run_and_model(active_store: Store, tmp_path: Path) -> None:
    shot = hand_made(tmp_path / "local")
    with mlflow.start_run() as run:
        mlflow.log_metric("auc", 0.8)
        info = log(fitted(), registered="mortgage")
        target = resolve()
        mark(target, status="pending", reason="the explanation was started")
        root = Path(str(target.model_location).removeprefix("file://"))
        with read_only(root / "explanations"):
            try:
                upload(shot, target)
            except OSError as error:
                logged = mark_failure(target, error)
    assert logged.status == "failed"
    assert (logged.snapshot, logged.model_id) == (None, info.model_id)
    client = active_store.client
    done = client.get_run(run.info.run_id)
    assert (done.info.status, done.data.metrics) == ("FINISHED", {"auc": 0.8})
    assert mlflow.sklearn.load_model("models:/mortgage/1").coef_.shape == (1, 3)
    for tags in (done.data.tags, client.get_model_version("mortgage", "1").tags):
        status, reason = explanation_of(tags)
        assert status == "failed"
        assert "Error" in str(reason)
        assert "explain_step.snapshot_id" not in tags


def test_a_run_that_refuses_the_copy_keeps_complete_evidence_and_says_so(
    active_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shot = hand_made(tmp_path / "local")
    with mlflow.start_run() as run:
        info = log(fitted())
        target = resolve()
        with read_only(Path(str(target.run_location).removeprefix("file://")) / "explanations"):
            logged = upload(shot, target)
    assert logged.status == "complete"
    assert "the copy on the run could not be written" in logged.reason
    root = Path(active_store.client.get_logged_model(info.model_id).artifact_location.removeprefix("file://"))
    assert (root / "explanations" / shot.id / "manifest.json").is_file()
    tags = active_store.client.get_run(run.info.run_id).data.tags
    assert explanation_of(tags)[0] == "complete"
    assert "could not be written" in str(explanation_of(tags)[1])
    assert "could not be written" in caplog.text


def test_failure_without_a_target_marks_the_active_run_or_nothing(active_store: Store) -> None:
    with mlflow.start_run() as run:
        logged = mark_failure(None, ExplainStepError("argument X must have rows, got 0"))
    tags = active_store.client.get_run(run.info.run_id).data.tags
    assert explanation_of(tags) == ("failed", "ExplainStepError: argument X must have rows, got 0")
    assert logged.run_id == run.info.run_id
    assert mark_failure(None, ValueError("no run")).run_id is None


def test_a_server_that_does_not_answer_is_not_asked_a_second_time(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with counting_listener() as (url, calls):
        target = resolve(
            run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri
        )
        gone = type(target)(
            client=MlflowClient(tracking_uri=url),
            run_id=target.run_id,
            experiment_id=target.experiment_id,
            model_id=None,
            model_uri=None,
        )
        logged = mark_failure(gone, NoConnection("[Errno 111] Connection refused"))
        assert calls == []
    assert logged.status == "failed"
    assert "does not answer" in caplog.text


@contextlib.contextmanager
def counting_listener() -> Iterator[tuple[str, list[Any]]]:
    calls: list[Any] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, address = listener.accept()
                    connection.close()
                    calls.append(address)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", calls
        finally:
            done.set()
            thread.join()


def test_an_error_of_a_dead_server_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Exception, match="Max retries") as caught:
        MlflowClient(tracking_uri=f"http://127.0.0.1:{port}").get_run("0" * 32)
    assert unreachable(caught.value)
    assert not unreachable(PermissionError("403"))


@pytest.mark.slow
@pytest.mark.oldest
def test_a_server_whose_disk_refuses_writes(
    server_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with current_store(server_store.uri, server_store.experiment_id), mlflow.start_run() as run:
        info = log(fitted())
        target = resolve()
        root = server_store.artifacts / server_store.experiment_id / "models" / info.model_id / "artifacts"
        with read_only(root / "explanations"):
            try:
                upload(hand_made(tmp_path / "local"), target)
            except Exception as error:
                logged = mark_failure(target, error)
    done = server_store.client.get_run(run.info.run_id)
    assert (done.info.status, explanation_of(done.data.tags)[0], logged.status) == (
        "FINISHED",
        "failed",
        "failed",
    )


class Broken:
    """A model that raises when it is asked."""

    def predict(self, X: Any) -> Any:
        raise RuntimeError("the feature store is down")


def test_the_whole_step_leaves_a_good_run_when_the_model_raises(active_store: Store) -> None:
    X, y = rows()
    with training_run() as run:
        mlflow.log_metric("auc", 0.8)
        info = log(fitted(), registered="mortgage")
        logged = explain_step.log_explanations(Broken(), X, y)
    client = active_store.client
    done = client.get_run(run.info.run_id)
    assert (done.info.status, done.data.metrics) == ("FINISHED", {"auc": 0.8})
    assert (logged.status, logged.snapshot, logged.model_id) == ("failed", None, info.model_id)
    for tags in (done.data.tags, client.get_model_version("mortgage", "1").tags):
        assert explanation_of(tags)[0] == "failed"
        assert "the feature store is down" in str(explanation_of(tags)[1])


def test_the_whole_step_refuses_to_explain_another_model_than_the_logged_one(active_store: Store) -> None:
    X, y = rows()
    with mlflow.start_run() as run:
        log(fitted(C=0.01))
        logged = explain_step.log_explanations(fitted(C=1.0), X, y)
        with pytest.raises(BindingError):
            explain_step.log_explanations(fitted(C=1.0), X, y, on_error="raise")
    done = active_store.client.get_run(run.info.run_id)
    assert (done.info.status, logged.status) == ("FINISHED", "failed")
    assert "is not the explained model" in logged.reason


def test_the_log_calls_nothing_marked_where_there_is_no_run(
    active_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    X, y = rows()
    assert explain_step.log_explanations(fitted(), X, y).status == "failed"
    assert "not explained; there is no run to mark" in caplog.text
    caplog.clear()
    with mlflow.start_run() as run:
        assert explain_step.log_explanations(fitted(), X, y, budget=-1).status == "failed"
    assert f"not explained; {run.info.run_id} is marked 'failed'" in caplog.text
