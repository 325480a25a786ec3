"""wrap() on callables, bound methods and MLflow pyfunc models: meaning and refusals."""

from __future__ import annotations

from decimal import Decimal

import mlflow
import numpy as np
import pandas as pd
import pytest
import xgboost
from mlflow.models import infer_signature
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from explain_step.config import Config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.models import wrap

N = 60
X = pd.DataFrame(np.random.default_rng(2).normal(size=(N, 3)), columns=["age", "income", "debt"])
FLAG = (X["income"] > 0).astype(int).to_numpy()
TEXT = np.where(FLAG == 1, "yes", "no")
AMOUNT = (X["income"] * 2 + X["age"]).to_numpy()


def options(**given) -> Config:
    return Config.parse(given)


def positive_share(rows) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(rows["income"], dtype=float)))


# --- plain callables


def test_rows_that_sum_to_one_are_class_probabilities():
    def both(rows):
        p = positive_share(rows)
        return np.column_stack([1 - p, p])

    model = wrap(both, frame=X, config=options())
    assert (model.task, model.classes, model.output_names) == ("binary", (0, 1), ("1",))
    assert (model.family, model.native, model.output_space) == ("blackbox", None, "probability")
    np.testing.assert_allclose(model.predict(X)[:, 0], positive_share(X))
    assert model.respond(X).label.tolist() == FLAG.tolist()
    assert wrap(both, frame=X, config=options(class_names=("no", "yes"))).classes == ("no", "yes")


def test_one_number_per_row_is_a_regression_or_with_a_task_a_probability():
    assert wrap(positive_share, frame=X, config=options()).task == "regression"
    model = wrap(positive_share, frame=X, config=options(task="binary"))
    assert (model.task, model.output_space, model.output_names) == ("binary", "probability", ("1",))
    np.testing.assert_allclose(model.predict(X)[:, 0], positive_share(X))


@pytest.mark.parametrize("space", ["probability", "margin"])
def test_one_number_per_row_speaks_of_the_positive_class_whichever_it_is(space):
    call = positive_share if space == "probability" else lambda rows: rows["income"]
    given = options(task="binary", class_names=("yes", "no"), positive_class="yes", output=space)
    model = wrap(call, frame=X, config=given)
    assert (model.output_names, model.positive, model.output_space) == (("yes",), 0, space)
    np.testing.assert_allclose(model.predict(X)[:, 0], call(X))
    assert model.respond(X).label.tolist() == TEXT.tolist()


def test_several_numbers_per_row_are_a_multi_output_regression_named_by_their_columns():
    def forecast(rows):
        return pd.DataFrame({"low": rows["age"] - 1, "high": rows["age"] + 1})

    model = wrap(forecast, frame=X, config=options())
    assert (model.task, model.output_names) == ("regression", ("low", "high"))
    np.testing.assert_allclose(model.predict(X), forecast(X))


def test_columns_of_a_probability_frame_name_the_classes():
    def share(rows):
        p = positive_share(rows)
        return pd.DataFrame({"no": 1 - p, "yes": p})

    assert wrap(share, frame=X, config=options()).classes == ("no", "yes")


def test_a_callable_on_arrays_gets_an_array():
    model = wrap(lambda rows: rows[:, 1] * 2.5, frame=X, config=options())
    assert model.model_class == "callable"
    np.testing.assert_allclose(model.predict(X)[:, 0], X["income"] * 2.5)
    model = wrap(lambda rows: [row[0] for row in rows], frame=X, config=options())
    np.testing.assert_allclose(model.predict(X)[:, 0], X["age"])


def test_an_object_with_predict_proba_is_asked_for_probabilities():
    class Own:
        classes_ = np.array(["no", "yes"])

        def predict(self, rows):
            return np.where(positive_share(rows) > 0.5, "yes", "no")

        def predict_proba(self, rows):
            p = positive_share(rows)
            return np.column_stack([1 - p, p])

    model = wrap(Own(), frame=X, config=options())
    assert (model.model_class, model.output_names, model.output_space) == ("Own", ("yes",), "probability")
    np.testing.assert_allclose(model.predict(X)[:, 0], positive_share(X))


@pytest.mark.parametrize(
    "labels",
    [TEXT, TEXT.astype(object), FLAG, FLAG.astype(bool), FLAG.astype(float)],
    ids=["text", "object", "int", "bool", "float"],
)
def test_labels_are_refused_with_a_remedy(labels):
    lookup = dict(zip(X["age"], labels, strict=True))
    with pytest.raises(InvalidInput, match=r"label is not a number to explain.*predict_proba"):
        wrap(lambda rows: np.array([lookup[a] for a in rows["age"]]), frame=X, config=options())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda rows: [{"score": age} for age in rows["age"]], r"\{'score': .*numbers alone"),
        (lambda rows: pd.DataFrame({"score": [[age] for age in rows["age"]]}), r"\[\S+\].*numbers alone"),
        (lambda rows: [Decimal(age) for age in rows["age"]], "Decimal.*numbers alone"),
        (lambda rows: pd.DataFrame({"label": "no", "p": rows["age"]}), "'no'.*numbers alone"),
    ],
    ids=["dict", "list", "decimal", "label and number"],
)
def test_answers_that_are_no_numbers_are_told_as_such(answer, told):
    with pytest.raises(InvalidInput, match=told):
        wrap(answer, frame=X, config=options())


def test_whole_numbers_are_quantities_when_the_task_says_so():
    model = wrap(lambda rows: (rows["income"] > 0).astype(int), frame=X, config=options(task="regression"))
    assert set(model.predict(X)[:, 0]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "given", "told"),
    [
        (lambda rows: rows["income"] * 9, {"task": "binary"}, r"'binary'.*must lie in \[0, 1\]"),
        (lambda rows: (rows["income"] > 0) * 1.0, {"task": "binary"}, "not the labels themselves"),
        (positive_share, {"task": "multiclass"}, r"shape \(rows, classes\)"),
        (lambda rows: rows[["age", "debt"]], {"task": "multiclass"}, "sum to 1"),
        (lambda rows: rows[["age", "debt"]], {"task": "binary"}, "sum to 1"),
        (positive_share, {"output": "probability"}, "output"),
        (positive_share, {"task": "binary", "class_names": ("a", "b", "c")}, "class_names"),
        (positive_share, {"task": "binary", "positive_class": "yes"}, r"positive_class.*\[0, 1\]"),
    ],
)
def test_answers_that_contradict_the_options(call, given, told):
    with pytest.raises(InvalidInput, match=told):
        wrap(call, frame=X, config=options(**given))


def test_a_distribution_that_stops_being_one_is_noticed():
    def late(rows):
        p = np.where(rows["age"] > 5, 0.9, 0.5)
        return np.column_stack([p, np.full(len(p), 0.5)])

    model = wrap(late, frame=X, config=options())
    with pytest.raises(PredictionFailed, match="sum to 1"):
        model.predict(X.assign(age=9.0))


class Tensor:
    """A tensor that tracks gradients: NumPy may not read it."""

    def __init__(self, values) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, *given, **also):
        msg = "Can't call numpy() on Tensor that requires grad."
        raise RuntimeError(msg)


class Module:
    """As a network of torch: it can be called, with tensors, and has no predict."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict

    def __call__(self, rows):
        if self.strict:
            msg = f"argument 'input' must be Tensor, not {type(rows).__name__}"
            raise TypeError(msg)
        return Tensor(np.asarray(rows)[:, 0])


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Module(strict=True), "must be Tensor, not DataFrame"),
        (Module(strict=False), "returned Tensor"),
        (object(), "got object, which has no predict"),
        ({"model": 1}, "got dict, which has no predict"),
    ],
)
def test_an_object_without_predict_is_to_be_given_as_a_callable(model, told):
    with pytest.raises((InvalidInput, PredictionFailed), match=rf"{told}.*give a callable that") as caught:
        wrap(model, frame=X, config=options())
    assert not str(caught.value).endswith("..")


def test_text_where_a_callable_takes_numbers_is_told_with_its_column():
    frame = X.assign(debt=np.where(FLAG == 1, "high", "low"), region="north")
    with pytest.raises(PredictionFailed, match=r"'low'; the rows have text in 'debt'; give a callable"):
        wrap(lambda rows: rows["debt"].astype(float), frame=frame.iloc[::-1], config=options())


# --- bound methods


def test_a_bound_method_is_the_model_it_belongs_to():
    estimator = RandomForestClassifier(3, random_state=0).fit(X, TEXT)
    for method in (estimator.predict_proba, estimator.predict):
        model = wrap(method, frame=X, config=options())
        assert (model.family, model.output_names) == ("tree", ("yes",))
        np.testing.assert_array_equal(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1])


def test_a_bound_decision_function_is_the_margin():
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, TEXT)
    model = wrap(estimator.decision_function, frame=X, config=options())
    assert (model.output_space, model.family) == ("margin", "linear")
    np.testing.assert_allclose(model.predict(X)[:, 0], estimator.decision_function(X))


def test_a_bound_booster_predict():
    trained = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, FLAG), 3)
    assert wrap(trained.predict, frame=X, config=options()).family == "tree"


def test_a_regressor_of_a_share_can_be_said_to_be_binary():
    estimator = LinearRegression().fit(X, np.clip(0.5 + 0.01 * X["income"], 0, 1))
    model = wrap(estimator.predict, frame=X, config=options(task="binary"))
    assert (model.task, model.output_space) == ("binary", "probability")


def test_other_bound_methods_are_plain_callables_in_the_right_container():
    for data in (X, X.to_numpy()):
        forest = IsolationForest(n_estimators=5, random_state=0).fit(data)
        model = wrap(forest.score_samples, frame=X, config=options())
        assert model.task == "regression"
        np.testing.assert_array_equal(model.predict(X)[:, 0], forest.score_samples(data))


@pytest.mark.parametrize("question", ["decision_function", "score_samples"])
def test_scores_of_an_outlier_detector_behind_other_steps(question):
    detector = make_pipeline(StandardScaler(), IsolationForest(n_estimators=5, random_state=0)).fit(X)
    model = wrap(getattr(detector, question), frame=X, config=options())
    np.testing.assert_array_equal(model.predict(X)[:, 0], getattr(detector, question)(X))
    for whole in (detector, detector[-1]):
        with pytest.raises(InvalidInput, match=r"give the .*decision_function or score_samples"):
            wrap(whole, frame=X, config=options())


def test_probabilities_of_a_mixture_behind_other_steps():
    mixture = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0)).fit(X)
    model = wrap(mixture.predict_proba, frame=X, config=options(positive_class=1))
    np.testing.assert_allclose(model.predict(X)[:, 0], mixture.predict_proba(X)[:, 1])


# --- MLflow pyfunc models


class Labels(mlflow.pyfunc.PythonModel):
    def predict(
        self, context, model_input: pd.DataFrame, params=None
    ):  # MLflow warns where the hint is missing
        return np.where(np.asarray(model_input["income"]) > 0, "yes", "no")


class Shares(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        return 1 / (1 + np.exp(-np.asarray(model_input["income"], dtype=float)))


# MLflow warns about integer columns; that is not about this package
@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
class TestPyfunc:
    def load(self, tmp_path, kind, model, **given):
        path = tmp_path / "model"
        getattr(mlflow, kind).save_model(path=str(path), **given, **model)
        return mlflow.pyfunc.load_model(str(path))

    def test_a_scikit_learn_flavour_is_opened(self, tmp_path):
        estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, TEXT)
        loaded = self.load(
            tmp_path,
            "sklearn",
            {"sk_model": estimator},
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],
        )
        assert set(loaded.predict(X)) == {"no", "yes"}
        model = wrap(loaded, frame=X, config=options())
        assert (model.family, model.output_space, model.output_names) == ("linear", "probability", ("yes",))
        np.testing.assert_allclose(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1], rtol=1e-12)

    # XGBoost 2 warns inside a C callback about the file format that MLflow chose
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_the_signature_names_the_columns_of_a_model_that_does_not_know_them(self, tmp_path):
        estimator = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X.to_numpy(), FLAG), 3)
        loaded = self.load(
            tmp_path,
            "xgboost",
            {"xgb_model": estimator},
            signature=infer_signature(X, FLAG * 1.0),
            pip_requirements=["xgboost"],
        )
        frame = X.assign(region="north")[["region", "debt", "age", "income"]]
        model = wrap(loaded, frame=frame, config=options())
        assert model.feature_names == ("age", "income", "debt")
        expected = estimator.predict(xgboost.DMatrix(X.to_numpy())).astype(float)
        np.testing.assert_array_equal(model.predict(frame)[:, 0], expected)

    def test_a_python_model_that_returns_labels_is_refused(self, tmp_path):
        loaded = self.load(tmp_path, "pyfunc", {"python_model": Labels()}, pip_requirements=["numpy"])
        with pytest.raises(InvalidInput, match="pyfunc_predict_fn='predict_proba'"):
            wrap(loaded, frame=X, config=options())

    def test_what_does_not_fit_the_signature_is_told_without_the_rows_before_it(self, tmp_path):
        given = X.assign(years=3, home="rent")
        loaded = self.load(
            tmp_path,
            "pyfunc",
            {"python_model": Shares()},
            signature=infer_signature(given, FLAG * 1.0),
            pip_requirements=["numpy"],
        )
        with pytest.raises(PredictionFailed, match=r"types for column years\. Can not safely") as refused:
            wrap(loaded, frame=given.assign(years=3.5), config=options())
        assert "enforce schema of data" not in str(refused.value)
        assert "text in" not in str(refused.value)

    def test_a_python_model_that_returns_numbers(self, tmp_path):
        loaded = self.load(
            tmp_path,
            "pyfunc",
            {"python_model": Shares()},
            signature=infer_signature(X, AMOUNT),
            pip_requirements=["numpy"],
        )
        frame = X.assign(extra=1)
        assert wrap(loaded, frame=frame, config=options()).task == "regression"
        model = wrap(loaded, frame=frame, config=options(task="binary"))
        assert (model.output_space, model.feature_names) == ("probability", ("age", "income", "debt"))
        np.testing.assert_allclose(model.predict(frame)[:, 0], positive_share(X))
