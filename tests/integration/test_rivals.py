"""Inputs on which ``mlflow.models.evaluate`` is silently empty, wrong or crashes, and what comes out here.

Each test runs MLflow's evaluation and ours on the same model and rows. MLflow's half is asserted as it is
today: when a newer MLflow does better, the test says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tracking_kit import REQUIREMENTS, Store

import explain_step
from explain_step.artifacts import BUILDERS
from explain_step.compute import Explanation, compute
from explain_step.config import Config

shap = pytest.importorskip("shap", reason="MLflow's explanations need shap")

pytestmark = [
    # The rival's half: third parties deprecate what MLflow and shap call.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("random_state_kept"),
]

PLOTS = {"shap_beeswarm_plot", "shap_summary_plot", "shap_feature_importance_plot"}


@pytest.fixture
def random_state_kept() -> Iterator[None]:
    """Give the global generator back as it was: shap reseeds it."""
    state = np.random.get_state()  # noqa: NPY002 - it is the global one that shap touches
    yield
    np.random.set_state(state)  # noqa: NPY002


@pytest.fixture
def plotted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what MLflow gives to shap's bar plot: MLflow itself stores pictures only."""
    seen: list[Any] = []
    real = shap.plots.bar

    def watched(values: Any, **rest: Any) -> Any:
        seen.append(values)
        return real(values, **rest)

    monkeypatch.setattr(shap.plots, "bar", watched)
    return seen


def numbers(n: int = 90) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=["income", "debt", "age"])
    return X, (X["income"] + 0.7 * X["debt"] + 0.3 * rng.normal(size=n) > 0).astype(int)


def theirs(model: Any, X: pd.DataFrame, y: Any, **how: Any) -> tuple[Any, Any]:
    """Log a model and let MLflow's own evaluators judge it; return the result and the finished run."""
    how = {"evaluators": ["default"], **how}
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model, name="model", serialization_format="cloudpickle", pip_requirements=REQUIREMENTS
        )
        result = mlflow.models.evaluate(
            info.model_uri, X.assign(label=y), targets="label", model_type="classifier", **how
        )
    return result, mlflow.get_run(run.info.run_id)


def shap_artifacts(result: Any) -> set[str]:
    return {name for name in result.artifacts if name.startswith("shap")}


def kernel(rows: int) -> dict[str, Any]:
    """Let MLflow use its kernel explainer: it asks ``predict`` like any other and compiles nothing."""
    settings = {"explainability_algorithm": "kernel", "explainability_nsamples": rows}
    return {"evaluators": ["shap"], "evaluator_config": {"shap": settings}}


def outputs_of(explanation: Any) -> np.ndarray:
    return np.unique(np.round(explanation.base_values + explanation.values.sum(axis=1), 6))


def ours(model: Any, X: pd.DataFrame, y: Any, **options: Any) -> Explanation:
    """Explain without pages and figures; one section, since it is the attributions that are compared."""
    first = tuple(builder for builder in BUILDERS if builder.name == "importance")
    return compute(model, X, y, config=Config.parse(options), builders=first)


def sums(explanation: Explanation) -> np.ndarray:
    """Return base value plus attributions of every explained row: what was explained."""
    found = explanation.attributions
    return found.base_values + found.values.sum(axis=1)


def test_a_pipeline_is_explained_in_probabilities_not_in_class_labels(
    active_store: Store, plotted: list[Any]
) -> None:
    X, y = numbers()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    result, _ = theirs(model, X, y, **kernel(20))
    assert shap_artifacts(result) == PLOTS
    assert outputs_of(plotted[-1]).tolist() == [0.0, 1.0]  # the label as a number

    explanation = ours(model, X, y)
    assert explanation.attributions.output_space == "probability"
    np.testing.assert_allclose(sums(explanation)[:, 0], model.predict_proba(X)[:, 1], atol=1e-9)


def test_renaming_classes_changes_their_ranking_and_only_the_names_of_ours(
    active_store: Store, plotted: list[Any]
) -> None:
    X, _ = numbers(120)
    y = np.where(X["income"] > 0.4, 2, np.where(X["debt"] > 0, 1, 0))
    swapped = np.array([0, 2, 1])[y]
    leaders = []
    for labels in (y, swapped):
        theirs(LogisticRegression().fit(X, labels), X, labels, **kernel(20))
        leaders.append(plotted[-1].feature_names[int(np.abs(plotted[-1].values).mean(axis=0).argmax())])
    assert leaders[0] != leaders[1]  # nothing changed but two names

    first, second = (
        ours(LogisticRegression().fit(X, labels), X, labels).attributions for labels in (y, swapped)
    )
    assert first.output_names == second.output_names == ("0", "1", "2")
    np.testing.assert_allclose(first.values, second.values[:, :, [0, 2, 1]], atol=1e-4)


def test_text_labels_are_explained_instead_of_skipped(active_store: Store) -> None:
    X, y = numbers()
    words = np.where(y == 1, "yes", "no")
    model = LogisticRegression().fit(X, words)
    result, run = theirs(model, X, words)
    assert shap_artifacts(result) == set()
    assert run.info.status == "FINISHED"
    assert not any(
        "shap" in key or "explain" in key for key in run.data.tags
    )  # nothing says that it is missing

    explanation = ours(model, X, words)
    assert explanation.attributions.output_names == ("yes",)
    np.testing.assert_allclose(sums(explanation)[:, 0], model.predict_proba(X)[:, 1], atol=1e-9)


def test_text_columns_are_explained_instead_of_a_crash(active_store: Store) -> None:
    X, y = numbers()
    X = X.assign(state=np.where(X["age"] > 0, "MA", "NH"))
    encode = ColumnTransformer([("state", OneHotEncoder(), ["state"])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(X, y)
    if str(X["state"].dtype) == "object":  # pandas 2: skipped without a trace
        result, _ = theirs(model, X, y, evaluators=["default", "shap"])
        assert shap_artifacts(result) == set()
    else:
        with pytest.raises(TypeError, match="StringDtype"):
            theirs(model, X, y, evaluators=["shap"])

    explanation = ours(model, X, y)
    assert explanation.attributions.feature_names == ("income", "debt", "age", "state")
    np.testing.assert_allclose(sums(explanation)[:, 0], model.predict_proba(X)[:, 1], atol=1e-9)


def test_missing_values_are_explained_as_they_are(active_store: Store, plotted: list[Any]) -> None:
    X, y = numbers()
    X.loc[::4, "income"] = np.nan
    model = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5).fit(X, y)
    result, run = theirs(model, X, y, evaluators=["shap"])
    assert run.info.status == "FINISHED"
    if shap_artifacts(result):  # else its additivity check failed, and nothing says so
        filled = plotted[-1]
        assert not np.isnan(filled.data).any()  # other rows than the ones given: filled with the mean
        told = np.ravel(filled.base_values) + filled.values.sum(axis=1)
        assert np.abs(told - model.decision_function(X))[::4].max() > 0.01

    explanation = ours(model, X, y, output="margin")
    assert explanation.attributions.method.exact
    np.testing.assert_allclose(sums(explanation)[:, 0], model.decision_function(X), atol=1e-6)


def test_the_documented_first_call_raises_there_and_the_whole_step_runs_here(active_store: Store) -> None:
    X, y = numbers()
    X = X.assign(state=np.where(X["age"] > 0, "MA", "NH"))
    words = np.where(y == 1, "yes", "no")
    encode = ColumnTransformer([("state", OneHotEncoder(), ["state"])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(X, words)
    with pytest.raises(MlflowException, match="evaluator_config"):
        theirs(model, X, words, evaluators=["default"], evaluator_config={"log_explainer": True})
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(model, name="model", pip_requirements=REQUIREMENTS)
        logged = explain_step.log_explanations(model, X, words)
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert logged.status == tags["explain_step.status"] == "complete"
