"""What one evaluation gives and costs, beside MLflow's own explanations: ``python benchmarks/evaluator_vs_default.py``.

Five models are logged once to a temporary SQLite store and evaluated by MLflow's ``shap`` evaluator (the part of
``"default"`` that explains) and by ``explain_step``, in one process, after a first call of each that is not counted.
``--rows`` sets how many rows are evaluated, ``--repeat`` how often; the median counts. Times are processor seconds of
all threads, which other work on the machine hardly changes; the ratio is ours over theirs, where theirs gives anything.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

FEATURES = 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fitted model and the rows it is evaluated on."""

    name: str
    model: Any
    rows: pd.DataFrame
    model_type: str = "classifier"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Seconds, what the result holds beyond metrics of performance, and what was raised."""

    seconds: float
    figures: int
    tables: int
    quantity: str


def numbers(n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return numeric columns and a score that depends on three of them."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, FEATURES)), columns=[f"column_{i}" for i in range(FEATURES)])
    return X, (X["column_0"] + 0.7 * X["column_1"] * X["column_2"] + 0.4 * rng.normal(size=n)).to_numpy()


def cases(n: int) -> tuple[Case, ...]:
    """Return models from the one that MLflow explains best to those that it does not."""
    X, score = numbers(n)
    yes, three = (score > 0).astype(int), np.digitize(score, [-0.5, 0.5])
    words, mixed = np.where(yes, "yes", "no"), X.assign(state=np.where(X["column_3"] > 0, "MA", "NH"))
    encode = make_column_transformer((OneHotEncoder(), ["state"]), remainder="passthrough")
    trees = XGBClassifier(n_estimators=100, max_depth=4)
    forest = RandomForestClassifier(n_estimators=100, max_depth=6, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    return (
        Case(name="XGBoost, binary", model=trees.fit(X, yes), rows=X.assign(label=yes)),
        Case(
            name="random forest, regression",
            model=RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0).fit(X, score),
            rows=X.assign(label=score),
            model_type="regressor",
        ),
        Case(
            name="Pipeline of a linear model, 3 classes",
            model=linear.fit(X, three),
            rows=X.assign(label=three),
        ),
        Case(name="random forest, text labels", model=forest.fit(X, words), rows=X.assign(label=words)),
        Case(
            name="Pipeline with a text column",
            model=make_pipeline(encode, XGBClassifier(n_estimators=100, max_depth=4)).fit(mixed, yes),
            rows=mixed.assign(label=yes),
        ),
    )


def logged(model: Any) -> str:
    """Log a model and return its URI."""
    flavor, settings = (mlflow.sklearn, {"serialization_format": "cloudpickle"})
    if isinstance(model, XGBClassifier):
        flavor, settings = mlflow.xgboost, {}
    with mlflow.start_run():
        info = flavor.log_model(model, name="model", pip_requirements=["scikit-learn"], **settings)
    return str(info.model_uri)


def evaluated(uri: str, case: Case, *, evaluator: str, options: dict[str, Any]) -> Outcome:
    """Evaluate once."""
    start = time.process_time()
    artifacts: dict[str, Any] = {}
    failure = ""
    with mlflow.start_run():
        try:
            artifacts = mlflow.models.evaluate(
                uri,
                case.rows,
                targets="label",
                model_type=case.model_type,
                evaluators=[evaluator],
                evaluator_config={evaluator: options},
            ).artifacts
        except Exception as error:  # noqa: BLE001 - what the other side raises is the finding
            failure = (
                "nothing (skipped)"
                if "could not be evaluated" in str(error)
                else f"raises {type(error).__name__}"
            )
    seconds = time.process_time() - start
    kinds = [Path(artifact.uri).suffix for artifact in artifacts.values()]
    return Outcome(
        seconds=seconds,
        figures=kinds.count(".png"),
        tables=kinds.count(".parquet") + kinds.count(".csv"),
        quantity=_quantity(artifacts) if artifacts else failure,
    )


def _quantity(artifacts: dict[str, Any]) -> str:
    manifest = artifacts.get("explain_step/manifest")
    return "not stated" if manifest is None else str(manifest.content["quantity"]["output_space"])


def median(run: Callable[[], Outcome], repeat: int) -> Outcome:
    """Return the outcome of the median time."""
    found = sorted((run() for _ in range(repeat)), key=lambda outcome: outcome.seconds)
    return found[statistics.median_low(range(len(found)))]


def compare(case: Case, *, nsamples: int, repeat: int) -> str:
    """Return one line of the table."""
    uri = logged(case.model)
    how = {"shap": {"explainability_nsamples": nsamples}, "explain_step": {}}
    theirs, ours = (
        median(lambda n=name, o=options: evaluated(uri, case, evaluator=n, options=o), repeat)
        for name, options in how.items()
    )
    ratio = f"{ours.seconds / theirs.seconds:.2g}" if theirs.figures else "-"
    left = (
        f"{theirs.seconds:.1f} s: {theirs.figures} figures, {theirs.quantity}"
        if theirs.figures
        else theirs.quantity
    )
    right = f"{ours.seconds:.1f} s: {ours.figures} figures, {ours.tables} tables, {ours.quantity}"
    return f"| {case.name} | {left} | {right} | {ratio} |"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--nsamples", type=int, default=200, help="rows that MLflow explains")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.create_experiment("benchmark", artifact_location=Path(folder, "artifacts").as_uri())
        mlflow.set_experiment("benchmark")
        for case in (cases(60)[0], cases(60)[2]):  # imports and compilation of both sides
            compare(case, nsamples=20, repeat=1)
        sys.stdout.write(
            "| model | MLflow's shap evaluator | explain_step | time ratio |\n|---|---|---|---|\n"
        )
        for case in cases(arguments.rows):
            sys.stdout.write(compare(case, nsamples=arguments.nsamples, repeat=arguments.repeat) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
