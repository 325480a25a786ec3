"""Two million rows of fifty columns: the memory is bounded as stated, and where it does not suffice the training ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a minute of processor time each, whatever else the machine does
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells and limits memory so"),
]

ROWS, COLUMNS = 2_000_000, 50
MIB = 2**20
# the bound of docs/performance-notes.md for one output, no classes, and the rows themselves as background
SAMPLE = BACKGROUND = 20_000
BOUND = 8 * ROWS * 6 + 2 * 8 * BACKGROUND * COLUMNS + (128 + 50) * MIB + 10 * 8 * SAMPLE * COLUMNS

COMMON = f"""
import json, os, resource, sys, time
from pathlib import Path
import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
import explain_step

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def rows(n, seed):
    X = pd.DataFrame(np.random.default_rng(seed).random((n, {COLUMNS})), columns=[f"c{{k}}" for k in range({COLUMNS})])
    return X, (3 * X["c0"] - X["c1"] + X["c2"] * X["c3"]).to_numpy()

folder = Path(sys.argv[1])
few, labels = rows(2_000, 1)
model = LinearRegression().fit(few, labels)
"""

MEASURED = f"""
explain_step.explain(model, few, labels, directory=folder / "first")  # which loads libraries and kernels
X, y = rows({ROWS}, 2)
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = memory("VmRSS")
shot = explain_step.explain(model, X, y, directory=folder / "all")
peak = memory("VmHWM") - before
explained = shot.manifest["quantity"]
sys.stdout.write(json.dumps({{
    "input": int(X.memory_usage(index=False).sum()) + y.nbytes, "peak": peak, "status": shot.status,
    "rows": shot.manifest["data"]["rows"], "sample": explained.get("sample_rows"),
}}))
"""

LIMITED = f"""
mlflow.set_tracking_uri(f"sqlite:///{{folder}}/mlflow.db")
mlflow.set_experiment("weekly")

def trained(X, y, room=None):
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
        if room is not None:
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + room, most))
        logged = explain_step.log_explanations(model, X, y)
        mlflow.log_metric("auc", 0.8)
    return run.info.run_id, logged

trained(few, labels)  # which loads libraries and kernels
run_id, logged = trained(*rows({ROWS}, 2), room=48 * 2**20)  # half of what the labels, weights and answers take
done = mlflow.get_run(run_id)
sys.stdout.write(json.dumps({{
    "run": done.info.status, "metrics": dict(done.data.metrics), "status": logged.status, "reason": logged.reason,
    "tags": {{key: value for key, value in done.data.tags.items() if key.startswith("explain_step.")}},
}}))
"""


def told(script: str, folder: Path) -> dict[str, Any]:
    """Return what a script prints that runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMON + script, str(folder)],
        cwd=folder,
        env={**os.environ, "EXPLAIN_STEP_SPOOL": str(folder / "spool")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_step_needs_no_more_memory_above_its_input_than_is_stated(tmp_path: Path) -> None:
    found = told(MEASURED, tmp_path)
    assert (found["status"], found["rows"], found["sample"]) == ("complete", ROWS, SAMPLE)
    assert found["input"] > 2 * BOUND, "the input is large enough to tell one copy of it"
    assert found["peak"] < BOUND, f"{found['peak'] / MIB:.0f} MiB, {BOUND / MIB:.0f} are stated"


def test_a_training_that_runs_out_of_memory_ends_well_and_says_so(tmp_path: Path) -> None:
    found = told(LIMITED, tmp_path)
    assert (found["run"], found["metrics"]) == ("FINISHED", {"auc": 0.8})
    assert found["status"] in ("failed", "incomplete")
    assert "no memory is left" in found["reason"]
    assert found["tags"]["explain_step.status"] == found["status"]
    assert "no memory is left" in found["tags"]["explain_step.reason"]
    assert not (tmp_path / "spool").exists() or not list((tmp_path / "spool").iterdir())
