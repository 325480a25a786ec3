"""Provenance through Pipelines: sources of every derived column, and refusals where columns are mixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import set_config
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

import explain_step
from explain_step.config import Config
from explain_step.errors import PredictionFailed
from explain_step.models import wrap
from explain_step.preprocessing import trace

N = 90
RNG = np.random.default_rng(4)
X = pd.DataFrame(
    {
        "size": pd.Series(np.resize(["s", "m", "l"], N), dtype=object),
        "age": RNG.normal(40, 9, N),
        "city": pd.Series(np.where(np.arange(N) == 77, "rare", np.resize(["x", "y"], N)), dtype=object),
        "debt": np.where(np.arange(N) % 5 == 0, np.nan, RNG.normal(size=N)),
        "text": pd.Series(np.resize(["good cat", "bad dog", "good dog"], N), dtype=object),
    }
)
FLAG = (X["age"] > 40).astype(int)
NUMBERS = X[["age", "debt"]].assign(income=RNG.normal(size=N))


def traced(step, frame: pd.DataFrame = X):
    fitted = step.fit(frame, FLAG)
    steps = [inner for _, inner in fitted.steps] if isinstance(fitted, Pipeline) else [fitted]
    return trace(steps, prepare=lambda rows: rows, frame=frame)


def sources(step, frame: pd.DataFrame = X) -> tuple[int, ...]:
    made, reason = traced(step, frame)
    assert reason is None
    assert made.transform(frame).shape == (len(frame), len(made.sources))
    return made.sources


# --- one transformer


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        MinMaxScaler(),
        RobustScaler(),
        MaxAbsScaler(),
        PowerTransformer(),
        SimpleImputer(),
        QuantileTransformer(n_quantiles=20),
        FunctionTransformer(),
    ],
    ids=lambda step: type(step).__name__,
)
def test_one_column_each(step):
    assert sources(step, NUMBERS) == (0, 1, 2)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (OneHotEncoder(), (0, 0, 0, 1, 1, 1)),
        (OneHotEncoder(drop="first"), (0, 0, 1, 1)),
        (OneHotEncoder(drop="if_binary", sparse_output=False), (0, 0, 0, 1, 1, 1)),
        (OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist"), (0, 0, 0, 1, 1, 1)),
        (OneHotEncoder(max_categories=2), (0, 0, 1, 1)),
        (OrdinalEncoder(), (0, 1)),
        (TargetEncoder(cv=2), (0, 1)),
    ],
)
def test_encoders(step, expected):
    assert sources(step, X[["size", "city"]]) == expected


def test_a_target_encoder_of_three_classes_makes_three_columns_each():
    labels = np.resize([0, 1, 2], N)
    labels[::4] = 1
    fitted = TargetEncoder(cv=2, target_type="multiclass").fit(X[["size", "city"]], labels)
    made, _ = trace([fitted], prepare=lambda rows: rows, frame=X[["size", "city"]])
    assert made.sources == (0, 0, 0, 1, 1, 1)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (SimpleImputer(add_indicator=True), (0, 1, 2, 1)),
        (MissingIndicator(), (1,)),
        (MissingIndicator(features="all"), (0, 1, 2)),
        (make_pipeline(SimpleImputer(), KBinsDiscretizer(3, encode="ordinal", strategy="uniform")),
         (0, 1, 2)),
        (make_pipeline(SimpleImputer(), KBinsDiscretizer(3, strategy="uniform")),
         (0, 0, 0, 1, 1, 1, 2, 2, 2)),
        (make_pipeline(SimpleImputer(), SplineTransformer(n_knots=3, degree=2)),
         (0,) * 4 + (1,) * 4 + (2,) * 4),
        (make_pipeline(SimpleImputer(), SelectKBest(k=2)), None),
        (make_pipeline(SimpleImputer(), VarianceThreshold()), (0, 1, 2)),
    ],
)  # fmt: skip
def test_imputers_bins_splines_and_selectors(step, expected):
    found = sources(step, NUMBERS)
    if expected is None:
        support = step[-1].get_support()
        expected = tuple(np.flatnonzero(support).tolist())
    assert found == expected


@pytest.mark.parametrize("keep", [False, True])
def test_an_imputer_drops_empty_columns_unless_told(keep):
    frame = NUMBERS.assign(empty=np.nan)
    imputer = SimpleImputer(keep_empty_features=keep)
    if keep:
        assert sources(imputer, frame) == (0, 1, 2, 3)
        return
    with pytest.warns(UserWarning, match="Skipping features"):
        assert sources(imputer, frame) == (0, 1, 2)


@pytest.mark.parametrize(
    "vectoriser", [CountVectorizer(), TfidfVectorizer(), HashingVectorizer(n_features=64)]
)
def test_words_come_from_their_text_column(vectoriser):
    step = make_column_transformer((vectoriser, "text"), (StandardScaler(), ["age"]))
    found = sources(step)
    assert set(found[:-1]) == {4}
    assert found[-1] == 1


def test_whatever_follows_a_single_column_comes_from_it():
    step = make_column_transformer(
        (make_pipeline(CountVectorizer(), TfidfTransformer(), TruncatedSVD(2)), "text"),
        (make_pipeline(SimpleImputer(), PolynomialFeatures(3)), ["debt"]),
        (FunctionTransformer(np.abs), ["age"]),
    )
    assert sources(step) == (4, 4, 3, 3, 3, 3, 1)


# --- compositions


def test_a_column_transformer_with_nested_pipelines_passthrough_drop_and_remainder():
    step = ColumnTransformer(
        [
            ("one_hot", OneHotEncoder(), make_column_selector(pattern="size|city")),
            ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["debt", "age"]),
            ("kept", "passthrough", slice("age", "age")),
            ("gone", "drop", ["text"]),
        ]
    )
    assert sources(step) == (0, 0, 0, 2, 2, 2, 3, 1, 3, 1)
    rest = ColumnTransformer([("one_hot", OneHotEncoder(), [0, 2, 4])], remainder=SimpleImputer())
    assert sources(rest) == (0,) * 3 + (2,) * 3 + (4,) * 3 + (1, 3)
    mask = ColumnTransformer([("n", SimpleImputer(), [False, True, False, True, False])])
    assert sources(mask) == (1, 3)


def test_a_column_transformer_on_an_array():
    step = ColumnTransformer([("b", StandardScaler(), [2, 0]), ("c", "passthrough", [1])]).fit(
        NUMBERS.to_numpy()
    )
    made, _ = trace([step], prepare=lambda rows: rows.to_numpy(), frame=NUMBERS)
    assert made.sources == (2, 0, 1)


def test_feature_unions_and_two_transformers_in_a_row():
    union = make_union(StandardScaler(), make_pipeline(SimpleImputer(), MinMaxScaler()))
    assert sources(union, NUMBERS) == (0, 1, 2, 0, 1, 2)
    partly = FeatureUnion([("kept", "passthrough"), ("gone", "drop"), ("scaled", StandardScaler())])
    assert sources(partly, NUMBERS) == (0, 1, 2, 0, 1, 2)
    step = Pipeline(
        [
            (
                "first",
                make_column_transformer((OneHotEncoder(sparse_output=False), ["size"]), remainder="drop"),
            ),
            ("second", StandardScaler()),
        ]
    )
    assert sources(step) == (0, 0, 0)


def test_pandas_output_is_handed_on_as_it_would_be_in_the_pipeline():
    encode = make_column_transformer(
        (OrdinalEncoder(), ["size", "city"]),
        (SimpleImputer(), ["age", "debt"]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    estimator = make_pipeline(
        encode, HistGradientBoostingClassifier(max_iter=5, categorical_features=["size", "city"])
    ).fit(X, FLAG)
    model = wrap(estimator, frame=X, config=Config())
    derived = model.preprocessing.transform(X)
    assert isinstance(derived, pd.DataFrame)
    assert model.preprocessing.sources == (0, 2, 1, 3)
    np.testing.assert_array_equal(model.native.predict_proba(derived)[:, [1]], model.predict(X))


def test_a_second_column_transformer_reads_the_first_ones_frame():
    first = make_column_transformer(
        (SimpleImputer(), ["debt", "age"]), (OneHotEncoder(sparse_output=False), ["size"]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")  # fmt: skip
    second = make_column_transformer((StandardScaler(), ["age"]), remainder="passthrough")
    assert sources(make_pipeline(first, second)) == (1, 3, 0, 0, 0)


def test_columns_that_are_dropped_may_be_absent():
    encode = make_column_transformer(
        (OneHotEncoder(), ["size"]), (SimpleImputer(), ["debt"]), remainder="drop"
    )
    estimator = make_pipeline(encode, LogisticRegression()).fit(X, FLAG)
    model = wrap(estimator, frame=X[["debt", "size"]], config=Config())
    assert model.feature_names == ("size", "debt")
    assert model.preprocessing.sources == (0, 0, 0, 1)
    np.testing.assert_allclose(model.predict(X)[:, 0], estimator.predict_proba(X)[:, 1], rtol=1e-12)


def test_a_text_pipeline_reads_one_column():
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(X["text"], FLAG)
    model = wrap(estimator, frame=X[["text"]], config=Config())
    assert model.family == "linear"
    assert set(model.preprocessing.sources) == {0}
    np.testing.assert_allclose(
        model.predict(X[["text"]])[:, 0], estimator.predict_proba(X["text"])[:, 1], rtol=1e-12
    )


# --- refusals


class Ranker(TransformerMixin, BaseEstimator):
    def fit(self, rows, y=None):
        return self

    def transform(self, rows):
        return np.argsort(np.asarray(rows), axis=1)


class Liar(StandardScaler):
    """A scaler by name that adds the first column to the last one."""

    def transform(self, rows):
        derived = super().transform(rows).copy()
        derived[:, -1] += derived[:, 0]
        return derived


Liar.__name__ = "StandardScaler"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (make_pipeline(SimpleImputer(), PCA(2)), "PCA"),
        (make_pipeline(SimpleImputer(), PolynomialFeatures(2)), "PolynomialFeatures"),
        (KNNImputer(), "KNNImputer"),
        (make_pipeline(SimpleImputer(), Normalizer()), "Normalizer"),
        (FunctionTransformer(np.abs), "FunctionTransformer"),
        (Ranker(), "Ranker"),
        (make_union(SimpleImputer(), Ranker()), "Ranker"),
        (make_column_transformer((make_pipeline(SimpleImputer(), PCA(1)), ["age", "debt"])), "PCA"),
        (Liar(), "depends on more than"),
    ],
)
def test_mixed_columns_are_refused_with_the_reason(step, told):
    made, reason = traced(step, NUMBERS)
    assert made is None
    assert told in reason


def test_a_mixing_pipeline_still_answers():
    estimator = make_pipeline(SimpleImputer(), PCA(2), RandomForestClassifier(3)).fit(NUMBERS, FLAG)
    model = wrap(estimator, frame=NUMBERS, config=Config())
    assert (model.family, model.preprocessing) == ("blackbox", None)
    assert "PCA" in model.reason
    np.testing.assert_array_equal(model.predict(NUMBERS)[:, 0], estimator.predict_proba(NUMBERS)[:, 1])


def test_many_columns_are_checked_with_few_transforms():
    wide = pd.DataFrame(RNG.normal(size=(20, 3000)), columns=[f"c{k}" for k in range(3000)])
    calls = []

    class Counting(StandardScaler):
        def transform(self, rows):
            calls.append(1)
            return super().transform(rows)

    Counting.__name__ = "StandardScaler"
    made, reason = trace([Counting().fit(wide)], prepare=lambda rows: rows, frame=wide)
    assert reason is None
    assert made.sources == tuple(range(3000))
    assert len(calls) <= 2 * 12 + 2


def test_nothing_is_changed():
    before = X.copy(deep=True)
    estimator = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(), ["size", "city"]), (SimpleImputer(copy=False), ["age", "debt"])
        ),
        LogisticRegression(),
    ).fit(X.copy(), FLAG)
    model = wrap(estimator, frame=X, config=Config())
    model.respond(X)
    model.preprocessing.transform(X)
    pd.testing.assert_frame_equal(X, before)


def test_global_output_configuration_is_followed():
    set_config(transform_output="pandas")
    try:
        estimator = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(NUMBERS, FLAG)
        model = wrap(estimator, frame=NUMBERS, config=Config())
        assert isinstance(model.preprocessing.transform(NUMBERS), pd.DataFrame)
        assert model.preprocessing.sources == (0, 1, 2)
    finally:
        set_config(transform_output="default")


@pytest.mark.parametrize("row", [0, 45, 89])
def test_rows_that_a_step_does_not_take_are_said_by_the_model_wherever_they_stand(row: int):
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(X[["size"]], FLAG)
    given = X[["size"]].copy()
    given.loc[row, "size"] = "xxl"
    said = (
        r"Pipeline\(LogisticRegression\) raised on \d+ rows \(ValueError: Found unknown categories \['xxl'\]"
    )
    with pytest.raises(PredictionFailed, match=said):
        explain_step.explain(model, given)
