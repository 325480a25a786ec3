"""Figures from a second process: the same bytes, and none lost when it fails."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from explain_step import plots
from explain_step.compute import Explanation, compute
from explain_step.config import Config
from explain_step.plots import drawing as room
from explain_step.types import Figure

ROWS = 120
KINDS = ("importance", "segments", "examples", "dependence")
"""As they are sent."""


def explained(watch: plots.Drawing | None) -> Explanation:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(ROWS, 3)), columns=["income", "debt", "$age$"])
    X["group"] = np.where(X["debt"] > 0, 1, 0)
    y = X["income"] - 2 * X["debt"] * X["group"] + rng.normal(size=ROWS)
    model = LinearRegression().fit(X, y)
    return compute(model, X, y, config=Config(segments=["group"]), watch=watch)


def rendered(explanation: Explanation, drawing: plots.Drawing | None = None) -> tuple[Figure, ...]:
    return plots.render({a.name: a for a in explanation.artifacts}, labels={}, drawing=drawing)


@pytest.fixture(scope="module")
def expected() -> tuple[Figure, ...]:
    return rendered(explained(None))


def test_the_same_bytes_in_the_same_order(expected: tuple[Figure, ...]) -> None:
    with plots.Drawing(labels={}, enough=ROWS) as drawing:
        made = explained(drawing)
        assert drawing.kinds(made.artifacts) == KINDS
        assert rendered(made, drawing) == expected


def test_the_process_draws_what_it_was_sent(expected: tuple[Figure, ...]) -> None:
    with plots.Drawing(labels={}, enough=ROWS) as drawing:
        explained(drawing)
        assert drawing._link is not None
        found: dict[tuple[str, int], Figure] = {}
        while len(found) < len(expected):
            assert drawing._link.poll(60)
            found |= drawing.figures()
    assert tuple(dict.fromkeys(kind for kind, _ in found)) == KINDS
    assert {f.slug: f for f in found.values()} == {f.slug: f for f in expected}


def test_few_rows_start_no_process(expected: tuple[Figure, ...]) -> None:
    with plots.Drawing(labels={}, enough=ROWS + 1) as drawing:
        made = explained(drawing)
        assert drawing._process is None
        assert drawing.kinds(made.artifacts) == ()
        assert rendered(made, drawing) == expected


def test_a_killed_process_costs_no_figure(expected: tuple[Figure, ...]) -> None:
    with plots.Drawing(labels={}, enough=ROWS) as drawing:
        made = explained(drawing)
        assert drawing._process is not None
        os.kill(drawing._process.pid, signal.SIGKILL)
        drawing._process.wait()
        assert rendered(made, drawing) == expected


def test_a_process_that_hangs_is_not_waited_for(expected: tuple[Figure, ...]) -> None:
    with plots.Drawing(labels={}, enough=ROWS) as drawing:
        made = explained(drawing)
        assert drawing._process is not None
        os.kill(drawing._process.pid, signal.SIGSTOP)
        assert rendered(made, drawing) == expected


def test_an_interpreter_that_does_not_start(
    expected: tuple[Figure, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.sys, "executable", "/does/not/exist")
    with plots.Drawing(labels={}, enough=1) as drawing:
        assert rendered(explained(drawing), drawing) == expected


def test_tables_that_changed_are_drawn_anew(expected: tuple[Figure, ...]) -> None:
    with plots.Drawing(labels={}, enough=ROWS) as drawing:
        made = explained(drawing)
        other = tuple(replace(a, meta=dict(a.meta)) if a.name == "segments" else a for a in made.artifacts)
        assert drawing.kinds(other) == ("importance", "examples", "dependence")
        assert rendered(replace(made, artifacts=other), drawing) == expected


def test_the_process_ends_with_the_context() -> None:
    with plots.Drawing(labels={}, enough=1) as drawing:
        drawing.started(rows=ROWS)
        process = drawing._process
        assert process is not None
    assert process.poll() is not None
