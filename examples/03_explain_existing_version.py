"""A version that was registered without an explanation is explained later, by URI; it then resolves by alias too.

On the command line the same is
``explain-step run models:/mortgage/1 test.parquet --target deny --segments afam,single --tracking-uri sqlite:///…``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow
from train import DATA, PICKLE_FREE, STORAGE, new_model, split

import explain_step


def main(store: Path) -> int:
    """Register an unexplained version in the SQLite store in ``store``, explain it, read it back by alias."""
    store.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{store.resolve() / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name("late") is None:
        mlflow.create_experiment("late", artifact_location=(store.resolve() / "artifacts").as_uri())
    mlflow.set_experiment("late")
    X_train, X_test, y_train, y_test = split(DATA)
    with mlflow.start_run():
        model = new_model().fit(X_train, y_train)
        info = mlflow.sklearn.log_model(model, name="model", registered_model_name="late", **STORAGE)
    version = info.registered_model_version
    held_out = X_test.assign(deny=y_test)
    logged = explain_step.log_explanations(
        f"models:/late/{version}",
        held_out,
        "deny",
        background=X_train,
        segments=["afam", "single"],
        tracking_uri=uri,
        allow_pickle=not PICKLE_FREE,  # old MLflow stores nothing else
    )
    mlflow.MlflowClient().set_registered_model_alias("late", "challenger", version)
    snapshot = explain_step.read("models:/late@challenger")
    binding = snapshot.manifest["model"]["binding"]
    print(f"late version {version}: {logged.status}, snapshot {snapshot.id[:12]}, binding {binding}")
    return 0 if snapshot.id == logged.id else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("demo"))
    raise SystemExit(main(parser.parse_args().store))
