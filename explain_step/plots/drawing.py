"""Figures drawn by a second process, section by section, while the first one still computes the next section.

Drawing takes about as long as the numbers of a few thousand rows, keeps one processor busy and holds Python's lock, so that
threads would not help. The process gets the tables of a section as soon as they are final; where it fails, or its tables are
not those of the finished explanation, the figures are drawn by the caller: the bytes are the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Self

from explain_step.plots.sections import RENDERERS, draw
from explain_step.types import Artifact, Figure

ENOUGH_ROWS = 5_000
"""Fewer rows are explained before the process would be ready."""
PATIENCE = 120.0
"""Seconds after which figures that do not come are drawn by the caller."""
COMPLETES = {"importance": "importance", "interactions": "dependence", "segments": "segments"}
"""The builder with which the tables of a kind are complete. The last kind is left to the caller, who would else wait."""
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
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
        self._sent: set[str] = set()

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
            self._sent.add(kind)

    def kinds(self, artifacts: Iterable[Artifact]) -> set[str]:
        """Return the kinds that are being drawn there, and whose tables are still the ones that were sent."""
        final = list(artifacts)
        same = {k for k in self._sent if _same(self._tables[k], [a for a in final if a.kind == k])}
        return same if self._link is not None else set()

    def figures(self) -> dict[str, tuple[Figure, ...]]:
        """Wait for the figures, by kind; what is missing could not be drawn there."""
        return self._received() if self._sent else {}

    def _received(self) -> dict[str, tuple[Figure, ...]]:
        self._send(None)
        found: dict[str, tuple[Figure, ...]] = {}
        if self._link is not None:
            with contextlib.suppress(OSError, EOFError):
                found = self._link.recv() if self._link.poll(PATIENCE) else {}
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
    """Draw what is sent over the connection until there is no more, then send all figures back."""
    link: Connection[Any, Any] = Connection(handle)
    labels = link.recv()
    waiting: SimpleQueue[tuple[str, list[Artifact]] | None] = SimpleQueue()
    Thread(target=_read, args=(link, waiting), daemon=True).start()
    figures = {}
    for name in RENDERERS:  # what is imported now is not waited for later
        draw(name, {}, labels=labels)
    while (message := waiting.get()) is not None:
        kind, artifacts = message
        figures[kind] = draw(kind, {a.name: a for a in artifacts}, labels=labels)
    link.send(figures)


def _read(link: Connection[Any, Any], waiting: SimpleQueue[Any]) -> None:
    """Take messages at once, so that the sender never waits for a figure."""
    try:
        while (message := link.recv()) is not None:
            waiting.put(message)
    except (OSError, EOFError):
        os._exit(1)  # nobody is there to take the figures
    waiting.put(None)
