"""The main job, end to end, in an embedded MLflow store: train, log, register, explain, and say where to look.

Run it with ``make demo``, or ``python examples/01_train_and_explain.py --store demo``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import mlflow
from train import DATA, train

import explain_step


def open_store(store: Path) -> str:
    """Use an SQLite store in folder ``store``, made where it is not there, and return its address."""
    store.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{store.resolve() / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name("mortgage") is None:
        mlflow.create_experiment("mortgage", artifact_location=(store.resolve() / "artifacts").as_uri())
    mlflow.set_experiment("mortgage")
    return uri


def main(store: Path, *, data: Path = DATA) -> int:
    """Train and explain in the store in folder ``store``; under ``mlflow run``, in the run that it has started."""
    uri = mlflow.get_tracking_uri() if "MLFLOW_RUN_ID" in os.environ else open_store(store)
    logged = train(data, registered_model_name="mortgage")
    name, version = logged.versions[0]
    snapshot = explain_step.read(f"models:/{name}/{version}")
    leaders = snapshot.tables["importance"].nlargest(5, "mean_abs_shap")
    print(f"\n{name} version {version} is explained: {logged.status}, {logged.reason}")
    for row in leaders.itertuples():
        low, high = int(row.rank_low), int(row.rank_high)
        rank = f"{low}" if low == high else f"{low} to {high}"
        print(
            f"  {row.feature:<10} mean |SHAP| {row.mean_abs_shap:.4f} [{row.ci_low:.4f}, {row.ci_high:.4f}]  rank {rank}"
        )
    print(f"\npage on disk   {snapshot.path / 'report.html'}")
    short = "   (or: make ui)" if uri.endswith(f"{Path('demo').resolve() / 'mlflow.db'}") else ""
    print(f"in MLflow      mlflow server --backend-store-uri {uri} --port 5000{short}")
    print(
        "               http://127.0.0.1:5000 → the experiment → the run → Artifacts → explanations/report.html"
    )
    return 0 if logged.status in ("complete", "degraded") else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("demo"))
    raise SystemExit(main(parser.parse_args().store))
