"""Arguments that an outsider tried: each is refused by name, or its loss is said in the status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from explain_step import config as config_room
from explain_step.compute import compute, judge
from explain_step.config import Config
from explain_step.errors import InvalidInput, MissingDependency, PredictionFailed, require
from explain_step.frames import to_frame

rng = np.random.default_rng(0)
X = pd.DataFrame(rng.normal(size=(120, 3)), columns=["income", "debt", "age"])
Y = pd.Series(np.where(X["income"] + rng.normal(size=120) > 0, "yes", "no"), name="deny")
MODEL = LogisticRegression().fit(X, Y)


def test_redact_of_an_unknown_column_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InvalidInput, match=r"redact .*'incme'; did you mean 'income'"):
        compute(MODEL, X, Y, config=Config(redact=("incme",)))


@pytest.mark.parametrize("segments", [("income > 100",), (("income", "debt", "age"),)])
def test_declared_segments_without_anything_to_show_degrade(segments: Any) -> None:
    status, reason = judge(compute(MODEL, X, Y, config=Config(segments=segments, top_features=1)))
    assert status == "degraded"
    assert "income" in reason


def test_one_weighted_row_costs_no_section() -> None:
    weights = np.zeros(len(X))
    weights[0] = 1.0
    found = compute(MODEL, X, Y, config=Config(top_features=1), sample_weight=weights)
    assert "importance" not in found.missing
    assert judge(found)[0] == "degraded"


@pytest.mark.parametrize(
    ("name", "content"), [("a.yaml", b"a: [1"), ("a.json", b"{"), ("b.yaml", b"\xff\xfe\x00")]
)
def test_broken_config_files_are_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=f"Argument config must be a YAML or JSON file; .*{name}"):
        config_room.load(tmp_path / name, {})


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.yaml", "redact: [income]\nredact: []", "'redact' is there twice"),
        ("a.json", '{"privacy": "strict", "privacy": "standard"}', "'privacy' is there twice"),
        ("a.yaml", "seed: 010", "decimal, got 010"),
        ("a.yaml", "budget: 1:30", "decimal, got 1:30"),
        ("a.yaml", "purpose: 2026-02-31", "day is out of range"),
        ("a.json", f'{{"seed": {"9" * 5000}}}', "digits"),
        ("a.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_config_files_mean_what_is_written(name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=f"Argument config must be a YAML or JSON file; .*{told}"):
        config_room.load(tmp_path / name, {})


@pytest.mark.parametrize("config", [3, ["a"]])
def test_config_of_another_type_is_refused(config: Any) -> None:
    with pytest.raises(InvalidInput, match="Argument config must be a file, a mapping or a Config"):
        config_room.load(config, {})


@pytest.mark.parametrize("budget", ["m", "", "soon"])
def test_budget_says_how_to_write_it(budget: str) -> None:
    with pytest.raises(InvalidInput, match="'60s'"):
        Config.parse({"budget": budget})


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.csv", b""), ("ragged.csv", b"a,b\n1,2,3,4\n1\n1,2,3,4,5\n"), ("junk.parquet", b"junk")],
)
def test_broken_tables_are_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=f"Argument X must be a readable table; .*{name}"):
        to_frame(tmp_path / name)


@pytest.mark.parametrize("source", ["", {"a": [1], "b": [1, 2]}])
def test_empty_path_and_uneven_columns_are_refused(source: Any) -> None:
    with pytest.raises(InvalidInput, match="Argument X must"):
        to_frame(source)


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (lambda d: [[1], [1, 2]] * (len(d) // 2), "rows of one length"),
        (lambda d: np.zeros((len(d), 0)), "at least one number per row"),
        (lambda d: 1.0, "one number per row.* got float"),
        (lambda d: None, "one number per row.* got NoneType"),
        (lambda d: {"a": 1}, "one number per row.* got dict"),
    ],
)
def test_answers_that_are_not_one_number_per_row(answer: Any, rule: str) -> None:
    with pytest.raises(PredictionFailed, match=rule):
        compute(answer, X, np.zeros(len(X)), config=Config(task="regression"))


# --- options: rule, value and remedy in plain words


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"segments": [3]}, r"segments must be a list .* got 3 \(int\) at entry 1; write for instance"),
        ({"segments": [["age", 3]]}, r"got 3 \(int\) at entry 2 of entry 1"),
        ({"segments": 3}, r"segments must be a list .* got 3 \(int\);"),
        ({"segments": None}, r"segments must be a list .* got None"),
        (
            {"sensitive": [None]},
            r"sensitive must be a list of column names .* got None \(NoneType\) at entry 1",
        ),
        ({"redact": [3]}, r"redact must be a list of column names .* got 3"),
        ({"metrics": [3]}, r"metrics must be a list of names of metrics .* got 3"),
        ({"class_names": [0, 1]}, r"class_names must be a list of texts.* got 0 \(int\) at entry 1"),
        ({"task": "ranking"}, r"task must be 'binary', 'multiclass' or 'regression', got 'ranking'"),
        ({"output": 1}, r"output must be 'probability', 'margin' or 'prediction', got 1"),
        ({"positive_class": [1]}, r"positive_class must be one class label .* got \[1\] \(list\)"),
        ({"max_rows": 1.5}, r"max_rows must be a whole number of rows, at least 1, got 1\.5"),
        ({"max_rows": True}, r"max_rows must be a whole number .* got True \(bool\)"),
        ({"budget": float("inf")}, r"budget must be a finite number of seconds above 0, got inf"),
        ({"budget": None}, r"budget must be a finite .* write 60, '60s'"),
        ({"seed": -1}, r"seed must be a whole number from 0 .* got -1"),
        ({"seed": "a"}, r"seed must be a whole number from 0 .* got 'a'"),
        ({"feature_groups": {"a": 3}}, r"feature_groups must map .* got 3 \(int\) at 'a'"),
        ({"feature_groups": ["a"]}, r"feature_groups must map .* got \['a'\]"),
        ({"feature_labels": {3: "a"}}, r"feature_labels must map .* got 3 \(int\) as a name"),
        ({"privacy": None}, r"privacy must be 'standard' or 'strict', got None"),
        ({"min_segment": 1}, r"min_segment must be a whole number of rows, at least 2, got 1"),
        ({"top_features": 99}, r"top_features must be a whole number from 1 to 50, got 99"),
        ({"version": 2}, r"version must be 1"),
        ({"segmnts": 1}, r"'segmnts' is not known; did you mean 'segments'\?"),
        ({"backgroud": 1}, r"'backgroud' is not known; did you mean 'background'\?"),
        ({3: 4}, r"3 is not known; known: version, task"),
    ],
)
def test_wrong_options_are_refused_in_plain_words(options: dict[Any, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=f"^Option .*{told}") as caught:
        Config.parse(options)
    assert not any(word in str(caught.value) for word in ("pydantic", "Input should", ".str", "[key]"))


def test_the_constructor_refuses_in_the_same_words() -> None:
    with pytest.raises(InvalidInput, match=r"got 3 \(int\) at entry 1"):
        Config(segments=(3,))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="did you mean 'segments'"):
        Config(segmnts=())  # type: ignore[call-arg]


def test_options_from_numpy_and_sets_are_plain() -> None:
    made = Config.parse(
        {
            "positive_class": np.int64(1),
            "seed": np.int64(3),
            "redact": {"b", "a"},
            "feature_groups": {"g": "a"},
        }
    )
    assert type(made.positive_class) is int
    assert (made.seed, made.redact, made.feature_groups) == (3, ("a", "b"), {"g": ("a",)})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"feature_groups": {"g": ("incme",)}},
            r"feature_groups .*'incme' \(group 'g'\); did you mean 'income'\?",
        ),
        ({"sensitive": ("incme",)}, r"sensitive must name columns .*'incme'; did you mean 'income'\?"),
        ({"sensitive": ("income < 3",)}, r"sensitive must name columns"),
    ],
)
def test_options_with_unknown_columns_are_refused_before_the_work(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=f"Option {told}"):
        compute(MODEL, X, Y, config=Config(**options), builders=())


def test_labels_of_unknown_columns_are_named_with_the_nearest() -> None:
    labels = {"incme": "Income", "age": "Age", "deny": "Denied"}
    found = compute(MODEL, X, Y, config=Config(feature_labels=labels), builders=())
    said = [c.message for c in found.caveats if c.code == "unknown_labels"]
    assert len(said) == 1
    assert "does not have: 'incme'; did you mean 'income' for 'incme'?" in said[0]
    assert "'deny'" not in said[0]


@pytest.mark.parametrize("value", ["b'1'", "1j", "[b'x']"])
def test_segments_with_bytes_or_complex_values_are_refused(value: str) -> None:
    op = "in" if value.startswith("[") else "=="
    kind = "complex" if "j" in value else "bytes"
    with pytest.raises(InvalidInput, match=rf"at position .* \({kind}: only text, numbers, True and False"):
        compute(MODEL, X, Y, config=Config(segments=(f"age {op} {value}",)))


# --- background


def test_an_empty_background_is_named() -> None:
    with pytest.raises(
        InvalidInput, match=r"Argument background .*at least one row.* give the training rows"
    ):
        compute(MODEL, X, Y, config=Config(), background=X.iloc[:0])


@pytest.mark.parametrize("output", ["probability", "margin"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_background_that_the_model_refuses_is_named_with_its_column(output: Any, value: float) -> None:
    background = X.copy()
    background.loc[57, "debt"] = value
    with pytest.raises(
        InvalidInput, match=r"Argument background .*'debt' has missing or infinite values .*first in row 57"
    ):
        compute(MODEL, X, Y, config=Config(output=output), background=background)


# --- numbers of another dtype


def test_object_columns_of_numbers_have_curves_and_the_model_gets_its_objects() -> None:
    from decimal import Decimal

    seen: set[type] = set()
    objects = X.astype(object)
    objects["debt"] = [Decimal(repr(round(v, 3))) for v in X["debt"]]
    objects["age"] = [int(50 * v) for v in X["age"]]
    objects["age"] = objects["age"].astype(object)

    def score(rows: pd.DataFrame) -> Any:
        seen.update(type(v) for v in rows["debt"])
        return rows["income"].astype(float) - rows["debt"].astype(float) + rows["age"].astype(float) / 50

    found = compute(score, objects, X["income"], config=Config(segments=("debt < 0.5",), task="regression"))
    assert judge(found)[0] == "complete"
    assert seen == {Decimal}
    curves = next(a.table for a in found.artifacts if a.name == "dependence")
    for feature, part in curves[curves["curve"] == "pdp"].groupby("feature"):
        assert part["x"].is_monotonic_increasing, feature
        assert len(part) > 10


def test_numbers_as_text_are_named_with_the_remedy() -> None:
    texts = X.assign(income=X["income"].astype(str))
    found = compute(
        lambda rows: rows["income"].astype(float), texts, X["income"], config=Config(), builders=()
    )
    said = [c.message for c in found.caveats if c.code == "numbers_as_text"]
    assert len(said) == 1
    assert "'income'" in said[0]
    assert "astype(float)" in said[0]


# --- answers and libraries


def test_a_short_answer_is_told_once() -> None:
    with pytest.raises(PredictionFailed, match="got 119 entries for 120 rows") as caught:
        compute(lambda rows: rows["income"].to_numpy()[1:], X, config=Config())
    assert "with an array" not in str(caught.value)


def test_a_short_answer_in_a_later_call_is_told_once() -> None:
    calls: list[int] = []

    def late(rows: pd.DataFrame) -> Any:
        calls.append(len(rows))
        return rows["income"].to_numpy()[int(len(calls) > 3) :]

    with pytest.raises(PredictionFailed, match=r"must return one entry per row, got (\d+) for (\d+) rows\.$"):
        compute(late, X, config=Config())
    assert len(calls) == 4


def test_a_missing_library_is_installed_by_its_own_name() -> None:
    with pytest.raises(MissingDependency, match=r"pip install nothing-like-it \(extra 'some'\)"):
        require("nothing_like_it", extra="some", package="nothing-like-it")
