"""The step as an MLflow evaluator, beside MLflow's own: what each gives for the same model and rows."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import EvaluationResult, MetricThreshold
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tracking_kit import REQUIREMENTS, Store, current_store, log

import explain_step
from explain_step.evaluator import ExplainStepEvaluator, SnapshotFile, asked_by, read_config
from explain_step.tracking import find

pytestmark = [
    pytest.mark.slow,
    pytest.mark.oldest,
    # MLflow's own evaluators call what third parties deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

DOCS = Path(__file__).parents[2] / "docs" / "how-to-evaluate.md"
LEGAL_KEY = re.compile(r"[\w\-. :/]{1,250}")
OURS = "explain_step/"


def numbers(n: int = 80) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, 2)), columns=["income", "debt"])
    return X, (X["income"] - X["debt"] + rng.normal(scale=0.5, size=n) > 0).astype(int).to_numpy()


def words(n: int = 120) -> tuple[pd.DataFrame, Any]:
    """Return text columns, missing values and text labels."""
    X, y = numbers(n)
    X["state"] = np.where(X["debt"] > 0, "MA", "NH")
    X.loc[::5, "income"] = np.nan
    return X, np.where(y == 1, "yes", "no")


def trees(X: pd.DataFrame, y: Any) -> Any:
    encode = make_column_transformer((OneHotEncoder(), ["state"]), remainder="passthrough")
    return make_pipeline(encode, HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5)).fit(X, y)


def pickled(model: Any, **settings: Any) -> Any:
    """Log a model in the format that takes every class."""
    return mlflow.sklearn.log_model(
        model, name="model", serialization_format="cloudpickle", pip_requirements=REQUIREMENTS, **settings
    )


def evaluate(model: Any, X: Any, y: Any, *, model_type: str = "classifier", **how: Any) -> EvaluationResult:
    """Evaluate in the active run, or a new one; labels are put into frames, as MLflow wants them."""
    how = {"evaluators": ["explain_step"], **how}
    if isinstance(X, pd.DataFrame):
        X, y = X.assign(label=y), "label"
    return mlflow.models.evaluate(model, X, targets=y, model_type=model_type, **how)


def ours(result: EvaluationResult) -> dict[str, float]:
    return {key: value for key, value in result.metrics.items() if key.startswith(OURS)}


def content(result: EvaluationResult, name: str) -> Any:
    return result.artifacts[OURS + name].content


def tags_of_run(run_id: str) -> dict[str, str]:
    tags: dict[str, str] = mlflow.get_run(run_id).data.tags
    return tags


def test_mlflow_lists_it() -> None:
    assert "explain_step" in mlflow.models.list_evaluators()


@pytest.mark.parametrize(
    ("model_type", "config", "can"),
    [
        ("classifier", {}, True),
        ("regressor", {"segments": ["sex"]}, True),
        ("regressor", None, True),
        ("classifier", {"log_model_explainability": False}, False),
        ("question-answering", {}, False),
        ("databricks-agent", {}, False),
        (None, {}, False),
    ],
)
def test_it_evaluates_classifiers_and_regressors(model_type: str | None, config: Any, can: bool) -> None:
    assert ExplainStepEvaluator.can_evaluate(model_type=model_type, evaluator_config=config) is can


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A registered version that was evaluated in a run of its own, beside MLflow's default evaluators."""

    result: EvaluationResult
    run: Any
    logged_model: Any
    version: Any
    findings: tuple[Any, ...]


@pytest.fixture(scope="module")
def evaluated(_migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copyfile(_migrated, folder / "mlflow.db")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    X, y = words()
    with contextlib.chdir(folder), current_store(client.tracking_uri, experiment):
        with mlflow.start_run():
            info = pickled(trees(X, y), registered_model_name="mortgage")
        with mlflow.start_run() as run:
            result = evaluate("models:/mortgage/1", X, y, evaluators=["default", "explain_step"])
        yield Evaluated(
            result=result,
            run=client.get_run(run.info.run_id),
            logged_model=client.get_logged_model(info.model_id),
            version=client.get_model_version("mortgage", "1"),
            findings=explain_step.verify("models:/mortgage/1"),
        )


def test_text_labels_and_columns_are_explained_where_mlflow_gives_nothing(evaluated: Evaluated) -> None:
    result = evaluated.result
    assert "f1_score" in result.metrics
    assert not any(name.startswith("shap") for name in result.artifacts)  # MLflow's own explanations: none
    importance = content(result, "tables/importance")
    assert set(importance["feature"]) == {"income", "debt", "state"}
    assert set(importance["output"]) == {"yes"}
    assert content(result, "manifest")["quantity"]["output_space"] == "probability"
    sums = content(result, "tables/attributions").filter(regex="^shap|base_value").sum(axis=1)
    assert sums.between(0, 1).all()
    assert sums.nunique() > 20  # probabilities: labels would be two values


def test_run_model_and_version_are_tagged_and_the_evidence_verifies(evaluated: Evaluated) -> None:
    snapshot_id = content(evaluated.result, "manifest")["snapshot_id"]
    for tags in (evaluated.run.data.tags, evaluated.logged_model.tags, evaluated.version.tags):
        assert tags["explain_step.status"] == "complete"
        assert tags["explain_step.snapshot_id"] == snapshot_id
    assert all(finding.verdict == "pass" for finding in evaluated.findings)


def test_every_metric_is_finite_and_stored(evaluated: Evaluated) -> None:
    found = ours(evaluated.result)
    assert found[f"{OURS}complete"] == found[f"{OURS}explained"] == 1.0
    assert {f"{OURS}importance/state", f"{OURS}performance/roc_auc", f"{OURS}score/masking_r2"} <= set(found)
    assert np.isfinite(list(found.values())).all()
    assert found.items() <= evaluated.run.data.metrics.items()
    assert evaluated.result.run_id == evaluated.run.info.run_id


def test_the_result_is_saved_loaded_and_downloaded_byte_for_byte(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    result = evaluated.result
    result.save(str(tmp_path / "saved"))
    loaded = EvaluationResult.load(str(tmp_path / "saved"))
    assert loaded.metrics == result.metrics
    assert loaded.artifacts.keys() == result.artifacts.keys() >= {OURS + "report", OURS + "card"}
    pd.testing.assert_frame_equal(content(loaded, "tables/importance"), content(result, "tables/importance"))
    assert content(loaded, "figures/importance_bars").size[0] > 300
    for name in ("report", "manifest", "tables/importance"):
        uri = result.artifacts[OURS + name].uri
        there = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path / "got")))
        assert there.read_bytes() == (tmp_path / "saved" / "artifacts" / there.name).read_bytes()
    fresh = SnapshotFile(uri=result.artifacts[OURS + "manifest"].uri)
    assert fresh.content == content(result, "manifest")
    SnapshotFile(uri=fresh.uri)._save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "saved/artifacts/manifest.json").read_bytes()


def test_multiclass_arrays_give_importances_of_each_class(active_store: Store) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(90, 2))
    y = np.digitize(X[:, 0], [-0.4, 0.4])
    with mlflow.start_run():
        info = log(LogisticRegression().fit(X, y))
        result = evaluate(info.model_uri, X, y, feature_names=["x<y", "age in years"])
    importance = content(result, "tables/importance")
    assert set(importance["output"].astype(str)) >= {"0", "1", "2"}
    assert set(importance["feature"]) == {"x<y", "age in years"}
    found = ours(result)
    assert f"{OURS}importance/2/age in years" in found
    assert all(LEGAL_KEY.fullmatch(key) for key in found)
    assert np.isfinite(list(found.values())).all()


def test_regression_with_a_dataset_and_a_loaded_model(active_store: Store) -> None:
    X, _ = numbers()
    rows = X.assign(price=3 * X["income"] - X["debt"])
    with mlflow.start_run() as run:
        info = log(LinearRegression().fit(X, rows["price"]))
    with mlflow.start_run() as other:
        result = mlflow.models.evaluate(
            mlflow.pyfunc.load_model(info.model_uri),
            mlflow.data.from_pandas(rows, targets="price"),
            model_type="regressor",
            evaluators=["regressor", "explain_step"],
        )
    assert result.metrics["r2_score"] == pytest.approx(1.0)
    assert result.metrics[f"{OURS}performance/r2"] == pytest.approx(1.0)
    assert content(result, "manifest")["model"]["model_id"] == info.model_id
    assert content(result, "manifest")["model"]["run_id"] == other.info.run_id
    assert "explain_step.status" not in tags_of_run(run.info.run_id)


def test_arrays_without_the_names_that_the_model_knows_are_refused(active_store: Store) -> None:
    X, y = numbers()
    with mlflow.start_run() as run:
        info = log(LogisticRegression().fit(X, y))
        evaluate(info.model_uri, X.to_numpy(), y, evaluators="explain_step")
    assert "'income', 'debt' are missing" in tags_of_run(run.info.run_id)["explain_step.reason"]


def test_a_function_is_explained_and_its_evidence_stays_with_the_run(active_store: Store) -> None:
    X, y = numbers()
    model = LogisticRegression().fit(X, y)
    with mlflow.start_run() as run:
        info = log(model)
        result = evaluate(lambda rows: model.predict_proba(rows)[:, 1], X, y)
    assert content(result, "manifest")["quantity"]["output_space"] == "probability"
    assert tags_of_run(run.info.run_id)["explain_step.status"] == "complete"
    tags = active_store.client.get_logged_model(info.model_id).tags
    assert not any(key.startswith("explain_step") for key in tags)
    uri = result.artifacts[OURS + "report"].uri
    assert uri.startswith(mlflow.get_run(run.info.run_id).info.artifact_uri)


def test_a_function_counts_for_a_logged_model_that_is_named(active_store: Store) -> None:
    with mlflow.start_run() as run:
        info = log(LogisticRegression().fit(*numbers()))
    named = find(asked_by(object(), run_id=run.info.run_id, model_id=info.model_id))
    alone = find(asked_by(object(), run_id=run.info.run_id, model_id=None))
    assert (named.model_id, alone.model_id) == (info.model_id, None)
    assert named.run_id == alone.run_id == run.info.run_id
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    assert find(asked_by(loaded, run_id=run.info.run_id, model_id="m-" + "0" * 32)).model_id == info.model_id


def test_a_failure_is_marked_and_the_other_evaluators_go_on(active_store: Store) -> None:
    X, y = numbers()
    model = LogisticRegression().fit(X, y)
    with mlflow.start_run() as run:
        result = evaluate(model.predict, X, y, evaluators=["classifier", "explain_step"])
    assert result.metrics["accuracy_score"] > 0.5
    assert ours(result) == {f"{OURS}explained": 0.0, f"{OURS}complete": 0.0}
    tags = tags_of_run(run.info.run_id)
    assert tags["explain_step.status"] == "failed"
    assert "label" in tags["explain_step.reason"]
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    needed = {f"{OURS}explained": MetricThreshold(threshold=1, greater_is_better=True)}
    with pytest.raises(MlflowException, match="explain_step/explained"):
        mlflow.validate_evaluation_results(validation_thresholds=needed, candidate_result=result)


def test_a_model_that_raises(active_store: Store) -> None:
    X, y = numbers()

    def broken(rows: Any) -> Any:
        raise RuntimeError("no connection to the feature store")

    with mlflow.start_run() as run:
        result = evaluate(broken, X, y)
    assert ours(result)[f"{OURS}explained"] == 0.0
    assert "no connection" in tags_of_run(run.info.run_id)["explain_step.reason"]
    with pytest.raises(explain_step.PredictionFailed, match="no connection"), mlflow.start_run() as run:
        evaluate(broken, X, y, evaluators="explain_step", evaluator_config={"on_error": "raise"})
    assert tags_of_run(run.info.run_id)["explain_step.status"] == "failed"


def test_an_unknown_option_is_named_with_the_nearest_one(active_store: Store) -> None:
    X, y = numbers()
    with mlflow.start_run() as run:
        config = {"explain_step": {"segment": ["debt"]}}
        evaluate(LogisticRegression().fit(X, y).predict_proba, X, y, evaluator_config=config)
    assert "'segments'" in tags_of_run(run.info.run_id)["explain_step.reason"]


def test_options_file_background_and_synonyms(active_store: Store, tmp_path: Path) -> None:
    X, y = words()
    model = trees(X, y)
    (tmp_path / "explain.yaml").write_text("segments: [state]\nmin_segment: 10\n", encoding="utf-8")
    config = {
        "config": str(tmp_path / "explain.yaml"),
        "background": X.head(40),
        "pos_label": "no",
        "sample_weights": np.linspace(1, 2, len(X)),
        "metrics": ["accuracy"],
        "explainability_nsamples": 5,  # MLflow's
    }
    with mlflow.start_run():
        result = evaluate(pickled(model).model_uri, X, y, evaluators="explain_step", evaluator_config=config)
    assert set(content(result, "tables/importance")["output"]) == {"no"}
    assert set(content(result, "tables/segments")["segment"]) >= {"state"}
    assert f"{OURS}performance/accuracy" in ours(result)
    assert f"{OURS}performance/roc_auc" not in ours(result)
    assert len(content(result, "tables/attributions")) == len(X)
    assert read_config(config).options["sample_weight"] is config["sample_weights"]


def test_without_evaluators_mlflow_runs_it_too_with_its_own_flat_options(active_store: Store) -> None:
    X, y = words()
    with mlflow.start_run():
        uri = pickled(trees(X, y)).model_uri
        config = {"metric_prefix": "test_", "pos_label": "yes"}
        result = evaluate(uri, X, y, evaluators=None, evaluator_config=config)
        off = evaluate(
            uri, X, y, evaluators=None, evaluator_config={**config, "log_model_explainability": False}
        )
    assert ours(result)[f"{OURS}complete"] == 1.0
    assert "test_f1_score" in result.metrics.keys() & off.metrics.keys()
    assert ours(off) == {}


def test_predictions_without_a_model_are_not_explained(
    active_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    X, y = numbers()
    rows = X.assign(label=y, predicted=y)
    how: dict[str, Any] = {"targets": "label", "predictions": "predicted", "model_type": "classifier"}
    with caplog.at_level(logging.WARNING, logger="explain_step"), mlflow.start_run() as run:
        result = mlflow.models.evaluate(data=rows, evaluators=["classifier", "explain_step"], **how)
        with pytest.raises(MlflowException, match="could not be evaluated"):
            mlflow.models.evaluate(data=rows, evaluators=["explain_step"], **how)
        with pytest.raises(explain_step.InvalidInput, match="pass model="):
            mlflow.models.evaluate(
                data=rows, evaluators="explain_step", evaluator_config={"on_error": "raise"}, **how
            )
    assert result.metrics["accuracy_score"] == 1.0
    assert ours(result) == {}
    assert "only a column of predictions" in caplog.text
    assert "explain_step.status" not in tags_of_run(run.info.run_id)


def test_the_documented_example_runs(active_store: Store) -> None:
    first, check = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    seen: dict[str, Any] = {"print": lambda *values: None}
    exec(compile(first + check, str(DOCS), "exec"), seen)
    assert seen["result"].metrics["explain_step/complete"] == 1.0
    version = active_store.client.get_model_version("mortgage", "1")
    assert version.tags["explain_step.status"] == "complete"
