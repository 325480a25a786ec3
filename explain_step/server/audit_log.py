"""The server's record of what it decided: one JSON line each, appended by any number of worker processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger("explain_step.gate")


class AuditLog:
    """Append decisions to a file, and tell them to the Python logger.

    Each line holds the SHA-256 of the line before it *of the same process*: workers share the file, and a
    line is written with one call in append mode, so that lines never mix.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._previous = ""
        self._lock = threading.Lock()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; its outcome decides how loud the logger is.

        Raises
        ------
        OSError
            The file cannot be written. A decision that cannot be recorded is not carried out.
        """
        level = logging.INFO if record.get("outcome") == "allow" else logging.WARNING
        logger.log(level, "explain_step gate: %s", json.dumps(record, sort_keys=True))
        if self._path is None:
            return
        with self._lock:
            line = json.dumps(self._stamped(record), sort_keys=True).encode("ascii") + b"\n"
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                if os.write(descriptor, line) != len(line):
                    msg = f"the audit log {self._path} took only a part of a line"
                    raise OSError(msg)
            finally:
                os.close(descriptor)
            self._previous = hashlib.sha256(line).hexdigest()

    def _stamped(self, record: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {"time": now, "pid": os.getpid(), "previous": self._previous, **record}


def check_writable(path: str | None) -> str | None:
    """Say why the audit log cannot be written; None where it can."""
    if path is None:
        return None
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
    except OSError as error:
        return f"the audit log {path!r} cannot be written: {error.strerror}"
    return None
