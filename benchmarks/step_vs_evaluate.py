"""The step on many rows beside MLflow's explanations: ``python benchmarks/step_vs_evaluate.py [--rows 10000]``.

An XGBoost classifier on 15 numeric columns, the case that MLflow explains with an exact tree explainer, is logged to a
temporary SQLite store. ``explain_step.log_explanations`` and ``mlflow.models.evaluate(evaluators=["shap"])`` run in one
process, after a first call of each that is not counted. MLflow explains ``--nsamples`` rows (its default: 2,000), the step
every row. Shapash and explainerdashboard take part where they are installed: both compute the attributions in the
constructor. Processor seconds of all threads, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from xgboost import XGBClassifier

import explain_step

COLUMNS = 15


def data(n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return numeric columns and labels."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, COLUMNS)), columns=[f"column_{i}" for i in range(COLUMNS)])
    return X, (X["column_0"] + X["column_1"] * X["column_2"] + 0.5 * rng.normal(size=n) > 0).astype(
        int
    ).to_numpy()


def candidates(model: Any, X: pd.DataFrame, y: np.ndarray, *, nsamples: int) -> dict[str, Callable[[], str]]:
    """Return what is timed; each gives a few words on what it explained."""
    with mlflow.start_run():
        uri = mlflow.xgboost.log_model(model, name="model", pip_requirements=["xgboost"]).model_uri

    def step(output: str) -> str:
        with mlflow.start_run():
            found = explain_step.log_explanations(model, X, y, model_uri=uri, output=output, on_error="raise")
        assert found.snapshot is not None
        facts = found.snapshot.manifest["quantity"]
        return f"{facts['output_space']}, {facts['rows']} of {facts['rows_given']} rows, {found.status}"

    def evaluate() -> str:
        with mlflow.start_run():
            result = mlflow.models.evaluate(
                uri,
                X.assign(label=y),
                targets="label",
                model_type="classifier",
                evaluators=["shap"],
                evaluator_config={"shap": {"explainability_nsamples": nsamples}},
            )
        return f"{len(result.artifacts)} figures, {min(nsamples, len(X))} rows"

    found: dict[str, Callable[[], str]] = {
        "mlflow.models.evaluate, shap": evaluate,
        "explain_step, margin (exact)": lambda: step("margin"),
        "explain_step, probability": lambda: step("probability"),
    }
    if find_spec("shapash"):
        found["shapash, SmartExplainer.compile"] = lambda: _shapash(model, X, y)
    if find_spec("explainerdashboard"):
        found["explainerdashboard, SHAP values"] = lambda: _dashboard(model, X, y)
    return found


def _shapash(model: Any, X: pd.DataFrame, y: np.ndarray) -> str:
    from shapash import SmartExplainer

    explainer = SmartExplainer(model=model)
    explainer.compile(x=X, y_target=pd.Series(y, index=X.index, name="label"))
    return f"attributions only, {len(X)} rows"


def _dashboard(model: Any, X: pd.DataFrame, y: np.ndarray) -> str:
    from explainerdashboard import ClassifierExplainer

    explainer = ClassifierExplainer(model, X, y)
    explainer.get_shap_values_df()
    return f"attributions only, {len(X)} rows"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--nsamples", type=int, default=2_000, help="rows that MLflow explains")
    parser.add_argument("--trees", type=int, default=200)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.create_experiment("benchmark", artifact_location=Path(folder, "artifacts").as_uri())
        mlflow.set_experiment("benchmark")
        X, y = data(arguments.rows)
        small, labels = data(60)
        for run in candidates(
            XGBClassifier(n_estimators=5).fit(small, labels), small, labels, nsamples=20
        ).values():
            run()
        model = XGBClassifier(n_estimators=arguments.trees, max_depth=6).fit(X, y)
        rivals = candidates(model, X, y, nsamples=arguments.nsamples)
        sys.stdout.write("| | processor time | of MLflow's | what was explained |\n|---|---|---|---|\n")
        first = None
        for name, run in rivals.items():
            start = time.process_time()
            told = run()
            seconds = time.process_time() - start
            first = first or seconds
            sys.stdout.write(f"| {name} | {seconds:.1f} s | {seconds / first:.2g} | {told} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
