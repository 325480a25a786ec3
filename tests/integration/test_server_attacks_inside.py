"""Attacks through what the server, or MLflow's own commands, do by themselves: the demo, traces, web hooks, ``mlflow gc``."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import server_kit
import tracking_kit
from gate_kit import FILES, explained_in

if TYPE_CHECKING:
    from gate_kit import World

pytestmark = [pytest.mark.slow, tracking_kit.server_gate]


def fresh(prefix: str = "inside") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def test_the_demo_that_the_server_deletes_takes_no_champion_with_it(world: World) -> None:
    """MLflow deletes its demo by a client of its own inside the server; anybody may make what it takes for the demo."""
    name = fresh("demo")
    demo = explained_in("MLflow Demo", world.server, world.client, name=name)
    assert world.server.alias(name, "1").status_code == 200
    run_id = demo.good.run_id
    world.client.log_param(run_id, "demo", "true")
    world.client.set_tag(run_id, "mlflow.runType", "ISSUE_DETECTION")
    answer = world.server.request("POST", "/ajax-api/3.0/mlflow/demo/delete", json={})
    assert (answer.status_code, "has the protected alias" in answer.text) == (403, True), answer.text
    assert world.client.get_run(run_id).info.lifecycle_stage == "active"
    assert world.client.get_experiment(demo.experiment_id).lifecycle_stage == "active"
    assert f'"what": "run {run_id}"' in world.server.audit.read_text()
    assert world.server.alias(name, "1").status_code == 200


def test_the_archive_that_a_trace_names_is_not_deleted_with_it(world: World) -> None:
    """MLflow deletes ``traces.pb`` in whatever place the tags of a new trace name, by the URI behind the gate."""
    sealed = world.unexplained(fresh(), files={**FILES, "traces.pb": b"a part of the model"})
    file = sealed.folder / "traces.pb"
    spellings = (sealed.folder.as_uri(), str(sealed.folder), f"file://{sealed.folder}/../artifacts")
    for location in (*spellings, f"explain-gate+{sealed.folder.as_uri()}", f"models:/{sealed.model_id}"):
        trace_id = f"tr-{uuid.uuid4().hex}"
        assert archived_trace(world, trace_id, location) == 200
        for prefix in ("/api/2.0/mlflow", "/api/3.0/mlflow"):
            body: dict[str, Any] = {"experiment_id": world.experiment_id, "request_ids": [trace_id]}
            world.server.api("POST", "traces/delete-traces", prefix=prefix, **body)
            assert file.read_bytes() == b"a part of the model", location
    free = world.server.artifacts / "archive"
    free.mkdir()
    (free / "traces.pb").write_bytes(b"nobody's")
    trace_id = f"tr-{uuid.uuid4().hex}"
    assert archived_trace(world, trace_id, free.as_uri()) == 200
    body = {"experiment_id": world.experiment_id, "request_ids": [trace_id]}
    answer = world.server.api("POST", "traces/delete-traces", prefix="/api/3.0/mlflow", **body)
    assert (answer.json(), (free / "traces.pb").exists()) == ({"traces_deleted": 1}, False)


def archived_trace(world: World, trace_id: str, location: str) -> int:
    tags = {"mlflow.trace.spansLocation": "ARCHIVE_REPO", "mlflow.trace.archiveLocation": location}
    experiment = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": world.experiment_id}}
    info = {"trace_id": trace_id, "trace_location": experiment, "state": "OK", "tags": tags}
    info["request_time"] = "2026-01-01T00:00:00Z"
    body = {"trace": {"trace_info": info}}
    return world.server.request("POST", "/api/3.0/mlflow/traces", json=body).status_code


def test_web_hooks_tell_of_what_was_done_and_do_nothing(world: World) -> None:
    """They are sent after the registry has written; one that the server sends to itself promotes nothing."""
    events = [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]
    own = f"{world.server.url}/api/2.0/mlflow/registered-models/alias"
    with listening() as (url, heard):
        for name, target in ((fresh("hook"), url), (fresh("self"), own)):
            hook = {"name": name, "url": target, "events": events, "status": "ACTIVE"}
            assert world.server.api("POST", "webhooks", **hook).status_code == 200
        bad = world.unexplained(fresh())
        time.sleep(1.2)  # MLflow remembers for a second that there was no hook
        assert world.server.alias(bad.name, bad.version).status_code == 403
        name = fresh("told")
        assert world.server.alias(name, world.another_version(name)).status_code == 200
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            time.sleep(0.1)
    assert [(told["data"]["name"], told["data"]["alias"]) for told in heard] == [(name, "champion")]
    assert world.aliases(bad.name) == {}


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    heard: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", heard
        finally:
            server.shutdown()
            thread.join()


def test_mlflow_gc_removes_what_is_deleted_and_nothing_behind_a_champion(world: World) -> None:
    """``gc`` removes files through the server: also where the database says that a champion's model is deleted."""
    name = fresh("gc")
    kept = explained_in(name, world.server, world.client, name=name).good
    assert world.server.alias(name, "1").status_code == 200
    trash = world.unexplained(fresh("trash"))
    world.client.delete_registered_model(trash.name)
    world.client.delete_logged_model(trash.model_id)
    done = gc(world, "--logged-model-ids", trash.model_id)
    assert (done.returncode, trash.folder.exists()) == (0, False), done.stderr
    mark(world, kept.model_id, "deleted")
    try:
        done = gc(world, "--logged-model-ids", kept.model_id)
        assert (done.returncode, "is behind a protected version" in done.stderr) == (1, True), done.stderr
    finally:
        mark(world, kept.model_id, "active")
    assert world.server.alias(name, "1").status_code == 200


def gc(world: World, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", world.server.database, *options]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 300}
    env = server_kit.environment(world.server.folder, {"MLFLOW_TRACKING_URI": world.server.url})
    return subprocess.run(command, check=False, env=env, cwd=world.server.folder, **settings)


def mark(world: World, model_id: str, stage: str) -> None:
    with contextlib.closing(sqlite3.connect(world.server.folder / "mlflow.db", timeout=60)) as database:
        database.execute("UPDATE logged_models SET lifecycle_stage = ? WHERE model_id = ?", (stage, model_id))
        database.commit()
