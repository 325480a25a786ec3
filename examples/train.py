"""Train the mortgage model, log and register it, and explain it: the last line is the step.

Run it against any MLflow tracking URI: ``MLFLOW_TRACKING_URI=sqlite:///mlflow.db python examples/train.py``
"""

from __future__ import annotations

import argparse
from inspect import signature
from pathlib import Path

import mlflow
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

import explain_step

DATA = Path(__file__).parent / "data" / "hmda.csv"
# MLflow >= 3.14 stores scikit-learn models without pickle; the class of fitted trees has to be named as trusted
PICKLE_FREE = signature(mlflow.sklearn.log_model).parameters["serialization_format"].default != "cloudpickle"
STORAGE = {"skops_trusted_types": ["sklearn.tree._tree.Tree"]} if PICKLE_FREE else {}
YES_NO = ["phist", "selfemp", "insurance", "condomin", "afam", "single", "hschool"]


def split(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]:
    """Read the applications: 70% to train, 30% held out."""
    frame = pd.read_csv(path)
    return train_test_split(
        frame.drop(columns="deny"), frame["deny"], test_size=0.3, random_state=0, stratify=frame["deny"]
    )


def new_model() -> Pipeline:
    """Build a random forest on the ratios and histories, with one-hot encoded yes/no columns."""
    encode = ColumnTransformer([("yes_no", OneHotEncoder(drop="if_binary"), YES_NO)], remainder="passthrough")
    forest = RandomForestClassifier(n_estimators=200, min_samples_leaf=10, random_state=0)
    return Pipeline([("encode", encode), ("forest", forest)])


def train(data: Path, *, registered_model_name: str) -> explain_step.LoggedSnapshot:
    """Train, log, register, explain."""
    X_train, X_test, y_train, y_test = split(data)
    model = new_model()
    with mlflow.start_run(run_name="mortgage-forest"):
        model.fit(X_train, y_train)
        mlflow.log_metric("test_accuracy", float(model.score(X_test, y_test)))
        mlflow.sklearn.log_model(model, name="model", registered_model_name=registered_model_name, **STORAGE)
        return explain_step.log_explanations(
            model,
            X_test,
            y_test,
            background=X_train,
            segments=["afam", "single", "lvrat"],
            sensitive=["afam"],
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--registered-model-name", default="mortgage")
    arguments = parser.parse_args()
    logged = train(arguments.data, registered_model_name=arguments.registered_model_name)
    print(f"{logged.status}: {logged.reason}\npage: {logged.run_uri}/explanations/report.html")
    raise SystemExit(0 if logged.status in ("complete", "degraded") else 1)
