"""Intervals of metrics on many rows: their normal limit against resampling, and coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from explain_step.artifacts.metric_influence import area_influence, limit, limit_around
from explain_step.artifacts.segment_performance import RESAMPLES, resampled
from explain_step.intervals import resampled_counts
from explain_step.metrics import METRICS, auc
from explain_step.types import FittedModel, Response, Subject

BY_NAME = {metric.name: metric for metric in METRICS}


def subject_of(n: int, *, rng: np.random.Generator, weighted: bool = False, task: str = "binary") -> Subject:
    """Return rows whose probabilities are right (binary), or predictions that miss by normal noise."""
    score = rng.uniform(0.02, 0.98, size=n)
    y = (rng.uniform(size=n) < score).astype(int) if task == "binary" else score + rng.normal(size=n)
    X = pd.DataFrame({"a": score})
    probability = np.column_stack([1 - score, score]) if task == "binary" else None
    response = Response(
        output=score[:, None],
        probability=probability,
        label=(score > 0.5).astype(int) if task == "binary" else None,
    )
    model = FittedModel(
        respond=lambda rows: response, native=None, family="blackbox", task=task,  # type: ignore[arg-type]
        output_space="probability" if task == "binary" else "prediction", output_names=("1",), feature_names=("a",),
        classes=(0, 1) if task == "binary" else None, positive=1 if task == "binary" else None,
    )  # fmt: skip
    return Subject(
        model=model, X=X, frame=X, y=y, background=X, background_name="itself",
        weights=rng.uniform(0.2, 3.0, size=n) if weighted else None, row_ids=np.arange(n).astype(str), target_name="y",
        response=response,
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier", "accuracy", "rmse", "mae"])
def test_the_limit_has_the_error_and_interval_of_resampling(name: str, weighted: bool) -> None:
    rng = np.random.default_rng(3)
    task = "regression" if name in ("rmse", "mae") else "binary"
    made = subject_of(3000, rng=rng, weighted=weighted, task=task)
    metric = BY_NAME[name]
    value = metric.score(made.y, made.response, made.model, made.weights)  # type: ignore[arg-type]
    found = limit(metric, made, value=value, rng=rng)
    assert found is not None
    counts = np.concatenate([resampled_counts(3000, size=RESAMPLES, rng=rng) for _ in range(10)])
    drawn = resampled(metric, made, counts * (1.0 if made.weights is None else made.weights))
    assert found.error == pytest.approx(drawn.std(), rel=0.06)
    assert [found.low, found.high] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.25 * found.error
    )


def test_the_area_s_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(11)
    whole = subject_of(400_000, rng=rng)
    truth = auc(np.asarray(whole.y) == 1, whole.response.output[:, 0])
    hits = 0
    for _ in range(300):
        part = subject_of(1000, rng=rng)
        value = auc(np.asarray(part.y) == 1, part.response.output[:, 0])
        found = limit(BY_NAME["roc_auc"], part, value=value, rng=rng)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 300 <= 0.98


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "task"), [("r2", "regression"), ("f1", "binary"), ("balanced_accuracy", "binary")]
)
def test_metrics_that_are_resampled_have_a_formula_on_many_rows(name: str, task: str, weighted: bool) -> None:
    rng = np.random.default_rng(5)
    made = subject_of(60_000, rng=rng, weighted=weighted, task=task)
    metric = BY_NAME[name]
    value = metric.score(made.y, made.response, made.model, made.weights)  # type: ignore[arg-type]
    found = [limit(metric, made, value=value, rng=rng) for _ in range(20)]
    assert all(f is not None and f.low < value < f.high for f in found)
    counts = resampled_counts(60_000, size=60, rng=rng)
    drawn = resampled(metric, made, counts * (1.0 if made.weights is None else made.weights))
    assert np.sqrt(np.mean([f.error**2 for f in found if f])) == pytest.approx(drawn.std(), rel=0.25)
    assert limit(metric, made.take(np.arange(30_000)), value=value, rng=rng) is None


def test_the_limit_on_many_rows_does_not_depend_on_their_order() -> None:
    made = subject_of(50_000, rng=np.random.default_rng(2), task="regression")
    turned = made.take(np.random.default_rng(4).permutation(50_000))
    found = [limit(BY_NAME["r2"], s, value=0.1, rng=np.random.default_rng(9)) for s in (made, turned)]
    assert found[0] is not None
    assert found[1] is not None
    assert [found[0].low, found[0].high] == pytest.approx([found[1].low, found[1].high], rel=1e-9)


def test_the_influence_is_the_derivative_of_the_area() -> None:
    rng = np.random.default_rng(5)
    score, hit = rng.integers(0, 12, size=60) / 12, rng.uniform(size=60) < 0.4  # with ties
    weights = rng.uniform(0.5, 2, size=60)
    influence = area_influence(hit, score, weights=weights)
    assert np.average(influence, weights=weights) == pytest.approx(0, abs=1e-12)
    for row in (0, 7, 31):
        more = weights.copy()
        more[row] += 1e-6
        change = (auc(hit, score, weights=more) - auc(hit, score, weights=weights)) / 1e-6
        assert change == pytest.approx(influence[row] / weights.sum(), rel=1e-3, abs=1e-9)


def test_an_interval_has_the_length_of_its_errors_and_ends_at_the_metric_s_bounds() -> None:
    error = 0.02 / 1.959963984540054
    found = limit_around(0.5, error)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.48, 0.52))
    for value, direction, ends in ((0.99, "higher", (0.97, 1.0)), (0.01, "lower", (0.0, 0.03))):
        found = limit_around(value, error, direction=direction)
        assert found is not None
        assert (found.low, found.high) == pytest.approx(ends)
    assert limit_around(0.5, 0.0) is None
    assert limit_around(0.5, float("nan")) is None


def test_few_rows_or_few_of_a_class_are_resampled() -> None:
    rng = np.random.default_rng(0)
    few = subject_of(500, rng=rng)
    assert limit(BY_NAME["roc_auc"], few, value=0.8, rng=rng) is None
    rare = subject_of(2000, rng=rng)
    rare.y[np.flatnonzero(rare.y)[90:]] = 0  # type: ignore[index, arg-type]
    assert limit(BY_NAME["roc_auc"], rare, value=0.8, rng=rng) is None
    assert limit(BY_NAME["f1"], subject_of(2000, rng=rng), value=0.5, rng=rng) is None


def several_of(n: int, *, rng: np.random.Generator, weighted: bool = False) -> Subject:
    """Return rows of three classes, one of them rare, whose probabilities tell something."""
    raw = np.exp(rng.normal([0.5, 0.0, -1.0], size=(n, 3)))
    p = raw / raw.sum(axis=1, keepdims=True)
    y = (rng.uniform(size=(n, 1)) > np.cumsum(p, axis=1)[:, :2]).sum(axis=1)
    base = subject_of(n, rng=rng, weighted=weighted)
    model = replace(
        base.model, task="multiclass", classes=(0, 1, 2), positive=None, output_names=("0", "1", "2")
    )
    response = Response(output=p, probability=p.round(2), label=p.argmax(axis=1))  # rounded: with ties
    return replace(base, model=model, y=y, response=response)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_area_of_several_classes_has_the_error_and_interval_of_resampling(weighted: bool) -> None:
    rng = np.random.default_rng(8)
    made, metric = several_of(3000, rng=rng, weighted=weighted), BY_NAME["roc_auc"]
    value = metric.score(made.y, made.response, made.model, made.weights)  # type: ignore[arg-type]
    found = limit(metric, made, value=value, rng=rng)
    assert found is not None
    counts = resampled_counts(3000, size=600, rng=rng)
    drawn = resampled(metric, made, counts * (1.0 if made.weights is None else made.weights))
    assert found.error == pytest.approx(drawn.std(), rel=0.08)
    assert [found.low, found.high] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.35 * found.error
    )


def test_the_interval_of_the_mean_area_covers_the_truth() -> None:
    rng, metric = np.random.default_rng(12), BY_NAME["roc_auc"]
    parts = [several_of(1_500, rng=rng) for _ in range(300)]
    values = [metric.score(p.y, p.response, p.model, None) for p in parts]  # type: ignore[arg-type]
    found = [limit(metric, p, value=v, rng=rng) for p, v in zip(parts, values, strict=True)]
    hits = sum(f.low <= np.mean(values) <= f.high for f in found if f is not None)
    assert 0.92 <= hits / 300 <= 0.98


def test_few_of_one_of_several_classes_are_resampled() -> None:
    rng = np.random.default_rng(1)
    made = several_of(2000, rng=rng)
    rare = replace(made, y=np.where(np.cumsum(made.y == 2) > 90, np.minimum(made.y, 1), made.y))
    assert limit(BY_NAME["roc_auc"], made, value=0.8, rng=rng) is not None
    assert limit(BY_NAME["roc_auc"], rare, value=0.8, rng=rng) is None
    few = several_of(900, rng=rng)
    assert limit(BY_NAME["roc_auc"], few, value=0.8, rng=rng) is None
