"""Standard errors from sums: those that resampled rows show, and areas from ranges of scores, those of all rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explain_step.artifacts import metric_deltas, metric_influence, segment_tests
from explain_step.artifacts.metric_influence import ROW_METRICS
from explain_step.artifacts.segment_tests import Side, by_chance, by_chance_of, orders_of, shuffled_values
from explain_step.metrics import METRICS, positive_hits, positive_score
from explain_step.streaming import areas
from explain_step.types import Response

N = 1_500


def subject(task: str, *, weighted: bool, n: int = N) -> Any:
    """Return what metrics read of some rows."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2 if task == "binary" else 3, n)
    if task == "regression":
        target = rng.normal(size=n) + 100.0
        response = Response(output=(target + rng.normal(size=n))[:, None])
        model = SimpleNamespace(task=task, classes=None, positive=None)
        y = target
    else:
        k = 2 if task == "binary" else 3
        p = rng.dirichlet(np.ones(k), n) + 0.4 * (y[:, None] == np.arange(k))
        p = (p / p.sum(axis=1, keepdims=True)).round(2)
        response = Response(output=p, label=p.argmax(axis=1), probability=p)
        model = SimpleNamespace(task=task, classes=tuple(range(k)), positive=1 if task == "binary" else None)
    weights = rng.choice([0.0, 1.0, 4.0], n) if weighted else None
    return SimpleNamespace(X=np.zeros((n, 0)), y=y, response=response, model=model, weights=weights)


CASES = [
    ("binary", "f1"),
    ("multiclass", "f1"),
    ("binary", "balanced_accuracy"),
    ("multiclass", "balanced_accuracy"),
    ("regression", "r2"),
]


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize(("task", "name"), CASES)
def test_errors_are_those_of_resampled_rows(task: str, name: str, weighted: bool) -> None:
    metric = next(m for m in METRICS if m.name == name)
    given = subject(task, weighted=weighted)
    error = metric_deltas.of_rows(metric, given)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(600):
        rows = rng.integers(0, N, N)
        w = None if given.weights is None else given.weights[rows]
        drawn.append(metric.score(given.y[rows], given.response.take(rows), given.model, w))
    assert error == pytest.approx(np.std(drawn), rel=0.1)
    if name in metric_deltas.CONFUSION:
        _, weight, square = metric_deltas.confusion(given)
        value = metric_deltas.of_confusion(name, weight[0], square[0], given.model)[0]
        assert value == pytest.approx(
            metric.score(given.y, given.response, given.model, given.weights), rel=1e-12
        )


def test_r2_does_not_depend_on_where_distances_are_measured_from() -> None:
    given = subject("regression", weighted=False)
    found = []
    for centre in (0.0, 1.0, -3.0):
        at = np.array([given.y.mean() + centre])
        columns = metric_deltas.square_columns(given.y[:, None], given.response.predicted[:, None], centre=at)
        found.append(metric_deltas.of_squares(columns.mean(axis=0), np.cov(columns.T, bias=True) / N))
    assert found[1] == pytest.approx(found[0])
    assert found[2] == pytest.approx(found[0])


def test_metrics_without_such_sums_have_no_such_error() -> None:
    given = subject("binary", weighted=False)
    for metric in METRICS:
        known = metric.name in (*metric_deltas.CONFUSION, "r2")
        assert known or metric_deltas.of_rows(metric, given) is None
        assert metric.name in (
            *ROW_METRICS,
            *metric_deltas.CONFUSION,
            "r2",
            "roc_auc",
        )  # or Spark keeps the sample's


@pytest.mark.parametrize("size", [30, 400, 1_470])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("root", [False, True], ids=["mean", "root"])
def test_small_groups_by_sums_are_compared_as_by_rows(size: int, weighted: bool, root: bool) -> None:
    rng = np.random.default_rng(1)
    losses = rng.lognormal(size=N)
    weights = rng.choice([0.5, 2.0], N) if weighted else None
    inside = rng.permutation(N) < size
    made = shuffled_values(
        losses, weights, orders=orders_of(len(losses), rng=np.random.default_rng(2)), root=root
    )
    assert made is not None
    whole = by_chance(made, inside)
    sides = (_side(losses, weights, inside, root=root), _side(losses, weights, ~inside, root=root))
    found = by_chance_of(made, *sides)
    assert found is not None
    assert whole is not None
    for name in ("value", "low", "high", "p"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-6, abs=1e-9), name


def _side(losses: np.ndarray, weights: np.ndarray | None, rows: np.ndarray, *, root: bool) -> Side:
    x, w = losses[rows], np.ones(int(rows.sum())) if weights is None else weights[rows]
    n, mean = len(x), float(np.average(x, weights=w))
    error = float(np.sqrt((w**2 * (x - mean) ** 2).sum() * n / (n - 1)) / w.sum())
    return (
        Side(value=np.sqrt(mean), error=error / (2 * np.sqrt(mean)), n=n)
        if root
        else Side(value=mean, error=error, n=n)
    )


# --- areas from ranges of scores


def ranges_of(given: Any, edges: np.ndarray, *, unit: bool = True) -> Any:
    measure = SimpleNamespace(metrics=(areas.NAME,), edges=(tuple(edges),), bounded=(unit,))
    plan: Any = SimpleNamespace(segments=(), measure=measure)
    frame = pd.DataFrame(
        {
            areas.SCORE: positive_score(given.response, given.model),
            areas.HIT: positive_hits(given.y, given.model),
            areas.ROWS: 1.0,
            areas.WEIGHT: np.ones(N) if given.weights is None else given.weights,
        }
    )
    frame[areas.SQUARE] = frame[areas.WEIGHT] ** 2
    frame = frame[frame[areas.WEIGHT] > 0]
    place = np.searchsorted(edges, frame[areas.SCORE], side="right")
    made = [
        areas.of_range(plan, areas.gathered(part, areas.columns_of(plan)), place=int(own))
        for own, part in frame.groupby(place)
    ]
    return areas.joined(plan, [areas.Range.from_row(r.to_row()) for r in made[::-1]])


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("ranges", [1, 2, 40, 10_000])
def test_areas_of_ranges_are_those_of_all_rows(ranges: int, weighted: bool) -> None:
    given = subject("binary", weighted=weighted)
    edges = areas.edges_of(positive_score(given.response, given.model), ranges=ranges)
    sums = ranges_of(given, edges).whole()
    metric = next(m for m in METRICS if m.name == "roc_auc")
    value = metric.score(given.y, given.response, given.model, given.weights)
    assert areas.value_of(sums) == pytest.approx(value, rel=1e-12)
    ours = areas.limit_of(sums)
    theirs = metric_influence.limit(metric, given, value=value, rng=np.random.default_rng(0))
    assert ours is not None
    assert theirs is not None
    assert (ours.error, ours.low, ours.high) == pytest.approx(
        (theirs.error, theirs.low, theirs.high), rel=1e-9
    )
    one, other = areas.area_of(sums), segment_tests.area(given)
    assert one is not None
    assert other is not None
    assert (one.value, *one.spread, *one.size) == pytest.approx(
        (other.value, *other.spread, *other.size), rel=1e-9
    )


def test_ranges_that_share_a_score_or_leave_the_unit_are_not_joined() -> None:
    given = subject("binary", weighted=False)
    score = given.response.probability
    score[:, 1] = np.where(score[:, 1] < 0.5, 0.3, 0.7)
    assert len(areas.edges_of(score[:, 1], ranges=50)) == 1
    assert areas.edges_of(np.full(9, 0.3), ranges=50).size == 0
    score[::2, 1] *= 1 + 4e-16  # rounding noise around the edge, which tells no rows apart
    assert ranges_of(given, np.array([0.3 * (1 + 2e-16), 0.5])) is None
    assert ranges_of(given, np.array([0.5])) is not None
    assert ranges_of(given, np.array([0.5]), unit=False) is None


def test_few_hits_have_newcombes_interval_and_one_class_none() -> None:
    given = subject("binary", weighted=False)
    given.y[:] = 0
    assert np.isnan(areas.value_of(ranges_of(given, np.array([0.5])).whole()))
    assert areas.limit_of(ranges_of(given, np.array([0.5])).whole()) is None
    given.y[:5] = 1
    found = areas.limit_of(ranges_of(given, np.array([0.5])).whole())
    metric = next(m for m in METRICS if m.name == "roc_auc")
    value = metric.score(given.y, given.response, given.model, None)
    theirs = metric_influence.limit(metric, given, value=value, rng=np.random.default_rng(0))
    assert found is not None
    assert theirs is not None
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
