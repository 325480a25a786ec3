"""Every route of the server that is not for reading alone: each was judged, and each is tried on a champion."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import route_kit
import server_kit
import tracking_kit
from gate_kit import GATE_POLICY, Version, World, explained_in
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, tracking_kit.server_gate]

DRIFT = "drift: {alias: champion, max_share_change: 1.0}\n"
"""With it the alias itself may not be taken away."""
UNTRIED = frozenset({"machine", "accounts"})
"""The assistant writes into the home of whoever runs the tests; accounts are those of another app."""


def test_every_writing_route_of_this_mlflow_was_judged(tmp_path: Path) -> None:
    """A new version of MLflow with a new route fails here: judge it, attack it, and add it to the list."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs mlflow[auth]")
    secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": "of these tests only", "MLFLOW_FLASK_SERVER_SECRET_KEY": "too"}
    store = {"_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{tmp_path / 'm.db'}"}
    env = server_kit.environment(tmp_path, {**secrets, **store, "PYTHONPATH": os.pathsep.join(sys.path)})
    command = [sys.executable, str(Path(route_kit.__file__))]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 300}
    done = subprocess.run(command, check=False, env=env, **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["writing"]) == set(route_kit.judged())
    assert found["unlisted"] == []


@pytest.fixture(scope="module")
def own(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start a server of these tests' own, with a champion."""
    folder = tmp_path_factory.mktemp("routes")
    with server_kit.serving(folder, policy=GATE_POLICY + DRIFT, migrated=migrated) as server:
        client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
        world = explained_in("routes", server, client)
        assert server.alias("mortgage", "1").status_code == 200
        yield world


def test_no_route_changes_what_a_champion_rests_on(own: World) -> None:
    """Each is called with everything in its request that points at the champion."""
    world, bad = own, own.unexplained("mortgage")
    before = resting(world)
    answers: dict[str, list[int]] = {}
    for route, kind in route_kit.judged().items():
        if kind in UNTRIED:
            continue
        method, path = route.split()
        for call in dict.fromkeys((path, re.sub("^/api/", "/ajax-api/", path))):
            if answers.get(route) not in (None, [404]):
                break  # the other name is of the same handler
            answer = world.server.request(method, filled(call, world), **request(path, world, bad))
            answers.setdefault(route, []).append(answer.status_code)
            assert resting(world) == before, f"{method} {call}: {answer.status_code} {answer.text[:300]}"
    reached = {route for route, codes in answers.items() if codes[-1] != 404}
    assert len(reached) > 100, sorted(set(answers) - reached)
    assert {code for route, codes in answers.items() if "workspaces" in route for code in codes} == {503}


@pytest.mark.parametrize("route", [r for r, kind in route_kit.judged().items() if kind == "guarded"])
def test_a_guarded_route_refuses_by_itself(own: World, route: str) -> None:
    """Each with a request that would do harm: the gate, and not a missing parameter, stops it."""
    world, bad = own, own.unexplained("mortgage")
    method, path = route.split()
    harm = harms(world, bad).get(route)
    if harm is None:
        assert route in ELSEWHERE
        return
    before = resting(world)
    answer = world.server.request(method, harm.pop("at", None) or filled(path, world), **harm)
    assert (answer.status_code, "PERMISSION_DENIED" in answer.text) == (403, True), answer.text[:500]
    assert resting(world) == before


ELSEWHERE = {
    "POST /api/2.0/mlflow-artifacts/mpu/create/{}": "test_server_s3.py: a local store has none",
    "POST /api/2.0/mlflow-artifacts/mpu/complete/{}": "test_server_s3.py",
    "POST /api/2.0/mlflow/artifacts/presigned-upload-url": "test_server_attacks.py: test_presigned_urls",
    "POST /api/2.0/mlflow/runs/create-promptlab-run": "writes through create_run and the artifact store",
    "POST /api/2.0/mlflow/traces/delete-traces": "test_server_attacks_inside.py",
    "POST /api/3.0/mlflow/traces/delete-traces": "test_server_attacks_inside.py",
    "POST /api/3.0/mlflow/demo/delete": "test_server_attacks_inside.py",
}
"""Guarded, and shown in another place."""


def harms(world: World, bad: Version) -> dict[str, dict[str, Any]]:
    """Return for each guarded route a request that only the gate keeps from doing harm."""
    good, name = world.good, {"name": "mortgage"}
    version = {**name, "version": bad.version}
    champion = {**name, "version": "1"}
    forged = {"key": "explain_step.status", "value": "complete"}
    author = {"key": "explain_step.author", "value": "somebody"}
    model = f"/api/2.0/mlflow/logged-models/{good.model_id}"
    root = "/api/2.0/mlflow"
    into = {"source": f"models:/{bad.model_id}", "run_id": bad.run_id, "model_id": bad.model_id}
    world.registered("prod.routes")
    bodies: dict[str, dict[str, Any]] = {
        f"POST {root}/registered-models/alias": {**version, "alias": "champion"},
        f"DELETE {root}/registered-models/alias": {**name, "alias": "champion"},
        f"POST {root}/registered-models/create": {"name": "forged", "tags": [forged]},
        f"DELETE {root}/registered-models/delete": name,
        f"POST {root}/registered-models/rename": {**name, "new_name": "elsewhere"},
        f"POST {root}/registered-models/set-tag": {**name, **forged},
        f"DELETE {root}/registered-models/delete-tag": {**name, **forged},
        f"POST {root}/model-versions/create": {"name": "prod.routes", **into},
        f"DELETE {root}/model-versions/delete": champion,
        f"POST {root}/model-versions/set-tag": {**version, **forged},
        f"DELETE {root}/model-versions/delete-tag": {**champion, **forged},
        f"POST {root}/model-versions/transition-stage": {
            **version,
            "stage": "Production",
            "archive_existing_versions": True,
        },
        f"POST {root}/experiments/create": {
            "name": "inside",
            "artifact_location": f"mlflow-artifacts:/{good.path}",
        },
        f"POST {root}/experiments/delete": {"experiment_id": world.experiment_id},
        f"POST {root}/runs/create": {"experiment_id": world.experiment_id, "tags": [author]},
        f"POST {root}/runs/delete": {"run_id": good.run_id},
        f"POST {root}/runs/delete-tag": {"run_id": good.run_id, "key": "mlflow.user"},
        f"POST {root}/runs/log-batch": {"run_id": good.run_id, "tags": [author]},
        f"POST {root}/runs/set-tag": {"run_id": good.run_id, "key": "mlflow.user", "value": "somebody"},
        f"POST {root}/logged-models": {"experiment_id": world.experiment_id, "tags": [author]},
    }
    found: dict[str, dict[str, Any]] = {route: {"json": body} for route, body in bodies.items()}
    found[f"DELETE {root}/logged-models/{{}}"] = {"at": model}
    found[f"PATCH {root}/logged-models/{{}}"] = {
        "at": model,
        "json": {"model_id": good.model_id, "status": "LOGGED_MODEL_UPLOAD_FAILED"},
    }
    found[f"PATCH {root}/logged-models/{{}}/tags"] = {"at": f"{model}/tags", "json": {"tags": [author]}}
    found[f"DELETE {root}/logged-models/{{}}/tags/{{}}"] = {"at": f"{model}/tags/explain_step.author"}
    file: dict[str, Any] = {"data": b"evil"}
    for method in ("PUT", "DELETE"):
        found[f"{method} /api/2.0/mlflow-artifacts/artifacts/{{}}"] = file
    sealed = f"explanations/{good.snapshot_id}"
    found[f"POST {root}/upload-artifact"] = {
        "at": f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={good.run_id}&path={sealed}/manifest.json",
        **file,
    }
    return found


def filled(path: str, world: World) -> str:
    """Put the champion's own names into the places of a route."""
    good = world.good
    if "mlflow-artifacts" in path:
        return path.replace("{}", f"{good.path}/MLmodel")
    if "logged-models" in path:
        return path.replace("{}", good.model_id, 1).replace("{}", "explain_step.author")
    return path.replace("{}", "mortgage" if "mcp-servers" in path else good.run_id)


def request(path: str, world: World, bad: Version) -> dict[str, Any]:
    """Return a body in which every field that MLflow's requests have in common points at the champion."""
    good, tag = world.good, {"key": "explain_step.status", "value": "complete"}
    names = {"name": "mortgage", "new_name": "elsewhere", "alias": "champion", "stage": "Production"}
    ids = {
        "run_id": good.run_id,
        "run_uuid": good.run_id,
        "model_id": good.model_id,
        "source_run_id": good.run_id,
    }
    places = {"path": good.path, "artifact_path": good.path, "file_path": "MLmodel", "num_parts": 1}
    lists = {"tags": [tag], "params": [tag], "models": [{"model_id": good.model_id, "step": 0}]}
    traces = {"trace_id": "tr-1", "request_id": "tr-1", "trace_ids": ["tr-1"], "request_ids": ["tr-1"]}
    experiment = {"experiment_id": world.experiment_id, "experiment_ids": [world.experiment_id]}
    return {
        "json": {
            **{**names, **ids, **places, **lists, **traces, **experiment, **tag},
            **{
                "version": bad.version,
                "archive_existing_versions": True,
                "max_results": 5,
                "status": "FAILED",
            },
            **{"source": f"models:/{bad.model_id}", "artifact_location": f"mlflow-artifacts:/{good.path}"},
        }
    }


def resting(world: World) -> dict[str, Any]:
    """Return what a champion rests on: rows of the database, and the bytes of model and run."""
    good = world.good
    asked = {
        "aliases": "SELECT name, alias, version FROM registered_model_aliases WHERE name NOT LIKE 'mlflow-demo%'",
        "champion": "SELECT name, current_stage, source, storage_location, run_id, creation_time FROM model_versions"
        " WHERE name = 'mortgage' AND version = 1",
        "protected": "SELECT name, version FROM model_versions WHERE current_stage = 'Production' OR name LIKE 'prod.%'",
        "its tags": "SELECT key, value FROM model_version_tags WHERE name = 'mortgage' AND version = 1",
        "run": f"SELECT lifecycle_stage, artifact_uri, user_id FROM runs WHERE run_uuid = '{good.run_id}'",
        "author": f"SELECT key, value FROM tags WHERE run_uuid = '{good.run_id}' AND key = 'mlflow.user'",
        "model": "SELECT lifecycle_stage, status, artifact_location, source_run_id FROM logged_models"
        f" WHERE model_id = '{good.model_id}'",
        "experiment": "SELECT lifecycle_stage, artifact_location FROM experiments"
        f" WHERE experiment_id = {world.experiment_id}",
    }
    with closing(sqlite3.connect(world.server.folder / "mlflow.db", timeout=60)) as database:
        rows = {name: sorted(map(str, database.execute(query))) for name, query in asked.items()}
    kept = [good.folder, *world.server.artifacts.rglob(f"{good.run_id}")]
    files = sorted(file for folder in kept for file in folder.rglob("*") if file.is_file())
    assert rows["aliases"]
    assert files
    return {**rows, "files": [(str(f), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]}
