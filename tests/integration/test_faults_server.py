"""A server that is down, hangs or refuses: the training ends as it would have, and nothing that was made is lost."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fault_kit import Proxy, proxied
from mlflow import MlflowClient
from tracking_kit import Store, current_store, fitted, log, rows

import explain_step
from explain_step import cli
from explain_step.snapshot import verify_directory
from explain_step.tracking import deadline
from explain_step.tracking.spool import entries

pytestmark = pytest.mark.slow

QUICK = {"task": "binary", "max_rows": 40}


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """A store behind a proxy, and the spool."""

    proxy: Proxy
    store: Store
    spool: Path


@pytest.fixture
def faulty(server_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.chdir(tmp_path)
    spool = tmp_path / "spool"
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(spool))
    with proxied(server_store.uri) as proxy, current_store(proxy.url, server_store.experiment_id):
        yield Faulty(proxy=proxy, store=server_store, spool=spool)


def tags_of(store: Store, run_id: str, model_id: str, version: tuple[str, str]) -> list[dict[str, str]]:
    client = store.client
    found = [
        client.get_run(run_id).data.tags,
        client.get_logged_model(model_id).tags,
        client.get_model_version(*version).tags,
    ]
    return [{k: v for k, v in tags.items() if k.startswith("explain_step.")} for tags in found]


def resume(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli.invoke(["resume", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("fault", ["refuse", "hang", 500, 429, 403])
def test_training_goes_on_and_resume_finishes(
    faulty: Faulty, fault: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = rows(12)
    name = f"mortgage {faulty.store.experiment_id}"
    monkeypatch.setenv("EXPLAIN_STEP_DEADLINE", "2")
    with mlflow.start_run() as run:
        mlflow.log_metric("auc", 0.8)
        info = log(fitted(), registered=name)
        before = (dict(os.environ), mlflow.get_tracking_uri(), mlflow.get_registry_uri())
        faulty.proxy.close() if fault == "refuse" else setattr(faulty.proxy, "fault", fault)
        logged = explain_step.log_explanations(fitted(), X, y, **QUICK)
        assert (dict(os.environ), mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before
        assert (logged.status, logged.snapshot) == ("incomplete", None)
        assert "explain-step resume" in logged.reason
        assert [f.verdict for f in verify_directory(logged.spool)] == ["pass"]
        assert explain_step.read(logged.spool).id == logged.id
        if fault == "refuse":
            code, told = resume(capsys)
            assert (code, [e["outcome"] for e in told["entries"]]) == (3, ["no_answer"])
            faulty.proxy.open()
        faulty.proxy.fault = None
    done = faulty.store.client.get_run(run.info.run_id)
    assert (done.info.status, done.data.metrics) == ("FINISHED", {"auc": 0.8})

    monkeypatch.delenv("EXPLAIN_STEP_DEADLINE")
    code, told = resume(capsys, "--dry-run")
    assert (code, [e["outcome"] for e in told["entries"]]) == (0, ["waiting"])
    code, told = resume(capsys)
    assert (code, [e["outcome"] for e in told["entries"]]) == (0, ["stored"])
    assert entries(faulty.spool) == ()
    found = explain_step.read(f"models:/{name}/1", tracking_uri=faulty.store.uri)
    for tags in tags_of(faulty.store, run.info.run_id, info.model_id, (name, "1")):
        assert (tags["explain_step.status"], tags["explain_step.snapshot_id"]) == (found.status, found.id)
    assert found.model.digest is not None
    assert explain_step.verify(f"models:/{name}/1", tracking_uri=faulty.store.uri)[0].verdict == "pass"
    shown = {f.path for f in faulty.store.client.list_artifacts(run.info.run_id, "explanations")}
    assert {"explanations/report.html", "explanations/manifest.json"} <= shown
    state = faulty.store.client.get_run(run.info.run_id).data
    assert resume(capsys) == (0, {"spool": str(faulty.spool), "dry_run": False, "entries": []})
    again = faulty.store.client.get_run(run.info.run_id).data
    assert (again.tags, again.metrics) == (state.tags, state.metrics)
    if fault != "refuse":
        return
    # the step itself, now that the server answers, gives the same snapshot
    with mlflow.start_run(run_id=run.info.run_id):
        direct = explain_step.log_explanations(fitted(), X, y, on_error="raise", **QUICK)
    assert direct.id == found.id


def test_an_artifact_that_fails_leaves_no_manifest_and_a_tag_that_says_so(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = rows(12)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    puts: list[str] = []

    def third(method: str, path: str) -> bool:
        if method == "PUT":
            puts.append(path)
        return method == "PUT" and len(puts) >= 3

    with mlflow.start_run() as run:
        info = log(fitted())
        faulty.proxy.where, faulty.proxy.fault = third, 500
        logged = explain_step.log_explanations(fitted(), X, y, **QUICK)
        faulty.proxy.fault = None
    folder = f"models/{info.model_id}/artifacts/explanations/{logged.id}"
    there = faulty.store.artifacts / faulty.store.experiment_id / folder
    assert len([p for p in there.rglob("*") if p.is_file()]) == 2
    assert not (there / "manifest.json").exists()
    tags = faulty.store.client.get_run(run.info.run_id).data.tags
    assert tags["explain_step.status"] == "incomplete"
    assert "explain-step resume" in tags["explain_step.reason"]
    code, told = resume(capsys)
    assert (code, told["entries"][0]["snapshot_id"]) == (0, logged.id)
    assert [f.verdict for f in verify_directory(there)] == ["pass"]
    assert faulty.store.client.get_run(run.info.run_id).data.tags["explain_step.status"] != "incomplete"


def test_the_breaker_opens_before_the_deadline(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deadline, "PATIENCE", 0.1)
    X, y = rows(12)
    with mlflow.start_run():
        faulty.proxy.close()
        with caplog.at_level(logging.WARNING, logger="explain_step"):
            logged = explain_step.log_explanations(fitted(), X, y, **QUICK)
        faulty.proxy.open()
    assert "3 connections in a row failed" in logged.reason
    assert "explain-step resume" in caplog.text


def test_nothing_is_asked_once_the_time_is_over(faulty: Faulty) -> None:
    with deadline.within(0.5):
        client = deadline.connect(faulty.proxy.url)
        faulty.proxy.fault = "hang"
        with pytest.raises(TimeoutError, match=r"0\.5 s in all"):
            client.search_experiments()
    faulty.proxy.fault = None
    with deadline.within(0.5) as limit:
        limit.left = 0
        before = len(faulty.proxy.seen)
        with pytest.raises(TimeoutError):
            deadline.connect(faulty.proxy.url)
        assert len(faulty.proxy.seen) == before
    assert deadline.connect(faulty.proxy.url).search_experiments()


def test_the_deadline_counts_what_is_said_to_mlflow_and_not_the_explanation() -> None:
    with deadline.within(0.3) as limit:
        threading.Event().wait(0.4)
        assert deadline.bounded(max, 1, 2) == 2
        assert limit.left > 0


def test_an_error_passes_through_as_it_is() -> None:
    with deadline.within(5), pytest.raises(KeyError, match="gone"):
        deadline.bounded({}.__getitem__, "gone")


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan"])
def test_a_slip_in_the_setting_is_told_and_the_default_holds(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EXPLAIN_STEP_DEADLINE", text)
    with caplog.at_level(logging.WARNING, logger="explain_step"):
        assert deadline.seconds() == 120
    assert "EXPLAIN_STEP_DEADLINE must be a positive number" in caplog.text


def test_a_database_in_memory_stays_in_its_thread() -> None:
    with deadline.within(5):
        assert type(deadline.connect("sqlite://")) is MlflowClient


def test_a_run_that_is_gone_is_refused_and_stays(
    faulty: Faulty, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows(12)
    with mlflow.start_run() as run:
        monkeypatch.setenv("EXPLAIN_STEP_DEADLINE", "0.5")
        faulty.proxy.fault = "hang"
        explain_step.log_explanations(fitted(), X, y, **QUICK)
        faulty.proxy.fault = None
    monkeypatch.delenv("EXPLAIN_STEP_DEADLINE")
    faulty.store.client.delete_run(run.info.run_id)
    code, told = resume(capsys)
    assert (code, [e["outcome"] for e in told["entries"]]) == (1, ["refused"])
    assert len(entries(faulty.spool)) == 1
