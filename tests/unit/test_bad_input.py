"""Bad input: each gets a clear error that names argument, rule, value and remedy, or a named caveat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from explain_step import data
from explain_step.artifacts import Builder
from explain_step.compute import compute, judge
from explain_step.config import Config
from explain_step.config import load as load_config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.models import wrap
from explain_step.privacy import told

N = 30
X = pd.DataFrame(np.random.default_rng(6).normal(size=(N, 3)), columns=["age", "income", "debt"])
FLAG = np.where(X["income"] > 0, "yes", "no")
NUMBER = (FLAG == "yes").astype(int)
NOTHING = Config()
HOSTILE = (
    "😀 age",
    "100%",
    "two\nlines",
    "../../x",
    "<script>alert(1)</script>",
    "n" * 300,
    "$a_1$",
    "",
    " ",
)


def logistic(target=FLAG):
    return wrap(LogisticRegression().fit(X, target), frame=X, config=NOTHING)


# --- frames


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (X.iloc[:0], "at least one row"),
        (X[[]], "at least one column"),
        (X[["age", "age"]], r"unique, got 'age' more than once"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), r"unique, got '1'"),
        (np.zeros(3), r"two dimensions.*shape \(3,\).*reshape"),
        (np.zeros((2, 2, 2)), "two dimensions"),
        (3, "got int"),
        (None, "got NoneType"),
        ([1, 2], "got list"),
        ("nowhere.parquet", r"no file 'nowhere\.parquet'"),
    ],
)
def test_tables_that_are_refused(source, told):
    with pytest.raises(InvalidInput, match=f"(?s)X.*{told}"):
        data.to_frame(source)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"'rows\.xlsx'; convert it first"):
        data.to_frame(tmp_path / "rows.xlsx")


def test_missing_columns_are_named_with_the_near_ones():
    with pytest.raises(InvalidInput, match=r"'income' is missing.*Did you mean 'incone' for 'income'\?"):
        wrap(LogisticRegression().fit(X, FLAG), frame=X.rename(columns={"income": "incone"}), config=NOTHING)
    with pytest.raises(InvalidInput, match=r"'age', 'income', 'debt' are missing among 'x0', 'x1', 'x2'"):
        wrap(LogisticRegression().fit(X, FLAG), frame=data.to_frame(X.to_numpy()), config=NOTHING)
    with pytest.raises(InvalidInput, match=r"Argument background .*'debt' is missing"):
        data.subject(logistic(), X, config=NOTHING, background=X[["age", "income"]])


def test_extra_columns_need_names():
    with pytest.raises(
        InvalidInput, match=r"exactly the 3 columns.*does not know their names; got 4 columns"
    ):
        wrap(LogisticRegression().fit(X.to_numpy(), FLAG), frame=X.assign(more=1), config=NOTHING)


@pytest.mark.parametrize("privacy", ["standard", "strict"])
def test_text_where_numbers_were_is_told_with_its_column(privacy):
    told = r"predict_proba of LogisticRegression raised on 8 rows \(ValueError.*; the rows have text in 'age'; give rows"
    with pytest.raises(PredictionFailed, match=told):
        wrap(LogisticRegression().fit(X, FLAG), frame=X.assign(age="old"), config=Config(privacy=privacy))


def test_of_several_text_columns_the_one_that_the_error_quotes_is_told():
    data = X.assign(region=np.where(FLAG == 1, "north", "south"))
    encode = make_column_transformer((OneHotEncoder(), ["region"]), remainder=StandardScaler())
    model = make_pipeline(encode, LogisticRegression()).fit(data, FLAG)
    with pytest.raises(PredictionFailed, match=r"'high'\); the rows have text in 'debt'; give rows"):
        wrap(model, frame=data.assign(debt="high"), config=NOTHING)


def test_hostile_column_names_are_names():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(N, len(HOSTILE))), columns=list(HOSTILE))
    model = wrap(DecisionTreeClassifier().fit(frame, FLAG), frame=frame, config=NOTHING)
    made, _ = data.subject(model, frame, FLAG, config=NOTHING)
    assert made.model.feature_names == HOSTILE
    assert made.X.columns.tolist() == list(HOSTILE)


def test_five_thousand_columns():
    wide = pd.DataFrame(
        np.random.default_rng(0).normal(size=(N, 5000)), columns=[f"c{k}" for k in range(5000)]
    )
    model = wrap(DecisionTreeClassifier(max_depth=2).fit(wide, FLAG), frame=wide, config=NOTHING)
    made, _ = data.subject(model, wide, FLAG, config=NOTHING, background=wide.astype("float32"))
    assert made.X.shape == made.background.shape == (N, 5000)


@given(names=st.lists(st.text(max_size=30), min_size=1, max_size=6, unique=True))
@settings(max_examples=25, deadline=None)
def test_any_text_is_a_column_name(names):
    frame = pd.DataFrame(np.arange(4.0 * len(names)).reshape(4, -1), columns=pd.Index(names, dtype=object))
    model = wrap(LinearRegression().fit(frame, np.arange(4.0)), frame=frame, config=NOTHING)
    made, _ = data.subject(model, frame, config=NOTHING)
    assert list(made.model.feature_names) == names


# --- labels


@pytest.mark.parametrize(
    ("target", "labels", "told"),
    [
        (FLAG, ["maybe", *FLAG[1:]], r"'no', 'yes'.*'maybe'"),
        (NUMBER, NUMBER.astype(str), r"'[01]' is str, the class [01] is int; convert y \(y\.astype\(int\)\)"),
        (NUMBER.astype(str), NUMBER, r"convert y \(y\.astype\(str\)\)"),
        (FLAG, [None, *FLAG[1:]], "missing values, got 1"),
        (NUMBER, [np.nan, *NUMBER[1:].astype(float)], "missing values, got 1"),
        (FLAG, FLAG[:-1], "one entry per row of X .30., got 29"),
        (FLAG, "yes", "no column 'yes'"),
        (FLAG, "incme", r"no column 'incme'.*Did you mean 'income'\?"),
        (FLAG, np.column_stack([FLAG, FLAG]), "one label per row"),
        (FLAG, {"a": 1}, "got a dict"),
    ],
)
def test_labels_that_are_refused(target, labels, told):
    with pytest.raises(InvalidInput, match=f"Argument y.*{told}"):
        data.subject(logistic(target), X, labels, config=NOTHING)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (FLAG, "must be numbers"),
        (np.full(N, np.inf), "finite, got 30"),
        (np.full(N, np.nan), "missing values, got 30"),
        (np.zeros((N, 2)), r"one column per output of the model \(1\), got 2"),
    ],
)
def test_regression_targets_that_are_refused(labels, told):
    model = wrap(LinearRegression().fit(X, X["age"]), frame=X, config=NOTHING)
    with pytest.raises(InvalidInput, match=f"Argument y.*{told}"):
        data.subject(model, X, labels, config=NOTHING)


def test_labels_of_a_callable_need_class_names():
    def both(rows):
        p = 1 / (1 + np.exp(-rows["income"]))
        return np.column_stack([1 - p, p])

    with pytest.raises(
        InvalidInput, match="name the classes in the order of the probability columns with class_names"
    ):
        data.subject(wrap(both, frame=X, config=NOTHING), X, FLAG, config=NOTHING)
    named = Config(class_names=("no", "yes"))
    assert (
        data.subject(wrap(both, frame=X, config=named), X, FLAG, config=named)[0].y.tolist() == FLAG.tolist()
    )


def test_the_target_cannot_be_all_there_is():
    with pytest.raises(InvalidInput, match="columns beside the target 'age'"):
        data.split_target(X[["age"]], "age")


# --- models that fail


def test_a_model_that_raises():
    def broken(rows):
        msg = "no connection to the feature store"
        raise RuntimeError(msg)

    with pytest.raises(PredictionFailed, match="RuntimeError: no connection to the feature store") as caught:
        wrap(broken, frame=X, config=NOTHING)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_model_that_raises_later():
    class Picky(LogisticRegression):
        def predict_proba(self, rows):
            if (np.asarray(rows["age"]) > 9).any():
                msg = "age is out of range"
                raise ValueError(msg)
            return super().predict_proba(rows)

    model = wrap(Picky().fit(X, FLAG), frame=X, config=NOTHING)
    with pytest.raises(PredictionFailed, match=r"raised on 30 rows \(ValueError: age is out of range\)"):
        data.subject(model, X.assign(age=10.0), config=NOTHING)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number(value):
    model = wrap(lambda rows: np.where(rows["age"] > 9, value, 0.5), frame=X, config=NOTHING)
    rows = X.copy()
    rows.loc[[3, 7], "age"] = 10.0
    with pytest.raises(PredictionFailed, match=r"NaN or infinity for 2 of 30 rows \(first: row 3\)"):
        data.subject(model, rows, config=NOTHING)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda rows: 1.5, "one number per row, got float"),
        (lambda rows: [0.1, 0.2], "got 2 entries for 30 rows"),
        (lambda rows: np.zeros((len(rows), 2, 2)), "one or two dimensions"),
        (lambda rows: None, "got NoneType"),
    ],
)
def test_an_answer_of_the_wrong_shape(call, told):
    with pytest.raises(PredictionFailed, match=told):
        wrap(call, frame=X, config=NOTHING)


def test_infinite_and_missing_values_that_the_model_refuses_are_named():
    rows = X.copy()
    rows.loc[4, "debt"] = np.inf
    rows.loc[5, "income"] = np.nan
    with pytest.raises(PredictionFailed, match=r"infinite values in 'debt' and missing values in 'income'"):
        data.subject(logistic(), rows, config=NOTHING)


def test_probabilities_outside_their_range():
    class Odd(LogisticRegression):
        def predict_proba(self, rows):
            return super().predict_proba(rows) + np.array([-2.0, 2.0])

    with pytest.raises(PredictionFailed, match=r"must lie in \[0, 1\]; 8 of 8 rows"):
        wrap(Odd().fit(X, FLAG), frame=X, config=NOTHING)


def test_a_label_the_model_does_not_list():
    class Odd(LogisticRegression):
        def predict(self, rows):
            return np.full(len(rows), "perhaps")

    with pytest.raises(PredictionFailed, match=r"label 'perhaps'.*'no', 'yes'"):
        wrap(Odd().fit(X, FLAG), frame=X, config=NOTHING)


# --- odd values


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([[1]] * N, "column 'odd' holds lists"),
        ([{"a": 1}] * N, "column 'odd' holds dicts"),
        (np.full(N, 1j), "column 'odd' is complex128"),
    ],
)
def test_cells_that_are_no_single_real_value(cells, told):
    rows = X.assign(odd=cells)
    with pytest.raises(InvalidInput, match=f"Argument X must hold .*{told}; give .* a callable"):
        compute(lambda given: given["age"], rows, config=NOTHING)
    tree = DecisionTreeClassifier(max_depth=2).fit(X, FLAG)
    assert data.subject(wrap(tree, frame=rows, config=NOTHING), rows, FLAG, config=NOTHING)[0].X.shape == (
        N,
        3,
    )


def test_column_names_that_cannot_be_written():
    rows = X.set_axis(pd.Index(["a\ud800", "b", "c"], dtype=object), axis=1)
    with pytest.raises(InvalidInput, match=r"names of argument X must be valid text, got 'a\\ud800'"):
        compute(lambda given: given["b"], rows, config=NOTHING)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "int64[pyarrow]"])
def test_nullable_columns_with_missing_values_have_every_section(dtype):
    rows = pd.concat([X] * 4, ignore_index=True)
    rows["kind"] = pd.array([1, 0, None] * 40, dtype=dtype)
    seen, fill = set(), True if dtype == "boolean" else 1

    def score(given):
        seen.add(str(given["kind"].dtype))
        return given["age"] + given["kind"].fillna(fill).astype(float)

    found = compute(score, rows, rows["age"], config=Config(segments=("kind",), top_features=2))
    assert judge(found) == ("complete", "every required section is present")
    assert seen == {str(rows["kind"].dtype)}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.full(N, 1j), "complex128"),
        (pd.date_range("2024", periods=N), "datetime64"),
        (np.full(N, 1e200), r"within 1e\+38, got 1e\+200; rescale"),
        (FLAG, "values like '(yes|no)' .*task='binary'"),
    ],
)
def test_targets_that_are_no_real_numbers(labels, told):
    with pytest.raises(InvalidInput, match=f"Argument y must .*{told}"):
        compute(lambda given: given["age"], X, labels, config=NOTHING)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (np.ones((N, 2)), r"got shape \(30, 2\); give one column"),
        (np.full(N, 1j), "got complex128; convert them to float"),
        (["a"] * N, "convert them to float"),
        (np.zeros(N), "all of them are zero; give weights from 0 up"),
    ],
)
def test_weights_that_are_refused(weights, told):
    with pytest.raises(InvalidInput, match=f"Argument sample_weight must be .*{told}"):
        data.subject(logistic(), X, FLAG, config=NOTHING, sample_weight=weights)


@pytest.mark.parametrize("scale", [1e-320, 1e308])
def test_weights_count_by_their_ratios(scale):
    ratios = np.where(X["age"] > 0, 1.0, 0.5)
    given = data.subject(logistic(), X, FLAG, config=NOTHING, sample_weight=scale * ratios)[0].weights
    np.testing.assert_allclose(given, ratios, rtol=1e-3)


def test_a_class_without_labels_is_named():
    three = np.where(X["age"] > 0.5, "high", FLAG)
    model = wrap(DecisionTreeClassifier().fit(X, three), frame=X, config=NOTHING)
    said = {c.code: c for c in data.subject(model, X, FLAG, config=NOTHING)[1]}
    assert "No label that counts is 'high'" in said["absent_classes"].message
    weighted = data.subject(logistic(), X, FLAG, config=NOTHING, sample_weight=(FLAG == "yes") * 1.0)[1]
    (one,) = [c for c in weighted if c.code == "single_class_y"]
    assert one.degrades
    assert "rows with a positive weight are 'yes'" in one.message


@pytest.mark.parametrize(
    ("low", "high", "task", "told"),
    [
        *((0.0, 1.0, None, True), (0.0, 1.0, "regression", False)),
        *((0.0, 1.2, None, False), (0.0, 1.0, "binary", False)),
    ],
)
def test_a_probability_that_is_taken_for_a_regression_is_told(low, high, task, told):
    def predict(rows):
        return np.clip(rows["age"].to_numpy(), low, high)

    config = Config(task=task)
    model = wrap(predict, frame=X, config=config)
    found = [
        c
        for c in data.subject(model, X, (FLAG == "yes") * 1, config=config)[1]
        if c.code == "two_valued_target"
    ]
    assert [("task='binary'" in c.message, c.degrades) for c in found] == [(True, False)] * told


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosters_that_were_not_fitted(library):
    booster = pytest.importorskip(library)
    for name in [
        n for n in ("XGBRegressor", "XGBClassifier", "LGBMRegressor", "LGBMClassifier") if hasattr(booster, n)
    ]:
        with pytest.raises(InvalidInput, match=f"Argument model must be fitted, but {name} is not"):
            wrap(getattr(booster, name)(), frame=X, config=NOTHING)


def test_answers_in_other_containers():
    from scipy import sparse

    def masked(given):
        return np.ma.masked_array(given["age"], mask=given["age"] > 0)

    with pytest.raises(PredictionFailed, match="finite numbers, but returned NaN"):
        wrap(masked, frame=X, config=NOTHING)
    column = wrap(lambda given: sparse.csr_matrix(given[["age"]].to_numpy()), frame=X, config=NOTHING)
    np.testing.assert_array_equal(column.predict(X)[:, 0], X["age"])
    with pytest.raises(PredictionFailed, match=r"within 1e\+38, got .*; rescale the target"):
        wrap(lambda given: given["age"] * 1e200, frame=X, config=NOTHING)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"age": "A", "debt": "A"}, "'A' for 'age' and 'debt'; name them apart"),
        ({"age": " "}, "got ' ' for 'age'"),
    ],
)
def test_labels_that_a_reader_cannot_tell_apart(labels, told):
    with pytest.raises(InvalidInput, match=f"Option feature_labels must give .*{told}"):
        data.subject(logistic(), X, FLAG, config=Config(feature_labels=labels))


def test_rows_in_lists_and_metrics_named_twice():
    with pytest.raises(InvalidInput, match=r"got list; give numpy\.asarray\(rows\)"):
        data.to_frame(X.to_numpy().tolist())
    table = next(
        a.table
        for a in compute(
            LogisticRegression().fit(X, FLAG), X, FLAG, config=Config(metrics=("f1", "f1"))
        ).artifacts
        if a.name == "performance"
    )
    assert table["metric"].tolist() == ["f1"]


def test_a_config_file_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"segments": "age"}')
    assert load_config(tmp_path / "a.json", {})[0].segments == ("age",)


@pytest.mark.parametrize("strict", [False, True])
def test_rows_are_not_blamed_where_no_memory_is_left(strict: bool, monkeypatch) -> None:
    model = LinearRegression().fit(X, NUMBER)

    def exhausted(self, frame) -> None:
        raise MemoryError

    monkeypatch.setattr(LinearRegression, "predict", exhausted)
    with pytest.raises(MemoryError) as raised:
        compute(model, X, NUMBER, config=NOTHING)
    said = told(raised.value, config=Config(privacy="strict") if strict else NOTHING)
    assert said == "MemoryError: no memory is left; explain fewer rows, or give the process more memory"


def test_a_long_error_of_a_section_ends_at_a_word():
    def build(*_: object, **__: object) -> None:
        raise RuntimeError("many words " * 90)

    said = compute(
        lambda rows: rows["age"],
        X,
        config=NOTHING,
        builders=(Builder(name="mine", required=False, build=build),),
    ).missing["mine"]
    assert said.startswith("failed with RuntimeError: many words")
    assert said.rsplit(" ", 2)[1:] in (["many", "\u2026"], ["words", "\u2026"])
    assert len(said) <= 400
