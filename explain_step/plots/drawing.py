"""Figures drawn by a second process, section by section, while the first one still computes the next section.

Drawing takes about as long as the numbers of a few thousand rows, keeps one processor busy and holds Python's lock, so that
threads would not help. The process gets the tables of a section as soon as they are final, and sends each figure when it is
drawn. The caller, when it has time, draws from the other end and never waits: what is not there when its turn comes, because
the process is slow, has failed or had other tables than the finished explanation, is drawn here, with the same bytes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Self

from explain_step.plots.sections import RENDERERS, jobs
from explain_step.plots.style import clean_rc, drawn
from explain_step.types import Artifact, Figure

ENOUGH_ROWS = 5_000
"""Fewer rows are explained before the process would be ready."""
COMPLETES = {
    "importance": "importance",
    "segments": "segments",
    "examples": "examples",
    "interactions": "dependence",
}
"""The builder with which the tables of a kind are complete."""
START = (
    "import gc, json, sys; gc.disable(); sys.path[:] = json.loads(sys.argv[1]); "
    "from explain_step.plots.drawing import serve; serve(int(sys.argv[2]))"
)


class Drawing:
    """A process that draws; it is started when there are enough rows, and ended with the context.

    Parameters
    ----------
    labels : mapping of str to str
        Reader names of raw features.
    enough : int
        Rows from which a second process pays.
    """

    def __init__(self, *, labels: Mapping[str, str], enough: int = ENOUGH_ROWS) -> None:
        self._labels, self._enough = dict(labels), enough
        self._link: Connection[Any, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tables: dict[str, list[Artifact]] = {}
        self._sent: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up()

    def started(self, *, rows: int) -> None:
        """Start the process, where rows and processors are enough for it to pay."""
        if rows < self._enough or not _possible():
            return
        ours, theirs = Pipe()
        command = [sys.executable, "-c", START, json.dumps([str(p) for p in sys.path]), str(theirs.fileno())]
        with contextlib.suppress(OSError), theirs:
            # output is not wanted: whatever fails there is drawn, and told, here
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._link = ours
        self._send(self._labels)

    def made(self, builder: str, artifacts: Iterable[Artifact]) -> None:
        """Take the tables of one builder; send those of a kind that is complete."""
        for artifact in artifacts:
            self._tables.setdefault(artifact.kind, []).append(artifact)
        kind = COMPLETES.get(builder)
        if kind in self._tables:
            self._send((kind, self._tables[kind]))
            self._sent.append(kind)

    def kinds(self, artifacts: Iterable[Artifact]) -> tuple[str, ...]:
        """Return the kinds that are drawn there, in this order, and whose tables are still the ones that were sent."""
        final = list(artifacts)
        same = (k for k in self._sent if _same(self._tables[k], [a for a in final if a.kind == k]))
        return tuple(same) if self._link is not None else ()

    def figures(self) -> dict[tuple[str, int], Figure]:
        """Return the figures that came since the last call, by kind and place in `sections.jobs`; nothing is waited for."""
        found: dict[tuple[str, int], Figure] = {}
        try:
            while self._link is not None and self._link.poll():
                key, figure = self._link.recv()
                found[key] = figure
        except (OSError, EOFError):  # it has died
            self._give_up()
        return found

    def _send(self, message: object) -> None:
        if self._link is None:
            return
        try:
            self._link.send(message)
        except OSError:  # it has died
            self._give_up()

    def _give_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _possible() -> bool:
    """Return whether a second interpreter can be started and has a processor of its own."""
    if os.name != "posix" or getattr(sys, "frozen", False) or not sys.executable:
        return False
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors > 1


def _same(one: list[Artifact], other: list[Artifact]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def serve(handle: int) -> None:
    """Draw what is sent over the connection, and send back each figure; the caller ends the process."""
    link: Connection[Any, Any] = Connection(handle)
    labels = link.recv()
    waiting: SimpleQueue[tuple[str, list[Artifact]]] = SimpleQueue()
    ready: SimpleQueue[tuple[tuple[str, int], Figure]] = SimpleQueue()
    # before any thread: reading a table imports pandas too, and two threads in one import lock each other out
    for name in RENDERERS:
        jobs(name, {}, labels=labels)
    for name in ("canvas", "panel"):
        import_module(f"explain_step.plots.{name}")
    gc.freeze()  # what was imported stays: looking for garbage on the way took an eighth of the start
    gc.enable()
    Thread(target=_read, args=(link, waiting), daemon=True).start()
    Thread(target=_write, args=(link, ready), daemon=True).start()
    with clean_rc():
        while True:
            kind, artifacts = waiting.get()
            for place, job in enumerate(jobs(kind, {a.name: a for a in artifacts}, labels=labels)):
                ready.put(((kind, place), drawn(job)))


def _read(link: Connection[Any, Any], waiting: SimpleQueue[Any]) -> None:
    """Take messages at once, so that the sender never waits for a figure."""
    try:
        while True:
            waiting.put(link.recv())
    except (OSError, EOFError):
        os._exit(1)  # nobody is there to take the figures


def _write(link: Connection[Any, Any], ready: SimpleQueue[Any]) -> None:
    """Send figures from a thread of its own: the caller takes them late."""
    try:
        while True:
            link.send(ready.get())
    except OSError:
        os._exit(1)
