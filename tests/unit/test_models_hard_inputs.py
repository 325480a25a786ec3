"""Six inputs on which explanations commonly go wrong: labels explained as numbers, or nothing at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import explain_step
from explain_step import data, model_families
from explain_step.config import Config
from explain_step.models import wrap

N = 300
RNG = np.random.default_rng(3)
X = pd.DataFrame(RNG.normal(size=(N, 3)), columns=["a", "b", "c"])
FLAG = (X["a"] + 0.3 * RNG.normal(size=N) > 0).astype(int)
THREE = pd.Series(np.digitize(X["a"] + X["b"], [-0.7, 0.7]))
NOTHING = Config()


def is_continuous(values: np.ndarray) -> bool:
    return len(np.unique(values)) > 50 and bool((values >= 0).all()) and bool((values <= 1).all())


def test_a_binary_pipeline_is_explained_by_probability_not_by_label():
    model = wrap(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, FLAG), frame=X, config=NOTHING)
    assert is_continuous(model.predict(X))
    assert model.output_space == "probability"


def test_renaming_classes_changes_no_number():
    renamed = THREE.map({0: 0, 1: 2, 2: 1})
    outputs = []
    for labels, order in ((THREE, [0, 1, 2]), (renamed, [0, 2, 1])):
        estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-8)).fit(
            X, labels
        )
        outputs.append(wrap(estimator, frame=X, config=NOTHING).predict(X)[:, order])
    assert all(is_continuous(outputs[0][:, k]) for k in range(3))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_text_labels():
    labels = FLAG.map({0: "denied", 1: "granted"})
    model = wrap(LogisticRegression().fit(X, labels), frame=X, config=NOTHING)
    made, _ = data.subject(model, X, labels, config=NOTHING)
    assert made.y.tolist() == labels.tolist()
    assert is_continuous(made.response.output)


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_text_columns_of_every_dtype(dtype):
    frame = X.assign(region=pd.Series(np.resize(["north", "south"], N)).astype(dtype))
    encode = make_column_transformer((OneHotEncoder(), ["region"]), remainder="passthrough")
    model = wrap(make_pipeline(encode, LogisticRegression()).fit(frame, FLAG), frame=frame, config=NOTHING)
    made, _ = data.subject(model, frame, FLAG, config=NOTHING)
    assert made.X["region"].dtype == frame["region"].dtype
    assert is_continuous(made.response.output)


def test_a_missing_object_stays_the_object_in_mixed_rows(tmp_path):
    """pandas 3 reads an array of text and None as its string type, with NaN: a model that knows None answered otherwise."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=200), "k": pd.Series(rng.choice(["u", "v", None], 200), dtype=object)}
    )
    seen = set()

    def share(rows):
        seen.update((rows["k"].dtype, type(value)) for value in rows["k"])
        return 0.2 * np.tanh(rows["a"].to_numpy()) + 0.3 + 0.4 * np.array([v is None for v in rows["k"]])

    shot = explain_step.explain(share, frame, task="regression", directory=tmp_path, top_features=1)
    assert seen == {(np.dtype(object), str), (np.dtype(object), type(None))}
    none = frame["k"].isna().to_numpy()
    effects = shot.tables["importance"].set_index("feature")["mean_abs_shap"]
    assert effects["k"] == pytest.approx(0.4 * 2 * none.mean() * (1 - none.mean()), rel=1e-6)


def test_missing_values_reach_a_model_that_takes_them():
    frame = X.copy()
    frame.loc[::3, "a"] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=20).fit(frame, FLAG)
    made, _ = data.subject(wrap(estimator, frame=frame, config=NOTHING), frame, FLAG, config=NOTHING)
    assert made.X["a"].isna().sum() == 100
    np.testing.assert_array_equal(made.response.output[:, 0], estimator.predict_proba(frame)[:, 1])


def test_a_multiclass_model_has_one_column_of_probabilities_per_class():
    model = wrap(HistGradientBoostingClassifier(max_iter=5).fit(X, THREE), frame=X, config=NOTHING)
    assert model.output_names == ("0", "1", "2")
    np.testing.assert_allclose(model.predict(X).sum(axis=1), 1)


@pytest.mark.parametrize("error", [NotImplementedError, ValueError, AttributeError])
def test_a_property_that_raises_is_an_attribute_that_is_not_there(error: type[Exception]) -> None:
    class Wrapper:
        @property
        def classes_(self) -> list[int]:
            raise error

    assert model_families.fitted(Wrapper(), "classes_") is None
