"""Differences of a metric between small groups: few false alarms, real differences found, intervals that agree with p."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from segment_kit import linear

from explain_step.artifacts import segment_performance as performance
from explain_step.artifacts.segment_tests import area, areas, by_chance, shuffled
from explain_step.intervals import holm
from explain_step.metrics import METRICS
from explain_step.types import Subject

BY_NAME = {metric.name: metric for metric in METRICS}


def regression(error: Any, *, weights: Any = None) -> Subject:
    x = np.linspace(-1.0, 1.0, len(error))
    frame = pd.DataFrame({"x": x})
    return linear(frame, x + error, task="regression", weights=[1.0], sample_weight=weights)[0]


def classifier(r: np.random.Generator, n: int, *, slope: Any = 1.0) -> Subject:
    frame = pd.DataFrame({"x": 1.5 * r.normal(size=n) - 0.8})
    y = np.where(frame["x"].to_numpy() * slope + r.logistic(size=n) > 0, "yes", "no")
    return linear(frame, y, weights=[1.0])[0]


def p_values(subject: Subject, metric: str, codes: Any, *, seed: int = 0) -> np.ndarray:
    """Return the p-value of each group against the rest, as the table of segments has them before adjustment."""
    made = shuffled(BY_NAME[metric], subject, rng=np.random.default_rng(seed))
    found = []
    for level in np.unique(codes):
        if made is not None:
            compared = by_chance(made, codes == level)
        else:
            sides = [area(subject.take(np.flatnonzero((codes == level) == side))) for side in (True, False)]
            compared = None if None in sides else areas(*sides)  # type: ignore[arg-type]
        found.append(np.nan if compared is None else compared.p)
    return np.array(found)


@pytest.mark.parametrize(
    ("metric", "size"), [("rmse", 25), ("log_loss", 25), ("roc_auc", 25), ("roc_auc", 60)]
)
def test_a_table_of_small_groups_has_few_false_alarms(metric: str, size: int) -> None:
    r, alarms, codes = np.random.default_rng(size), 0, np.repeat(np.arange(8), size)
    for seed in range(40):
        errors = r.lognormal(size=len(codes))
        made = regression(errors) if metric in ("rmse", "mae") else classifier(r, len(codes))
        alarms += bool(np.nanmin(holm(p_values(made, metric, codes, seed=seed))) < 0.05)
    # 2 are wanted; 8 or more have probability 0.0007 then. Normal limits with bootstrap errors give 4 to 20.
    assert alarms <= 7


@pytest.mark.parametrize("metric", ["rmse", "mae", "roc_auc"])
def test_a_real_difference_is_found(metric: str) -> None:
    r, found, codes = np.random.default_rng(1), 0, np.repeat(np.arange(8), 60)
    for seed in range(10):
        worse = np.where(codes == 3, 2.5, 1.0)
        errors = worse * r.standard_t(6, size=len(codes))
        made = classifier(r, len(codes), slope=np.where(codes == 3, -1.0, 1.0))
        made = regression(errors) if metric != "roc_auc" else made
        found += bool(holm(p_values(made, metric, codes, seed=seed))[3] < 0.05)
    assert found >= 8


@pytest.mark.parametrize("metric", ["rmse", "mae"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_p_value_is_that_of_all_groups_of_the_size(metric: str, weighted: bool) -> None:
    r = np.random.default_rng(2)
    n, size = 13, 4
    made = regression(r.lognormal(size=n), weights=r.uniform(0.3, 2.0, size=n) if weighted else None)
    losses = shuffled(BY_NAME[metric], made, rng=r)
    assert losses is not None
    ratios = []
    for rows in combinations(range(n), size):
        inside = np.isin(np.arange(n), rows)
        ratios.append(_ratio(made, metric, inside))
    tested = np.isin(np.arange(n), [0, 3, 5, 8])
    own = _ratio(made, metric, tested)
    tail = min(np.mean(np.array(ratios) <= own + 1e-9), np.mean(np.array(ratios) >= own - 1e-9))
    found = by_chance(losses, tested)
    assert found is not None
    assert found.p == pytest.approx(2 * tail, rel=0.1)


def _ratio(made: Subject, metric: str, inside: np.ndarray) -> float:
    """Return the studentised difference from its definition."""
    values, errors = [], []
    for rows in (np.flatnonzero(inside), np.flatnonzero(~inside)):
        part = made.take(rows)
        w = np.ones(len(rows)) if part.weights is None else part.weights / part.weights.sum()
        w = w / w.sum()
        missed = np.abs(part.response.output[:, 0] - part.y)
        loss = missed**2 if metric == "rmse" else missed
        mean = w @ loss
        error = np.sqrt(w**2 @ (loss - mean) ** 2 * len(rows) / (len(rows) - 1))
        values.append(np.sqrt(mean) if metric == "rmse" else mean)
        errors.append(error / (2 * np.sqrt(mean)) if metric == "rmse" else error)
    return float((values[0] - values[1]) / np.hypot(*errors))


@pytest.mark.parametrize("metric", ["rmse", "log_loss", "roc_auc"])
def test_the_interval_holds_zero_exactly_where_p_says_so_and_the_value_is_the_metric_s(metric: str) -> None:
    r, both = np.random.default_rng(3), set()
    for seed in range(30):
        codes = r.integers(0, 3, size=150)
        worse = np.where(codes == 1, 1.6, 1.0)
        made = (
            regression(worse * r.standard_t(6, size=150))
            if metric == "rmse"
            else classifier(r, 150, slope=2 - worse)
        )
        inside = codes == 1
        losses = shuffled(BY_NAME[metric], made, rng=np.random.default_rng(seed))
        if losses is None:
            found = areas(area(made.take(np.flatnonzero(inside))), area(made.take(np.flatnonzero(~inside))))  # type: ignore[arg-type]
        else:
            found = by_chance(losses, inside)
        assert found is not None
        parts = [
            performance.value_on(BY_NAME[metric], made.take(np.flatnonzero(inside == s)))
            for s in (True, False)
        ]
        assert found.value == pytest.approx(parts[0] - parts[1], abs=1e-9)
        if abs(found.p - 0.05) > 0.002:
            assert (found.low <= 0 <= found.high) == (found.p > 0.05)
            both.add(found.p > 0.05)
    assert both == {True, False}


def test_neither_the_order_of_rows_nor_the_scale_of_weights_and_errors_counts() -> None:
    r = np.random.default_rng(4)
    error, weights, inside = r.normal(size=90), r.uniform(0.5, 2, size=90), np.arange(90) < 30
    order = r.permutation(90)
    found = []
    for e, w, mask in (
        (error, weights, inside), (error[order], weights[order], inside[order]), (1024 * error, 4 * weights, inside)
    ):  # fmt: skip
        frame = pd.DataFrame({"x": np.zeros(90)})
        made, _ = linear(frame, e, task="regression", weights=[0.0], sample_weight=w)
        losses = shuffled(BY_NAME["mae"], made, rng=np.random.default_rng(0))
        assert losses is not None
        compared = by_chance(losses, mask)
        assert compared is not None
        found.append(compared.p)
    assert found[0] == found[1] == found[2]


def test_groups_without_errors_and_equal_errors_are_not_infinitely_sure() -> None:
    error = np.where(np.arange(120) % 7 == 0, 3.0, 0.0)
    inside = np.zeros(120, dtype=bool)
    inside[np.flatnonzero(error == 0)[:25]] = True
    losses = shuffled(BY_NAME["rmse"], regression(error), rng=np.random.default_rng(0))
    assert losses is not None
    found = by_chance(losses, inside)
    assert found is not None
    assert 0.01 < found.p <= 1
    assert shuffled(BY_NAME["mae"], regression(np.ones(50)), rng=np.random.default_rng(0)) is None


def test_a_perfect_group_has_an_area_to_compare() -> None:
    r = np.random.default_rng(5)
    made = classifier(r, 300)
    x, y = made.X["x"].to_numpy(), made.y == "yes"
    perfect = np.r_[np.flatnonzero(y & (x > 1))[:12], np.flatnonzero(~y & (x < -1))[:20]]
    inside = np.isin(np.arange(300), perfect)
    found = areas(area(made.take(perfect)), area(made.take(np.flatnonzero(~inside))))  # type: ignore[arg-type]
    assert found.low < found.value < found.high <= 1
    assert 0 < found.p < 0.05


def test_very_large_segments_have_the_normal_limit() -> None:
    r = np.random.default_rng(6)
    losses = shuffled(BY_NAME["rmse"], regression(r.normal(size=4000)), rng=r)
    assert losses is not None
    assert by_chance(losses, np.arange(4000) < 1500) is None
    assert by_chance(losses, np.arange(4000) < 1) is None
    assert by_chance(losses, np.arange(4000) >= 900) is not None
