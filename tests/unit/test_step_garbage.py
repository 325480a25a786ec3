"""Collections of garbage pass over the caller's objects during a step, and are then as they were."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import explain_step
from explain_step import step

X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def explained(directory: Path, *, fails: bool = False) -> list[int]:
    """Return how many objects were frozen whenever the model was asked."""
    seen: list[int] = []

    def model(rows: pd.DataFrame) -> np.ndarray:
        seen.append(gc.get_freeze_count())
        if fails and len(seen) > 2:
            raise ValueError
        return rows["a"].to_numpy() * 2

    explain_step.explain(model, X, directory=directory)
    return seen


def test_the_callers_objects_are_passed_over_and_come_back(tmp_path: Path) -> None:
    before = gc.get_freeze_count()
    assert min(explained(tmp_path)) > step.FROZEN_BY_PYTHON
    assert gc.get_freeze_count() <= before
    with pytest.raises(explain_step.errors.PredictionFailed):
        explained(tmp_path, fails=True)
    assert gc.get_freeze_count() <= before


def test_what_the_caller_has_frozen_stays_so(tmp_path: Path) -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    assert before > step.FROZEN_BY_PYTHON
    assert len(set(explained(tmp_path))) >= 1
    assert gc.get_freeze_count() == pytest.approx(before, rel=0.01)


def test_garbage_of_the_step_is_collected_all_the_same(tmp_path: Path) -> None:
    class Loop:
        alive = 0

        def __init__(self) -> None:
            Loop.alive += 1
            self.me = self

        def __del__(self) -> None:
            Loop.alive -= 1

    most = []

    def model(rows: pd.DataFrame) -> np.ndarray:
        for _ in range(3_000):
            Loop()
        most.append(Loop.alive)
        return rows["a"].to_numpy() * 2

    explain_step.explain(model, X, directory=tmp_path)
    assert len(most) * 3_000 > 2 * max(most)
