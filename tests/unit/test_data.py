"""to_frame, split_target and subject: same rows from every container, aligned labels, background, caveats."""

from __future__ import annotations

import datetime as dt
import functools

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from explain_step import data, frames
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.models import wrap

N = 40
RNG = np.random.default_rng(5)
NOTHING = Config()


def people() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": np.arange(20.0, 20.0 + N),
            "income": RNG.normal(size=N),
            "region": np.resize(["north", "south", "east"], N),
            "member": np.resize([True, False, False], N),
            "joined": pd.date_range("2020-01-01", periods=N).astype("datetime64[us]"),
            "grade": pd.Categorical(np.resize(["b", "a"], N)),
        }
    )


X = people()
FLAG = pd.Series(np.where(X["age"] > 40, "yes", "no"), name="deny")


@functools.cache
def fitted():
    kept = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["region", "grade"]),
        ("passthrough", ["age", "income", "member"]),
    )
    return wrap(make_pipeline(kept, LogisticRegression(max_iter=2000)).fit(X, FLAG), frame=X, config=NOTHING)


def codes(caveats) -> set[str]:
    return {caveat.code for caveat in caveats}


# --- any table


def sources(tmp_path):
    X.to_parquet(tmp_path / "x.parquet")
    return {
        "pandas": X,
        "polars": pl.from_pandas(X),
        "polars lazy": pl.from_pandas(X).lazy(),
        "polars unordered": pl.from_pandas(X).with_columns(
            pl.col("grade").cast(pl.String).cast(pl.Categorical)
        ),
        "arrow": pa.Table.from_pandas(X),
        "arrow without pandas metadata": pa.Table.from_pandas(X).replace_schema_metadata(None),
        "arrow batch": pa.RecordBatch.from_pandas(X),
        "parquet": tmp_path / "x.parquet",
        "parquet as text": str(tmp_path / "x.parquet"),
        "dict": {name: X[name] for name in X},
        "mlflow": mlflow.data.from_pandas(X),
    }


@pytest.mark.parametrize("cells", [1, 3 * len(X)])
def test_a_parquet_file_of_many_rows_is_read_in_parts_and_the_same(tmp_path, monkeypatch, cells):
    rows = X.assign(**{"a.b": 1, "whole": pd.array([1, None] * (len(X) // 2), dtype="Int64")})
    monkeypatch.setattr(frames, "MANY_ROWS", 10)
    monkeypatch.setattr(frames, "PART_CELLS", cells)
    for stored in (rows, rows.sample(frac=1, random_state=0), rows.set_index(["grade", "age"])):
        stored.attrs["about"] = "rows"
        stored.to_parquet(tmp_path / "x.parquet")
        got, wanted = frames.to_frame(tmp_path / "x.parquet"), pd.read_parquet(tmp_path / "x.parquet")
        pd.testing.assert_frame_equal(got, wanted)
        assert got.attrs == wanted.attrs == {"about": "rows"}


# MLflow's dataset digest calls pandas in a way that pandas 3 warns about
@pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0:Warning")
def test_every_container_gives_the_same_frame_and_the_same_answer(tmp_path):
    model = fitted()
    expected = model.predict(X)
    for name, source in sources(tmp_path).items():
        frame = data.to_frame(source)
        pd.testing.assert_frame_equal(frame, X, obj=name, check_categorical=True)
        made, _ = data.subject(model, source, FLAG, config=NOTHING)
        np.testing.assert_array_equal(made.response.output, expected, err_msg=name)


def test_the_memory_layout_of_the_rows_changes_no_bit():
    values = np.random.default_rng(0).normal(size=(200, 9))
    names = [f"c{k}" for k in range(9)]
    by_row, by_column = (
        pd.DataFrame(values, columns=names),
        pd.DataFrame(dict(zip(names, values.T, strict=True))),
    )
    model = wrap(LinearRegression().fit(by_row, values[:, 0] * 3), frame=by_row, config=NOTHING)
    answers = [
        data.subject(model, source, config=NOTHING)[0].response.output
        for source in (by_row, by_column, by_column[names[::-1]], pl.from_pandas(by_row))
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_dates_and_nullable_columns():
    table = pa.table(
        {
            "day": pa.array([dt.date(2020, 1, 1)] * 2),
            "count": pa.array([1, None]),
            "name": pa.array(["a", None]),
        }
    )
    frame = data.to_frame(table)
    assert frame["day"].dtype.kind == "M"
    assert frame["count"].tolist()[0] == 1.0
    assert frame["name"].isna().tolist() == [False, True]


def test_arrays_records_series_and_sparse():
    assert data.to_frame(np.zeros((2, 2))).columns.tolist() == ["x0", "x1"]
    mixed = data.to_frame(np.array([[1, "a"], [2, "b"]], dtype=object))
    assert mixed["x0"].dtype == np.int64
    text = data.to_frame(np.array([[1.5, "a"], [2.0, None]], dtype=object))
    assert (text["x0"].dtype, text["x1"].tolist()) == (np.float64, ["a", None])  # as the model was given it
    assert text["x1"].dtype == object
    assert data.to_frame([{"a": 1}, {"a": 2}])["a"].tolist() == [1, 2]
    assert data.to_frame(pd.Series([1.0], name="a")).columns.tolist() == ["a"]
    assert data.to_frame(np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])).columns.tolist() == [
        "a",
        "b",
    ]
    assert data.to_frame(sparse.eye(3).tocsr()).to_numpy().tolist() == np.eye(3).tolist()


def test_csv_and_feather(tmp_path):
    plain = X[["age", "income", "region"]]
    plain.to_csv(tmp_path / "x.csv", index=False)
    plain.to_feather(tmp_path / "x.feather")
    pd.testing.assert_frame_equal(data.to_frame(tmp_path / "x.csv"), plain)
    pd.testing.assert_frame_equal(data.to_frame(tmp_path / "x.feather"), plain)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("age,age,income\n1,2,3\n", "'age' is there twice"),
        ("age,income\n1,2,9\n3,4\n", "more cells than columns"),
        ("age,income\nann,1,2\nbea,3,4\n", "more cells than columns"),
        ("age,income\n0,1,2\n1,3,4\n", "more cells than columns"),
    ],
    ids=["a name twice", "a cell too many", "row names", "row numbers"],
)
def test_a_csv_file_whose_columns_would_be_guessed_is_refused(text, told, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InvalidInput, match=told):
        data.to_frame(tmp_path / "x.csv")


def test_a_comma_at_the_end_of_each_row_moves_no_column(tmp_path):
    (tmp_path / "x.csv").write_text("age,income\n1,2,\n3,4,\n")
    assert data.to_frame(tmp_path / "x.csv").to_dict("list") == {"age": [1, 3], "income": [2, 4]}


def test_a_csv_file_may_have_columns_without_a_name(tmp_path):
    (tmp_path / "x.csv").write_text('\ufeff,"ag,e",\n0,1,2\n', encoding="utf-8")
    assert list(data.to_frame(tmp_path / "x.csv")) == ["Unnamed: 0", "ag,e", "Unnamed: 2"]


@pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0:Warning")
def test_an_mlflow_dataset_brings_its_target():
    named = mlflow.data.from_pandas(X.assign(deny=FLAG), targets="deny")
    frame, labels, name = data.split_target(data.to_frame(named), None)
    assert ("deny" in frame.columns, name, labels.tolist()) == (False, "deny", FLAG.tolist())
    arrays = mlflow.data.from_numpy(np.ones((3, 2)), targets=np.array([0, 1, 0]))
    frame, labels, _ = data.split_target(data.to_frame(arrays), None)
    assert (frame.columns.tolist(), labels.tolist()) == (["x0", "x1"], [0, 1, 0])


# --- target


def test_a_named_target_leaves_the_frame():
    frame, labels, name = data.split_target(X.assign(deny=FLAG), "deny")
    assert "deny" not in frame.columns
    assert (labels.tolist(), name) == (FLAG.tolist(), "deny")
    made, _ = data.subject(fitted(), X.assign(deny=FLAG), "deny", config=NOTHING)
    assert "deny" not in made.frame.columns
    assert (made.target_name, made.y.tolist()) == ("deny", FLAG.tolist())


@pytest.mark.parametrize(
    "labels",
    [
        FLAG,
        FLAG.to_numpy(),
        FLAG.tolist(),
        FLAG.astype("category"),
        FLAG.astype("string"),
        FLAG.to_frame(),
        pl.Series("deny", FLAG.tolist()),
        pa.array(FLAG.tolist()),
        FLAG.to_numpy().reshape(-1, 1),
    ],
    ids=["series", "array", "list", "category", "string", "frame", "polars", "arrow", "column"],
)
def test_every_kind_of_labels(labels):
    made, _ = data.subject(fitted(), X, labels, config=NOTHING)
    assert made.y.tolist() == FLAG.tolist()
    assert made.target_name in ("deny", "")


def test_labels_have_the_type_of_the_classes():
    numbers = X[["age", "income"]]
    for target in ((X["age"] > 40), (X["age"] > 40).astype(int), (X["age"] > 40).astype(float)):
        estimator = LogisticRegression(max_iter=2000).fit(numbers, target)
        model = wrap(estimator, frame=numbers, config=NOTHING)
        made, _ = data.subject(model, numbers, target.astype("int8"), config=NOTHING)
        assert made.y.dtype == made.response.label.dtype
        assert (made.y == made.response.label).mean() > 0.9


def test_labels_are_aligned_by_position_but_not_against_the_index():
    rows = X.sample(frac=1, random_state=0)
    made, _ = data.subject(fitted(), rows, FLAG.loc[rows.index], config=NOTHING)
    assert made.y.tolist() == FLAG.loc[rows.index].tolist()
    by_position, _ = data.subject(fitted(), rows, FLAG.to_numpy(), config=NOTHING)
    assert by_position.y.tolist() == FLAG.tolist()
    with pytest.raises(InvalidInput, match=r"y must be in the order of X.*y\.loc\[X\.index\]"):
        data.subject(fitted(), rows, FLAG, config=NOTHING)
    frame, labels, _ = data.split_target(rows, FLAG.to_numpy())
    assert data.subject(fitted(), frame, labels, config=NOTHING)[0].y.tolist() == FLAG.tolist()


def test_regression_targets_name_the_outputs():
    numbers = X[["age", "income"]]
    model = wrap(LinearRegression().fit(numbers, numbers["age"]), frame=numbers, config=NOTHING)
    made, _ = data.subject(model, numbers, pd.Series(numbers["age"], name="rent"), config=NOTHING)
    assert made.model.output_names == ("rent",)
    pair = pd.DataFrame({"rent": numbers["age"], "tax": numbers["income"]})
    model = wrap(LinearRegression().fit(numbers, pair), frame=numbers, config=NOTHING)
    made, _ = data.subject(model, numbers, pair, config=NOTHING)
    assert made.model.output_names == ("rent", "tax")
    assert made.y.shape == (N, 2)


# --- rows


def test_rows_keep_their_identity_and_their_other_columns():
    rows = X.set_index(pd.Index([f"loan-{k}" for k in range(N)]))[X.columns[::-1]].assign(extra=1)
    made, _ = data.subject(fitted(), rows, config=NOTHING)
    assert made.row_ids[3] == "loan-3"
    assert made.X.columns.tolist() == list(fitted().feature_names)
    assert isinstance(made.X.index, pd.RangeIndex)
    assert "extra" in made.frame.columns
    assert data.subject(fitted(), X, config=NOTHING)[0].row_ids[:2].tolist() == ["0", "1"]
    filtered, _ = data.subject(fitted(), X[X["age"] > 50], config=NOTHING)
    assert filtered.row_ids[0] == "31"
    twice = pd.concat([X, X])
    ids = data.subject(fitted(), twice, config=NOTHING)[0].row_ids.tolist()
    assert len(set(ids)) == 2 * N


def test_nothing_given_is_changed():
    rows, labels, weights = X.copy(deep=True), FLAG.copy(deep=True), np.ones(N)
    reference = people().assign(grade=pd.Categorical(["c"] * N))
    kept = reference.copy(deep=True)
    data.subject(fitted(), rows, labels, config=NOTHING, background=reference, sample_weight=weights)
    pd.testing.assert_frame_equal(rows, X)
    pd.testing.assert_series_equal(labels, FLAG)
    pd.testing.assert_frame_equal(reference, kept)
    assert weights.tolist() == [1.0] * N


def test_dtypes_are_kept():
    numbers = pd.DataFrame(
        {
            "a": pd.array([1, None, 3, 4], dtype="Int64"),
            "b": pd.array([True, None, False, True], dtype="boolean"),
        }
    )
    numbers["c"] = pd.array([1.5, None, 2.5, 1.0], dtype="Float64")
    estimator = HistGradientBoostingClassifier(max_iter=3).fit(numbers.astype(float), [0, 1, 0, 1])
    made, _ = data.subject(wrap(estimator, frame=numbers, config=NOTHING), numbers, config=NOTHING)
    assert [str(dtype) for dtype in made.X.dtypes] == ["Int64", "boolean", "Float64"]


# --- background


def test_without_a_background_the_rows_are_compared_with_themselves():
    made, caveats = data.subject(fitted(), X, config=NOTHING)
    pd.testing.assert_frame_equal(made.background, made.X)
    assert made.background_name == "the 40 explained rows themselves"
    assert {c.code: c.degrades for c in caveats}["background_is_sample"] is False


def test_a_background_has_the_models_columns_and_the_rows_dtypes(tmp_path):
    reference = pd.concat([people()] * 30)[X.columns[::-1]].assign(deny="no")
    reference.to_parquet(tmp_path / "train.parquet")
    for given in (reference, tmp_path / "train.parquet", pl.from_pandas(reference)):
        made, caveats = data.subject(fitted(), X, config=NOTHING, background=given)
        assert made.background_name == "1,200 background rows"
        assert made.background.columns.tolist() == made.X.columns.tolist()
        assert made.background.dtypes.tolist() == made.X.dtypes.tolist()
        assert "background_is_sample" not in codes(caveats)


def test_category_levels_are_joined_without_moving_codes():
    rows = X.assign(grade=pd.Categorical(np.resize(["b", "a"], N), categories=["b", "a"]))
    reference = X.assign(grade=pd.Categorical(np.resize(["c", "a"], N)))
    made, _ = data.subject(fitted(), rows, config=NOTHING, background=reference)
    assert made.X["grade"].cat.categories.tolist() == ["b", "a", "c"]
    assert made.X["grade"].dtype == made.background["grade"].dtype
    assert made.X["grade"].astype(str).tolist() == rows["grade"].astype(str).tolist()
    assert made.background["grade"].astype(str).tolist() == reference["grade"].astype(str).tolist()
    texts, _ = data.subject(fitted(), rows, config=NOTHING, background=X.assign(grade=["c"] * N))
    assert texts.background["grade"].astype(str).tolist() == ["c"] * N


def test_number_and_text_dtypes_meet():
    rows = X.assign(age=X["age"].astype(int), region=X["region"].astype(object))
    reference = X.assign(age=X["age"] + 0.5, region=X["region"].astype("string"))
    made, _ = data.subject(fitted(), rows, config=NOTHING, background=reference)
    assert made.background["age"].tolist() == (X["age"] + 0.5).tolist()
    assert made.X.dtypes.tolist() == made.background.dtypes.tolist()
    with pytest.raises(InvalidInput, match=r"column 'age' is .* in X and .* in the background"):
        data.subject(fitted(), X, config=NOTHING, background=X.assign(age="old"))


# --- weights


def test_weights_by_array_and_by_name():
    made, _ = data.subject(fitted(), X.assign(w=2.0), config=NOTHING, sample_weight="w")
    assert made.weights.tolist() == [2.0] * N
    made, _ = data.subject(fitted(), X, config=NOTHING, sample_weight=range(N))
    assert made.weights.tolist() == list(map(float, range(N)))


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (np.full(N, -1.0), r"not negative.*got -1\.0"),
        (np.full(N, np.nan), "finite.*got nan"),
        (np.zeros(N), "all of them are zero"),
        (np.ones(N - 1), r"one entry per row of X \(40\), got 39"),
        (["a"] * N, "must be numbers"),
        ("weigth", "no column 'weigth'"),
        (3.0, "a single value"),
    ],
)
def test_weights_that_are_refused(weights, told):
    with pytest.raises(InvalidInput, match=f"sample_weight.*{told}"):
        data.subject(fitted(), X, config=NOTHING, sample_weight=weights)


# --- caveats


def test_columns_that_the_model_does_not_read_are_named():
    X = pd.DataFrame({"a": [1.0, 2.0, 4.0], "branch": ["x", "y", "x"]})
    model = wrap(LinearRegression().fit(X[["a"]], [1.0, 2.0, 3.0]), frame=X, config=NOTHING)
    _, caveats = data.subject(model, X, config=NOTHING)
    (said,) = [c for c in caveats if c.code == "columns_not_read"]
    assert "'branch'" in said.message
    assert "'a'" not in said.message
    assert not said.degrades
    assert "columns_not_read" not in codes(data.subject(model, X[["a"]], config=NOTHING)[1])


def test_caveats_of_degenerate_data():
    model = wrap(
        lambda rows: np.nan_to_num(rows["a"]) * 1.5, frame=pd.DataFrame({"a": [1.0]}), config=NOTHING
    )
    one, caveats = data.subject(model, pd.DataFrame({"a": [2.5]}), config=NOTHING)
    assert {c.code for c in caveats if c.degrades} == {"single_row"}
    assert len(one.X) == 1
    _, caveats = data.subject(model, pd.DataFrame({"a": [np.nan] * 3}), config=NOTHING)
    assert "empty_columns" in {c.code for c in caveats if c.degrades}
    constant = pd.DataFrame({"a": [1.0] * 3})
    _, caveats = data.subject(model, constant, config=NOTHING)
    assert "constant_columns" in {c.code for c in caveats if c.degrades}
    _, caveats = data.subject(model, constant, config=NOTHING, background=pd.DataFrame({"a": [1.0, 2.0]}))
    assert "constant_columns" in {c.code for c in caveats if not c.degrades}


def test_few_rows_with_a_weight_degrade():
    """Two rows of forty counted, and the snapshot was complete."""
    for counted, expected in ((2, {"few_weighted_rows": True}), (40, {})):
        weights = (np.arange(N) < counted).astype(float)
        _, caveats = data.subject(fitted(), X, config=NOTHING, background=X, sample_weight=weights)
        assert {c.code: c.degrades for c in caveats if c.degrades} == expected


def test_one_class_in_the_labels_degrades():
    _, caveats = data.subject(fitted(), X, ["yes"] * N, config=NOTHING)
    assert [c.message for c in caveats if c.degrades] == [
        "All labels are 'yes': performance cannot be judged; give rows of every class."
    ]


def test_infinite_values_that_the_model_accepts_are_said():
    model = wrap(lambda rows: np.tanh(rows["a"]), frame=pd.DataFrame({"a": [1.0]}), config=NOTHING)
    _, caveats = data.subject(model, pd.DataFrame({"a": [1.0, np.inf]}), config=NOTHING)
    assert "infinite_values" in codes(caveats)


def test_answers_that_change_from_call_to_call_degrade():
    rng = np.random.default_rng(0)
    noisy = wrap(lambda rows: rng.normal(size=len(rows)), frame=X, config=NOTHING)
    assert "prediction_not_repeatable" in codes(data.subject(noisy, X, config=NOTHING)[1])
    ranked = wrap(lambda rows: rows["age"].rank() + 0.5, frame=X, config=NOTHING)
    assert "prediction_not_repeatable" in codes(data.subject(ranked, X, config=NOTHING)[1])
    steady = wrap(lambda rows: rows["age"] + 0.5, frame=X, config=NOTHING)
    assert "prediction_not_repeatable" not in codes(data.subject(steady, X, config=NOTHING)[1])


def test_a_frame_like_object_with_the_arrow_interface():
    table = pa.table({"a": [1, 2]})

    class Carrier:
        def __arrow_c_stream__(self, requested_schema=None):
            return table.__arrow_c_stream__(requested_schema)

    assert data.to_frame(Carrier())["a"].tolist() == [1, 2]
