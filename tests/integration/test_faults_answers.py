"""Servers that answer, and lie: half an answer, a login page, nothing, a token that ends, 200 for bytes that were cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fault_kit import Proxy, proxied
from tracking_kit import Store, current_store, fitted, log, rows

import explain_step
from explain_step import cli
from explain_step.snapshot import verify_directory

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"task": "binary", "max_rows": 40, "top_features": 1}


@pytest.fixture
def proxy(
    server_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Proxy, Store]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with proxied(server_store.uri) as between, current_store(between.url, server_store.experiment_id):
        yield between, server_store


def folder_of(store: Store, model_id: str, identity: str) -> Path:
    return store.artifacts / store.experiment_id / f"models/{model_id}/artifacts/explanations/{identity}"


def resumed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    cli.invoke(["resume", "--json"])
    return [entry["outcome"] for entry in json.loads(capsys.readouterr().out)["entries"]]


def after(n: int, method: str = "") -> Any:
    """Say of a request whether it is a later one than the n-th of its method."""
    count = iter(range(10**6))
    return lambda asked, path: (not method or asked == method) and next(count) >= n


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        *[("half", after(0)), ("html", after(0)), ("empty", after(0)), (401, after(9))],
        ("cut", after(3, "PUT")),
        ("cut", lambda method, path: method == "PUT" and path.endswith("manifest.json")),
    ],
    ids=["half", "html", "empty", "token ends", "cut", "cut manifest"],
)
def test_an_answer_that_is_none_costs_nothing(
    proxy: tuple[Proxy, Store],
    fault: Any,
    where: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    between, store = proxy
    X, y = rows()
    monkeypatch.setenv("EXPLAIN_STEP_DEADLINE", "3" if fault == "half" else "60")
    with mlflow.start_run() as run:
        info = log(fitted())
        between.where, between.fault = where, fault
        logged = explain_step.log_explanations(fitted(), X, y, **QUICK)
        between.fault = None
    assert store.client.get_run(run.info.run_id).info.status == "FINISHED"
    assert logged.status == "incomplete", logged.reason
    assert logged.spool is not None
    assert [f.verdict for f in verify_directory(logged.spool)] == ["pass"]
    there = folder_of(store, info.model_id, logged.id)
    if there.exists():
        assert all(f.verdict == "fail" for f in verify_directory(there)), "it is not whole"
    monkeypatch.delenv("EXPLAIN_STEP_DEADLINE")
    assert resumed(capsys) == ["stored"]
    assert resumed(capsys) == []
    (stored,) = folder_of(store, info.model_id, "x").parent.iterdir()
    assert [f.verdict for f in verify_directory(stored)] == ["pass"]


def test_a_name_that_no_server_has_and_a_spool_that_cannot_be_made(
    proxy: tuple[Proxy, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(tmp_path / "file" / "spool"))  # cannot be made, even by root
    place = {"run_id": "0" * 32, "tracking_uri": "http://no-such-host.invalid:5000"}
    with mlflow.start_run():
        logged = explain_step.log_explanations(fitted(), X, y, **place, **QUICK)
    assert (logged.status, logged.snapshot) == ("incomplete", None)
    assert "the spool could not be written" in logged.reason
    assert logged.spool is not None
    assert [f.verdict for f in verify_directory(logged.spool)] == ["pass"]
