"""One peer's work in a process of its own: ``python peer.py NAME FOLDER ROWS`` prints a line of JSON; see ``run.py``."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from xgboost import XGBClassifier

FIRST = 100
"""Rows of a first call that is not counted: imports, and what is made once in a process."""


def inputs(folder: Path) -> tuple[Any, pd.DataFrame, pd.Series]:
    """Return the model, the rows to explain and their labels."""
    model = XGBClassifier()
    model.load_model(folder / "model.ubj")
    model.set_params(n_jobs=2)
    rows = pd.read_parquet(folder / "test.parquet")
    return model, rows.drop(columns="label"), rows["label"]


def store(model: Any) -> str:
    """Make an empty MLflow store on SQLite and log the model to it; return its URI."""
    import mlflow

    place = tempfile.mkdtemp(prefix="benchmark_store_")
    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    mlflow.create_experiment("benchmark", artifact_location=Path(place, "artifacts").as_uri())
    mlflow.set_experiment("benchmark")
    with mlflow.start_run():
        uri: str = mlflow.xgboost.log_model(model, name="model", pip_requirements=["xgboost"]).model_uri
    return uri


Work = Callable[[int], tuple[str, list[dict[str, Any]]]]
"""Number of rows to what was made, and what its stages took."""


def step(folder: Path, *, output: str) -> Work:
    """Prepare `explain_step.log_explanations`; its kernels are compiled, as on any machine that ran it before."""
    import mlflow

    import explain_step
    from explain_step.explainers import tree_compiled

    model, all_rows, labels = inputs(folder)
    uri = store(model)
    if tree_compiled.available():
        tree_compiled.warm()

    def work(n: int) -> tuple[str, list[dict[str, Any]]]:
        X, y = all_rows.head(n), labels.head(n)
        with mlflow.start_run():
            found = explain_step.log_explanations(model, X, y, model_uri=uri, output=output, on_error="raise")
        assert found.snapshot is not None
        facts, figures = (
            found.snapshot.manifest["quantity"],
            list((found.snapshot.path / "figures").iterdir()),
        )
        log = (found.snapshot.path / "provenance" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        stages = [{key: event[key] for key in ("step", "wall_s", "cpu_s")} for event in map(json.loads, log)]
        return f"{facts['rows']:,} of {len(X):,} rows, {len(figures)} figures, page; {found.status}", stages

    return work


def mlflow_evaluate(folder: Path) -> Work:
    """Prepare ``mlflow.models.evaluate`` with its shap evaluator at its default number of rows."""
    import mlflow

    model, X, y = inputs(folder)
    uri = store(model)

    def work(n: int) -> tuple[str, list[dict[str, Any]]]:
        with mlflow.start_run():
            data = X.assign(label=y).head(n)
            found = mlflow.models.evaluate(
                uri, data, targets="label", model_type="classifier", evaluators=["shap"]
            )
        return f"{len(found.artifacts)} figures of 2,000 rows", []

    return work


def shapash(folder: Path) -> Work:
    """Prepare shapash's compilation and report."""
    from shapash import SmartExplainer

    model, all_rows, labels = inputs(folder)
    train = pd.read_parquet(folder / "train.parquet")

    def work(n: int) -> tuple[str, list[dict[str, Any]]]:
        X, y = all_rows.head(n), labels.head(n)
        explainer = SmartExplainer(model=model)
        explainer.compile(x=X, y_target=y)
        page = Path(tempfile.mkdtemp(prefix="benchmark_report_"), "report.html")
        explainer.generate_report(output_file=str(page), x_train=train, y_test=y)
        return f"{len(X):,} rows, report of {page.stat().st_size / 1e6:.1f} MB", []

    return work


def explainerdashboard(folder: Path) -> Work:
    """Prepare explainerdashboard's static export."""
    from explainerdashboard import ClassifierExplainer, ExplainerDashboard

    model, all_rows, labels = inputs(folder)

    def work(n: int) -> tuple[str, list[dict[str, Any]]]:
        X, y = all_rows.head(n), labels.head(n)
        page = Path(tempfile.mkdtemp(prefix="benchmark_export_"), "dashboard.html")
        explainer = ClassifierExplainer(model, X, y)
        # the tab of single trees reads all of them anew for each: it had not ended after ten minutes
        ExplainerDashboard(explainer, shap_interaction=False, decision_trees=False).save_html(page)
        size = page.stat().st_size / 1e6
        return f"{len(X):,} rows, without interactions and single trees, page of {size:.1f} MB", []

    return work


def main() -> None:
    """Do one peer's work and print its times."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.WARNING)
    prepared = {
        "step": lambda: step(folder, output="margin"),
        "step_probability": lambda: step(folder, output="probability"),
        "mlflow_evaluate": lambda: mlflow_evaluate(folder),
        "shapash": lambda: shapash(folder),
        "explainerdashboard": lambda: explainerdashboard(folder),
    }[name]()
    rows = int(sys.argv[3])
    if rows > FIRST:
        prepared(FIRST)
    wall, processor = time.perf_counter(), sum(os.times()[:4])  # of processes that it starts as well
    what, stages = prepared(rows)
    wall, processor = time.perf_counter() - wall, sum(os.times()[:4]) - processor
    package = {
        "mlflow_evaluate": "mlflow",
        "shapash": "shapash",
        "explainerdashboard": "explainerdashboard",
    }.get(name)
    found = {
        "wall": wall,
        "processor": processor,
        "what": what,
        "stages": stages,
        "version": metadata.version(package) if package else None,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
