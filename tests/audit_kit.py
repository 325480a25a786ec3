"""Explained models in a real store, made in milliseconds: a hand-made explanation, written and uploaded as always."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from snapshot_kit import parts
from tracking_kit import Store, fitted, log

from explain_step.snapshot import ModelRef, write
from explain_step.tracking import model_digest, resolve, upload

POLICY: dict[str, Any] = {"version": 1, "require": {"sections": ["importance"], "binding": "declared"}}
"""Asks for evidence that holds, and for nothing that a hand-made explanation lacks."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A logged model, its run, and where both are on disk."""

    run_id: str
    model_id: str
    place: Path
    snapshot: Path | None

    @property
    def uri(self) -> str:
        return f"models:/{self.model_id}"


def train(
    store: Store, folder: Path, *, registered: str | None = None, explained: bool = True, **settings: Any
) -> Logged:
    """Log a model in a run of its own, and explain it."""
    with mlflow.start_run() as run:
        info = log(fitted(C=settings.pop("C", 1.0)), registered=registered, **settings)
        if explained:
            explain(folder, run_id=run.info.run_id)
    model = store.client.get_logged_model(info.model_id)
    place = Path(model.artifact_location.removeprefix("file://"))
    found = sorted(place.glob("explanations/*"))
    return Logged(
        run_id=run.info.run_id,
        model_id=info.model_id,
        place=place,
        snapshot=found[0] if found else None,
    )


def explain(folder: Path, *, run_id: str, **changes: Any) -> None:
    """Write a hand-made explanation of the run's model and upload it."""
    target = resolve(run_id=run_id)
    ref = ModelRef(
        model_class="Repeater",
        run_id=target.run_id,
        model_id=target.model_id,
        uri=target.model_uri,
        digest=model_digest(target),
    )
    upload(write(folder / "written", parts=parts(model=ref, **changes)), target)


def database(store: Store) -> sqlite3.Connection:
    """Open the store's file directly, as somebody who goes past every gate would."""
    return sqlite3.connect(store.uri.removeprefix("sqlite:///"))


def sql(store: Store, statement: str, *values: Any) -> None:
    """Change the database behind MLflow's back."""
    connection = database(store)
    try:
        with connection:
            connection.execute(statement, values)
    finally:
        connection.close()
