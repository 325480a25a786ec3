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
from explain_step.errors import InvalidInput, PredictionFailed
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
