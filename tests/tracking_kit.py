"""Small models and hand-made snapshot directories for the tests of the MLflow side."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import snapshot_kit
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

from explain_step.snapshot import write

MLFLOW = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
pickle_free = pytest.mark.skipif(
    MLFLOW < (3, 14), reason="this MLflow stores such a model as a pickle, or does not load it from skops"
)
server_gate = pytest.mark.skipif(MLFLOW < (3, 17), reason="the server gate needs MLflow 3.17")
REQUIREMENTS = ["scikit-learn"]
"""Given, so that MLflow does not import everything to find out."""


@dataclass(frozen=True, kw_only=True)
class HandMade:
    """What `upload` reads of a snapshot."""

    id: str
    status: str
    path: Path
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def rows(n: int = 80, *, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=["income", "debt", "age"])
    return X, (X["income"] - X["debt"] + rng.normal(scale=0.5, size=n) > 0).astype(int).rename("deny")


def fitted(*, seed: int = 0, C: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C).fit(*rows(seed=seed))


def log(model: Any, *, name: str = "model", registered: str | None = None, **settings: Any) -> Any:
    """Log a scikit-learn model in the active run; old MLflow makes a pickle of it unless it is asked."""
    form = {"serialization_format": "skops", **settings}
    return mlflow.sklearn.log_model(
        model, name=name, registered_model_name=registered, pip_requirements=REQUIREMENTS, **form
    )


@dataclass(frozen=True, kw_only=True)
class Store:
    """A tracking store of one test: its URI, a client bound to it, an experiment, and the artifact root."""

    uri: str
    client: MlflowClient
    experiment_id: str
    artifacts: Path


@contextlib.contextmanager
def current_store(uri: str, experiment_id: str) -> Iterator[None]:
    """Set MLflow's global URI and experiment for a while."""
    variables = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")
    before = {name: os.environ.get(name) for name in variables}
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiment_id)
    try:
        yield
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


IMPORTANCE = pd.DataFrame(
    {
        "output": ["1"] * 4,
        "feature": ["income", "debt ratio", "../../x<y>", "age\n% 💰"],
        "mean_abs_shap": [0.4, 0.3, 0.2, float("nan")],
    }
)
SCORES = pd.DataFrame(
    {
        "score": ["masking_r2", "gini", "gini"],
        "variant": ["", "all", "top"],
        "value": [0.9, 0.5, float("inf")],
    }
)


def hand_made(
    folder: Path, *, content: str = "one", created: str = "2026-01-01T00:00:00Z", status: str = "complete"
) -> HandMade:
    """Put a small snapshot that verifies there; ``content`` decides its id, ``created`` does not."""
    name, files = _written(content, created, status)
    snapshot_kit.put(folder / name, files)
    tables = {"importance": IMPORTANCE, "scores": SCORES}
    return HandMade(id=name, status=status, path=folder / name, tables=tables)


@cache
def _written(content: str, created: str, status: str) -> tuple[str, dict[str, bytes]]:
    """Write it once per process: Git and uv are asked, which takes half a second."""
    seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:4])
    given = snapshot_kit.parts(
        subject=snapshot_kit.subject(snapshot_kit.frame(80, seed=seed)),
        status=status,
        reason="every required section is present",
        created_at=created,
        figures=(snapshot_kit.figure(content),),
        page=lambda _: f"<!doctype html><title>{content}</title><table id='importance'></table>",
        card=lambda _: f"# {content}",
    )
    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder), parts=given)
        return written.id, snapshot_kit.content(written.path)


def tree(folder: Path) -> dict[str, str]:
    """Return every file of a folder with its digest."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
