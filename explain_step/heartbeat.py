"""Seconds that count against a budget: those in which this process could run.

A budget is wall time, because what it shall bound is waiting, also that for a model behind a network, which takes no
processor time. But a process that was stopped, in a virtual machine that was paused say, has neither worked nor waited
for its model. The two are told apart by a thread that does nothing but wake up: while the model is waited for it wakes on
time, and all seconds count. Where it wakes late nothing ran, or one long call held Python's lock, and as many seconds count
as this process had of a processor.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

BEAT, LATE = 0.2, 1.0
"""Seconds between two beats, and those after which one is late: a busy machine delays it by less. So many always count."""


class Heart:
    """A clock that stands still where its process does, while it is `beating`; at other times it counts all seconds."""

    def __init__(self) -> None:
        self._seen = (time.perf_counter(), time.process_time(), 0.0)
        self._thread: Thread | None = None
        self._end = Event()
        self._users, self._lock = 0, Lock()

    def now(self) -> float:
        """Return the seconds that count, from an arbitrary moment on; they never go back."""
        wall, cpu, counted = self._seen  # replaced as a whole, by the beating thread only
        gap = time.perf_counter() - wall
        if (
            gap > LATE and self._thread is not None and self._thread.is_alive()
        ):  # no thread lives on in a fork
            gap = min(gap, max(LATE, time.process_time() - cpu))
        return counted + gap

    def beat(self) -> None:
        """Take the time: what is counted from here on is a new gap."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._seen = (wall, cpu, self.now())

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Notice from now on where the process stands still; several threads may ask for it."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and self._thread is not None:
                    self._end.set()
                    self._thread.join()
                    self._thread = None

    def _start(self) -> None:
        self.beat()
        self._end.clear()
        thread = Thread(target=self._beats, name="explain-step-heartbeat", daemon=True)
        with contextlib.suppress(RuntimeError):  # no further thread can be had: all seconds count
            thread.start()
            self._thread = thread

    def _beats(self) -> None:
        while not self._end.wait(BEAT):
            self.beat()
        self.beat()


HEART = Heart()


def now() -> float:
    """Return the seconds that count; see `Heart.now`."""
    return HEART.now()
