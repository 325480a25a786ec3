"""Performance of many rows from sums: the values and intervals of all rows in one memory, in any blocks and ranges."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from explain_step import streaming
from explain_step.artifacts import BUILDERS
from explain_step.artifacts.segment_rules import TIMES
from explain_step.compute import Explanation, compute
from explain_step.config import Config
from explain_step.explainers.prepared import prepare
from explain_step.metrics import METRICS, curves
from explain_step.streaming import area_errors, areas
from explain_step.streaming.plan import Plan, segment_codes
from explain_step.types import Subject

N, SAMPLE = 42_000, 3_000
SECTIONS = tuple(b for b in BUILDERS if b.name in ("performance", "segments", "importance"))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(N, 3)), columns=list("abc"))
    frame["kind"] = rng.choice(["u", "v", "w"], N, p=[0.5, 0.3, 0.2])
    frame["old"] = rng.random(N) < 0.4
    frame["weight"] = rng.choice([0.0, 0.5, 1.0, 3.0], N)
    noise = rng.normal(size=N) * np.where(frame["kind"] == "u", 1, 3)
    return frame.assign(y=frame["a"] - frame["b"] * (frame["kind"] == "w") + noise)


def target(rows: pd.DataFrame, task: str) -> np.ndarray:
    cuts = {"binary": [0.5], "multiclass": [-1.0, 1.0]}.get(task)
    return rows["y"].to_numpy() if cuts is None else np.digitize(rows["y"], cuts)


def both(
    rows: pd.DataFrame, *, task: str, weighted: bool, metric: str
) -> tuple[Explanation, dict[str, Any], Any]:
    """Return the explanation of all rows in memory, the tables from sums over blocks, and the caveats of these."""
    y, X = target(rows, task), rows[["a", "b", "c", "kind", "old"]]
    fitted = LinearRegression() if task == "regression" else LogisticRegression()
    names = [m.name for m in METRICS if task in m.tasks]
    config = Config(
        segments=["kind", "old", ("kind", "a > 1")],
        top_features=1,
        metrics=[metric, *(n for n in names if n != metric)],
        **({} if task == "regression" else {"output": "margin"}),
    )
    weights = rows["weight"].to_numpy() if weighted else None
    some = np.random.default_rng(1).choice(N, SAMPLE, replace=False)
    return in_parts(fitted.fit(X[["a", "b", "c"]], y), X, y, weights, some=some, config=config)


def in_parts(
    model: Any, X: pd.DataFrame, y: np.ndarray, weights: Any, *, some: np.ndarray, config: Config
) -> tuple[Explanation, dict[str, Any], Any]:
    """Return what `both` does, with some of the rows as the sample."""
    options = {"config": config, "background": X[["a", "b", "c"]][:50], "builders": SECTIONS, "many": 10**9}
    whole = compute(model, X, y, sample_weight=weights, **options)
    small = compute(
        model,
        X.iloc[some].reset_index(drop=True),
        y[some],
        sample_weight=None if weights is None else weights[some],
        **options,
    )
    plan = streaming.plan_of(
        small.subject, small.attributions, small.artifacts, config=config, measured=100 * len(X)
    )
    assert Plan.from_json(plan.to_json()) == plan
    explain = prepare(small.subject, rows=len(X))
    parts = []
    for own in np.array_split(np.random.default_rng(2).permutation(len(X)), 5):
        block = whole.subject.take(own)
        made = streaming.of_block(plan, block, explain(block.X))
        parts.append(streaming.from_bytes(streaming.to_bytes(made)))
    totals = reduce(streaming.merge, parts)
    known = streaming.Measured(
        plan=plan,
        measures=totals.measures,
        areas=areas_of(plan, whole.subject),
        model=whole.subject.model,
        made=streaming.shuffled_losses(small.subject, config=config),
    )
    found = streaming.overlay(small.artifacts, plan, totals, config=config, known=known)
    said = streaming.caveats(small.caveats, found, plan, totals, config=config, known=known)
    return whole, {a.name: a for a in found}, said


def areas_of(plan: Plan, subject: Subject) -> Any:
    """Return the areas of all rows, range by range in a shuffled order."""
    if plan.measure.edges is None:
        return None
    held = [part for curve in range(len(plan.measure.edges)) for part in ranges_of(plan, subject, curve)]
    ranges = [areas.of_range(plan, rows, place=place) for place, rows in held]
    found = areas.joined(plan, ranges[::-1])
    if found is None or len(plan.measure.edges) == 1:
        return found
    outside = area_errors.outside(plan, ranges[::-1], found)
    moved = [area_errors.moves(plan, rows, outside, place=place) for place, rows in held]
    rows = pd.concat([part for _, part in held])
    levels = [rows[areas.level_name(i)].to_numpy() for i in range(len(areas.segments_of(plan)))]
    key, square = (rows[name].to_numpy() for name in (areas.KEY, areas.SQUARE))
    return replace(found, squares=area_errors.squares(plan, key, square, levels, np.concatenate(moved)))


def ranges_of(plan: Plan, subject: Subject, curve: int) -> list[tuple[int, pd.DataFrame]]:
    """Return the gathered rows of each range of a curve."""
    w = np.ones(len(subject.X)) if subject.weights is None else subject.weights
    hit, score = curves(subject.y, subject.response, subject.model)[curve]
    levels = [
        segment_codes(s, subject.frame, output=subject.response.output) for s in areas.segments_of(plan)
    ]
    frame = pd.DataFrame(
        {areas.SCORE: score, areas.HIT: hit, areas.ROWS: 1.0, areas.WEIGHT: w, areas.SQUARE: w**2}
    )
    frame = frame.assign(**{areas.level_name(i): codes for i, codes in enumerate(levels)})
    frame[areas.KEY] = area_errors.keys_of(subject, levels).view(np.int64)
    frame = frame[w > 0]
    place = areas.starts(plan)[curve] + np.searchsorted(
        plan.measure.edges[curve], frame[areas.SCORE], side="right"
    )
    keys = areas.columns_of(plan)
    return [(int(own), areas.gathered(part, keys)) for own, part in frame.groupby(place)]


CASES = [
    ("binary", "roc_auc", True),
    ("binary", "roc_auc", False),
    ("binary", "f1", True),
    ("binary", "accuracy", False),
    ("binary", "accuracy", True),
    ("multiclass", "log_loss", True),
    ("multiclass", "roc_auc", True),
    ("multiclass", "roc_auc", False),
    ("regression", "rmse", False),
    ("regression", "r2", True),
]


@pytest.mark.parametrize(("task", "metric", "weighted"), CASES)
def test_sums_give_the_tables_of_all_rows(rows: pd.DataFrame, task: str, metric: str, weighted: bool) -> None:
    whole, found, said = both(rows, task=task, weighted=weighted, metric=metric)
    there = {a.name: a.table for a in whole.artifacts}
    one, other = (t.set_index("metric") for t in (found["performance"].table, there["performance"]))
    assert list(one.index) == list(other.index)
    for column in ("value", "ci_low", "ci_high", "n"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-9, err_msg=column)
    assert "which no sums tell" not in next(c.message for c in said if c.code == "rows_streamed")
    if task != "regression":
        keys = ["segment", "level", "output", "rate"]
        one, other = (
            t.set_index(keys).sort_index() for t in (found["segment_rates"].table, there["segment_rates"])
        )
        for column in ("value", "ci_low", "ci_high", "n", "difference", "difference_ci_low"):
            np.testing.assert_allclose(one[column], other[column], rtol=1e-9, err_msg=column)
    cell = (f"kind{TIMES}a > 1", f"u{TIMES}yes")  # has under 100 rows of a class: resampled there
    few = (cell,) if (task, metric) == ("multiclass", "roc_auc") else ()
    _same_segments(found["segments"].table, there["segments"], metric=metric, few=few)


def _same_segments(
    ours: pd.DataFrame, theirs: pd.DataFrame, *, metric: str, few: tuple[tuple[str, str], ...] = ()
) -> None:
    keys = ["segment", "level"]
    one, other = (t.drop_duplicates(keys).set_index(keys).sort_index() for t in (ours, theirs))
    assert list(one.index) == list(other.index)
    assert set(one["metric"]) == {metric}
    for column in ("n", "metric_value", "metric_difference"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-9, atol=1e-12, err_msg=column)
    columns = ["metric_ci_low", "metric_ci_high", "metric_difference_ci_low", "metric_difference_ci_high"]
    if metric in ("f1", "balanced_accuracy", "r2") or few:  # resampled there
        drawn = other.index.isin(few) if few else np.ones(len(other), dtype=bool)
        width = (other["metric_ci_high"] - other["metric_ci_low"])[drawn].to_numpy()
        for column in columns:
            gap = np.abs(one[column] - other[column])[drawn].to_numpy()
            assert (gap[~np.isnan(gap)] <= 0.35 * width[~np.isnan(gap)]).all(), column
        one, other = one[~drawn], other[~drawn]
    for column in columns if few else [*columns, "metric_p_adjusted"]:  # one p-value moves the others
        np.testing.assert_allclose(one[column], other[column], rtol=1e-8, atol=1e-12, err_msg=column)


def test_a_sample_without_errors_and_of_one_class_says_nothing_of_all_rows(rows: pd.DataFrame) -> None:
    X = rows[["a", "b", "c", "kind", "old"]].iloc[:30_000].reset_index(drop=True)
    hit = (np.arange(30_000) < 400) & (X["old"].to_numpy())
    y = np.where(hit, "yes", "no")
    model = LogisticRegression().fit(X[["a", "b", "c"]], y)
    names = ("log_loss", "accuracy", "roc_auc", "f1")
    config = Config(output="margin", segments=["old"], top_features=1, metrics=names, positive_class="yes")
    weights = np.where(hit, 2.0, 1.0)
    whole, found, said = in_parts(model, X, y, weights, some=np.arange(25_000, 28_000), config=config)
    one = found["performance"].table.set_index("metric")
    other = next(a.table for a in whole.artifacts if a.name == "performance").set_index("metric")
    exact = ["log_loss", "accuracy", "roc_auc"]
    for column in ("value", "ci_low", "ci_high"):
        np.testing.assert_allclose(
            one.loc[exact, column], other.loc[exact, column], rtol=1e-8, err_msg=column
        )
    codes = {c.code: c.message for c in said}
    assert "metric_undefined" not in codes  # as the sample's was
    assert "segment_metric_undefined" not in codes
    assert (found["segments"].table["n"] > 10_000).all()


def test_a_rare_class_of_the_sample_is_no_rare_class_of_all_rows(rows: pd.DataFrame) -> None:
    X = rows[["a", "b", "c", "kind", "old"]].iloc[:3_000].reset_index(drop=True)
    y = (np.arange(3_000) % 50 == 0).astype(int)
    model = LogisticRegression().fit(X[["a", "b", "c"]], y)
    config = Config(output="margin", segments=["old"], top_features=1)
    _, _, said = in_parts(model, X, y, None, some=np.arange(0, 400), config=config)
    text = next(c.message for c in said if c.code == "few_of_a_class")
    assert "in the sample of 400 rows: the interval of permutation importance" in text
    whole, found, said = in_parts(
        model, X, np.zeros(3_000, dtype=int), None, some=np.arange(400), config=config
    )
    assert np.isnan(found["performance"].table.set_index("metric").loc["roc_auc", "value"])
    undefined = next(c for c in said if c.code == "metric_undefined")
    assert undefined.degrades
    assert [c.code for c in whole.caveats].count("metric_undefined") == 1
