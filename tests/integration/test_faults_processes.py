"""Eight processes that train, log and explain into one SQLite store at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tracking_kit import Store

from explain_step.snapshot import verify_directory
from explain_step.tracking import verify

pytestmark = pytest.mark.slow

PROCESSES = 8
# it imports once and forks: the processes start at the same moment
DRIVER = """
import json, os, sys, time
import mlflow
from tracking_kit import fitted, log, rows
import explain_step
from explain_step import plots, tracking

plots.render = lambda *args, **kwargs: ()  # figures take most of the time, and no part in this

def step(k, uri, experiment_id, start):
    os.environ["EXPLAIN_STEP_SPOOL"] = f"{sys.argv[4]}/{k}"
    X, y = rows(seed=k)
    mlflow.set_tracking_uri(uri)
    while time.time() < start:
        time.sleep(0.01)
    with mlflow.start_run(experiment_id=experiment_id) as run:
        info = log(fitted(seed=k), registered="shared")
        logged = explain_step.log_explanations(
            fitted(seed=k), X, y, top_features=2, max_rows=20, task="binary", on_error="mark"
        )
    return {"run": run.info.run_id, "id": logged.id, "status": logged.status, "reason": logged.reason}

uri, experiment_id, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.time() + 1
children = []
for k in range(processes):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(into, json.dumps(step(k, uri, experiment_id, start)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    children.append((child, out))
found = []
for child, out in children:
    _, status = os.waitpid(child, 0)
    text = os.read(out, 1 << 16)
    found.append(json.loads(text) if status == 0 and text else {"status": f"process ended with {status}"})
sys.stdout.write(json.dumps(found))
"""


@pytest.mark.timeout(1200)  # 80 s of processor time, whatever else the machine does
def test_eight_processes_on_one_sqlite_lose_nothing(store: Store, tmp_path: Path) -> None:
    arguments = [store.uri, store.experiment_id, str(PROCESSES), str(tmp_path / "spool")]
    kits = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(kits), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [entry["status"] for entry in found] == ["complete"] * PROCESSES, found
    assert len({entry["id"] for entry in found}) == PROCESSES
    for entry in found:
        tags = store.client.get_run(entry["run"]).data.tags
        assert tags["explain_step.snapshot_id"] == entry["id"]
        (finding,) = verify(f"runs:/{entry['run']}", tracking_uri=store.uri)
        assert finding.evidence["level"] == "L1"
    versions = store.client.search_model_versions("name = 'shared'")
    assert sorted(int(v.version) for v in versions) == list(range(1, PROCESSES + 1))
    for version in versions:
        assert version.tags["explain_step.status"] == "complete"
    places = [p.parent for p in store.artifacts.rglob("explanations/*/manifest.json")]
    assert {f.verdict for place in places for f in verify_directory(place)} == {"pass"}
    assert not [p for p in (tmp_path / "spool").rglob("*") if p.is_file()]
