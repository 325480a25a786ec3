"""CatBoost models as sums of trees: against all coalitions, against the model, and against CatBoost's own values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from tree_kit import attributions, both_engines, enumerated, make_subject

from explain_step import explainers
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import (
    ensembles,
    ensembles_catboost,
    ensembles_catboost_codes,
    tree_path_dependent,
)
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds

catboost = pytest.importorskip("catboost", reason="the extra catboost is not installed")

_engine = both_engines()
N = 400
EXPLAINED, BACKGROUND = slice(0, 12), slice(100, 130)


def table(*, missing: float = 0.1, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N, 4))
    values[:, 3] = rng.integers(0, 4, N)  # few values: borders between them, equal thresholds
    values[rng.random(values.shape) < missing] = np.nan
    return pd.DataFrame(values, columns=list("abcd"))


X = table()
A = np.nan_to_num(X.to_numpy(), nan=0.3)
AMOUNT = A[:, 0] * A[:, 1] + np.sin(2 * A[:, 2]) + A[:, 3]
FLAG = (AMOUNT > 1).astype(int)
LEVEL = np.digitize(AMOUNT, [0.5, 1.5])


def grown(kind: str, y: Any, rows: pd.DataFrame = X, **given: Any) -> Any:
    options = {
        "iterations": 15,
        "depth": 4,
        "verbose": 0,
        "allow_writing_files": False,
        "random_seed": 0,
        "thread_count": 2,
    }
    return getattr(catboost, kind)(**options | given).fit(rows, y)


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "two classes": (lambda: grown("CatBoostClassifier", FLAG), {"output": "margin"}),
    "two classes, the first": (
        lambda: grown("CatBoostClassifier", FLAG),
        {"output": "margin", "positive_class": 0},
    ),
    "three classes": (lambda: grown("CatBoostClassifier", LEVEL), {"output": "margin"}),
    "three classes apart": (
        lambda: grown("CatBoostClassifier", LEVEL, loss_function="MultiClassOneVsAll"),
        {"output": "margin"},
    ),
    "amount": (lambda: grown("CatBoostRegressor", AMOUNT), {}),
    "missing above": (lambda: grown("CatBoostRegressor", AMOUNT, nan_mode="Max"), {}),
    "leaf by leaf": (lambda: grown("CatBoostRegressor", AMOUNT, grow_policy="Lossguide", max_leaves=9), {}),
    "level by level": (lambda: grown("CatBoostRegressor", AMOUNT, grow_policy="Depthwise"), {}),
    "three classes, leaf by leaf": (
        lambda: grown("CatBoostClassifier", LEVEL, grow_policy="Lossguide"),
        {"output": "margin"},
    ),
    "two targets": (
        lambda: grown("CatBoostRegressor", np.column_stack([AMOUNT, A[:, 0]]), loss_function="MultiRMSE"),
        {},
    ),
    "quantiles": (
        lambda: grown("CatBoostRegressor", AMOUNT, loss_function="MultiQuantile:alpha=0.1,0.9"),
        {},
    ),
    "logarithm of counts": (
        lambda: grown("CatBoostRegressor", np.exp(AMOUNT / 2), loss_function="Poisson"),
        {"output": "margin"},
    ),
    "single leaves": (lambda: grown("CatBoostRegressor", AMOUNT, depth=1, l2_leaf_reg=1e9), {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_values_are_those_of_all_coalitions(name: str) -> None:
    make, options = MODELS[name]
    subject = make_subject(make(), X[EXPLAINED], X[BACKGROUND], **options)
    found = attributions(subject)
    values, base = enumerated(subject.model.predict, subject.X, subject.background)
    scale = np.abs(subject.response.output).max()
    assert found.method.exact
    assert np.abs(found.values - values).max() <= 1e-12 * scale
    assert np.abs(found.base_values - base).max() <= 1e-12 * scale


def test_numbers_are_compared_in_single_precision_and_infinities_have_a_side() -> None:
    model = grown("CatBoostRegressor", AMOUNT)
    borders = ensembles_catboost.parse(model).trees[0].threshold
    border = float(borders[~np.isnan(borders)][0])
    rows = X.head(40).copy()
    rows.iloc[:8, :] = np.array(
        [border, np.nextafter(border, 9), np.inf, -np.inf, 5e-324, -0.0, 1e308, np.nan]
    )[:, None]
    ensemble = ensembles_catboost.parse(model)
    assert np.allclose(
        ensembles.predict(ensemble, ensemble.encode(rows))[:, 0], model.predict(rows), atol=1e-14
    )


def test_models_of_arrays_and_with_scaled_leaves_are_read() -> None:
    model = grown("CatBoostRegressor", AMOUNT, X.to_numpy())
    model.set_scale_and_bias(2.5, -1.0)
    ensemble = ensembles_catboost.parse(model)
    assert np.allclose(
        ensembles.predict(ensemble, ensemble.encode(X))[:, 0], model.predict(X.to_numpy()), atol=1e-13
    )


def test_path_dependent_values_are_catboosts_own() -> None:
    model = grown("CatBoostRegressor", AMOUNT)
    ensemble = ensembles_catboost.parse(model)
    own = model.get_feature_importance(catboost.Pool(X.head(50), AMOUNT[:50]), type="ShapValues")
    found, base = tree_path_dependent.path_dependent(
        ensemble, ensemble.encode(X.head(50)), sources=ensemble.columns, n_features=4
    )
    assert np.abs(found[:, :, 0] - own[:, :-1]).max() <= 1e-10
    assert np.isclose(base[0], own[0, -1])


# --- categories

NAMES = np.array(["north", "east", "south", "west", "far"])
CODED = X.assign(
    e=NAMES[np.digitize(A[:, 1], [-1.0, -0.2, 0.2, 1.0])],
    f=np.where(A[:, 0] > 0, "u", "v"),
    g=np.digitize(A[:, 2], np.linspace(-1.5, 1.5, 9)),
)
CATEGORIES = ["e", "f", "g"]
OF_CATEGORIES = AMOUNT + 2 * (CODED["e"] == "east") * (CODED["f"] == "u") + CODED["g"] % 3


def coded(kind: str, y: Any, **given: Any) -> Any:
    options = {"cat_features": CATEGORIES, "max_ctr_complexity": 1, "iterations": 30}
    return grown(kind, y, CODED, **options | given)


CODED_MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "statistics and one question for two levels": (lambda: coded("CatBoostRegressor", OF_CATEGORIES), {}),
    "one question for each level": (
        lambda: coded("CatBoostRegressor", OF_CATEGORIES, one_hot_max_size=20),
        {},
    ),
    "counts and averages": (
        lambda: coded(
            "CatBoostRegressor",
            OF_CATEGORIES,
            simple_ctr=[
                "Counter",
                "BinarizedTargetMeanValue:TargetBorderCount=3",
                "Buckets:TargetBorderCount=2",
            ],
        ),
        {},
    ),
    "two classes": (lambda: coded("CatBoostClassifier", FLAG), {"output": "margin"}),
    "three classes": (lambda: coded("CatBoostClassifier", LEVEL), {"output": "margin"}),
    "one column of many levels": (
        lambda: grown("CatBoostRegressor", OF_CATEGORIES, CODED[["a", "b", "g"]], cat_features=["g"]),
        {},
    ),
}


@pytest.mark.parametrize("name", CODED_MODELS)
def test_values_of_categories_are_those_of_all_coalitions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles_catboost_codes, "ROWS", 7)
    make, options = CODED_MODELS[name]
    model = make()
    rows = CODED[model.feature_names_]
    explained = rows[EXPLAINED].copy()
    if "e" in explained:
        explained.loc[explained.index[:2], "e"] = "nowhere"  # a level that training did not have
    subject = make_subject(model, explained, rows[BACKGROUND], **options)
    found = attributions(subject)
    values, base = enumerated(subject.model.predict, subject.X, subject.background)
    scale = np.abs(subject.response.output).max()
    assert found.method.name == "tree_interventional"
    assert np.abs(found.values - values).max() <= 1e-12 * scale
    assert np.abs(found.base_values - base).max() <= 1e-12 * scale
    last = rows.columns.get_loc("g")
    assert np.abs(found.values[:, last]).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_ctr_complexity": 3}, "combinations of columns, which no single column answers"),
        ({"grow_policy": "Lossguide"}, "from symmetric trees alone"),
    ],
)
def test_codes_that_no_column_answers_are_estimated_and_it_is_said(
    options: dict[str, Any], said: str
) -> None:
    names = ["e", "g", "h"]
    rows = CODED[["a", "b", "e", "g"]].assign(h=NAMES[np.digitize(A[:, 3], [0.5, 1.5, 2.5])])
    both = OF_CATEGORIES + 3 * (rows["e"] == "east") * (rows["h"] == "east")
    model = grown("CatBoostRegressor", both, rows, iterations=60, cat_features=names, **options)
    subject = make_subject(model, rows[EXPLAINED], rows[BACKGROUND])
    assert said in str(TREE.why_not(subject))
    found, caveats = explainers.explain(subject, config=Config(), seeds=Seeds(0))
    assert found.method.name in {"enumeration", "permutation"}
    assert found.method.exact or any(said in caveat.message for caveat in caveats)


def test_splits_that_are_numbered_in_another_way_are_not_guessed() -> None:
    dump = ensembles_catboost._dump(coded("CatBoostRegressor", OF_CATEGORIES))
    assert ensembles_catboost_codes.read(dump).codes
    dump["features_info"]["ctrs"][0]["borders"].append(99.0)
    with pytest.raises(NotApplicable, match="numbers its splits in another way"):
        ensembles_catboost_codes.read(dump)


def test_texts_are_not_read_and_it_is_said() -> None:
    rows = CODED[["a"]].assign(t=np.where(A[:, 0] > 0, "good roof", "bad roof damp"))
    model = grown("CatBoostClassifier", FLAG, rows, text_features=["t"])
    subject = make_subject(model, rows[EXPLAINED], rows[BACKGROUND], output="margin")
    assert "texts or embeddings" in str(TREE.why_not(subject))


def test_predictions_through_a_link_are_not_taken_for_a_sum() -> None:
    for loss in ("Poisson", "Tweedie:variance_power=1.5", "RMSEWithUncertainty"):
        model = grown("CatBoostRegressor", np.exp(AMOUNT / 2), loss_function=loss)
        assert TREE.why_not(make_subject(model, X[EXPLAINED], X[BACKGROUND])) is not None, loss
    unsure = make_subject(model, X[EXPLAINED], X[BACKGROUND])
    assert "objective 'RMSEWithUncertainty' is not a sum" in str(TREE.why_not(unsure))
    probability = make_subject(grown("CatBoostClassifier", FLAG), X[EXPLAINED], X[BACKGROUND])
    assert str(TREE.why_not(probability)) == ensembles.BOOSTED_PROBABILITY
