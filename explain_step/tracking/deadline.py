"""One deadline for all MLflow traffic of a step, and a breaker for a server that is gone.

MLflow itself waits long: one call to a dead server takes four minutes, to one that hangs twenty. Inside `within`
every call of a client or an artifact store runs in a thread that is left behind when the time is over.

What was weighed: MLflow's timeouts and retries are read from the environment, which belongs to the whole process and
is seen by the user's other threads; it is not touched. A child process could be killed, but has no active run, no
credentials of a notebook and no store in memory, and imports MLflow anew. A thread that is left behind ends after the
one call it is in, since every call passes here; it is a daemon, so that it does not hold up the exit, and it only waits
for a socket or a file: models, tables and predictions stay in the caller's thread.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from explain_step.errors import NoAnswer
from explain_step.secret_masking import mask_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("explain_step.tracking")

VARIABLE = "EXPLAIN_STEP_DEADLINE"
SECONDS = 120.0
PATIENCE = 4.0
"""Seconds without an answer after which the server is knocked at, and between two knocks."""
KNOCKS = 3
"""Failed connections in a row that open the breaker."""
Result = TypeVar("Result")
Address = tuple[str, int]


class Deadline:
    """The time that is left for MLflow in one step. Only time spent in calls counts, not the explanation's."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds
        self.address: Address | None = None
        self.refusal: str | None = None

    def call(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Return what the function returns, or raise what it raises.

        Raises
        ------
        NoAnswer
            The time is over, or the server refuses connections.
        """
        self._check()
        future: Future[Result] = _start(function, args, kwargs)
        begun = time.monotonic()
        try:
            self._wait(future)
        finally:
            self.left -= time.monotonic() - begun
        return future.result()

    def _check(self) -> None:
        if self.refusal is None and self.left <= 0:
            self.refusal = f"MLflow took more than {self.seconds:g} s in all ({VARIABLE})"
        if self.refusal is not None:
            raise NoAnswer(self.refusal)

    def _wait(self, future: Future[Any]) -> None:
        """Return when the call is done; raise when the time is over, or nobody opens the door."""
        end, knocked = time.monotonic() + self.left, 0
        while True:
            wait([future], timeout=min(PATIENCE, max(0.0, end - time.monotonic())))
            if future.done():
                return
            if time.monotonic() >= end:
                self.left = 0.0
                self._check()
            knocked = 0 if self.address is None or _opens(self.address) else knocked + 1
            if knocked >= KNOCKS and not future.done():
                host, port = cast("Address", self.address)
                self.refusal = (
                    f"MLflow at {host}:{port} does not answer: {KNOCKS} connections in a row failed"
                )
                self._check()


_current: ContextVar[Deadline | None] = ContextVar("explain_step_deadline", default=None)


@contextmanager
def within(limit: float | None = None) -> Iterator[Deadline]:
    """Bound all traffic inside by one deadline, of `seconds` where no limit is given. An outer one stays in force."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    deadline = Deadline(seconds() if limit is None else limit)
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)


def seconds() -> float:
    """Return the time that a step may spend with MLflow: ``EXPLAIN_STEP_DEADLINE``, or 120 s.

    A value that is no positive number is told and not used: a training is not lost to a slip in a setting.
    """
    text = os.environ.get(VARIABLE, "").strip()
    try:
        value = float(text) if text else SECONDS
    except ValueError:
        value = math.nan
    if value > 0:
        return value
    logger.warning(
        "explain_step: %s must be a positive number of seconds, got %r; %g is used", VARIABLE, text, SECONDS
    )
    return SECONDS


def bounded(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Make a call under the deadline that is in force; without one, as it is.

    Examples
    --------
    >>> with within(10):
    ...     bounded(divmod, 7, 2)
    (3, 1)
    """
    deadline = _current.get()
    return function(*args, **kwargs) if deadline is None else deadline.call(function, *args, **kwargs)


def refusal() -> str:
    """Return why the deadline in force sends nothing more, for a reader."""
    deadline = _current.get()
    return (deadline and deadline.refusal) or "MLflow was not reached before the snapshot was written"


def connect(tracking_uri: str | None) -> MlflowClient:
    """Return a client for a tracking URI, whose calls are bounded where a deadline is in force."""
    from mlflow import MlflowClient, get_tracking_uri

    uri = tracking_uri or str(get_tracking_uri())
    deadline = _current.get()
    if deadline is None or _in_memory(uri):
        return MlflowClient(tracking_uri=tracking_uri)
    deadline.address = _address(uri)
    client = deadline.call(MlflowClient, tracking_uri=tracking_uri)
    return cast("MlflowClient", _BoundedClient(client, deadline))


class _BoundedClient:
    """An `MlflowClient` each of whose methods is called under a deadline."""

    def __init__(self, client: MlflowClient, deadline: Deadline) -> None:
        self._client, self._deadline = client, deadline

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value
        return lambda *args, **kwargs: self._deadline.call(value, *args, **kwargs)


class _SameThread(Executor):
    """Runs what is submitted at once: MLflow's own threads are not daemons, and a hung one holds up the exit."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return _run(Future(), fn, args, kwargs)


def in_one_thread(repository: Any) -> Any:
    """Return an artifact repository that, under a deadline, starts no threads of its own for downloads."""
    if _current.get() is not None and hasattr(repository, "thread_pool"):
        repository.thread_pool = _SameThread()
    return repository


def _start(function: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
    future: Future[Any] = Future()
    context = copy_context()
    context.run(_current.set, None)
    run = lambda: context.run(_run, future, function, args, kwargs)  # noqa: E731
    threading.Thread(target=run, name="explain_step-mlflow", daemon=True).start()
    return future


def _run(future: Future[Any], function: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
    try:
        future.set_result(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
        future.set_exception(error)
    return future


def _in_memory(uri: str) -> bool:
    """Tell whether a database lives in one thread: another would find it empty."""
    return uri.startswith("sqlite") and (":memory:" in uri or not urlsplit(uri).path.strip("/"))


def _address(uri: str) -> Address | None:
    """Return where a server can be knocked at; None for a database, and behind a proxy."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return None
    return parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]


def _opens(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=PATIENCE).close()
    except OSError as error:
        logger.info("explain_step: no connection to %s:%s: %s", *address, mask_text(str(error)))
        return False
    return True
