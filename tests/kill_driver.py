"""Kill a step at chosen points, each time on the same store, and report what is left and what ``resume`` makes of it.

Usage: ``python kill_driver.py FOLDER MIGRATED_DB POINTS POINTS``. It imports what a step needs once, and forks for each point;
a point is the n-th event (file opened, renamed, removed; thread started) since the step, or its way to MLflow, began.
Figures are left out, they take most of the time. Prints one JSON line.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

import explain_step
from explain_step import plots, tracking
from explain_step.snapshot import read_directory, verify_directory

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "_thread.start_new_thread", "shutil.copytree"}
QUICK = {"task": "binary", "max_rows": 40}


def main(folder: Path, migrated: Path, early: int, late: int) -> dict[str, Any]:
    base, template = folder / "base", folder / "template"
    base.mkdir(parents=True)
    shutil.copyfile(migrated, base / "mlflow.db")
    os.environ["EXPLAIN_STEP_SPOOL"] = str(base / "spool")
    run_id = forked(lambda: prepare(base), folder)
    shutil.copytree(base, template)
    whole = forked(lambda: counted(lambda: step(base, run_id), keep=folder / "kept"), folder)
    restore(base, template)
    way = forked(lambda: counted(lambda: delivery(folder / "kept", base, run_id)), folder)
    found = []
    seed = int(os.environ.get("EXPLAIN_STEP_KILL_SEED", "7"))  # other points without editing
    for act, events, points in (
        (step, range(1, whole["events"]), early),
        (delivery, range(way["spool"], way["events"]), late),
    ):
        for point in sorted(random.Random(seed).sample(events, points)):
            restore(base, template)
            killed = forked(lambda: deadly(act, point, folder / "kept", base, run_id), folder) is None  # noqa: B023
            left = forked(lambda: examine(base), folder)
            after = forked(lambda: resumed(act, folder / "kept", base, run_id), folder)  # noqa: B023
            found.append({"act": act.__name__, "point": point, "killed": killed, "left": left, **after})
    return {"reference": whole["id"], "found": found}


def restore(base: Path, template: Path) -> None:
    shutil.rmtree(base)
    shutil.copytree(template, base)


def forked(act: Callable[[], Any], folder: Path) -> Any:
    """Return what a child process returns; None where it was killed."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            result.write_text(json.dumps(act()))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return None
    assert status == 0, f"a child ended with {status}"
    return json.loads(result.read_text())


def data() -> tuple[Any, Any]:
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=["income", "debt", "age"])
    return X, (X["income"] - X["debt"] > 0).astype(int).rename("deny")


def prepare(base: Path) -> str:
    use(base)
    MlflowClient().create_experiment("kill", artifact_location=(base / "artifacts").as_uri())
    mlflow.set_experiment("kill")
    with mlflow.start_run() as run:
        model = LogisticRegression().fit(*data())
        mlflow.sklearn.log_model(
            model, name="model", registered_model_name="loans", pip_requirements=["scikit-learn"]
        )
    return str(run.info.run_id)


def use(base: Path) -> None:
    os.chdir(base)
    mlflow.set_tracking_uri(f"sqlite:///{base / 'mlflow.db'}")


def step(base: Path, run_id: str) -> Any:
    use(base)
    return explain_step.log_explanations(LogisticRegression().fit(*data()), *data(), run_id=run_id, **QUICK)


def delivery(kept: Path, base: Path, run_id: str) -> Any:
    """Do the second half of a step with the snapshot that the first whole one has made."""
    use(base)
    with tracking.within():
        asked = tracking.asked_for(run_id=run_id)
        target = tracking.reach(asked, needed=True)
        shot = read_directory(next(kept.iterdir()))
        return tracking.deliver(shot, target, asked=asked, whole=True, on_error="raise")


def deadly(act: Callable[..., Any], point: int, kept: Path, base: Path, run_id: str) -> None:
    """Do it and be killed at the point."""
    count = itertools.count(1)

    def hook(event: str, _: Any) -> None:
        if event in EVENTS and next(count) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    done(act, kept, base, run_id)


def done(act: Callable[..., Any], kept: Path, base: Path, run_id: str) -> Any:
    return act(base, run_id) if act is step else act(kept, base, run_id)


def counted(act: Callable[[], Any], *, keep: Path | None = None) -> dict[str, Any]:
    seen: list[str] = []
    sys.addaudithook(lambda event, given: seen.append(str(given[:1])) if event in EVENTS else None)
    logged = act()
    events, spool = len(seen), os.environ["EXPLAIN_STEP_SPOOL"]
    first = next(i for i, path in enumerate(seen) if spool in path)
    if keep is not None:
        shutil.copytree(logged.snapshot.path, keep / logged.id)
    return {"id": logged.id, "events": events, "spool": first}


def stored(base: Path) -> Iterator[Path]:
    yield from (p.parent for p in (base / "artifacts").rglob("explanations/*/manifest.json"))


def examine(base: Path) -> dict[str, Any]:
    """Return the stored snapshots, and the files whose bytes are not the manifest's, found without the package."""
    wrong = []
    for place in stored(base):
        for entry in json.loads((place / "manifest.json").read_text())["files"]:
            file = place / entry["path"]
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                wrong.append(str(file))
    return {"manifests": [p.name for p in stored(base)], "wrong": wrong}


def resumed(act: Callable[..., Any], kept: Path, base: Path, run_id: str) -> dict[str, Any]:
    use(base)
    first = [r.outcome for r in explain_step.resume()]
    second = [r.outcome for r in explain_step.resume()]
    by_resume = [p.name for p in stored(base)]
    again = None if by_resume else done(act, kept, base, run_id).id
    tags = MlflowClient().get_model_version("loans", "1").tags
    return {
        "first": first,
        "second": second,
        "by_resume": by_resume,
        "again": again,
        "verdicts": [f.verdict for p in stored(base) for f in verify_directory(p)],
        "failures": [f.message for p in stored(base) for f in verify_directory(p) if f.verdict != "pass"],
        "ids": [p.name for p in stored(base)],
        "tags": [tags.get("explain_step.status"), tags.get("explain_step.snapshot_id")],
        "drafts": [p.name for p in (base / "spool").iterdir()] if (base / "spool").is_dir() else [],
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    plots.render = lambda *_, **__: ()
    report = main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(report) + "\n")
