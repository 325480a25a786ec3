"""A second process that makes sections and draws figures beside the first one.

Python's lock lets one thread at a time work, so that a second processor needs a second process. It is a copy of this one
(`os.fork`), made when the attributions are there: nothing is sent to it, and it starts with what is loaded. It makes the
sections that never ask the model, then draws each kind of figure whose tables are complete; it is sent those made here.

The first process never waits, not even for the pipe: threads send and receive. A section or figure that is not there when
its turn comes, because the copy is slow, hangs, has died or had other tables than the finished explanation, is made here,
with the same numbers and bytes. So whatever a copy of a process with threads cannot do (a lock that one of them held stays
locked, OpenMP has no threads) costs time at most. The model, for which libraries use threads, is not in its hands.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, NoReturn, Self

from explain_step.compute import Made
from explain_step.explainers.tree_compiled import processors
from explain_step.plots.sections import jobs
from explain_step.plots.style import clean_rc, drawn
from explain_step.threads import works_beside
from explain_step.types import Artifact, Figure

ENOUGH_ROWS = 2_000
"""Fewer rows are explained before a second process could help."""
COMPLETES = {
    "importance": "importance",
    "segments": "segments",
    "examples": "examples",
    "interactions": "dependence",
}
"""The builder with which the tables of a kind are complete."""
RECORD = "record"
"""The key under which the record is sent."""
RESTS = "rests"
"""The key under which the process says that nothing is left to do."""
NOTHING = object()
"""After it nothing is sent."""


class Aside:
    """The second process; it is started when there are enough rows, and ended with the context.

    Parameters
    ----------
    labels : mapping of str to str
        Reader names of raw features.
    record : callable, optional
        Returns what is made there after the sections: a record that takes no part of the explanation.
    enough : int
        Rows from which a second process pays.
    """

    def __init__(
        self,
        *,
        labels: Mapping[str, str],
        record: Callable[[], Mapping[str, Any]] = dict,
        enough: int = ENOUGH_ROWS,
    ) -> None:
        self._labels, self._make_record, self._enough = dict(labels), record, enough
        self._link: Connection[Any, Any] | None = None
        self._process: int | None = None
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        self._threads: tuple[Thread, ...] = ()
        self._tables: dict[str, list[Artifact]] = {}
        self._names: tuple[str, ...] = ()
        self._there: list[str] = []
        self._record: Mapping[str, Any] | None = None
        self._sections: dict[str, Made] = {}
        self._figures: dict[tuple[str, int], Figure] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up()

    def started(self, *, rows: int, sections: Mapping[str, Callable[[], Made]]) -> None:
        """Start the process, which makes these sections, where rows and processors are enough for it to pay."""
        if rows < self._enough or not _possible():
            return
        ours, theirs = Pipe()
        try:
            with warnings.catch_warnings():  # of a fork beside threads: see the module
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return
        if self._process == 0:
            _serve(theirs, unused=ours, sections=sections, record=self._make_record, labels=self._labels)
        theirs.close()
        self._link, self._names = ours, tuple(sections)
        works_beside(self._process, now=True)
        rests = partial(works_beside, self._process, now=False)
        self._threads = (
            _thread(_receive, ours, self._take, then=lambda _: rests()),
            _thread(_send, ours, self._outgoing),
        )

    def section(self, name: str) -> Made | None:
        """Return what the process has made of a section; None where it has not, or not yet."""
        return self._sections.get(name)

    def recorded(self) -> Mapping[str, Any] | None:
        """Return the record that the process has made; None where it has not, or not yet."""
        return self._record

    def made(self, builder: str, artifacts: Iterable[Artifact]) -> None:
        """Take the tables of one builder; send those of a kind that is complete, unless the process has its own."""
        for artifact in artifacts:
            self._tables.setdefault(artifact.kind, []).append(artifact)
        kind = COMPLETES.get(builder)
        if kind not in self._tables:
            return
        if builder not in self._names:
            works_beside(self._process or 0, now=self._link is not None)
            self._outgoing.put((kind, self._tables[kind]))
            self._there.append(kind)
        elif builder in self._sections and _same(_of_kind(self._sections[builder], kind), self._tables[kind]):
            self._there.append(kind)

    def kinds(self, artifacts: Iterable[Artifact]) -> tuple[str, ...]:
        """Return the kinds that are drawn there, in this order, and whose tables are still the ones known there."""
        final = list(artifacts)
        same = (k for k in self._there if _same(self._tables[k], [a for a in final if a.kind == k]))
        return tuple(same) if self._link is not None else ()

    def figures(self) -> Mapping[tuple[str, int], Figure]:
        """Return the figures that have come, by kind and place in `sections.jobs`; nothing is waited for."""
        return dict(self._figures)

    def _take(self, message: tuple[Any, Any]) -> None:
        key, found = message
        if key == RESTS:
            works_beside(self._process or 0, now=False)
        elif key == RECORD:
            self._record = found
        elif isinstance(found, Made):
            self._sections[key] = found
        else:
            self._figures[key] = found

    def _give_up(self) -> None:
        if self._process is None or self._link is None:
            return
        # a number that somebody else has waited for may be another process by now
        with contextlib.suppress(OSError):
            if os.waitpid(self._process, os.WNOHANG) == (0, 0):
                os.kill(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)
        works_beside(self._process, now=False)
        self._outgoing.put(NOTHING)
        for thread in self._threads:  # the other end is gone
            thread.join(timeout=1)
        self._link.close()
        self._process = self._link = None


def _possible() -> bool:
    """Return whether this process can be copied, and the copy has a processor of its own."""
    return sys.platform.startswith("linux") and processors() > 1  # others' libraries do not survive a copy


def _of_kind(made: Made, kind: str | None) -> list[Artifact]:
    return [a for a in made.section.artifacts if a.kind == kind]


def _same(one: list[Artifact], other: list[Artifact]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _serve(
    link: Connection[Any, Any],
    *,
    unused: Connection[Any, Any],
    sections: Mapping[str, Callable[[], Made]],
    record: Callable[[], Mapping[str, Any]],
    labels: Mapping[str, str],
) -> NoReturn:
    """Make the sections and the record, draw what is complete, send all; the caller ends the process."""
    try:
        unused.close()
        _detach()
        waiting: SimpleQueue[tuple[str, list[Artifact]]] = SimpleQueue()
        ready: SimpleQueue[tuple[Any, Made | Figure | Mapping[str, Any] | None]] = SimpleQueue()
        _thread(_receive, link, waiting.put, then=os._exit)  # nobody is there to take anything
        _thread(_send, link, ready, then=os._exit)
        for name, make in sections.items():
            with contextlib.suppress(Exception):  # here and below: the first process makes it, and tells
                made = make()
                ready.put((name, made))
                if name in COMPLETES:
                    waiting.put((COMPLETES[name], _of_kind(made, COMPLETES[name])))
        _thread(_note, record, ready)  # it waits for other programs
        with clean_rc():
            while True:
                if waiting.empty():
                    ready.put((RESTS, None))
                kind, artifacts = waiting.get()
                with contextlib.suppress(Exception):
                    for place, job in enumerate(jobs(kind, {a.name: a for a in artifacts}, labels=labels)):
                        ready.put(((kind, place), drawn(job)))
    finally:
        os._exit(0)  # nothing of the caller's is flushed, closed or called a second time


def _note(record: Callable[[], Mapping[str, Any]], ready: SimpleQueue[Any]) -> None:
    ready.put((RECORD, record()))


def _detach() -> None:
    """Leave what is the first process's own: its streams, handlers, log and debugger; and its objects to no collection."""
    gc.freeze()
    sys.settrace(None)
    sys.setprofile(None)
    logging.disable(logging.CRITICAL)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it ends with the process


def _thread(work: Callable[..., None], *args: Any, then: Callable[[int], Any] | None = None) -> Thread:
    """Start a thread that is not waited for when the interpreter ends; ``then`` is called with 1 after its work."""

    def run() -> None:
        with contextlib.suppress(Exception):  # what does not come is made by the first process
            work(*args)
        if then is not None:
            then(1)

    thread = Thread(target=run, daemon=True)
    thread.start()
    return thread


def _receive(link: Connection[Any, Any], take: Callable[[Any], Any]) -> None:
    """Take messages at once, so that the sender never waits for what is done with them."""
    while True:
        take(link.recv())


def _send(link: Connection[Any, Any], messages: SimpleQueue[Any]) -> None:
    while (message := messages.get()) is not NOTHING:
        link.send(message)
