"""How many threads libraries take: one, where more cost more than they save.

A library that shares its work among threads waits for all of them, and its threads wait for the next work by asking for
it again and again, for milliseconds. That takes processors from whoever else works: the second process of the step
(`explain_step.aside`), or another program. A product of small matrices or a prediction of a few rows then takes ten times
as long as one thread needs for it.

OpenMP's number is one of the calling thread. That of a BLAS is one of the whole process: where two steps work at a time, the
first one sets it, and sets it back.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

SHORT = 0.03
"""Seconds of one processor: calls that take less are not shared."""
SHORT_BESIDE = 0.5
"""The same while a second process works: one processor is its own."""

BRINGING = frozenset({"numpy", "scipy.linalg", "sklearn", "xgboost", "lightgbm", "torch"})
"""Modules that bring libraries with threads."""

_setting = Lock()
"""Held by who has set the BLAS to one thread."""
_beside: set[int] = set()
"""Second processes that are at work."""
_given: ContextVar[dict[str, int] | None] = ContextVar("explain_step_threads", default=None)
"""Threads of each library before that, in the thread that has set it."""


def _libraries(api: str) -> Any:
    return _loaded(frozenset(BRINGING & sys.modules.keys())).select(user_api=api)


@lru_cache(maxsize=1)
def _loaded(modules: frozenset[str]) -> Any:
    """Return the loaded libraries; looking takes milliseconds, and is done again where another of `BRINGING` is there."""
    import threadpoolctl  # which scikit-learn brings

    return threadpoolctl.ThreadpoolController()


@contextmanager
def alone() -> Iterator[None]:
    """Let linear algebra work in the thread that asks for it, unless that is set already."""
    if not _setting.acquire(blocking=False):
        yield
        return
    try:
        libraries = _libraries("blas")
        token = _given.set({one["filepath"]: one["num_threads"] or 1 for one in libraries.info()})
        try:
            with libraries.limit(limits=1):
                yield
        finally:
            _given.reset(token)
    finally:
        _setting.release()


@contextmanager
def as_given() -> Iterator[None]:
    """Let linear algebra take the threads that it had outside of `alone`: a model may need them."""
    given = _given.get()
    if given is None:
        yield
        return
    with _libraries("blas").limit(limits=given):
        yield


def works_beside(process: int, *, now: bool) -> None:
    """Note whether a second process is at work ``now``."""
    (_beside.add if now else _beside.discard)(process)


@dataclass(slots=True)
class Pace:
    """How quickly a model answers: the time of the largest call so far, by which that of others is reckoned.

    For models of which each row's answer has the same bits, however rows are shared: times decide here.
    """

    rows: int = 0
    seconds: float = 0.0

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """Make a call: a `SHORT` one in the caller's thread alone."""
        if self.short(rows):
            with _libraries("openmp").limit(limits=max(1, (os.cpu_count() or 1) - 1) if _beside else 1):
                yield
            return
        began = time.perf_counter()
        yield
        if rows >= self.rows:
            self.rows, self.seconds = rows, time.perf_counter() - began

    def short(self, rows: int) -> bool:
        """Return whether a call of so many rows, all threads' time together, is `SHORT`."""
        most = SHORT_BESIDE if _beside else SHORT
        return rows > 0 and self.rows > 0 and self.seconds / self.rows * rows * (os.cpu_count() or 1) < most
