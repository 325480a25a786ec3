"""Many counterfactual rows, few predictions: batched calls on edited copies of rows, and a time budget."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from explain_step.types import FittedModel, FloatArray

CHUNK = 200_000
"""Most rows in one prediction call."""
T = TypeVar("T")


class Stopwatch:
    """A time budget, looked at between fixed pieces of work; it never changes the pieces themselves."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.perf_counter()
        self._end = self._begin + seconds

    def spent(self, *, done: int = 0, part: float = 1.0) -> bool:
        """Return whether the budget is used up, or would be by one more piece of this part of the ``done`` ones' mean."""
        now = time.perf_counter()
        return now + (part * (now - self._begin) / done if done else 0.0) > self._end

    def in_time(self, pieces: Iterable[T], *, least: int = 0) -> Iterator[T]:
        """Yield pieces of like work while there is time, at least the first ``least``.

        What is passed over comes again, and is then taken for half as long as the others: one slow call (a first one, a busy
        machine) says little about the next.
        """
        done, left = 0, list(pieces)
        for part in (1.0, 0.5):
            waiting, left = left, []
            for piece in waiting:
                if done >= least and self.spent(done=done, part=part):
                    left.append(piece)
                else:
                    yield piece
                    done += 1


def edited(base: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a copy of ``base`` with whole columns replaced (the arrays keep their own dtype)."""
    frame = base.copy(deep=False)
    for name, values in columns.items():
        # the dtype is stated, because pandas would read an object array of text as its string type
        plain = type(values) is pd.arrays.NumpyExtensionArray  # nullable and text dtypes stay as they are
        dtype = values.dtype.numpy_dtype if plain else values.dtype
        frame[name] = pd.Series(values, index=frame.index, dtype=dtype)
    return frame


def repeated(base: pd.DataFrame, times: int) -> pd.DataFrame:
    """Return ``base`` stacked ``times`` times, block after block, with a fresh index."""
    return base.iloc[np.tile(np.arange(len(base)), times)].reset_index(drop=True)


def predict(model: FittedModel, frame: pd.DataFrame, *, block: int) -> FloatArray:
    """Return the outputs of stacked rows, in calls of whole blocks of at most `CHUNK` rows.

    Parameters
    ----------
    frame : DataFrame of n rows
    block : int
        Rows that belong together; a call holds a whole number of blocks (at least one).

    Returns
    -------
    ndarray of shape (n, n_outputs)
    """
    size = max(CHUNK // max(block, 1), 1) * block
    if len(frame) <= size:
        return model.predict(frame)
    starts = range(0, len(frame), size)
    return np.concatenate([model.predict(frame.iloc[s : s + size].reset_index(drop=True)) for s in starts])


def predict_all(model: FittedModel, frames: Iterable[pd.DataFrame]) -> list[FloatArray]:
    """Return the outputs of several frames of equal columns, asked for in as few calls as `CHUNK` allows.

    Frames whose columns have other dtypes are asked for in a call of their own: stacking would change their values.
    """
    waiting: list[pd.DataFrame] = []
    answers: list[FloatArray] = []
    rows = 0
    for frame in frames:
        if waiting and (rows + len(frame) > CHUNK or not _alike(waiting[0], frame)):
            answers.extend(_ask(model, waiting))
            waiting, rows = [], 0
        waiting.append(frame)
        rows += len(frame)
    return answers + (_ask(model, waiting) if waiting else [])


def _alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether the frames can be stacked: equal dtypes, or categories, which `_ask` makes equal."""
    return all(
        a == b or (isinstance(a, pd.CategoricalDtype) and isinstance(b, pd.CategoricalDtype))
        for a, b in zip(one.dtypes, other.dtypes, strict=True)
    )


def _ask(model: FittedModel, frames: list[pd.DataFrame]) -> list[FloatArray]:
    stacked = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    for name in stacked.columns:
        wanted = frames[0][name].dtype
        if stacked[name].dtype != wanted and isinstance(wanted, pd.CategoricalDtype):
            stacked[name] = stacked[name].astype(wanted)
    output = model.predict(stacked)
    return np.split(output, np.cumsum([len(f) for f in frames])[:-1])
