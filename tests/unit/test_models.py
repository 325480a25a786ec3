"""wrap() on scikit-learn models: the explained output, names, containers, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from explain_step.config import Config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.models import wrap

N = 120


def numbers(seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(N, 4))
    return pd.DataFrame(values, columns=["age", "income", "debt", "noise"])


X = numbers()
BINARY = (X["income"] - X["debt"] > 0).map({False: "no", True: "yes"}).to_numpy(dtype=object)
THREE = np.digitize(X["income"] + X["debt"], [-0.7, 0.7])
AMOUNT = (2 * X["income"] - X["debt"] + 0.1 * X["noise"]).to_numpy()


def options(**given) -> Config:
    return Config.parse(given)


CLASSIFIERS = {
    "tree": (DecisionTreeClassifier(max_depth=3), "tree"),
    "forest": (RandomForestClassifier(n_estimators=5, random_state=0), "tree"),
    "boosting": (GradientBoostingClassifier(n_estimators=5), "tree"),
    "hist": (HistGradientBoostingClassifier(max_iter=5), "tree"),
    "logistic": (LogisticRegression(), "linear"),
    "knn": (KNeighborsClassifier(), "blackbox"),
    "mlp": (MLPClassifier((4,), max_iter=60, solver="lbfgs", random_state=0), "blackbox"),
    "calibrated": (CalibratedClassifierCV(LinearSVC(), cv=3), "blackbox"),
    "voting": (
        VotingClassifier(
            [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))], voting="soft"
        ),
        "blackbox",
    ),
    "stacking": (
        StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))], cv=3),
        "blackbox",
    ),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), "linear"),
    "nested": (
        Pipeline(
            [("a", StandardScaler()), ("rest", make_pipeline(StandardScaler(), RandomForestClassifier(5)))]
        ),
        "tree",
    ),
    "search": (GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2), "linear"),
    "threshold": (FixedThresholdClassifier(LogisticRegression(), threshold=0.9), "linear"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_binary_classifier_answers_with_the_probability_of_its_second_class(name):
    estimator, family = CLASSIFIERS[name]
    estimator.fit(X, BINARY)
    model = wrap(estimator, frame=X, config=options())
    answer = model.respond(X)
    assert (model.task, model.output_space, model.output_names) == ("binary", "probability", ("yes",))
    assert (model.classes, model.positive, model.family) == (("no", "yes"), 1, family)
    np.testing.assert_allclose(answer.output[:, 0], estimator.predict_proba(X)[:, 1])
    np.testing.assert_allclose(answer.probability, estimator.predict_proba(X))
    assert answer.label.tolist() == estimator.predict(X).tolist()
    np.testing.assert_array_equal(model.predict(X), answer.output)
    assert (model.native is None) == (family == "blackbox")


def test_a_frozen_estimator_is_opened():
    frozen = pytest.importorskip("sklearn.frozen", reason="FrozenEstimator came with scikit-learn 1.6")
    estimator = frozen.FrozenEstimator(LogisticRegression().fit(X, BINARY))
    assert wrap(estimator, frame=X, config=options()).family == "linear"


def test_the_final_estimator_of_a_pipeline_reads_what_the_preprocessing_makes():
    estimator = Pipeline(
        [("a", StandardScaler()), ("rest", make_pipeline(StandardScaler(), LogisticRegression()))]
    ).fit(X, BINARY)
    model = wrap(estimator, frame=X, config=options())
    assert model.model_class == "Pipeline(LogisticRegression)"
    assert model.preprocessing.sources == (0, 1, 2, 3)
    inner = model.native.predict_proba(model.preprocessing.transform(X))
    np.testing.assert_allclose(inner[:, [1]], model.predict(X), rtol=1e-12)


@pytest.mark.parametrize("name", ["tree", "forest", "boosting", "hist", "logistic", "mlp", "pipeline"])
def test_a_multiclass_model_has_one_output_per_class(name):
    estimator = CLASSIFIERS[name][0].fit(X, THREE)
    model = wrap(estimator, frame=X, config=options())
    assert (model.task, model.output_names, model.positive) == ("multiclass", ("0", "1", "2"), None)
    np.testing.assert_allclose(model.predict(X), estimator.predict_proba(X))
    assert model.respond(X).label.tolist() == estimator.predict(X).tolist()


@pytest.mark.parametrize(
    ("labels", "classes", "output"),
    [
        (BINARY, ("no", "yes"), "yes"),
        (BINARY == "yes", (False, True), "True"),
        ((BINARY == "yes").astype(int), (0, 1), "1"),
        ((BINARY == "yes") + 1.0, (1.0, 2.0), "2.0"),
        (pd.Series(BINARY, dtype="category"), ("no", "yes"), "yes"),
    ],
    ids=["text", "bool", "int", "float", "category"],
)
def test_every_kind_of_label(labels, classes, output):
    model = wrap(LogisticRegression().fit(X, labels), frame=X, config=options())
    assert model.classes == classes
    assert [type(c) for c in model.classes] == [type(c) for c in classes]
    assert model.output_names == (output,)
    assert set(model.respond(X).label.tolist()) == set(classes)


REGRESSORS = {
    "linear": (LinearRegression(), "linear"),
    "forest": (RandomForestRegressor(5, random_state=0), "tree"),
    "extra": (ExtraTreesRegressor(5, random_state=0), "tree"),
    "hist": (HistGradientBoostingRegressor(max_iter=5), "tree"),
    "transformed": (TransformedTargetRegressor(Ridge(), func=np.arcsinh, inverse_func=np.sinh), "blackbox"),
    "pipeline": (make_pipeline(StandardScaler(), Ridge()), "linear"),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_answers_with_its_prediction(name):
    estimator, family = REGRESSORS[name]
    estimator.fit(X, AMOUNT)
    model = wrap(estimator, frame=X, config=options())
    assert (model.task, model.output_space, model.family, model.classes) == (
        "regression",
        "prediction",
        family,
        None,
    )
    np.testing.assert_allclose(model.predict(X)[:, 0], estimator.predict(X))
    assert model.respond(X).label is None


@pytest.mark.parametrize(
    "estimator", [RandomForestRegressor(3), LinearRegression(), MultiOutputRegressor(Ridge())]
)
def test_a_multi_output_regression_has_one_output_per_target(estimator):
    estimator.fit(X, np.column_stack([AMOUNT, -AMOUNT]))
    model = wrap(estimator, frame=X, config=options())
    assert (model.task, model.output_names) == ("regression", ("target_1", "target_2"))
    np.testing.assert_allclose(model.predict(X), estimator.predict(X))


def test_a_log_link_is_a_black_box_that_says_why():
    estimator = HistGradientBoostingRegressor(loss="poisson", max_iter=5).fit(X, np.exp(AMOUNT))
    model = wrap(estimator, frame=X, config=options())
    assert (model.family, model.native) == ("blackbox", None)
    assert "log scale" in model.reason
    assert wrap(PoissonRegressor().fit(X, np.exp(AMOUNT)), frame=X, config=options()).family == "blackbox"
    margin = wrap(estimator, frame=X, config=options(output="margin"))
    assert (margin.family, margin.output_space) == ("tree", "margin")  # the remedy that the reason names
    np.testing.assert_allclose(margin.predict(X)[:, 0], np.log(estimator.predict(X)))


@pytest.mark.parametrize(
    ("estimator", "family"),
    [
        (SVC(), "kernel"),
        (LinearSVC(), "linear"),
        (RidgeClassifier(), "linear"),
        (SGDClassifier(), "linear"),
    ],
)
def test_without_probabilities_the_margin_is_explained_and_said(estimator, family):
    estimator.fit(X, BINARY)
    model = wrap(estimator, frame=X, config=options())
    assert (model.output_space, model.family) == ("margin", family)
    assert "no predict_proba" in model.reason
    answer = model.respond(X)
    np.testing.assert_allclose(answer.output[:, 0], estimator.decision_function(X))
    assert answer.probability is None
    assert answer.label.tolist() == estimator.predict(X).tolist()
    with pytest.raises(InvalidInput, match=r"output.*'probability'.*output='margin' or calibrate"):
        wrap(estimator, frame=X, config=options(output="probability"))


def test_multiclass_margins_need_one_column_per_class():
    four = np.digitize(X["income"], [-0.7, 0.0, 0.7])
    model = wrap(SVC().fit(X, four), frame=X, config=options())
    assert model.predict(X).shape == (N, 4)
    with pytest.raises(PredictionFailed, match="decision_function_shape='ovr'"):
        wrap(SVC(decision_function_shape="ovo").fit(X, four), frame=X, config=options())


def test_the_margin_can_be_chosen_and_turns_with_the_positive_class():
    estimator = GradientBoostingClassifier(n_estimators=5).fit(X, BINARY)
    yes = wrap(estimator, frame=X, config=options(output="margin"))
    no = wrap(estimator, frame=X, config=options(output="margin", positive_class="no"))
    np.testing.assert_allclose(yes.predict(X)[:, 0], estimator.decision_function(X))
    np.testing.assert_array_equal(no.predict(X), -yes.predict(X))
    assert (no.output_names, no.positive, no.output_space) == (("no",), 0, "margin")
    np.testing.assert_allclose(no.respond(X).probability, estimator.predict_proba(X))


@pytest.mark.parametrize("wanted", [0, "0", False])
def test_the_positive_class_is_found_by_value_and_by_text(wanted):
    flags = (BINARY == "yes").astype(int)
    estimator = LogisticRegression().fit(X, flags)
    if wanted is False:
        estimator = LogisticRegression().fit(X, flags.astype(bool))
    model = wrap(estimator, frame=X, config=options(positive_class=wanted))
    assert model.positive == 0
    np.testing.assert_allclose(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 0])


def test_class_names_rename_outputs_only():
    estimator = LogisticRegression().fit(X, BINARY)
    model = wrap(estimator, frame=X, config=options(class_names=("granted", "denied")))
    assert (model.output_names, model.classes) == (("denied",), ("no", "yes"))
    by_name = wrap(
        estimator, frame=X, config=options(class_names=("granted", "denied"), positive_class="granted")
    )
    assert (by_name.output_names, by_name.positive) == (("granted",), 0)
    many = wrap(LogisticRegression().fit(X, THREE), frame=X, config=options(class_names=("a", "b", "c")))
    assert many.output_names == ("a", "b", "c")


def test_a_moved_threshold_changes_labels_not_probabilities():
    estimator = FixedThresholdClassifier(LogisticRegression(), threshold=0.9).fit(X, BINARY)
    answer = wrap(estimator, frame=X, config=options()).respond(X)
    assert ((answer.output[:, 0] > 0.5) & (answer.label == "no")).any()
    assert answer.label.tolist() == estimator.predict(X).tolist()


def test_a_moved_threshold_around_a_pipeline_keeps_its_labels():
    inner = make_pipeline(StandardScaler(), LogisticRegression())
    estimator = FixedThresholdClassifier(inner, threshold=0.9).fit(X, BINARY)
    response = wrap(estimator, frame=X, config=options()).respond(X)
    assert response.label.tolist() == estimator.predict(X).tolist()
    assert np.allclose(response.probability, estimator.estimator_.predict_proba(X))
    assert (response.label != np.where(response.output[:, 0] > 0.5, "yes", "no")).any(), (
        "the test says something"
    )


def test_labels_of_a_model_that_does_not_follow_its_probabilities_are_its_own():
    """A stack ends in its last model's predict; that one's probabilities may say something else."""

    class Cautious(LogisticRegression):
        def predict(self, rows):
            return np.where(self.predict_proba(rows)[:, 1] > 0.9, *self.classes_[::-1])

    members = [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))]
    stack = StackingClassifier(members, final_estimator=Cautious(), cv=2).fit(X, BINARY)
    response = wrap(stack, frame=X, config=options()).respond(X)
    assert response.label.tolist() == stack.predict(X).tolist()
    assert (response.label != np.where(response.output[:, 0] > 0.5, "yes", "no")).any(), (
        "the test says something"
    )


@pytest.mark.parametrize("steps", [1, 2])
def test_an_ensemble_of_pipelines_is_asked_with_its_columns(steps):
    """A Pipeline has a length and items: taken for an array of members, it once stopped the work."""
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    other = [
        make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=2)),
        DecisionTreeClassifier(max_depth=2),
    ]
    estimator = VotingClassifier([("a", scaled), ("b", other[steps - 1])], voting="soft").fit(X, BINARY)
    model = wrap(estimator, frame=X[["noise", "debt", "income", "age"]], config=options())
    assert model.feature_names == tuple(X.columns)
    assert np.allclose(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1])


# --- what the model is handed


def test_no_warning_about_feature_names_whatever_the_model_was_fitted_on():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (X, X.to_numpy()):
            estimator = RandomForestClassifier(3).fit(data, BINARY)
            model = wrap(estimator, frame=X, config=options())
            np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(data)[:, 1])
            assert model.feature_names == tuple(X.columns)


def test_columns_are_picked_by_name_and_extra_ones_are_allowed():
    estimator = LogisticRegression().fit(X, BINARY)
    shuffled = X.assign(region="north")[["region", "noise", "debt", "age", "income"]]
    model = wrap(estimator, frame=shuffled, config=options())
    assert model.feature_names == ("age", "income", "debt", "noise")
    np.testing.assert_allclose(model.predict(shuffled), model.predict(X), rtol=1e-12)


def test_names_that_are_no_text_reach_the_model_as_they_were():
    frame = X.set_axis([0, 1, 2, 3], axis=1)

    class Chooser(LogisticRegression):
        def predict_proba(self, rows):
            return super().predict_proba(rows[[0, 1, 2, 3]])

    estimator = Chooser().fit(frame, BINARY)
    model = wrap(estimator, frame=frame, config=options())
    assert model.feature_names == ("0", "1", "2", "3")
    renamed = frame.set_axis(["0", "1", "2", "3"], axis=1)
    np.testing.assert_allclose(model.predict(renamed)[:, 0], estimator.predict_proba(frame)[:, 1], rtol=1e-12)


def test_arrays_get_numbers_from_nullable_and_bool_columns():
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(X.to_numpy(), BINARY)
    frame = X.copy()
    frame["noise"] = pd.array([None, *range(N - 1)], dtype="Int64")
    frame["debt"] = frame["debt"] > 0
    model = wrap(estimator, frame=frame, config=options())
    plain = np.column_stack([X["age"], X["income"], X["debt"] > 0, [np.nan, *range(N - 1)]])
    np.testing.assert_array_equal(model.predict(frame)[:, 0], estimator.predict_proba(plain)[:, 1])


def test_the_model_cannot_change_the_rows():
    class Vandal(LogisticRegression):
        def predict_proba(self, rows):
            answer = super().predict_proba(rows)
            rows.iloc[:, 0] = 0.0
            rows["more"] = 1
            return answer

    estimator = Vandal().fit(X, BINARY)
    before = X.copy(deep=True)
    wrap(estimator, frame=X, config=options()).respond(X)
    pd.testing.assert_frame_equal(X, before)


def test_the_global_random_state_is_left_alone():
    estimator = RandomForestClassifier(3).fit(X, BINARY)
    state = np.random.get_state()  # noqa: NPY002 - the legacy state is what is checked
    wrap(estimator, frame=X, config=options()).respond(X)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(state, after, strict=True))


# --- what is refused


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"output": "probability"}, r"output.*'probability'.*RandomForestRegressor.*use output='prediction'"),
        ({"output": "margin"}, r"output.*'margin'.*use output='prediction'"),
        ({"task": "binary"}, r"task.*'binary'.*is a regressor"),
        ({"positive_class": 1}, r"positive_class.*for classifiers"),
    ],
)
def test_options_that_contradict_a_regressor(given, told):
    estimator = RandomForestRegressor(3).fit(X, AMOUNT)
    with pytest.raises(InvalidInput, match=told):
        wrap(estimator, frame=X, config=options(**given))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"output": "prediction"}, r"output.*'prediction'.*use output='probability'"),
        ({"output": "margin"}, r"output.*'margin'"),
        ({"task": "regression"}, r"task.*'regression'.*classifier of 2 classes"),
        ({"task": "multiclass"}, r"task.*'multiclass'.*2 classes"),
        ({"positive_class": "maybe"}, r"positive_class.*'no', 'yes'.*'maybe'"),
        ({"class_names": ("a", "b", "c")}, r"class_names.*got 3"),
        ({"class_names": ("a", "a")}, r"class_names must be unique"),
    ],
)
def test_options_that_contradict_a_classifier(given, told):
    estimator = RandomForestClassifier(3).fit(X, BINARY)
    with pytest.raises(InvalidInput, match=told):
        wrap(estimator, frame=X, config=options(**given))


def test_positive_class_is_for_two_classes():
    with pytest.raises(InvalidInput, match=r"positive_class is for two classes.*has 3"):
        wrap(LogisticRegression().fit(X, THREE), frame=X, config=options(positive_class=1))


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        (RandomForestClassifier(3), "several"),
        (MultiOutputClassifier(LogisticRegression()), "several"),
        (
            MLPClassifier((3,), alpha=10.0, max_iter=500, solver="lbfgs"),
            "one label per row|sum to 1|one column per class",
        ),
    ],
)
def test_several_labels_per_row_are_refused(estimator, told):
    estimator.fit(X, np.column_stack([BINARY == "yes", THREE == 1]).astype(int))
    with pytest.raises((InvalidInput, PredictionFailed), match=told):
        wrap(estimator, frame=X, config=options())


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        (LogisticRegression(), "must be fitted"),
        (LinearRegression(), "must be fitted"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "must be fitted"),
        (GridSearchCV(LogisticRegression(), {}), "best_estimator_; fit it with refit=True"),
        (LogisticRegression, "the class LogisticRegression"),
        (3, "got int"),
        (make_pipeline(StandardScaler(), "passthrough"), "passthrough"),
    ],
    ids=["classifier", "regressor", "pipeline", "search", "class", "number", "no estimator"],
)
def test_not_a_fitted_model(estimator, told):
    with pytest.raises(InvalidInput, match=told):
        wrap(estimator, frame=X, config=options())


def test_models_that_only_give_labels():
    hard = VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier())]).fit(X, BINARY)
    with pytest.raises(InvalidInput, match="voting='soft'"):
        wrap(hard, frame=X, config=options())
    with pytest.raises(InvalidInput, match=r"label is not a number.*decision_function"):
        wrap(IsolationForest(n_estimators=5, random_state=0).fit(X), frame=X, config=options())


def test_a_single_class_cannot_be_explained():
    with pytest.raises(InvalidInput, match=r"single class 'yes'"):
        wrap(DecisionTreeClassifier().fit(X, ["yes"] * N), frame=X, config=options())


def test_mixed_columns_are_a_black_box_with_a_reason():
    estimator = make_pipeline(PolynomialFeatures(), LogisticRegression()).fit(X, BINARY)
    model = wrap(estimator, frame=X, config=options())
    assert (model.family, model.native, model.preprocessing) == ("blackbox", None, None)
    assert "PolynomialFeatures" in model.reason
    np.testing.assert_allclose(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1])
