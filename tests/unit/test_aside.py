"""Sections and figures from a second process: the same numbers and bytes, and none lost when it fails."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import explain_step
from explain_step import aside as room
from explain_step import plots, threads
from explain_step.artifacts import BUILDERS, Builder
from explain_step.aside import Aside
from explain_step.compute import ASIDE, Explanation, Made, compute
from explain_step.config import Config
from explain_step.explainers import tree_compiled
from explain_step.snapshot import provenance
from explain_step.types import Artifact, Figure, Section

ROWS = 120
SENT = ("importance", "dependence", "examples", "segments")
"""The kinds of figures, in the order in which this process knows them to be complete."""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the second process is a fork, which is made on Linux alone"
)


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one tests the same."""
    monkeypatch.setattr(room, "processors", lambda: 2)


def explained(helper: Aside | None, *, builders: tuple[Builder, ...] = BUILDERS) -> Explanation:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(ROWS, 3)), columns=["income", "debt", "$age$"])
    X["group"] = np.where(X["debt"] > 0, 1, 0)
    y = X["income"] - 2 * X["debt"] * X["group"] + rng.normal(size=ROWS)
    model = LinearRegression().fit(X, y)
    return compute(model, X, y, config=Config(segments=["group"]), helper=helper, builders=builders)


def rendered(explanation: Explanation, drawing: plots.Drawing | None = None) -> tuple[Figure, ...]:
    return plots.render({a.name: a for a in explanation.artifacts}, labels={}, drawing=drawing)


def same(one: Explanation, other: Explanation) -> bool:
    """Whether all that is recorded of the numbers is equal; the log says when and how long."""
    pairs = zip(one.artifacts, other.artifacts, strict=True)
    tables = all(
        (a.name, a.kind, a.meta) == (b.name, b.kind, b.meta) and a.table.equals(b.table) for a, b in pairs
    )
    rest = ("scores", "caveats", "missing", "consumers", "required")
    return tables and all(getattr(one, name) == getattr(other, name) for name in rest)


def until(done: Callable[[], object]) -> None:
    """Wait for what the process sends."""
    last = time.monotonic() + 60
    while not done():
        assert time.monotonic() < last
        time.sleep(0.01)


def waited_for(helper: Aside, *names: str) -> None:
    """Let the process come to its end with these sections."""
    until(lambda: all(helper.section(name) for name in names))


def after(helper: Aside) -> tuple[Builder, ...]:
    """Return the builders, of which the first waits until the process has made its sections."""

    def build(*args: Any, **options: Any) -> Section:
        waited_for(helper, *ASIDE)
        return BUILDERS[1].build(*args, **options)

    return tuple(replace(b, build=build) if b.name == "importance" else b for b in BUILDERS)


@pytest.fixture(scope="module")
def alone() -> Explanation:
    return explained(None)


@pytest.fixture(scope="module")
def expected(alone: Explanation) -> tuple[Figure, ...]:
    return rendered(alone)


@pytest.fixture
def helper() -> Iterator[Aside]:
    with Aside(labels={}, enough=ROWS) as found:
        yield found


def test_the_same_numbers_and_bytes_in_the_same_order(
    helper: Aside, alone: Explanation, expected: tuple[Figure, ...]
) -> None:
    made = explained(helper, builders=after(helper))
    assert same(made, alone)
    assert helper.kinds(made.artifacts) == SENT
    assert rendered(made, helper) == expected
    names = [event["step"] for event in made.events]
    assert sorted(names) == sorted(event["step"] for event in alone.events)
    assert [event["seq"] for event in made.events] == list(range(len(names)))


def test_sections_are_taken_from_there(helper: Aside) -> None:
    made = explained(helper, builders=after(helper))
    tables = {id(a.table) for name in ASIDE for a in helper._sections[name].section.artifacts}
    kinds = {a.kind for a in made.artifacts if id(a.table) in tables}
    assert kinds == {"performance", "segments", "examples"}


def test_the_process_draws_what_it_made_and_was_sent(helper: Aside, expected: tuple[Figure, ...]) -> None:
    explained(helper, builders=after(helper))
    until(lambda: len(helper.figures()) == len(expected))
    assert {f.slug: f for f in helper.figures().values()} == {f.slug: f for f in expected}


def test_the_process_says_when_it_rests(helper: Aside, expected: tuple[Figure, ...]) -> None:
    """Predictions leave it a processor until then."""
    explained(helper, builders=after(helper))
    until(lambda: len(helper.figures()) == len(expected) and not threads._beside)
    helper.made("importance", [Artifact(name="importance", kind="importance", table=pd.DataFrame())])
    assert threads._beside == {helper._process}


def test_a_process_that_dies_needs_no_processor(helper: Aside) -> None:
    helper.started(rows=ROWS, sections={"performance": lambda: time.sleep(600)})  # type: ignore[dict-item]
    assert threads._beside == {helper._process}
    assert helper._process is not None
    os.kill(helper._process, signal.SIGKILL)
    until(lambda: not threads._beside)


def test_few_rows_start_no_process(alone: Explanation, expected: tuple[Figure, ...]) -> None:
    with Aside(labels={}, enough=ROWS + 1) as helper:
        made = explained(helper)
        assert helper._process is None
        assert helper.kinds(made.artifacts) == ()
        assert same(made, alone)
        assert rendered(made, helper) == expected


def test_one_processor_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "processors", tree_compiled.processors)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Aside(labels={}, enough=1) as helper:
        helper.started(rows=ROWS, sections={})
        assert helper._process is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_process_that_ends_or_hangs_costs_nothing(
    helper: Aside, alone: Explanation, expected: tuple[Figure, ...], number: signal.Signals
) -> None:
    start = helper.started

    def started(**given: Any) -> None:
        start(**given)
        assert helper._process is not None
        os.kill(helper._process, number)

    helper.started = started  # type: ignore[method-assign]
    made = explained(helper)
    assert same(made, alone)
    assert rendered(made, helper) == expected


def test_a_process_killed_at_the_end_costs_no_figure(helper: Aside, expected: tuple[Figure, ...]) -> None:
    made = explained(helper, builders=after(helper))
    assert helper._process is not None
    os.kill(helper._process, signal.SIGKILL)
    assert rendered(made, helper) == expected


def test_a_process_that_cannot_be_made(
    helper: Aside, alone: Explanation, expected: tuple[Figure, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        msg = "Cannot allocate memory"
        raise BlockingIOError(msg)

    monkeypatch.setattr(os, "fork", fork)
    made = explained(helper)
    assert same(made, alone)
    assert rendered(made, helper) == expected


def test_a_section_that_fails_there_is_made_and_told_here(helper: Aside, alone: Explanation) -> None:
    here = os.getpid()

    def asks(subject: Any, attributions: Any, **options: Any) -> Section:
        subject.model.predict(subject.X)
        return BUILDERS[2].build(subject, attributions, **options)

    def fails(*args: Any, **options: Any) -> Section:
        msg = f"in process {os.getpid()}"
        raise ValueError(msg)

    wrong = {"segments": asks, "examples": fails}
    builders = tuple(replace(b, build=wrong.get(b.name, b.build)) for b in BUILDERS)
    made = explained(helper, builders=builders)
    assert f"in process {here}" in made.missing["examples"]
    known = {a.name: a.table for a in alone.artifacts if a.kind == "segments"}
    assert all(a.table.equals(known[a.name]) for a in made.artifacts if a.kind == "segments")
    assert not {"segments", "examples"} & set(helper._sections)


def test_tables_that_changed_are_drawn_anew(helper: Aside) -> None:
    made = explained(helper, builders=after(helper))
    other = tuple(
        replace(a, table=a.table.assign(**{"mean_abs_shap": 1.0})) if a.name == "importance" else a
        for a in made.artifacts
    )
    until(lambda: ("importance", 0) in helper.figures())
    assert helper.kinds(other) == tuple(kind for kind in SENT if kind != "importance")
    changed = replace(made, artifacts=other)
    assert rendered(changed, helper) == rendered(changed)


def test_the_process_ends_with_the_context() -> None:
    with Aside(labels={}, enough=1) as helper:
        helper.started(rows=ROWS, sections={})
        process = helper._process
        assert process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_only_a_process_that_is_still_ours_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who waits for any child may have taken ours; its number can then be another process."""
    killed: list[int] = []
    with Aside(labels={}, enough=1) as helper:
        helper.started(rows=ROWS, sections={})
        assert helper._process is not None
        os.kill(helper._process, signal.SIGKILL)
        os.waitpid(helper._process, 0)
        monkeypatch.setattr(os, "kill", lambda number, _: killed.append(number))
    assert killed == []


def test_a_step_in_a_thread_has_a_second_process_too(helper: Aside, alone: Explanation) -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(explained, helper, builders=after(helper)).result()
    assert same(made, alone)
    assert set(helper._sections) == set(ASIDE)


def test_the_callers_handlers_and_streams_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """What a caller does on a signal, an upload say, is not done twice."""
    called: list[int] = []
    lock = threading.Lock()
    before = signal.signal(signal.SIGTERM, lambda *_: called.append(os.getpid()))

    def section(link: int) -> Made:
        os.write(1, b"written in the process")
        os.write(link, b"1" if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else b"0")
        return Made(section=Section(artifacts=()), events=(), drawn=frozenset())

    read, write = os.pipe()
    try:
        with lock, Aside(labels={}, enough=1) as helper:
            helper.started(rows=ROWS, sections={"performance": partial(section, write)})
            assert os.read(read, 1) == b"1"
            waited_for(helper, "performance")
            assert helper._process is not None
            os.kill(helper._process, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(read)
        os.close(write)
    assert called == []
    assert capfd.readouterr().out == ""


def test_what_is_recorded_there_is_in_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine, packages and code are told by the second process; the seeds, which it cannot know, by this one."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(room.ENOUGH_ROWS, 2)), columns=["a", "b"])
    model = LinearRegression().fit(X, X["a"])
    real = provenance.environment
    monkeypatch.setattr(provenance, "environment", lambda: {**real(), "process": os.getpid()})
    recorded: list[Any] = []

    class Patient(Aside):
        def recorded(self) -> Any:
            until(super().recorded)
            recorded.append(self._process)
            return super().recorded()

    monkeypatch.setattr("explain_step.step.Aside", Patient)
    shot = explain_step.explain(model, X, X["a"], directory=tmp_path, seed=5)
    environment, code = (
        json.loads((shot.path / f"provenance/{n}.json").read_text()) for n in ("environment", "code")
    )
    assert [environment["process"]] == recorded
    assert recorded != [os.getpid()]
    assert code["seed"]["root"] == 5
    assert {one["name"] for one in code["seed"]["consumers"]} >= {"importance", "segments"}
    assert environment["packages"] == real()["packages"]


def test_a_record_that_fails_there_is_none() -> None:
    def fails() -> dict[str, Any]:
        raise OSError

    section = Made(section=Section(artifacts=()), events=(), drawn=frozenset())
    with Aside(labels={}, enough=1, record=fails) as helper:
        helper.started(rows=ROWS, sections={"performance": lambda: section})
        helper.made("importance", [Artifact(name="importance", kind="importance", table=pd.DataFrame())])
        waited_for(helper, "performance")
        assert helper.recorded() is None
        assert helper._process is not None


def test_a_process_that_takes_nothing_does_not_hold_the_first_one_up() -> None:
    """More than a pipe holds is sent to a process that hangs: the step goes on, and its end does not wait either."""
    big = Artifact(name="importance", kind="importance", table=pd.DataFrame({"x": np.zeros(1_000_000)}))
    with Aside(labels={}, enough=1) as helper:
        helper.started(rows=ROWS, sections={"performance": lambda: time.sleep(600)})  # type: ignore[dict-item]
        assert helper._process is not None
        os.kill(helper._process, signal.SIGSTOP)
        for _ in range(3):
            helper.made("importance", [big])
        assert helper.section("performance") is None
        threads = helper._threads
    assert not any(thread.is_alive() for thread in threads)


def test_large_tables_do_not_block_either_side(helper: Aside) -> None:
    """Both sides send more than a pipe holds before either one takes anything."""
    big = Artifact(name="big", kind="other", table=pd.DataFrame({"x": np.zeros(1_000_000)}))
    section = Made(section=Section(artifacts=(big,)), events=(), drawn=frozenset())
    helper.started(rows=ROWS, sections={"performance": lambda: section})
    helper.made("importance", [replace(big, kind="importance", name="importance")])
    waited_for(helper, "performance")
    assert len(helper._sections["performance"].section.artifacts[0].table) == 1_000_000
