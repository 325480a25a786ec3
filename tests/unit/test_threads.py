"""Threads of libraries: one for what is short, all that were given for a model, and afterwards as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import threadpoolctl
from sklearn.ensemble import HistGradientBoostingRegressor

from explain_step import models, threads
from explain_step.artifacts import BUILDERS
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.types import Section

GIVEN = 3


def numbers(api: str) -> set[int]:
    return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == api}


@pytest.fixture(autouse=True)
def _given() -> Iterator[None]:
    """Whatever the machine has."""
    with threadpoolctl.threadpool_limits(GIVEN):
        yield


def rows() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(500, 2)), columns=["a", "b"])


def test_linear_algebra_is_alone_and_then_as_given() -> None:
    assert numbers("blas") == {GIVEN}
    with threads.alone():
        assert numbers("blas") == {1}
        with threads.alone(), threads.as_given():
            assert numbers("blas") == {GIVEN}
        assert numbers("blas") == {1}
    assert numbers("blas") == {GIVEN}
    with threads.as_given():
        assert numbers("blas") == {GIVEN}


def test_steps_in_two_threads_leave_it_as_it_was() -> None:
    """The first one to come may be the first one to go, too."""
    here, gone = Event(), Event()

    def first() -> None:
        with threads.alone():
            here.set()
            assert entered.wait(60)
        gone.set()

    def second() -> None:
        assert here.wait(60)
        with threads.alone(), threads.as_given():
            entered.set()
            assert gone.wait(60)

    entered = Event()
    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(first), pool.submit(second)]:
            one.result()
    assert numbers("blas") == {GIVEN}
    with threads.alone():
        assert numbers("blas") == {1}


def test_an_error_inside_leaves_it_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError), threads.alone(), threads.as_given():
        raise ZeroDivisionError
    assert numbers("blas") == {GIVEN}


def test_short_calls_are_not_shared() -> None:
    pace = threads.Pace()
    with pace.call(1000):
        assert numbers("openmp") == {GIVEN}
    pace.seconds = 1e-6
    with pace.call(999):
        assert numbers("openmp") == {1}
    assert numbers("openmp") == {GIVEN}


def test_a_second_process_keeps_a_processor_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    pace = threads.Pace(rows=1000, seconds=0.1)
    assert not pace.short(1000)
    threads.works_beside(1, now=True)
    try:
        assert pace.short(1000)
        assert not pace.short(3000)
        with pace.call(1000):
            assert numbers("openmp") == {1}
    finally:
        threads.works_beside(1, now=False)
    with pace.call(1000):
        assert numbers("openmp") == {GIVEN}


def test_a_slow_model_has_all_threads_for_any_call() -> None:
    pace = threads.Pace(rows=1000, seconds=1000.0)
    assert not pace.short(1)
    with pace.call(999):
        assert numbers("openmp") == {GIVEN}
    assert (pace.rows, pace.seconds) == (1000, 1000.0)


def test_a_tree_model_is_asked_about_few_rows_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows()
    fitted = HistGradientBoostingRegressor(max_iter=5).fit(X, X["a"])
    asked: list[tuple[int, set[int]]] = []
    predict = HistGradientBoostingRegressor.predict

    def noted(self: Any, frame: Any) -> Any:
        asked.append((len(frame), numbers("openmp")))
        return predict(self, frame)

    monkeypatch.setattr(HistGradientBoostingRegressor, "predict", noted)
    model = models.wrap(fitted, frame=X, config=Config())
    assert model.outputs is not None
    asked.clear()
    monkeypatch.setattr(threads, "SHORT", 0.0)
    shared = model.outputs(X)
    monkeypatch.setattr(threads, "SHORT", 1e9)
    alone = model.outputs(X.head(20))
    assert asked == [(500, {GIVEN}), (20, {1})]
    assert np.array_equal(shared[:20], alone)


def test_sections_work_alone_and_the_model_as_given() -> None:
    X = rows()
    asked: list[set[int]] = []
    made: list[set[int]] = []

    def predict(frame: pd.DataFrame) -> Any:
        asked.append(numbers("blas"))
        return frame["a"] * frame["b"]

    def build(*args: Any, **options: Any) -> Section:
        made.append(numbers("blas"))
        return BUILDERS[1].build(*args, **options)

    builders = tuple(replace(b, build=build) if b.name == BUILDERS[1].name else b for b in BUILDERS)
    compute(predict, X, X["a"], config=Config(), builders=builders)
    assert made == [{1}]
    assert {tuple(one) for one in asked} == {(GIVEN,)}
    assert numbers("blas") == {GIVEN}
