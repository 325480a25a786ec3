"""Many counterfactual rows, few predictions: batched calls on edited copies of rows, and a time budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import heartbeat
from explain_step.errors import ExplainStepError
from explain_step.explainers import ensembles, lending, tree
from explain_step.explainers.ensembles import Ensemble
from explain_step.explainers.lending import Lending
from explain_step.types import FittedModel, FloatArray, Reads, Response

CHUNK = 200_000
"""Most rows in one prediction call."""
COMPARED = 24
"""Answers of each lending, at least, that are compared with the model's own; all, where there are fewer."""
T = TypeVar("T")


class Stopwatch:
    """A time budget, looked at between fixed pieces of work; it never changes the pieces themselves."""

    def __init__(self, seconds: float) -> None:
        self._begin = heartbeat.now()
        self._end = self._begin + seconds

    def spent(self, *, done: int = 0, part: float = 1.0) -> bool:
        """Return whether the budget is used up, or would be by one more piece of this part of the ``done`` ones' mean."""
        now = heartbeat.now()
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


def predict_all(model: FittedModel, frames: Iterable[pd.DataFrame]) -> list[FloatArray]:
    """Return the outputs of several frames of equal columns, asked for in as few calls as `CHUNK` allows."""
    return ask_all(model.predict, frames)


def ask_all(
    ask: Callable[[pd.DataFrame], npt.NDArray[Any]], frames: Iterable[pd.DataFrame]
) -> list[npt.NDArray[Any]]:
    """Return the answers to several frames of equal columns, asked for in as few calls as `CHUNK` allows.

    Frames whose columns have other dtypes are asked for in a call of their own: stacking would change their values.
    """
    waiting: list[pd.DataFrame] = []
    answers: list[npt.NDArray[Any]] = []
    rows = 0
    for frame in frames:
        if waiting and (rows + len(frame) > CHUNK or not _alike(waiting[0], frame)):
            answers.extend(_ask(ask, waiting))
            waiting, rows = [], 0
        waiting.append(frame)
        rows += len(frame)
    return answers + (_ask(ask, waiting) if waiting else [])


def _alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether the frames can be stacked: equal dtypes, or categories, which `_ask` makes equal."""
    return all(
        a == b or (isinstance(a, pd.CategoricalDtype) and isinstance(b, pd.CategoricalDtype))
        for a, b in zip(one.dtypes, other.dtypes, strict=True)
    )


def _ask(
    ask: Callable[[pd.DataFrame], npt.NDArray[Any]], frames: list[pd.DataFrame]
) -> list[npt.NDArray[Any]]:
    stacked = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    for name in stacked.columns:
        wanted = frames[0][name].dtype
        if stacked[name].dtype != wanted and isinstance(wanted, pd.CategoricalDtype):
            stacked[name] = stacked[name].astype(wanted)
    return np.split(ask(stacked), np.cumsum([len(f) for f in frames])[:-1])


def from_trees(
    model: FittedModel, lendings: Sequence[Lending], *, reads: Reads = "output"
) -> list[Response] | None:
    """Return the trees' answers to rows with a lent value, where the model itself agrees on `COMPARED` of them; else None.

    Parameters
    ----------
    reads : {"output", "probability", "label"}
        What is needed of the answers.
    """
    found = lending.from_trees(model, lendings)
    if found is None or any(getattr(answer, reads) is None for answer in found):
        return None
    parts = [slice(None, None, max(1, len(answer.output) // COMPARED)) for answer in found]
    frames = [one.frame(part) for one, part in zip(lendings, parts, strict=True)]

    def ask(frame: pd.DataFrame) -> npt.NDArray[Any]:
        said = model.respond_for(frame, reads=reads)
        return np.asarray(said.predicted if reads == "output" else getattr(said, reads))

    try:
        own = ask_all(ask, frames)
    except ExplainStepError:
        return None  # the caller asks the model, and says what it answers
    mine = [getattr(answer, reads)[part] for answer, part in zip(found, parts, strict=True)]
    same = _same(np.concatenate(own), np.concatenate(mine), ensemble=ensembles.scores(model)[0])
    return found if same else None


def _same(own: npt.NDArray[Any], mine: npt.NDArray[Any], *, ensemble: Ensemble) -> bool:
    """Return whether answers are equal but for the rounding of sums in single precision."""
    if own.dtype.kind != "f" or own.shape != mine.shape:
        return np.array_equal(own, mine)
    return float(np.abs(own - mine).max(initial=0.0)) <= tree.allowed_gap(ensemble, own)
