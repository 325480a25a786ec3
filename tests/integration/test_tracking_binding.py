"""Is the model in MLflow the explained one? Verified where loading runs no code, declared otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tracking_kit import REQUIREMENTS, Store, current_store, fitted, log, pickle_free, rows

from explain_step import models
from explain_step.config import Config
from explain_step.digests import directory_digest
from explain_step.errors import BindingError, InvalidInput
from explain_step.tracking import binding, load_model, model_digest, resolve
from explain_step.tracking.place import evidence_place
from explain_step.types import Response


def answer(model: Any, X: pd.DataFrame, **options: Any) -> Response:
    return models.wrap(model, frame=X, config=Config.parse(options)).respond(X)


def mixed() -> tuple[pd.DataFrame, pd.Series]:
    X, y = rows()
    return X.assign(state=np.where(X["age"] > 0, "MA", "NH")), y


def pipeline() -> Any:
    encode = ColumnTransformer([("state", OneHotEncoder(), ["state"])], remainder=StandardScaler())
    return make_pipeline(encode, LogisticRegression())


def forest() -> Any:
    return make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0))


@pytest.mark.parametrize("make", [pytest.param(pipeline, marks=pickle_free), forest])
def test_a_model_in_the_skops_format_is_verified(active_store: Store, make: Any) -> None:
    X, y = mixed() if make is pipeline else rows()
    model = make().fit(X, y)
    with mlflow.start_run():
        log(model, skops_trusted_types=None if make is pipeline else ["sklearn.tree._tree.Tree"])
        kind, note = binding(resolve(), X, answer(model, X))
    assert kind == "verified", note
    assert "class probabilities on 80 explained rows" in note


def test_another_model_than_the_explained_one_is_refused(active_store: Store) -> None:
    X, _ = rows()
    with mlflow.start_run():
        log(fitted(C=1.0))
        with pytest.raises(BindingError, match="not the explained model: its class probabilities differ"):
            binding(resolve(), X, answer(fitted(C=0.9), X))


def test_regression_and_a_positive_class_of_the_caller(active_store: Store) -> None:
    X, y = rows()
    line = LinearRegression().fit(X, X["income"] * 2)
    with mlflow.start_run():
        log(line)
        assert binding(resolve(), X, answer(line, X))[0] == "verified"
        with pytest.raises(BindingError, match="predictions differ"):
            binding(resolve(), X, answer(LinearRegression().fit(X, X["income"] * 2.001), X))
    with mlflow.start_run():
        model = LogisticRegression().fit(X, y)
        log(model)
        assert binding(resolve(), X, answer(model, X, positive_class=0))[0] == "verified"
        assert binding(resolve(), X, answer(model, X, output="margin"))[0] == "verified"


@pytest.mark.parametrize("library", ["xgboost", pytest.param("lightgbm", marks=pickle_free), "catboost"])
def test_boosters_in_their_own_formats_are_verified(
    active_store: Store, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows()
    module = pytest.importorskip(library)
    classes = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier", "catboost": "CatBoostClassifier"}
    quiet = {"lightgbm": {"verbose": -1}, "catboost": {"verbose": 0, "allow_writing_files": False}}
    model = getattr(module, classes[library])(n_estimators=5, **quiet.get(library, {})).fit(X, y)
    flavor = getattr(mlflow, library)
    with mlflow.start_run():
        flavor.log_model(model, name="model", pip_requirements=REQUIREMENTS)
        target = resolve()
        kind, note = binding(target, X, answer(model, X))
        assert type(load_model(target, allow_pickle=False)).__name__ == classes[library]
    assert kind == "verified", note


def test_a_pickle_is_not_loaded_for_the_comparison(active_store: Store) -> None:
    X, _ = rows()
    model = fitted()
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model, name="model", serialization_format="cloudpickle", pip_requirements=REQUIREMENTS
        )
        root = Path(
            active_store.client.get_logged_model(info.model_id).artifact_location.removeprefix("file://")
        )
        (root / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch run_by_the_pickle'\ntR.")
        kind, note = binding(resolve(), X, answer(model, X))
    assert kind == "declared"
    assert "cloudpickle runs code" in note
    assert not Path("run_by_the_pickle").exists()


def test_code_paths_foreign_types_and_pyfunc_are_declared(active_store: Store, tmp_path: Path) -> None:
    X, _ = rows()
    model = fitted()
    (tmp_path / "helper.py").write_text("raise RuntimeError('imported')\n")
    with mlflow.start_run():
        info = log(model)
        meta = Path(
            active_store.client.get_logged_model(info.model_id).artifact_location.removeprefix("file://")
        )
        meta = meta / "MLmodel"
        text = meta.read_text()
        meta.write_text(text.replace("skops_trusted_types: null", "skops_trusted_types: [os.system]"))
        assert "foreign types os.system" in binding(resolve(), X, answer(model, X))[1]
        meta.write_text(text.replace("code: null", "code: code"))
        assert "code paths" in binding(resolve(), X, answer(model, X))[1]

    class Constant(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: pd.DataFrame, params: Any = None) -> Any:
            return np.zeros(len(model_input))

    with mlflow.start_run():
        mlflow.pyfunc.log_model(name="model", python_model=Constant(), pip_requirements=REQUIREMENTS)
        kind, note = binding(resolve(), X, Response(output=np.zeros((len(X), 1))))
        assert (kind, "python_function" in note) == ("declared", True)
        assert load_model(resolve(), allow_pickle=True).predict(X).sum() == 0


def test_a_run_without_a_model_has_neither_digest_nor_bond(store: Store) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    target = resolve(run_id=run_id, tracking_uri=store.uri)
    X, _ = rows()
    assert model_digest(target) is None
    assert binding(target, X, answer(fitted(), X)) == (
        "declared",
        "the run has no logged model to compare with",
    )
    with pytest.raises(InvalidInput, match="no logged model that is ready"):
        load_model(target, allow_pickle=True)


def test_the_digest_covers_the_model_and_nothing_that_is_added_later(active_store: Store) -> None:
    with mlflow.start_run():
        log(fitted(), registered="mortgage")
    target = resolve(model_uri="models:/mortgage/1")
    root = Path(str(target.model_location).removeprefix("file://"))
    before = model_digest(target)
    assert before == directory_digest(root)
    mlflow.sklearn.load_model("models:/mortgage/1")  # MLflow writes registered_model_meta into a local store
    assert (root / "registered_model_meta").exists()
    evidence_place(target).put(root / "MLmodel", "explanations/x")
    assert model_digest(target) == before
    (root / "model.skops").write_bytes((root / "model.skops").read_bytes() + b" ")
    assert model_digest(target) != before


def test_models_load_by_every_uri_and_no_global_uri_is_needed(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, _ = rows()
    model = fitted()
    with mlflow.start_run() as run:
        info = log(model, registered="mortgage")
    active_store.client.set_registered_model_alias("mortgage", "champion", "1")
    mlflow.set_tracking_uri("sqlite:////nowhere/else.db")
    for uri in (
        *("models:/mortgage/1", "models:/mortgage@champion", f"models:/{info.model_id}"),
        f"runs:/{run.info.run_id}/model",
    ):
        loaded = load_model(resolve(model_uri=uri, tracking_uri=active_store.uri), allow_pickle=False)
        np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert mlflow.get_tracking_uri() == "sqlite:////nowhere/else.db"


@pytest.mark.slow
@pytest.mark.oldest
def test_behind_a_server_the_digest_is_the_same_and_the_model_loads(
    server_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    X, _ = rows()
    model = fitted()
    with current_store(server_store.uri, server_store.experiment_id), mlflow.start_run():
        info = log(model)
        target = resolve()
        evidence_place(target).put(Path(__file__), "explanations/x")
    assert str(target.model_location).startswith("mlflow-artifacts:")
    stored = server_store.artifacts / server_store.experiment_id / "models" / info.model_id / "artifacts"
    assert model_digest(target) == directory_digest(stored)
    assert binding(target, X, answer(model, X))[0] == "verified"
    np.testing.assert_array_equal(load_model(target, allow_pickle=False).predict(X), model.predict(X))
