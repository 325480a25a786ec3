"""Every kind of model that users bring, through the whole computation: all sections, in the right space, summing up."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from explain_step.compute import compute, judge
from explain_step.config import Config

N = 130
rng = np.random.default_rng(0)
NUMBERS = pd.DataFrame(rng.normal(size=(N, 4)), columns=["income", "debt", "age", "noise"])
SIGNAL = NUMBERS["income"] - 2 * NUMBERS["debt"] + NUMBERS["income"] * NUMBERS["age"]
LABELS = pd.Series(np.where(SIGNAL + rng.normal(size=N) > 0, "good", "bad"), name="credit")
THREE = pd.Series(np.array(["low", "mid", "high"])[np.digitize(SIGNAL, [-1, 1])], name="band")
MIXED = NUMBERS.assign(
    region=pd.Series(rng.choice(["north", "south", "east"], N)),
    member=rng.random(N) < 0.5,
    since=pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, N), unit="D"),
)
GAPS = NUMBERS.mask(rng.random(NUMBERS.shape) < 0.15)
TEXT = NUMBERS[["income"]].assign(
    note=rng.choice(["late payment", "good customer", "new customer", "late again"], N)
)
CATEGORIES = GAPS.assign(region=pd.Categorical(MIXED["region"]))


def columns(encoder: Any) -> Pipeline:
    encode = ColumnTransformer(
        [
            ("num", make_pipeline(SimpleImputer(), StandardScaler()), list(NUMBERS)),
            ("cat", encoder, ["region"]),
        ]
    )
    return Pipeline([("encode", encode), ("forest", RandomForestClassifier(15, random_state=0))])


def xgb(**options: Any) -> Any:
    import xgboost

    kind = xgboost.XGBRegressor if "Regressor" in str(options.pop("kind", "")) else xgboost.XGBClassifier
    return kind(n_estimators=12, max_depth=3, n_jobs=1, **options)


def coded(y: pd.Series) -> pd.Series:
    return y.astype("category").cat.codes.astype(int)


def booster() -> Any:
    import xgboost

    return xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3}, xgboost.DMatrix(NUMBERS, label=coded(LABELS)), 10
    )


def lgb(**options: Any) -> Any:
    import lightgbm

    kind = lightgbm.LGBMRegressor if options.pop("regressor", False) else lightgbm.LGBMClassifier
    return kind(n_estimators=12, min_child_samples=5, verbose=-1, n_jobs=1, **options)


def cat() -> Any:
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        iterations=10, depth=3, verbose=False, allow_writing_files=False, thread_count=1
    )


CASES: dict[str, tuple[Callable[[], Any], pd.DataFrame, pd.Series, bool]] = {
    # name: (model, X, y, exact in the default output space)
    "tree": (lambda: DecisionTreeClassifier(max_depth=3), NUMBERS, LABELS, True),
    "forest": (lambda: RandomForestClassifier(15, random_state=0), NUMBERS, LABELS, True),
    "forest multiclass": (lambda: RandomForestClassifier(15, random_state=0), NUMBERS, THREE, True),
    "forest regression": (lambda: RandomForestRegressor(15, random_state=0), NUMBERS, SIGNAL, True),
    "forest with gaps": (lambda: RandomForestRegressor(15, random_state=0), GAPS, SIGNAL, True),
    "gradient boosting": (lambda: GradientBoostingClassifier(n_estimators=12), NUMBERS, LABELS, False),
    "gradient boosting regression": (lambda: GradientBoostingRegressor(n_estimators=12), NUMBERS, SIGNAL, True),
    "hist gaps": (lambda: HistGradientBoostingClassifier(max_iter=12), GAPS, LABELS, False),
    "hist categories": (
        lambda: HistGradientBoostingRegressor(max_iter=12, categorical_features="from_dtype"), CATEGORIES, SIGNAL, True,
    ),
    "hist multiclass": (lambda: HistGradientBoostingClassifier(max_iter=5), GAPS, THREE, False),
    "linear": (LinearRegression, NUMBERS, SIGNAL, True),
    "logistic": (LogisticRegression, NUMBERS, LABELS, False),
    "logistic multiclass": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), NUMBERS, THREE, False),
    "svm probability": (lambda: CalibratedClassifierCV(SVC(), ensemble=False, cv=3), NUMBERS, LABELS, False),
    "svm margin": (lambda: make_pipeline(StandardScaler(), SVC()), NUMBERS, LABELS, True),
    "svr": (lambda: make_pipeline(StandardScaler(), SVR()), NUMBERS, SIGNAL, True),
    "mlp": (lambda: MLPClassifier((8,), max_iter=800, random_state=0, solver="lbfgs"), NUMBERS, LABELS, False),
    "mlp regression": (lambda: MLPRegressor(hidden_layer_sizes=(8,), max_iter=800, random_state=0, solver="lbfgs"), NUMBERS, SIGNAL, False),
    "voting": (
        lambda: VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], voting="soft"),
        NUMBERS, LABELS, False,
    ),
    "stacking": (
        lambda: StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], cv=3),
        NUMBERS, LABELS, False,
    ),
    "pipeline one-hot": (lambda: columns(OneHotEncoder(handle_unknown="ignore")), MIXED, LABELS, True),
    "pipeline ordinal": (lambda: columns(OrdinalEncoder()), MIXED, LABELS, True),
    "pipeline target": (lambda: columns(TargetEncoder(random_state=0)), MIXED, LABELS, True),
    "pipeline text": (
        lambda: make_pipeline(
            ColumnTransformer([("text", TfidfVectorizer(), "note"), ("num", "passthrough", ["income"])]), Ridge()
        ),
        TEXT, SIGNAL, True,
    ),
    "pipeline function": (
        lambda: make_pipeline(FunctionTransformer(np.abs, feature_names_out="one-to-one"), Ridge()), NUMBERS, SIGNAL, False,
    ),
    "xgboost": (lambda: xgb(), GAPS, coded(LABELS), False),
    "xgboost regression": (lambda: xgb(kind="Regressor"), GAPS, SIGNAL, True),
    "xgboost multiclass": (lambda: xgb(), NUMBERS, coded(THREE), False),
    "xgboost categories": (lambda: xgb(enable_categorical=True, tree_method="hist", kind="Regressor"), CATEGORIES, SIGNAL, True),
    "xgboost dart": (lambda: xgb(booster="dart", rate_drop=0.3, kind="Regressor"), NUMBERS, SIGNAL, True),
    "lightgbm": (lambda: lgb(), CATEGORIES, LABELS, False),
    "lightgbm regression": (lambda: lgb(regressor=True), CATEGORIES, SIGNAL, True),
    "lightgbm dart": (lambda: lgb(regressor=True, boosting_type="dart"), NUMBERS, SIGNAL, True),
    "catboost": (cat, NUMBERS, LABELS, False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_model(name: str) -> None:
    make, X, y, exact = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence and deprecation talk of the training is not ours
        model = make().fit(X, y)
    before = X.copy(deep=True)
    found = compute(model, X, y, config=Config(seed=1, top_features=3))
    assert found.missing == {}
    assert judge(found)[0] == "complete"
    attributions = found.attributions
    sums = attributions.base_values + attributions.values.sum(axis=1)
    wanted = found.subject.response.output[attributions.rows]
    np.testing.assert_allclose(sums, wanted, rtol=0, atol=1e-6 * max(1.0, np.abs(wanted).max()))
    assert attributions.method.exact == exact or attributions.method.name == "enumeration"
    assert set(attributions.feature_names) == set(X.columns)
    if found.subject.model.task != "regression" and "margin" not in name:
        assert attributions.output_space == "probability"
        assert ((wanted >= 0) & (wanted <= 1)).all()
        assert len(np.unique(wanted)) > 3, "labels were explained, not probabilities"
    pd.testing.assert_frame_equal(X, before)


def test_xgboost_booster_and_margin() -> None:
    found = compute(booster(), NUMBERS, coded(LABELS), config=Config(output="margin", top_features=2))
    assert found.attributions.method.exact
    assert found.attributions.output_space == "margin"


def test_multi_output_regression_explains_each_output() -> None:
    y = pd.DataFrame({"loss": SIGNAL, "gain": -SIGNAL + NUMBERS["age"]})
    model = RandomForestRegressor(10, random_state=0).fit(NUMBERS, y)
    found = compute(model, NUMBERS, y, config=Config(top_features=2))
    assert found.attributions.values.shape == (N, 4, 2)
    table = next(a.table for a in found.artifacts if a.name == "importance")
    assert len(set(table["output"])) >= 2


def test_callable_with_bool_datetime_and_text_columns() -> None:
    def score(frame: pd.DataFrame) -> np.ndarray:
        days = (frame["since"] - pd.Timestamp("2020-01-01")).dt.days
        return np.asarray(
            frame["income"] * frame["member"] + days / 300 + (frame["region"] == "north"), dtype=float
        )

    found = compute(score, MIXED, score(MIXED), config=Config(task="regression", top_features=4))
    assert judge(found)[0] == "complete"
    values = dict(
        zip(
            found.attributions.feature_names,
            np.abs(found.attributions.values[:, :, 0]).mean(axis=0),
            strict=True,
        )
    )
    assert max(values["noise"], values["debt"]) < 1e-12
    assert min(values["since"], values["region"], values["member"], values["income"]) > 0.01
