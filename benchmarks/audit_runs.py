"""How long an audit of many runs takes: ``python benchmarks/audit_runs.py [--runs 5000] [--full]``.

Makes a SQLite store with local artifacts in a temporary folder. Of 100 runs, 60 have a logged model, 10 of
these are explained; 20 are nested trials, 20 are plain runs. Each has 20 params, 20 metrics and 10 tags. The
rows are copied in the database, because logging thousands of runs takes longer than what is measured; the
files of the explained models are real, with a manifest of their own each.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from sklearn.linear_model import LinearRegression

from explain_step import explain
from explain_step.digests import directory_digest
from explain_step.snapshot.manifest import dump, identity_of, seal
from explain_step.tracking.auditing import audit

Sqlite = sqlite3.Connection


def main() -> None:
    """Make the store, audit it, print what was found and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="explain_step_benchmark_"))
    try:
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        explained = make_store(folder, uri, runs=given.runs)
        start, cpu = time.perf_counter(), time.process_time()
        found = audit(tracking_uri=uri, full=given.full)
        facts: dict[str, Any] = {
            "runs": given.runs,
            "full": given.full,
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "rows": len(found),
            "statuses": found.groupby(["kind", "status"]).size().unstack(fill_value=0).to_dict("index"),
        }
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        runs = found[found["kind"] == "run"]
        if (runs["status"] == "complete").sum() + (runs["status"] == "degraded").sum() != explained:
            sys.stderr.write(
                found[found["codes"].ne("")].drop_duplicates("codes")["problem"].to_string() + "\n"
            )
            sys.exit("the audit did not find every explained run")
    finally:
        shutil.rmtree(folder)


def make_store(folder: Path, uri: str, *, runs: int) -> int:
    """Fill a store, and return the number of explained runs."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("benchmark", artifact_location=(folder / "artifacts").as_uri())
    snapshot = a_snapshot(folder)
    database = sqlite3.connect(folder / "mlflow.db")
    explained, parent = 0, ""
    for number in range(runs):
        part = number % 100
        run_id = uuid.uuid4().hex
        parent = run_id if part < 20 else parent
        add_run(database, folder, experiment, run_id, nested_in=parent if part >= 80 else None, at=number)
        if 20 <= part < 80:
            place = add_model(database, folder, experiment, run_id, at=number)
            if part < 30:
                add_evidence(snapshot, place, model_id=place.parent.name, run_id=run_id)
                explained += 1
    database.commit()
    database.close()
    return explained


def a_snapshot(folder: Path) -> Path:
    """Explain a small model."""
    X = pd.DataFrame({"income": [float(i) for i in range(40)], "debt": [float(i % 7) for i in range(40)]})
    y = X["income"] - X["debt"]
    model = LinearRegression().fit(X, y)
    return explain(model, X, y, segments=["debt > 3"], directory=folder / "explained").path


def add_run(
    database: Sqlite, folder: Path, experiment: str, run_id: str, *, nested_in: str | None, at: int
) -> None:
    """Insert a finished run with params, metrics and tags."""
    place = folder / "artifacts" / run_id / "artifacts"
    place.mkdir(parents=True)
    values = (run_id, f"run {at}", "UNKNOWN", "", "", "me", "FINISHED", at, at + 1, "", "active")
    database.execute(
        "insert into runs values (?,?,?,?,?,?,?,?,?,?,?,?,?,null)", (*values, place.as_uri(), experiment)
    )
    tags = {f"tag {i}": str(i) for i in range(9)} | {"mlflow.runName": f"run {at}"}
    if nested_in is not None:
        tags["mlflow.parentRunId"] = nested_in
    database.executemany("insert into tags values (?,?,?)", [(k, v, run_id) for k, v in tags.items()])
    numbers = [(f"name {i}", str(i), run_id) for i in range(20)]
    database.executemany("insert into params values (?,?,?)", numbers)
    database.executemany(
        "insert into latest_metrics values (?,?,0,0,0,?)", [(k, float(v), r) for k, v, r in numbers]
    )


def add_model(database: Sqlite, folder: Path, experiment: str, run_id: str, *, at: int) -> Path:
    """Insert a logged model that is ready, and return its artifact root."""
    model_id = f"m-{uuid.uuid4().hex}"
    place = folder / "artifacts" / "models" / model_id / "artifacts"
    place.mkdir(parents=True)
    (place / "MLmodel").write_text(f"model_id: {model_id}\n", encoding="utf-8")
    ready = 2
    values = (model_id, experiment, "model", place.as_uri(), at, at, ready, "active", "", run_id, None)
    database.execute("insert into logged_models values (?,?,?,?,?,?,?,?,?,?,?)", values)
    return place


def add_evidence(snapshot: Path, place: Path, *, model_id: str, run_id: str) -> None:
    """Copy the snapshot under a logged model, made for that model."""
    manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    digest = directory_digest(place)
    manifest["model"] |= {"model_id": model_id, "run_id": run_id, "digest": digest}
    tables = {name: entry["digest"] for name, entry in manifest["tables"].items()}
    manifest["snapshot_id"] = identity_of(manifest, tables=tables)
    target = place / "explanations" / manifest["snapshot_id"]
    shutil.copytree(snapshot, target, ignore=shutil.ignore_patterns("manifest.json"))
    (target / "manifest.json").write_bytes(dump(seal(manifest)))


if __name__ == "__main__":
    main()
