"""A budget counts the seconds in which the process could run: not those in which it, or its machine, stood still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explain_step import heartbeat, stages
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.heartbeat import LATE, Heart


class Times:
    """Wall and processor seconds that a test moves, beside those that pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.cpu = 0.0, 0.0
        wall, cpu = time.perf_counter, time.process_time
        monkeypatch.setattr(time, "perf_counter", lambda: self.wall + wall() * self.real)
        monkeypatch.setattr(time, "process_time", lambda: self.cpu + cpu() * self.real)

    real = 0


class Alive:
    """A thread that lives; a test beats in its place."""

    def is_alive(self) -> bool:
        return True


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


@pytest.fixture
def heart(times: Times) -> Any:
    made = Heart()
    made._thread = Alive()
    return made


def test_what_a_model_is_waited_for_counts_though_no_processor_works(times: Times, heart: Any) -> None:
    for _ in range(200):
        times.wall += 0.2
        heart.beat()
    assert heart.now() == pytest.approx(40.0)


def test_a_gap_without_a_beat_counts_as_far_as_the_processor_explains_it(times: Times, heart: Any) -> None:
    times.wall += 30.0  # the process was stopped
    assert heart.now() == pytest.approx(LATE)
    heart.beat()
    assert heart.now() == pytest.approx(LATE)
    times.wall, times.cpu = times.wall + 30.0, times.cpu + 12.0  # it worked for 12 of these, in one call
    assert heart.now() == pytest.approx(LATE + 12.0)
    heart.beat()
    times.wall, times.cpu = times.wall + 5.0, times.cpu + 9.0  # on two processors
    assert heart.now() == pytest.approx(LATE + 17.0)


def test_without_a_thread_every_second_counts(times: Times, heart: Any) -> None:
    heart._thread = None
    times.wall += 30.0
    assert heart.now() == pytest.approx(30.0)


def test_time_never_goes_back_when_beats_and_looks_mix(times: Times, heart: Any) -> None:
    seen, rng = [heart.now()], np.random.default_rng(0)
    for step in rng.choice([0.1, 0.2, 0.9, 1.1, 4.0], size=300):
        times.wall += step
        times.cpu += step * rng.uniform(0, 2)
        if rng.random() < 0.5:
            heart.beat()
        seen.append(heart.now())
    assert (np.diff(seen) >= 0).all()


def test_the_thread_lives_as_long_as_somebody_counts() -> None:
    heart = Heart()
    with heart.beating():
        thread = heart._thread
        with heart.beating():
            assert heart._thread is thread
        assert thread is not None
        assert thread.is_alive()
    assert not thread.is_alive()
    assert heart._thread is None


def test_no_thread_to_be_had_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(heartbeat.Thread, "start", refuse)
    heart = Heart()
    with heart.beating():
        assert heart._thread is None


def test_a_machine_that_stood_still_costs_no_section(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    times.real = 1
    monkeypatch.setattr(heartbeat, "HEART", Heart())
    calls = 0

    def model(frame: pd.DataFrame) -> Any:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            times.wall += 10_000.0
        A = frame.to_numpy(dtype=float)
        return A[:, 0] * A[:, 1] + A.sum(axis=1)

    X = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 5)), columns=list("abcde"))
    done = compute(model, X, model(X), config=Config(task="regression", budget=600), background=X[:60])
    assert calls > 30
    assert not [c.code for c in done.caveats if c.code.endswith("_budget") or c.code == "budget_cut"]


CHILD = """
import sys, time
from explain_step import stages
from explain_step.config import Config
purse, began = stages.Purse(Config(budget=60)), time.perf_counter()
with purse.stage("attributions"):
    print("begun", flush=True)
    sys.stdin.readline()
print(time.perf_counter() - began - purse.spent)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can stop a process")
def test_seconds_in_which_the_process_was_stopped_are_not_spent() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        unspent = float(child.stdout.readline())
    assert unspent > 1.0  # of three, one of which always counts


def test_a_stage_without_a_share_starts_no_thread() -> None:
    purse = stages.Purse(Config(budget=60))
    with purse.stage("segments") as config:
        assert heartbeat.HEART._thread is None
        assert config.budget == 60
    with purse.stage("importance"):
        assert heartbeat.HEART._thread is not None
    assert heartbeat.HEART._thread is None
