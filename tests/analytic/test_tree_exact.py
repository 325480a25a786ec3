"""Exact tree values against the definition: the mean over all coalitions and all background rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor
from tree_kit import attributions, both_engines, enumerated, make_subject, mixed_frame, one_thread

from explain_step.explainers import tree
from explain_step.types import Subject

X, Y = mixed_frame()
NUMBERS = X[["a", "b"]].assign(flag=X.flag.astype(float), zone=X.zone.cat.codes.astype(float))
TWO = np.where(Y > 1, "yes", "no")
THREE = np.digitize(Y, [0, 1.5])
EXPLAINED, BACKGROUND = slice(0, 6), slice(100, 130)


_engine = both_engines()
_one_thread = one_thread()


def check_against_enumeration(subject: Subject, *, tolerance: float = 1e-12) -> None:
    got = attributions(subject)
    values, base = enumerated(subject.model.predict, subject.X, subject.background)
    np.testing.assert_allclose(got.values, values, atol=tolerance, rtol=0)
    np.testing.assert_allclose(got.base_values, np.tile(base, (len(subject.X), 1)), atol=tolerance, rtol=0)
    assert got.method.exact
    assert got.method.params["background_rows"] == len(subject.background)


SKLEARN = [
    (DecisionTreeRegressor(random_state=0, max_depth=5), Y, {}),
    (ExtraTreeRegressor(random_state=0), Y, {}),
    (DecisionTreeClassifier(random_state=0, min_samples_leaf=3), THREE, {}),
    (RandomForestRegressor(6, random_state=0), Y, {}),
    (RandomForestRegressor(4, random_state=0, max_depth=6), np.column_stack([Y, Y**2]), {}),
    (RandomForestClassifier(6, random_state=0, min_samples_leaf=2), TWO, {}),
    (RandomForestClassifier(6, random_state=0, class_weight="balanced"), TWO, {"positive_class": "no"}),
    (ExtraTreesRegressor(4, random_state=0, bootstrap=True), Y, {}),
    (ExtraTreesClassifier(4, random_state=0), THREE, {}),
    (GradientBoostingRegressor(n_estimators=15, loss="huber", random_state=0), Y, {}),
    (GradientBoostingRegressor(n_estimators=15, init="zero", random_state=0), Y, {}),
    (GradientBoostingClassifier(n_estimators=10, random_state=0), TWO, {"output": "margin"}),
    (
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        TWO,
        {"output": "margin", "positive_class": "no"},
    ),
    (GradientBoostingClassifier(n_estimators=5, random_state=0), THREE, {"output": "margin"}),
    (HistGradientBoostingRegressor(max_iter=10), Y, {}),
    (HistGradientBoostingRegressor(max_iter=10, loss="gamma"), np.exp(Y / 9), {"output": "margin"}),
    (HistGradientBoostingClassifier(max_iter=10), TWO, {"output": "margin"}),
    (HistGradientBoostingClassifier(max_iter=5), THREE, {"output": "margin"}),
]


@pytest.mark.parametrize(
    ("model", "y", "options"), SKLEARN, ids=[f"{type(m).__name__}-{i}" for i, (m, _, _) in enumerate(SKLEARN)]
)
def test_scikit_learn_models_equal_the_enumeration(model, y, options):
    rows = NUMBERS.fillna(0.0) if "Gradient" in type(model).__name__[:9] else NUMBERS
    if isinstance(model, ExtraTreesRegressor | ExtraTreesClassifier | ExtraTreeRegressor):
        rows = NUMBERS.fillna(0.0)
    model.fit(rows, y)
    check_against_enumeration(make_subject(model, rows[EXPLAINED], rows[BACKGROUND], **options))


@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
@pytest.mark.parametrize(
    "options", [{}, {"max_cat_to_onehot": 1}, {"booster": "dart", "rate_drop": 0.5}, {"num_parallel_tree": 2}]
)
def test_xgboost_with_categories_and_missing_values_equals_the_enumeration(y, options):
    xgboost = pytest.importorskip("xgboost")
    codes = np.unique(y, return_inverse=True)[1]
    model = xgboost.XGBClassifier(n_estimators=6, max_depth=4, enable_categorical=True, n_jobs=1, **options)
    subject = make_subject(model.fit(X, codes), X[EXPLAINED], X[BACKGROUND], output="margin")
    check_against_enumeration(subject, tolerance=2e-6)  # XGBoost adds in single precision


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_xgboost_with_several_targets_equals_the_enumeration(strategy):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=5, max_depth=3, multi_strategy=strategy, n_jobs=1)
    model.fit(NUMBERS, np.column_stack([Y, -3 * Y]))
    check_against_enumeration(make_subject(model, NUMBERS[EXPLAINED], NUMBERS[BACKGROUND]), tolerance=5e-6)


@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
@pytest.mark.parametrize("boosting", ["gbdt", "dart", "rf"])
def test_lightgbm_with_categories_and_missing_values_equals_the_enumeration(y, boosting):
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(
        n_estimators=6,
        boosting_type=boosting,
        min_data_per_group=5,
        bagging_freq=1,
        bagging_fraction=0.7,
        verbose=-1,
        n_jobs=1,
    )
    check_against_enumeration(
        make_subject(model.fit(X, y), X[EXPLAINED], X[BACKGROUND], output="margin"), tolerance=1e-11
    )


def test_lightgbm_forest_prediction_is_the_average_of_its_trees():
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMRegressor(
        n_estimators=6, boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, verbose=-1, n_jobs=1
    )
    check_against_enumeration(make_subject(model.fit(X, Y), X[EXPLAINED], X[BACKGROUND]))


def test_histogram_boosting_with_category_columns_equals_the_enumeration():
    model = HistGradientBoostingRegressor(max_iter=10, categorical_features="from_dtype").fit(X, Y)
    check_against_enumeration(make_subject(model, X[EXPLAINED], X[BACKGROUND]))


def test_derived_columns_of_one_raw_column_switch_together():
    frame = X.assign(town=X.town.astype(object).where(X.town.notna(), "none"), zone=X.zone.astype(int))
    front = make_column_transformer(
        (OneHotEncoder(), ["town"]),
        (OrdinalEncoder(), ["zone"]),
        (SimpleImputer(add_indicator=True), ["a"]),
        remainder="passthrough",
    )
    model = make_pipeline(front, RandomForestClassifier(8, random_state=0, min_samples_leaf=2))
    subject = make_subject(model.fit(frame, TWO), frame[EXPLAINED], frame[BACKGROUND])
    assert subject.model.preprocessing is not None
    check_against_enumeration(subject)


@pytest.mark.parametrize("most", [0, 2, 30], ids=["pairs", "both", "tables"])
def test_tables_and_pairs_give_the_same_values(most, monkeypatch):
    monkeypatch.setattr(tree, "_fits", lambda k, _: k <= most)
    monkeypatch.setattr(tree.tree_groups, "MERGED_BITS", 0 if most == 0 else 4)
    model = RandomForestRegressor(5, random_state=1).fit(NUMBERS, Y)
    check_against_enumeration(make_subject(model, NUMBERS[EXPLAINED], NUMBERS[BACKGROUND]))


def test_one_background_row_and_one_explained_row():
    model = RandomForestRegressor(5, random_state=1).fit(NUMBERS, Y)
    check_against_enumeration(make_subject(model, NUMBERS[:1], NUMBERS[9:10]))


def test_a_model_that_never_splits_attributes_nothing():
    model = DecisionTreeRegressor().fit(NUMBERS, np.full(len(NUMBERS), 3.5))
    got = attributions(make_subject(model, NUMBERS[:3], NUMBERS[:5]))
    assert not got.values.any()
    assert (got.base_values == 3.5).all()


def test_more_columns_on_a_path_than_a_16_bit_pattern_holds():
    columns = 24
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 2, size=(400, columns)).astype(float)).add_prefix("c")
    target = (frame.to_numpy() * 2.0 ** -np.arange(columns)).sum(axis=1)
    model = DecisionTreeRegressor(random_state=0).fit(frame.iloc[:, ::-1], target)
    rows, background = frame.iloc[:40, ::-1], frame.iloc[:, ::-1]
    got = attributions(make_subject(model, rows, background))
    chain = _chain(columns)
    values, base = tree.interventional(
        chain, np.ones((columns, 1)), np.zeros((columns, 1)), sources=range(columns), n_features=columns
    )
    np.testing.assert_allclose(values[0, :, 0], 1 / columns, rtol=1e-12)  # an AND of equal players
    assert base == [0.0]
    np.testing.assert_allclose(got.values.sum(axis=1) + got.base_values, model.predict(rows)[:, None])


def _chain(columns: int) -> tree.Ensemble:
    """Return one tree that is 1 when all columns are 1 and 0 otherwise."""
    split = np.arange(columns) * 2
    nodes = 2 * columns + 1
    left, right, column = (np.full(nodes, -1) for _ in range(3))
    left[split], right[split], column[split] = split + 1, split + 2, np.arange(columns)
    grown = tree.ensembles.frozen_tree(
        left=left,
        right=right,
        column=column,
        threshold=np.full(nodes, 0.5),
        missing_left=np.zeros(nodes),
        values=np.eye(nodes)[:, [-1]],
        cover=np.ones(nodes),
        outputs=(0,),
    )
    return tree.Ensemble(trees=(grown,), offset=np.zeros(1), encode=np.asarray, columns=tuple(range(columns)))
