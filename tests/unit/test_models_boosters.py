"""wrap() on XGBoost, LightGBM and CatBoost: every interface, every kind of objective."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.special import expit, softmax
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import QuantileRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from explain_step.artifacts import performance
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.models import wrap
from explain_step.quantity import no_labels, quantity
from explain_step.seeds import Seeds

with warnings.catch_warnings():
    # importing the oldest releases warns about their own dependencies (NumPy's ABI, pyparsing)
    warnings.simplefilter("ignore")
    import catboost
    import lightgbm

N = 150


def numbers() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(N, 3)), columns=["age", "net income", "debt"])
    frame.loc[::7, "debt"] = np.nan
    return frame


def mixed() -> pd.DataFrame:
    frame = numbers()
    frame["region"] = pd.Categorical(
        np.resize(["north", "south", "east"], N), categories=["north", "south", "east"]
    )
    return frame


X = numbers()
FLAG = (X["net income"] + X["debt"].fillna(0) > 0).astype(int).to_numpy()
THREE = np.digitize(X["net income"], [-0.5, 0.5])
AMOUNT = (X["net income"] * 2 + X["age"]).to_numpy()
TEXT = np.where(FLAG == 1, "yes", "no").astype(object)


def options(**given) -> Config:
    return Config.parse(given)


def booster(params: dict, target, frame=X) -> xgboost.Booster:
    return xgboost.train(params, xgboost.DMatrix(frame, target, enable_categorical=True), num_boost_round=4)


def light(params: dict, target, frame=X) -> lightgbm.Booster:
    return lightgbm.train({"verbose": -1, **params}, lightgbm.Dataset(frame, target), num_boost_round=4)


def cat(kind=catboost.CatBoostClassifier, **given):
    return kind(iterations=4, depth=3, verbose=0, allow_writing_files=False, **given)


# --- XGBoost


def test_xgboost_classifier_probability_and_margin():
    estimator = xgboost.XGBClassifier(n_estimators=4).fit(X, FLAG)
    model = wrap(estimator, frame=X, config=options())
    assert (model.task, model.family, model.output_names, model.native) == (
        "binary",
        "tree",
        ("1",),
        estimator,
    )
    np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1].astype(float))
    margin = wrap(estimator, frame=X, config=options(output="margin"))
    np.testing.assert_allclose(expit(margin.predict(X)), model.predict(X), atol=1e-6)
    assert margin.respond(X).label.tolist() == estimator.predict(X).tolist()


def test_xgboost_multiclass_and_dart():
    estimator = xgboost.XGBClassifier(n_estimators=4, booster="dart").fit(X, THREE)
    model = wrap(estimator, frame=X, config=options(output="margin"))
    assert (model.task, model.output_names) == ("multiclass", ("0", "1", "2"))
    np.testing.assert_allclose(softmax(model.predict(X), axis=1), estimator.predict_proba(X), atol=1e-6)


def test_xgboost_categories_and_missing_values():
    frame = mixed()
    estimator = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(frame, FLAG)
    model = wrap(estimator, frame=frame, config=options())
    np.testing.assert_array_equal(
        model.predict(frame)[:, 0], estimator.predict_proba(frame)[:, 1].astype(float)
    )
    raw = wrap(booster({"objective": "binary:logistic"}, FLAG, frame), frame=frame, config=options())
    assert raw.predict(frame).shape == (N, 1)


@pytest.mark.parametrize(
    ("objective", "target", "task", "space", "names"),
    [
        ("binary:logistic", FLAG, "binary", "probability", ("1",)),
        ("binary:logitraw", FLAG, "binary", "probability", ("1",)),
        ("binary:hinge", FLAG, "binary", "margin", ("1",)),
        ("multi:softprob", THREE, "multiclass", "probability", ("0", "1", "2")),
        ("multi:softmax", THREE, "multiclass", "probability", ("0", "1", "2")),
        ("reg:squarederror", AMOUNT, "regression", "prediction", ("target",)),
        ("count:poisson", np.exp(AMOUNT), "regression", "prediction", ("target",)),
        ("rank:pairwise", FLAG, "regression", "margin", ("target",)),
        ("survival:cox", np.exp(AMOUNT), "regression", "margin", ("target",)),
    ],
)
def test_xgboost_booster_by_objective(objective, target, task, space, names):
    params = {"objective": objective, "max_depth": 2}
    if objective.startswith("multi:"):
        params["num_class"] = 3
    trained = booster(params, target)
    model = wrap(trained, frame=X, config=options())
    assert (model.task, model.output_space, model.output_names) == (task, space, names)
    margin = trained.predict(xgboost.DMatrix(X), output_margin=True).astype(float).reshape(N, -1)
    expected = {
        "probability": expit if task == "binary" else lambda m: softmax(m, axis=1),
        "margin": lambda m: m,
    }
    expected["prediction"] = np.exp if objective == "count:poisson" else expected["margin"]
    np.testing.assert_allclose(model.predict(X), expected[space](margin), rtol=1e-5, atol=1e-6)
    if task != "regression":
        assert set(model.respond(X).label.tolist()) <= set(model.classes)
    if space == "margin":
        assert "margin" in model.reason


def test_a_log_link_is_exact_only_in_the_margin():
    trained = booster({"objective": "count:poisson"}, np.exp(AMOUNT))
    prediction = wrap(trained, frame=X, config=options())
    assert (prediction.family, prediction.native) == ("blackbox", None)
    assert "log scale" in prediction.reason
    margin = wrap(trained, frame=X, config=options(output="margin"))
    assert (margin.family, margin.output_space) == ("tree", "margin")
    np.testing.assert_allclose(np.exp(margin.predict(X)), prediction.predict(X), rtol=1e-5)


def test_xgboost_without_names_takes_columns_by_position():
    estimator = xgboost.XGBClassifier(n_estimators=3).fit(X.to_numpy(), FLAG)
    model = wrap(estimator, frame=X, config=options())
    assert model.feature_names == tuple(X.columns)
    np.testing.assert_array_equal(
        model.predict(X)[:, 0], estimator.predict_proba(X.to_numpy())[:, 1].astype(float)
    )
    trained = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X.to_numpy(), FLAG), 3)
    assert wrap(trained, frame=X, config=options()).predict(X).shape == (N, 1)
    with pytest.raises(InvalidInput, match=r"exactly the 3 columns.*got 4 columns"):
        wrap(trained, frame=mixed(), config=options())


def test_xgboost_regressor_ranker_linear_and_custom_objective():
    regressor = xgboost.XGBRegressor(n_estimators=3).fit(X, np.column_stack([AMOUNT, -AMOUNT]))
    assert wrap(regressor, frame=X, config=options()).output_names == ("target_1", "target_2")
    ranker = xgboost.XGBRanker(n_estimators=3).fit(X, FLAG, group=[N // 2, N - N // 2])
    ranked = wrap(ranker, frame=X, config=options())
    assert (ranked.task, ranked.output_space) == ("regression", "margin")
    assert "ranking score" in ranked.reason
    linear = xgboost.XGBClassifier(n_estimators=3, booster="gblinear").fit(X.fillna(0), FLAG)
    assert wrap(linear, frame=X.fillna(0), config=options()).family == "blackbox"

    def logistic(target, margin):
        p = expit(margin)
        return p - target, p * (1 - p)

    custom = xgboost.XGBClassifier(n_estimators=3, objective=logistic).fit(X, FLAG)
    model = wrap(custom, frame=X, config=options())
    np.testing.assert_array_equal(model.predict(X)[:, 0], custom.predict_proba(X)[:, 1].astype(float))


# --- LightGBM


def test_lightgbm_classifier_with_spaces_in_names_and_text_labels():
    estimator = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(X, TEXT)
    model = wrap(estimator, frame=X, config=options())
    assert model.feature_names == ("age", "net income", "debt")
    assert (model.classes, model.output_names, model.family) == (("no", "yes"), ("yes",), "tree")
    np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1])
    assert model.respond(X).label.tolist() == estimator.predict(X).tolist()
    margin = wrap(estimator, frame=X, config=options(output="margin"))
    np.testing.assert_allclose(expit(margin.predict(X)), model.predict(X))


def test_lightgbm_fitted_on_an_array():
    estimator = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(X.to_numpy(), FLAG)
    model = wrap(estimator, frame=X, config=options())
    np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(X.to_numpy())[:, 1])


@pytest.mark.parametrize(
    ("params", "target", "task", "space", "family"),
    [
        ({"objective": "binary"}, FLAG, "binary", "probability", "tree"),
        ({"objective": "multiclass", "num_class": 3}, THREE, "multiclass", "probability", "tree"),
        ({"objective": "multiclassova", "num_class": 3}, THREE, "multiclass", "probability", "tree"),
        ({"objective": "regression"}, AMOUNT, "regression", "prediction", "tree"),
        ({"objective": "poisson"}, np.exp(AMOUNT), "regression", "prediction", "blackbox"),
        (
            {"objective": "regression", "reg_sqrt": True},
            np.exp(AMOUNT),
            "regression",
            "prediction",
            "blackbox",
        ),
        ({"objective": "regression", "linear_tree": True}, AMOUNT, "regression", "prediction", "blackbox"),
    ],
)
def test_lightgbm_booster_by_objective(params, target, task, space, family):
    trained = light(params, target)
    for form in (trained, lightgbm.Booster(model_str=trained.model_to_string())):
        model = wrap(form, frame=X, config=options())
        assert (model.task, model.output_space) == (task, space)
        np.testing.assert_array_equal(model.predict(X), trained.predict(X).reshape(N, -1))
    model = wrap(trained, frame=X, config=options())
    assert model.family == family
    assert (model.reason is None) == (family == "tree")


def test_lightgbm_keeps_categories():
    frame = mixed()
    estimator = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=5).fit(frame, FLAG)
    model = wrap(estimator, frame=frame, config=options())
    np.testing.assert_array_equal(model.predict(frame)[:, 0], estimator.predict_proba(frame)[:, 1])


def test_lightgbm_ranker_and_custom_objective():
    ranker = lightgbm.LGBMRanker(n_estimators=3, verbose=-1).fit(X, FLAG, group=[N // 2, N - N // 2])
    ranked = wrap(ranker, frame=X, config=options())
    assert (ranked.task, ranked.output_space) == ("regression", "margin")
    assert "ranking score" in ranked.reason

    def logistic(target, margin):
        p = expit(margin)
        return p - target, p * (1 - p)

    custom = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, objective=logistic).fit(X, FLAG)
    model = wrap(custom, frame=X, config=options())
    assert (model.task, model.output_space) == ("binary", "margin")
    assert "custom objective" in model.reason


# --- CatBoost


@pytest.mark.parametrize("target", [FLAG, TEXT, TEXT == "yes"], ids=["int", "text", "bool"])
def test_catboost_binary(target):
    estimator = cat().fit(X, target)
    model = wrap(estimator, frame=X, config=options())
    assert (model.task, model.family) == ("binary", "tree")
    np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1])
    answer = model.respond(X)
    assert set(answer.label.tolist()) == set(model.classes)
    assert ((answer.output[:, 0] > 0.5) == (answer.label == model.classes[1])).all()
    margin = wrap(estimator, frame=X, config=options(output="margin"))
    np.testing.assert_allclose(expit(margin.predict(X)), model.predict(X))


def test_catboost_text_columns_multiclass_and_regression():
    frame = numbers().assign(region=np.resize(["north", "south", "east"], N))
    estimator = cat(cat_features=["region"]).fit(frame, THREE)
    model = wrap(estimator, frame=frame, config=options())
    assert (model.task, model.output_names) == ("multiclass", ("0", "1", "2"))
    np.testing.assert_array_equal(model.predict(frame), estimator.predict_proba(frame))
    regressor = cat(catboost.CatBoostRegressor).fit(X, AMOUNT)
    np.testing.assert_array_equal(
        wrap(regressor, frame=X, config=options()).predict(X)[:, 0], regressor.predict(X)
    )
    several = cat(catboost.CatBoostRegressor, loss_function="MultiRMSE").fit(
        X, np.column_stack([AMOUNT, AMOUNT])
    )
    assert wrap(several, frame=X, config=options()).output_names == ("target_1", "target_2")


def test_catboost_fitted_on_an_array_and_poisson():
    estimator = cat().fit(X.to_numpy(), FLAG)
    np.testing.assert_array_equal(
        wrap(estimator, frame=X, config=options()).predict(X)[:, 0],
        estimator.predict_proba(X.to_numpy())[:, 1],
    )
    poisson = cat(catboost.CatBoostRegressor, loss_function="Poisson").fit(X, np.exp(AMOUNT))
    model = wrap(poisson, frame=X, config=options())
    assert model.family == "blackbox"
    np.testing.assert_allclose(model.predict(X)[:, 0], poisson.predict(X))


def test_catboost_ranker_and_the_plain_class_with_a_log_link():
    """A ranker's predict takes no kind of answer; the plain class answers with the trees' sum, the log of what y is."""
    ranker = cat(catboost.CatBoostRanker, loss_function="YetiRank").fit(X, FLAG, group_id=np.arange(N) // 10)
    ranked = wrap(ranker, frame=X, config=options())
    assert (ranked.task, ranked.output_space) == ("regression", "margin")
    np.testing.assert_array_equal(ranked.predict(X)[:, 0], ranker.predict(X))
    plain = catboost.CatBoost(
        {"iterations": 4, "loss_function": "Poisson", "verbose": 0, "allow_writing_files": False}
    )
    plain.fit(X, np.exp(AMOUNT))
    model = wrap(plain, frame=X, config=options())
    np.testing.assert_allclose(model.predict(X)[:, 0], np.exp(plain.predict(X)))


def test_several_answers_about_one_target_are_named_and_compared_with_no_label():
    """Quantiles are fitted on one column of labels: to ask for one per output left their models unexplained."""
    levels = np.array([0.1, 0.5, 0.9])
    several = (
        xgboost.XGBRegressor(n_estimators=3, objective="reg:quantileerror", quantile_alpha=levels),
        cat(catboost.CatBoostRegressor, loss_function="MultiQuantile:alpha=0.1,0.5,0.9"),
    )
    for estimator in several:
        made = compute(estimator.fit(X, AMOUNT), X, AMOUNT, config=Config(), builders=())
        assert made.attributions.output_names == ("quantile 0.1", "quantile 0.5", "quantile 0.9")
        assert made.subject.y is None
        assert "3 numbers for one target" in no_labels(made.subject)
    unsure = cat(catboost.CatBoostRegressor, loss_function="RMSEWithUncertainty").fit(X, AMOUNT)
    made = compute(unsure, X, pd.Series(AMOUNT, name="price"), config=Config(), builders=())
    assert made.attributions.output_names == ("mean", "variance")
    assert quantity(made.subject, made.attributions)["phrase"] == "prediction of price: mean"


@pytest.mark.parametrize(
    "estimator",
    [
        xgboost.XGBRegressor(n_estimators=20, objective="reg:quantileerror", quantile_alpha=0.8),
        lightgbm.LGBMRegressor(n_estimators=20, objective="quantile", alpha=0.8, verbose=-1),
        cat(catboost.CatBoostRegressor, loss_function="Quantile:alpha=0.8;delta=0.01"),
        GradientBoostingRegressor(n_estimators=20, loss="quantile", alpha=0.8),
        HistGradientBoostingRegressor(max_iter=20, loss="quantile", quantile=0.8),
        QuantileRegressor(quantile=0.8, alpha=0),
    ],
)
def test_a_predicted_quantile_is_said_with_the_labels_below_it(estimator):
    rows = X.fillna(0.0)
    made = compute(estimator.fit(rows, AMOUNT), rows, AMOUNT, config=Config(), builders=())
    said = performance.build(made.subject, made.attributions, config=Config(), seeds=Seeds(0)).caveats
    assert [c.code for c in said] == ["quantile_predicted"]
    below = f"{np.mean(estimator.predict(rows) >= AMOUNT):.1%} lie at or below it (80.0% would be right)"
    assert below in said[0].message


def test_catboost_refusals():
    with pytest.raises(InvalidInput, match="must be fitted"):
        wrap(cat(), frame=X, config=options())
    several = cat(loss_function="MultiLogloss").fit(X, np.column_stack([FLAG, THREE == 1]).astype(int))
    with pytest.raises(InvalidInput, match="one label per row"):
        wrap(several, frame=X, config=options())


# --- through a Pipeline


@pytest.mark.parametrize(
    "final",
    [xgboost.XGBClassifier(n_estimators=3), lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), cat()],
    ids=["xgboost", "lightgbm", "catboost"],
)
# lightgbm keeps invented names for the array a scaler makes, and scikit-learn then misses them at prediction
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_a_booster_behind_a_scaler_has_its_margin(final):
    estimator = make_pipeline(StandardScaler(), final).fit(X, FLAG)
    model = wrap(estimator, frame=X, config=options())
    assert (model.family, model.preprocessing.sources) == ("tree", (0, 1, 2))
    np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1].astype(float))
    margin = wrap(estimator, frame=X, config=options(output="margin"))
    np.testing.assert_allclose(expit(margin.predict(X)), model.predict(X), atol=1e-6)


@pytest.mark.skipif(
    tuple(int(part) for part in xgboost.__version__.split(".")[:2]) < (3, 1),
    reason="XGBoost keeps categories in the model since 3.1; before, a frame's codes are taken as they are",
)
def test_unseen_categories_are_told():
    frame = mixed()
    estimator = xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(frame, FLAG)
    other = frame.assign(region=pd.Categorical(["west"] * N))
    with pytest.raises(PredictionFailed, match=r"raised on .* rows .*categor"):
        wrap(estimator, frame=other, config=options())
