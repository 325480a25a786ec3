"""The closed form of linear models, against the formula, against enumeration, and through real pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_subjects import CONFIG, SEEDS, subject_of

from explain_step import data, explainers, models
from explain_step.config import Config
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.linear import LINEAR
from explain_step.explainers.permutation import PERMUTATION
from explain_step.types import Subject

WORDS = ("good roof", "bad roof damp", "good garden", "damp cellar bad smell", "garden roof")


def table(n: int = 80) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(3)
    X = pd.DataFrame(
        {
            "size": rng.normal(90, 20, n),
            "age": rng.integers(0, 100, n).astype(np.float64),
            "kind": rng.choice(["flat", "house", "farm"], n),
            "text": rng.choice(WORDS, n),
        }
    )
    y = X["size"] * 2 - X["age"] + 30 * (X["kind"] == "farm") + 10 * X["text"].str.contains("good")
    return X, y + rng.normal(0, 5, n)


def folded_pipeline(estimator: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = make_column_transformer(
        (StandardScaler(), ["size", "age"]), (OneHotEncoder(), ["kind"]), (TfidfVectorizer(), "text")
    )
    return make_pipeline(steps, estimator)


def wrapped(model: Any, X: pd.DataFrame, background: pd.DataFrame, **options: Any) -> Subject:
    config = Config.parse(options)
    fitted = models.wrap(model, frame=X, config=config)
    return data.subject(fitted, X, None, config=config, background=background)[0]


def test_a_linear_function_gives_coefficient_times_distance_from_the_mean() -> None:
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(30, 5)), rng.normal(size=(50, 5))
    model = LinearRegression().fit(B, B @ [1.0, -2.0, 0.0, 3.0, 0.5] + 4)
    subject = subject_of(model.predict, X, B, native=model, family="linear")
    found = LINEAR.explain(subject, config=CONFIG, seeds=SEEDS)
    assert np.allclose(found.values[:, :, 0], model.coef_ * (X - B.mean(axis=0)), atol=1e-12)
    assert np.allclose(found.base_values[:, 0], model.predict(B).mean(), atol=1e-12)
    assert found.method.exact


REGRESSORS: dict[str, dict[str, Any]] = {
    "LinearRegression": {},
    "Ridge": {"alpha": 0.1},
    "Lasso": {"alpha": 0.1},
    "ElasticNet": {"alpha": 0.1},
    "SGDRegressor": {"tol": None, "random_state": 0},
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_through_a_pipeline_agree_with_sampling_on_raw_columns(name: str) -> None:
    from sklearn import linear_model

    X, y = table()
    fitted = folded_pipeline(getattr(linear_model, name)(**REGRESSORS[name]))
    subject = wrapped(fitted.fit(X, y), X[:10], X[10:40])
    assert LINEAR.why_not(subject) is None
    exact = LINEAR.explain(subject, config=CONFIG, seeds=SEEDS)
    assert exact.feature_names == ("size", "age", "kind", "text")
    assert explainers.not_additive(subject, exact) is None
    # additive in the raw columns, so that antithetic pairs over the whole background have no error either
    sampled = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert np.allclose(sampled.values, exact.values, atol=1e-8 * np.abs(exact.values).max())


@pytest.mark.parametrize("positive", ["no", "yes"])
@pytest.mark.parametrize("name", ["LogisticRegression", "RidgeClassifier", "SGDClassifier", "LinearSVC"])
def test_margins_of_binary_classifiers_follow_the_positive_class(name: str, positive: str) -> None:
    from sklearn import linear_model, svm

    X, y = table()
    kind = getattr(linear_model, name, None) or getattr(svm, name)
    model = folded_pipeline(kind(random_state=0)).fit(X, np.where(y > y.median(), "yes", "no"))
    subject = wrapped(model, X[:12], X[12:], output="margin", positive_class=positive)
    found, caveats = explainers.explain(subject, config=CONFIG, seeds=SEEDS)
    assert found.method.name == "linear"
    assert not caveats
    sign = 1 if positive == "yes" else -1
    total = found.values.sum(axis=1) + found.base_values
    assert np.allclose(total[:, 0], sign * model.decision_function(X[:12]), atol=1e-9)


def test_multiclass_margins_and_several_targets_have_one_output_each() -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    X, y = table()
    three = folded_pipeline(LogisticRegression(max_iter=2000)).fit(
        X, pd.qcut(y, 3, labels=["a", "b", "c"]).astype(str)
    )
    subject = wrapped(three, X[:9], X[9:], output="margin")
    found = LINEAR.explain(subject, config=CONFIG, seeds=SEEDS)
    assert found.values.shape == (9, 4, 3)
    assert explainers.not_additive(subject, found) is None

    two = folded_pipeline(Ridge()).fit(X, pd.DataFrame({"one": y, "two": -2 * y}))
    both = LINEAR.explain(wrapped(two, X[:9], X[9:]), config=CONFIG, seeds=SEEDS)
    assert np.allclose(both.values[:, :, 1], -2 * both.values[:, :, 0], atol=1e-8)


def test_text_columns_stay_sparse_and_are_summed_into_their_raw_column() -> None:
    from sklearn.linear_model import Ridge

    X, y = table()
    model = folded_pipeline(Ridge()).fit(X, y)
    subject = wrapped(model, X[:10], X[10:])
    found = LINEAR.explain(subject, config=CONFIG, seeds=SEEDS)
    # by hand, from the fitted parts
    coef, steps = model[-1].coef_, model[0]
    words = steps.named_transformers_["tfidfvectorizer"]
    part = np.asarray(words.transform(X["text"]).todense()) @ coef[-len(words.vocabulary_) :]
    assert np.allclose(found.values[:, 3, 0], part[:10] - part[10:].mean(), atol=1e-9)


def test_links_probabilities_and_wrapped_targets_are_refused_with_a_reason() -> None:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

    X, y = table()
    positive = y - y.min() + 1
    for estimator, target in (
        (PoissonRegressor(), positive / positive.max()),
        (TransformedTargetRegressor(LinearRegression(), func=np.log, inverse_func=np.exp), positive),
        (LogisticRegression(max_iter=2000), y > y.median()),
    ):
        subject = wrapped(folded_pipeline(estimator).fit(X, target), X[:10], X[10:])
        assert LINEAR.why_not(subject), estimator
    assert "output='margin'" in str(LINEAR.why_not(subject))


def test_a_link_that_the_family_does_not_show_is_found_by_comparing_outputs() -> None:
    from sklearn.linear_model import PoissonRegressor

    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 3))
    model = PoissonRegressor().fit(X, rng.poisson(np.exp(X[:, 0])))
    subject = subject_of(model.predict, X, native=model, family="linear")
    assert "not the weighted sum" in str(LINEAR.why_not(subject))


def test_closed_form_equals_enumeration() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(5)
    X, B = rng.normal(size=(8, 5)), rng.normal(size=(12, 5))
    model = Ridge().fit(B, B[:, 0] - B[:, 3])
    subject = subject_of(model.predict, X, B, native=model, family="linear")
    ours = LINEAR.explain(subject, config=CONFIG, seeds=SEEDS)
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert np.allclose(ours.values, exact.values, atol=1e-10)
    assert np.allclose(ours.base_values, exact.base_values, atol=1e-10)


def test_inputs_are_unchanged() -> None:
    from sklearn.linear_model import Ridge

    X, y = table()
    model = folded_pipeline(Ridge()).fit(X, y)
    subject = wrapped(model, X[:10], X[10:])
    before = subject.X.copy(), subject.background.copy(), model[-1].coef_.copy()
    LINEAR.explain(subject, config=CONFIG, seeds=SEEDS)
    pd.testing.assert_frame_equal(subject.X, before[0])
    pd.testing.assert_frame_equal(subject.background, before[1])
    assert (model[-1].coef_ == before[2]).all()
