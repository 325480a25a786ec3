"""Performance of many rows from sums: the values and intervals of all rows in one memory, in any blocks and ranges."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from explain_step import streaming
from explain_step.artifacts import BUILDERS
from explain_step.compute import Explanation, compute
from explain_step.config import Config
from explain_step.explainers.prepared import prepare
from explain_step.metrics import METRICS, positive_hits, positive_score
from explain_step.streaming import areas
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
    w = np.ones(len(subject.X)) if subject.weights is None else subject.weights
    frame = pd.DataFrame(
        {
            areas.SCORE: positive_score(subject.response, subject.model),
            areas.HIT: positive_hits(subject.y, subject.model),
            areas.ROWS: 1.0,
            areas.WEIGHT: w,
            areas.SQUARE: w**2,
        }
    )
    for i, segment in enumerate(plan.segments):
        frame[areas.level_name(i)] = segment_codes(segment, subject.frame, output=subject.response.output)
    frame = frame[w > 0]
    place = np.searchsorted(plan.measure.edges, frame[areas.SCORE], side="right")
    ranges = [
        areas.of_range(
            plan,
            areas.gathered(part, areas.columns_of(plan)),
            place=int(own),
            unit=plan.measure.bounded,
        )
        for own, part in frame.groupby(place)
    ]
    return areas.joined(ranges[::-1], unit=plan.measure.bounded)


CASES = [
    ("binary", "roc_auc", True),
    ("binary", "roc_auc", False),
    ("binary", "f1", True),
    ("binary", "accuracy", False),
    ("binary", "accuracy", True),
    ("multiclass", "log_loss", True),
    ("regression", "rmse", False),
    ("regression", "r2", True),
]


@pytest.mark.parametrize(("task", "metric", "weighted"), CASES)
def test_sums_give_the_tables_of_all_rows(rows: pd.DataFrame, task: str, metric: str, weighted: bool) -> None:
    whole, found, said = both(rows, task=task, weighted=weighted, metric=metric)
    there = {a.name: a.table for a in whole.artifacts}
    one, other = (t.set_index("metric") for t in (found["performance"].table, there["performance"]))
    assert list(one.index) == list(other.index)
    exact = [m for m in one.index if (task, m) != ("multiclass", "roc_auc")]
    for column in ("value", "ci_low", "ci_high", "n"):
        np.testing.assert_allclose(
            one.loc[exact, column], other.loc[exact, column], rtol=1e-9, err_msg=column
        )
    if task == "multiclass":  # no sums tell it
        assert one.loc["roc_auc", "n"] == SAMPLE
        assert "roc_auc: of a seeded sample" in found["performance"].meta["rows_of"]
        assert "So is roc_auc" in next(c.message for c in said if c.code == "rows_streamed")
    if task != "regression":
        keys = ["segment", "level", "output", "rate"]
        one, other = (
            t.set_index(keys).sort_index() for t in (found["segment_rates"].table, there["segment_rates"])
        )
        for column in ("value", "ci_low", "ci_high", "n", "difference", "difference_ci_low"):
            np.testing.assert_allclose(one[column], other[column], rtol=1e-9, err_msg=column)
    _same_segments(found["segments"].table, there["segments"], metric=metric)


def _same_segments(ours: pd.DataFrame, theirs: pd.DataFrame, *, metric: str) -> None:
    keys = ["segment", "level"]
    one, other = (t.drop_duplicates(keys).set_index(keys).sort_index() for t in (ours, theirs))
    assert list(one.index) == list(other.index)
    assert set(one["metric"]) == {metric}
    for column in ("n", "metric_value", "metric_difference"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-9, atol=1e-12, err_msg=column)
    columns = ["metric_ci_low", "metric_ci_high", "metric_difference_ci_low", "metric_difference_ci_high"]
    if metric in ("f1", "balanced_accuracy", "r2"):  # resampled there
        width = (other["metric_ci_high"] - other["metric_ci_low"]).to_numpy()
        for column in columns:
            gap = np.abs(one[column] - other[column]).to_numpy()
            assert (gap[~np.isnan(gap)] <= 0.35 * width[~np.isnan(gap)]).all(), column
        return
    for column in [*columns, "metric_p_adjusted"]:
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
