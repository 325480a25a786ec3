"""One budget for all stages of the step, and how few calls each stage asks the model in."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explain_step import heartbeat, stages
from explain_step.artifacts import permutation_importance, predicting
from explain_step.compute import compute, judge
from explain_step.config import Config
from explain_step.explainers import permutation


class Clock:
    """A clock that only the model moves: what it costs is counted, not waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.rows, self.calls = 0.0, 0, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(heartbeat, "now", lambda: self.now)

    def model(self, *, per_row: float, per_call: float = 0.0) -> Any:
        def predict(frame: pd.DataFrame) -> Any:
            self.now += per_call + per_row * len(frame)
            self.rows += len(frame)
            self.calls += 1
            A = frame.to_numpy(dtype=float)
            return A[:, 0] * A[:, 1] + np.sin(A[:, 2]) + A.sum(axis=1)

        return predict


def table(n: int, d: int, *, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(n, d))
    return pd.DataFrame(values, columns=[f"x{j}" for j in range(d)])


def explained(clock: Clock, model: Any, *, n: int = 400, d: int = 12, m: int = 600, **options: Any) -> Any:
    X = table(n, d)
    y = np.asarray(model(X)) + np.random.default_rng(1).normal(size=n)
    config = Config(task="regression", **options)
    return compute(model, X, y, config=config, background=table(m, d, seed=2))


@pytest.mark.parametrize("per_row", [2e-4, 1e-3, 5e-3])
def test_all_stages_of_a_slow_model_share_one_budget(monkeypatch: pytest.MonkeyPatch, per_row: float) -> None:
    clock = Clock(monkeypatch)
    done = explained(clock, clock.model(per_row=per_row), budget="60s", top_features=4)
    before = 2 * 400 * per_row  # the test's labels, and the model's answer on the explained rows
    assert clock.now - before <= 1.1 * 60
    assert set(done.missing) <= {"performance"}
    status, reason = judge(done)
    assert status == "degraded"
    codes = {c.code for c in done.caveats if c.degrades}
    assert codes & {"budget_cut", "permutation_budget", "dependence_budget", "interaction_budget"}
    assert "budget" in reason


def test_exact_values_that_ask_the_model_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    done = explained(clock, clock.model(per_row=1e-3), n=60, d=4, m=25, budget=60)
    assert done.attributions.method.name == "enumeration"
    assert 10 < clock.now <= 66


def test_a_model_that_takes_long_only_per_call_is_asked_about_as_many_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    done = explained(clock, clock.model(per_row=1e-6, per_call=0.05), budget=60, top_features=4)
    assert not [c.code for c in done.caveats if c.code.endswith("_budget") or c.code == "budget_cut"]
    assert clock.now < 60


def test_preparing_is_not_taken_for_the_models_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds of preparing, and the few rows that are always predicted, once ended the work at these rows."""
    clock = Clock(monkeypatch)
    model, drawn = clock.model(per_row=1e-5), permutation.draw_walks

    def slowly(*args: Any, **more: Any) -> Any:
        clock.now += 3.0
        return drawn(*args, **more)

    monkeypatch.setattr(permutation, "draw_walks", slowly)
    done = explained(clock, model, n=200, m=100, budget=30, top_features=2)
    assert done.attributions.method.budget is None
    assert len(done.attributions.rows) == 200


def test_a_small_first_call_does_not_decide_what_a_large_one_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first 80 rows at 0.3 s a call look like 4 ms a row, and 1,000 rows like the whole budget."""
    clock = Clock(monkeypatch)
    done = explained(clock, clock.model(per_row=1e-6, per_call=0.3), n=200, m=100, budget=12, top_features=2)
    assert len(done.attributions.rows) == 200


def test_one_slow_call_costs_no_piece_that_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first piece of 6 s looks as if a second one would not fit into 10 s; the others take a second each."""
    clock = Clock(monkeypatch)
    watch, done = predicting.Stopwatch(10), []
    for piece in watch.in_time(["slow", "b", "c", "d"]):
        clock.now += 6 if piece == "slow" else 1
        done.append(piece)
    assert done == ["slow", "b", "c", "d"]
    assert clock.now == 9


def test_pieces_end_with_the_time_and_the_least_are_done_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)

    def reached(seconds: float, **options: int) -> list[int]:
        found = []
        for piece in predicting.Stopwatch(seconds).in_time(range(5), **options):
            clock.now += 1
            found.append(piece)
        return found

    assert reached(3) == [0, 1, 2]
    assert reached(-1) == []
    assert reached(-1, least=2) == [0, 1]
    assert reached(100) == [0, 1, 2, 3, 4]


def test_what_one_stage_leaves_the_others_may_spend() -> None:
    purse = stages.Purse(Config(budget=100))
    shares = stages.SHARES
    whole = sum(shares.values())
    first = purse.for_stage("attributions").budget
    assert first == pytest.approx(100 * shares["attributions"] / whole)
    with purse.stage("attributions"):
        pass
    rest = whole - shares["attributions"]
    assert purse.for_stage("importance").budget == pytest.approx(100 * shares["importance"] / rest, rel=1e-3)
    purse.spent = 1_000.0
    assert purse.for_stage("importance").budget > 0, "a little is always left"
    assert purse.for_stage("segments").budget == 100, "a stage that asks the model nothing has no share"


def test_exact_work_has_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LinearRegression

    clock = Clock(monkeypatch)
    X = table(200, 4)
    model = LinearRegression().fit(X, X["x0"])
    plain = LinearRegression.predict

    def slow(self: Any, rows: Any) -> Any:
        clock.now += 1e-4 * len(rows)
        return plain(self, rows)

    monkeypatch.setattr(LinearRegression, "predict", slow)
    done = compute(model, X, X["x0"].to_numpy(), config=Config(budget=200), background=table(100, 4, seed=1))
    assert done.attributions.method.exact
    assert judge(done)[0] == "complete"


def test_each_stage_asks_in_few_large_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    sizes: list[int] = []
    inner = clock.model(per_row=0.0)

    def model(frame: pd.DataFrame) -> Any:
        sizes.append(len(frame))
        return inner(frame)

    explained(clock, model, n=400, d=12, m=600, top_features=4)
    shuffled = permutation_importance.REPEATS * 400  # a few rows are lent their own value
    assert sum(0.98 * shuffled <= s <= shuffled for s in sizes) == 12, "all repeats of a feature in one call"
    curves = [s for s in sizes if s == 21 * 500 + 2 * 400]
    assert len(curves) == 4, "partial dependence and local effects of a feature in one call"
    large = [s for s in sizes if s >= 10_000]
    assert sum(large) > 0.8 * sum(sizes)
    assert len(sizes) < 110
