"""What the parsers read from the libraries' formats, what is refused, and with which words."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits
from tree_kit import attributions, make_subject, mixed_frame

from explain_step import explainers
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, ensembles_lightgbm, ensembles_xgboost, tree
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds
from explain_step.types import FittedModel, OutputSpace, Response

X, Y = mixed_frame()
NUMBERS = X[["a", "b"]].assign(flag=X.flag.astype(float))
TWO = (Y > 1).astype(int)


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny models train and predict faster on one OpenMP thread."""
    with threadpool_limits(limits=1):
        yield


def bare_model(native: object, *, space: OutputSpace) -> FittedModel:
    """Return a tree model that was not wrapped, for `why_not` alone."""
    return FittedModel(
        respond=lambda rows: Response(output=np.zeros((len(rows), 1))),
        native=native,
        family="tree",
        task="regression" if space == "prediction" else "binary",
        output_space=space,
        output_names=("y",),
        feature_names=("a", "b", "flag"),
    )


XGBOOST_OBJECTIVES = [
    "reg:squarederror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:squaredlogerror",
    "count:poisson",
    "reg:gamma",
    "reg:tweedie",
    "reg:logistic",
    "binary:logistic",
    "binary:logitraw",
    "survival:cox",
    "rank:pairwise",
]


@pytest.mark.parametrize("objective", XGBOOST_OBJECTIVES)
def test_xgboost_margins_of_all_links_are_read(objective):
    xgboost = pytest.importorskip("xgboost")
    matrix = xgboost.DMatrix(NUMBERS, label=TWO + (0.0 if "log" in objective else 0.5), nthread=1)
    if objective.startswith("rank"):
        matrix.set_group([len(NUMBERS)])
    booster = xgboost.train({"objective": objective, "nthread": 1, "max_depth": 3}, matrix, 8)
    ensemble = ensembles_xgboost.parse(booster)
    got = ensembles.predict(ensemble, ensemble.encode(NUMBERS))[:, 0]
    np.testing.assert_allclose(got, booster.predict(matrix, output_margin=True), atol=5e-6)
    assert np.ptp(got) > 0


@pytest.mark.parametrize("custom", [0.0, 0.3])
def test_xgboost_base_score_and_missing_marker(custom):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=5, base_score=7.5, missing=custom, n_jobs=1)
    rows = NUMBERS.fillna(custom)
    subject = make_subject(model.fit(rows, Y), rows[:50], rows[50:90])
    got = attributions(subject)
    np.testing.assert_allclose(
        got.values.sum(axis=1) + got.base_values, model.predict(rows[:50])[:, None], atol=1e-5
    )


def test_quantiles_that_xgboost_puts_in_order_are_no_sums_of_trees(monkeypatch):
    xgboost = pytest.importorskip("xgboost")
    options = {"objective": "reg:quantileerror", "n_estimators": 8, "n_jobs": 1}
    several = xgboost.XGBRegressor(quantile_alpha=np.array([0.45, 0.5, 0.55]), **options).fit(NUMBERS, Y)
    one = xgboost.XGBRegressor(quantile_alpha=0.5, **options).fit(NUMBERS, Y)
    margins = several.predict(NUMBERS, output_margin=True)
    assert (np.diff(margins, axis=1) < 0).any()
    reason = ensembles.why_not(bare_model(several, space="prediction"))
    assert (reason is None) == np.array_equal(several.predict(NUMBERS), margins)
    monkeypatch.setattr(xgboost, "__version__", "3.10.0")
    assert "in order" in (ensembles.why_not(bare_model(several, space="prediction")) or "")
    assert ensembles.why_not(bare_model(one, space="prediction")) is None


def test_early_stopping_uses_the_best_iteration_as_predict_does():
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=len(Y))
    one = xgboost.XGBRegressor(n_estimators=60, early_stopping_rounds=5, learning_rate=0.5, n_jobs=1)
    one.fit(NUMBERS[:200], noise[:200], eval_set=[(NUMBERS[200:], noise[200:])], verbose=False)
    other = lightgbm.LGBMRegressor(n_estimators=60, learning_rate=0.5, verbose=-1, n_jobs=1)
    stop = lightgbm.early_stopping(5, verbose=False)
    with warnings.catch_warnings():  # newer LightGBM wants eval_X and eval_y, which older ones do not know
        warnings.simplefilter("ignore")
        other.fit(NUMBERS[:200], noise[:200], eval_set=[(NUMBERS[200:], noise[200:])], callbacks=[stop])
    for model, kept in ((one, one.best_iteration + 1), (other, other.best_iteration_)):
        got = attributions(make_subject(model, NUMBERS[:30], NUMBERS[30:60]))
        assert got.method.params["trees"] == kept < 60


@pytest.mark.parametrize("options", [{}, {"zero_as_missing": True}, {"use_missing": False}], ids=str)
def test_lightgbm_missing_types(options):
    lightgbm = pytest.importorskip("lightgbm")
    rows = NUMBERS.assign(b=NUMBERS.b.where(NUMBERS.b > 0, 0.0))
    model = lightgbm.LGBMRegressor(n_estimators=8, verbose=-1, n_jobs=1, **options).fit(rows, Y)
    ensemble = ensembles_lightgbm.parse(model, space="prediction")
    np.testing.assert_allclose(
        ensembles.predict(ensemble, ensemble.encode(rows))[:, 0], model.predict(rows), atol=1e-12
    )


def test_lightgbm_thresholds_beside_infinities_are_read():
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(3)
    low = rng.random(len(Y)) < 0.2
    rows = NUMBERS.assign(b=np.where(low, -np.inf, np.where(rng.random(len(Y)) < 0.2, np.inf, NUMBERS.b)))
    model = lightgbm.LGBMRegressor(n_estimators=8, verbose=-1, n_jobs=1).fit(rows, Y + 5 * low)
    ensemble = ensembles_lightgbm.parse(model, space="prediction")
    assert min(tree.threshold[tree.left >= 0].min() for tree in ensemble.trees) < -1e300
    asked = pd.concat([rows.assign(b=value) for value in (np.inf, -np.inf, 1e300, -1e300, 1e308, -1e308)])
    np.testing.assert_allclose(
        ensembles.predict(ensemble, ensemble.encode(asked))[:, 0], model.predict(asked), atol=1e-12
    )


def test_sparse_zeros_are_missing_for_xgboost_and_numbers_for_the_others():
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    dense = np.where(np.abs(NUMBERS.fillna(0.0).to_numpy()) > 0.5, NUMBERS.fillna(0.0), 0.0)
    rows = sparse.csr_matrix(dense)
    for model in (
        xgboost.XGBRegressor(n_estimators=5, n_jobs=1),
        lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1),
        RandomForestRegressor(5, random_state=0),
    ):
        model.fit(rows, Y)
        ensemble = ensembles.parse(bare_model(model, space="prediction"))
        encoded = ensemble.encode(rows)
        np.testing.assert_allclose(ensembles.predict(ensemble, encoded)[:, 0], model.predict(rows), atol=1e-5)
        assert np.isnan(encoded).any() == isinstance(model, xgboost.XGBRegressor)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "sklearn"])
def test_categories_in_another_order_or_never_seen_are_encoded_as_the_library_does(library):
    towns = X[["a", "town"]]
    if library == "xgboost":
        model = pytest.importorskip("xgboost").XGBRegressor(n_estimators=8, enable_categorical=True, n_jobs=1)
    elif library == "lightgbm":
        model = pytest.importorskip("lightgbm").LGBMRegressor(
            n_estimators=8, min_data_per_group=5, verbose=-1, n_jobs=1
        )
    else:
        model = HistGradientBoostingRegressor(max_iter=8, categorical_features="from_dtype")
    model.fit(
        towns[towns.town != "t"].assign(town=lambda d: d.town.cat.remove_categories("t")),
        Y[towns.town != "t"],
    )
    seen = towns[towns.town != "t"].reset_index(drop=True)
    order = ["s", "q", "r", "p"] if library == "xgboost" else ["t", "s", "q", "r", "p"]
    other = (seen if library == "xgboost" else towns.reset_index(drop=True)).copy()
    other["town"] = other.town.cat.set_categories(order)
    ensemble = ensembles.parse(bare_model(model, space="prediction"))
    np.testing.assert_allclose(
        ensembles.predict(ensemble, ensemble.encode(other))[:, 0], model.predict(other), atol=1e-5
    )


def test_float32_rounding_decides_as_the_library_does():
    rng = np.random.default_rng(0)
    close = pd.DataFrame({"a": 1.0 + rng.integers(0, 40, size=500) * 2.0**-26, "b": rng.normal(size=500)})
    target = (close.a > 1.0 + 20 * 2.0**-26).astype(float)
    xgboost = pytest.importorskip("xgboost")
    for model in (RandomForestRegressor(5, random_state=0), xgboost.XGBRegressor(n_estimators=5, n_jobs=1)):
        ensemble = ensembles.parse(bare_model(model.fit(close, target), space="prediction"))
        got = ensembles.predict(ensemble, ensemble.encode(close))[:, 0]
        np.testing.assert_allclose(got, model.predict(close), atol=1e-6)


# --- refusals


def test_boosted_probability_is_refused_with_the_way_out():
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    for model in (xgboost.XGBClassifier(n_estimators=2), lightgbm.LGBMClassifier(n_estimators=2, verbose=-1)):
        reason = TREE.why_not(make_subject(model.fit(NUMBERS, TWO), NUMBERS[:9], NUMBERS[9:20]))
        assert reason is not None
        assert "not a sum over its trees" in reason
        assert "output='margin' is exact" in reason


def test_models_that_are_not_sums_of_trees_are_refused():
    rows = NUMBERS.fillna(0.0)
    lightgbm, xgboost = pytest.importorskip("lightgbm"), pytest.importorskip("xgboost")
    refused = {
        "not a plain sum": AdaBoostRegressor(n_estimators=2),
        "BaggingRegressor is not": BaggingRegressor(n_estimators=2),
        "linear functions in their leaves": lightgbm.LGBMRegressor(
            n_estimators=2, linear_tree=True, verbose=-1
        ),
        "'poisson' is not a sum": lightgbm.LGBMRegressor(n_estimators=2, objective="poisson", verbose=-1),
        "'regression sqrt' is not": lightgbm.LGBMRegressor(n_estimators=2, reg_sqrt=True, verbose=-1),
        "'reg:gamma' is not a sum": xgboost.XGBRegressor(n_estimators=2, objective="reg:gamma", n_jobs=1),
        "'gblinear' has no trees": xgboost.XGBRegressor(n_estimators=2, booster="gblinear", n_jobs=1),
        "'gamma' is not a sum": HistGradientBoostingRegressor(max_iter=2, loss="gamma"),
        "starts from another model": GradientBoostingRegressor(n_estimators=2, init=LinearRegression()),
    }
    for words, model in refused.items():
        reason = ensembles.why_not(bare_model(model.fit(rows, Y.abs() + 0.1), space="prediction"))
        assert reason is not None
        assert words in reason
    assert "no margin" in (
        ensembles.why_not(bare_model(RandomForestClassifier(2).fit(rows, TWO), space="margin")) or ""
    )
    assert "several label columns" in (
        ensembles.why_not(
            bare_model(RandomForestClassifier(2).fit(rows, np.c_[TWO, TWO]), space="probability")
        )
        or ""
    )
    assert "not read" in (ensembles.why_not(bare_model(object(), space="prediction")) or "")


def test_a_constant_start_of_gradient_boosting_is_read():
    model = GradientBoostingRegressor(n_estimators=5, init=DummyRegressor(strategy="constant", constant=9.0))
    rows = NUMBERS.fillna(0.0)
    got = attributions(make_subject(model.fit(rows, Y), rows[:9], rows[9:30]))
    np.testing.assert_allclose(got.base_values[0], model.predict(rows[9:30]).mean())


def test_linear_models_are_left_to_others():
    rows = NUMBERS.fillna(0.0)
    subject = make_subject(LinearRegression().fit(rows, Y), rows[:9], rows[9:30])
    assert TREE.why_not(subject) == "the model is not a tree ensemble"


def test_a_model_that_answers_otherwise_than_its_trees_is_handed_on():
    model = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y)
    subject = make_subject(model, NUMBERS[:9], NUMBERS[9:30])
    other = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y + 0.5)
    subject = dataclasses.replace(subject, model=dataclasses.replace(subject.model, native=other))
    with pytest.raises(NotApplicable, match="background rows by up to 0"):
        TREE.explain(subject, config=Config(), seeds=Seeds(0))
    found, caveats = explainers.explain(subject, config=Config(), seeds=Seeds(0))
    assert found.method.name != "tree_interventional"
    assert any("differ from the model's own answer" in caveat.message for caveat in caveats)


def test_a_wrong_background_is_noticed_although_the_explained_rows_agree():
    model = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y)
    subject = make_subject(model, NUMBERS[:9], NUMBERS[9:30])

    def respond(rows: pd.DataFrame) -> Response:
        return Response(output=subject.model.respond(rows).output + (len(rows) == 21))

    odd = dataclasses.replace(subject.model, respond=respond, **_without_shortcut(subject.model))
    with pytest.raises(NotApplicable, match="background rows"):
        TREE.explain(dataclasses.replace(subject, model=odd), config=Config(), seeds=Seeds(0))


def _without_shortcut(model: FittedModel) -> dict[str, None]:
    return {"outputs": None} if hasattr(model, "outputs") else {}


def test_text_where_the_trees_compare_numbers_is_refused_by_name():
    model = RandomForestRegressor(2, random_state=0).fit(NUMBERS, Y)
    ensemble = ensembles.parse(bare_model(model, space="prediction"))
    with pytest.raises(NotApplicable, match="column 'a' is not numeric"):
        ensemble.encode(NUMBERS.assign(a="x"))


def test_outputs_that_do_not_match_are_refused():
    model = RandomForestRegressor(2, random_state=0).fit(NUMBERS, np.c_[Y, Y, Y])
    with pytest.raises(NotApplicable, match="3 outputs"):
        ensembles.parse(bare_model(model, space="prediction"))


def test_only_the_columns_that_are_split_on_are_encoded():
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 800))).add_prefix("c")
    model = RandomForestRegressor(3, random_state=0, max_depth=3).fit(wide, wide.c7)
    subject = make_subject(model, wide[:20], wide[20:])
    ensemble = ensembles.parse(subject.model)
    assert len(ensemble.columns) < 40
    assert len(ensemble.encode(wide)) == len(ensemble.columns)
    got = attributions(subject)
    assert got.values.shape == (20, 800, 1)
    assert int(np.abs(got.values).sum(axis=(0, 2)).argmax()) == 7
    assert tree.raw_sources(subject.model, ensemble).tolist() == list(ensemble.columns)


def test_trees_are_read_once_and_anew_where_the_model_is_sent():
    import cloudpickle

    model = RandomForestRegressor(3, random_state=0, max_depth=3).fit(NUMBERS.fillna(0), Y)
    wrapped = ensembles.remembering(make_subject(model, NUMBERS.fillna(0)[:20], NUMBERS.fillna(0)[20:]).model)
    first = ensembles.parse(wrapped)
    assert ensembles.parse(wrapped) is first
    assert wrapped.trees is not None
    sent = cloudpickle.loads(cloudpickle.dumps(wrapped.trees))
    rows = first.encode(NUMBERS.fillna(0))
    np.testing.assert_array_equal(ensembles.predict(sent()[0], rows), ensembles.predict(first, rows))
