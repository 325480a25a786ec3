"""The engine against other engines: the boosters' own contributions, and shap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from threadpoolctl import threadpool_limits
from tree_kit import attributions, make_subject, mixed_frame

from explain_step.explainers import ensembles, tree, tree_path_dependent
from explain_step.seeds import caller_state_kept
from explain_step.types import Subject

X, Y = mixed_frame(400)
NUMBERS = X[["a", "b"]].assign(flag=X.flag.astype(float), zone=X.zone.cat.codes.astype(float))
TWO = (Y > 1).astype(int)
THREE = np.digitize(Y, [0, 1.5])
ROWS, BACKGROUND = slice(0, 40), slice(100, 160)


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny models train and predict faster on one OpenMP thread."""
    with threadpool_limits(limits=1):
        yield


def path_dependent(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    model = subject.model
    ensemble = ensembles.parse(model)
    return tree_path_dependent.path_dependent(
        ensemble,
        ensemble.encode(tree.inputs(model, subject.X)),
        sources=tree.raw_sources(model, ensemble),
        n_features=len(model.feature_names),
    )


def check_contributions(subject: Subject, contributions: np.ndarray) -> None:
    """Compare with contributions of shape (rows, features + 1, outputs), whose last entry is the base."""
    values, base = path_dependent(subject)
    np.testing.assert_allclose(values, contributions[:, :-1], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(np.tile(base, (len(values), 1)), contributions[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
@pytest.mark.parametrize(
    "options", [{}, {"max_cat_to_onehot": 1}, {"booster": "dart", "rate_drop": 0.5}], ids=str
)
def test_path_dependent_values_equal_xgboosts_own(y, options):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=15, enable_categorical=True, n_jobs=1, **options).fit(X, y)
    matrix = xgboost.DMatrix(X[ROWS], enable_categorical=True, nthread=1)
    own = model.get_booster().predict(matrix, pred_contribs=True)
    own = own[:, :, None] if own.ndim == 2 else own.transpose(0, 2, 1)
    subject = make_subject(model, X[ROWS], X[BACKGROUND], output="margin")
    check_contributions(subject, own)
    check_contributions(make_subject(model.get_booster(), X[ROWS], X[BACKGROUND], output="margin"), own)


@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
@pytest.mark.parametrize("boosting", ["gbdt", "dart"])
def test_path_dependent_values_equal_lightgbms_own(y, boosting):
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=15, boosting_type=boosting, verbose=-1, n_jobs=1).fit(X, y)
    own = model.predict(X[ROWS], pred_contrib=True)
    own = own.reshape(len(own), -1, X.shape[1] + 1).transpose(0, 2, 1)
    check_contributions(make_subject(model, X[ROWS], X[BACKGROUND], output="margin"), own)
    check_contributions(make_subject(model.booster_, X[ROWS], X[BACKGROUND], output="margin"), own)


@pytest.mark.parametrize(
    ("model", "y", "options"),
    [
        (RandomForestRegressor(10, random_state=0, min_samples_leaf=3), Y, {}),
        (RandomForestClassifier(10, random_state=0, min_samples_leaf=3), THREE, {}),
        (GradientBoostingRegressor(n_estimators=20, random_state=0), Y, {}),
        (HistGradientBoostingRegressor(max_iter=20), Y, {}),
        (HistGradientBoostingClassifier(max_iter=20), TWO, {"output": "margin"}),
    ],
    ids=lambda case: type(case).__name__,
)
def test_values_equal_shaps(model, y, options):
    shap = pytest.importorskip("shap")
    # No repeated values: on rounded ones shap 0.51 takes other branches than predict, by its own additivity.
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(len(X), 4)), columns=list("abcd"))
    rows["a"] += Y
    subject = make_subject(model.fit(rows, y), rows[ROWS], rows[BACKGROUND], **options)
    values, base = path_dependent(subject)
    with caller_state_kept():
        np.random.seed(0)  # noqa: NPY002 - what shap draws from
        theirs = shap.TreeExplainer(model)(rows[ROWS])
    np.testing.assert_allclose(values, theirs.values.reshape(values.shape), atol=1e-6)
    np.testing.assert_allclose(base, np.reshape(theirs.base_values, (-1, len(base)))[0], atol=1e-6)
    got = attributions(subject)
    with caller_state_kept():
        np.random.seed(0)  # noqa: NPY002 - what shap draws from
        theirs = shap.TreeExplainer(model, data=rows[BACKGROUND])(rows[ROWS], check_additivity=False)
    wanted = np.reshape(theirs.base_values, (-1, len(base)))
    np.testing.assert_allclose(got.base_values, np.broadcast_to(wanted, got.base_values.shape), atol=1e-6)
    if (
        "Hist" not in type(model).__name__
    ):  # there, shap 0.51's interventional values miss the prediction by 0.03
        np.testing.assert_allclose(got.values, theirs.values.reshape(values.shape), atol=1e-6)


def test_xgboost_dart_sums_to_the_margin_where_shaps_interventional_values_do_not():
    xgboost, shap = pytest.importorskip("xgboost"), pytest.importorskip("shap")
    model = xgboost.XGBClassifier(n_estimators=15, booster="dart", rate_drop=0.5, n_jobs=1).fit(NUMBERS, TWO)
    subject = make_subject(model, NUMBERS[ROWS], NUMBERS[BACKGROUND], output="margin")
    got, margin = attributions(subject), model.predict(NUMBERS[ROWS], output_margin=True)
    np.testing.assert_allclose(got.values.sum(axis=1)[:, 0] + got.base_values[:, 0], margin, atol=1e-5)
    with caller_state_kept():
        np.random.seed(0)  # noqa: NPY002 - what shap draws from
        theirs = shap.TreeExplainer(model, data=NUMBERS[BACKGROUND])(NUMBERS[ROWS], check_additivity=False)
    assert np.abs(theirs.values.sum(axis=1) + theirs.base_values - margin).max() > 0.01
