"""Free text: the dependence section speaks of its length, and a text model's snapshot is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import explain_step
from explain_step.artifacts.text_columns import by_length
from explain_step.config import Config

WORDS = ("late", "broken", "kind", "helpful", "refund", "parcel", "again", "thanks", "slow", "great")


def reviews(n: int = 240) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    texts = [f"r{i} " + " ".join(rng.choice(WORDS, size=1 + i % 9)) for i in range(n)]
    return pd.DataFrame({"review": texts}), np.array([t.count("late") + t.count("slow") > 0 for t in texts])


def lengths(frame: pd.DataFrame) -> np.ndarray:
    return np.array([len(text.split()) for text in frame["review"]])


def text_model() -> tuple[Any, pd.DataFrame, np.ndarray]:
    frame, late = reviews()
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(frame["review"], late), frame, late


def test_texts_are_cut_by_length_into_ranges_of_enough_rows() -> None:
    frame, _ = reviews()
    found = by_length(frame["review"], config=Config())
    assert found is not None
    levels, unit = found
    sizes = lengths(frame)
    assert unit == "words"
    assert levels.ordered
    assert levels.names == (
        "under 3 words",
        "3 to 4 words",
        "5 to 6 words",
        "7 to 8 words",
        "9 words or more",
    )
    for code, (low, high) in enumerate([(0, 2), (3, 4), (5, 6), (7, 8), (9, 99)]):
        assert ((sizes >= low) & (sizes <= high)).tolist() == (levels.codes == code).tolist()
    assert np.bincount(levels.codes).min() >= 10


@pytest.mark.parametrize("privacy", ["standard", "strict"])
def test_a_range_and_missing_texts_have_enough_rows_under_privacy(privacy: str) -> None:
    frame, _ = reviews()
    config = Config(privacy=privacy, min_segment=60)  # type: ignore[arg-type]
    few = frame["review"].where(np.arange(240) % 60 > 0)
    found = by_length(few, config=config)
    assert found is not None
    smallest = 60 if privacy == "strict" else 10
    assert np.bincount(found[0].codes).min() >= smallest
    assert "(missing)" not in found[0].names, "four missing texts count as empty ones"
    many = frame["review"].where(np.arange(240) % 3 > 0)
    named = by_length(many, config=config)
    assert named is not None
    assert named[0].names[-1] == "(missing)"
    assert (named[0].codes == len(named[0].names) - 1).sum() == 80


def test_single_words_are_cut_by_characters_and_texts_of_one_length_not_at_all() -> None:
    codes = pd.Series(["a" * (1 + i % 5) + f"{i:04}" for i in range(200)])
    found = by_length(codes, config=Config())
    assert found is not None
    assert found[1] == "characters"
    assert by_length(pd.Series([f"id{i:04}" for i in range(200)]), config=Config()) is None
    assert by_length(pd.Series([None] * 30, dtype=object), config=Config()) is None
    assert by_length(pd.Series([(1, 2)] * 30), config=Config()) is None


def test_the_snapshot_of_a_model_of_one_text_column_is_complete(tmp_path: Path) -> None:
    model, frame, late = text_model()
    shot = explain_step.explain(model, frame, late, background=frame.iloc[:30], directory=tmp_path)
    assert shot.status == "complete"
    table = shot.tables["dependence"]
    assert set(table["curve"]) == {"shap"}
    assert table["count"].sum() == len(frame)
    values = shot.tables["attributions"]["shap:review"].to_numpy()
    short = lengths(frame) < 3
    assert table["value"].iloc[0] == pytest.approx(values[short].mean())
    page = (shot.path / "report.html").read_text(encoding="utf-8")
    assert "number of words" in page
    assert "under 3 words" in page
    assert "The model reads one column, so there are no interactions." in page
    drawn = [f for f in shot.manifest["figures"] if f["kind"] == "dependence"]
    assert [f["title"] for f in drawn] == ["How the prediction depends on the length of review"]
    assert drawn[0]["alt"].count("words") == 6


def test_strict_privacy_publishes_lengths_and_no_text(tmp_path: Path) -> None:
    model, frame, late = text_model()
    shot = explain_step.explain(model, frame, late, privacy="strict", directory=tmp_path)
    assert shot.status == "complete"
    assert "9 words or more" in set(shot.tables["dependence"]["level"])
    written = b"".join(p.read_bytes() for p in shot.path.rglob("*") if p.is_file() and p.suffix != ".png")
    assert b"r17 " not in written


def test_a_redacted_text_has_no_curve(tmp_path: Path) -> None:
    model, frame, late = text_model()
    shot = explain_step.explain(model, frame, late, redact=["review"], directory=tmp_path)
    assert shot.status == "incomplete"
    assert "dependence" not in shot.tables
