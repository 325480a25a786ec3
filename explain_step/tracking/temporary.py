"""Temporary folders that outlive a call: they go with what reads them, or with the process."""

from __future__ import annotations

import atexit
import os
import shutil
import weakref
from pathlib import Path
from typing import Any


def goes_with(thing: Any, folder: Path) -> weakref.finalize[..., Any]:
    """Remove a folder with the last reference to an object, or with the process.

    Not in a copy of the process: a worker that a server has forked ends, and the others still read the files.
    """
    return weakref.finalize(thing, _remove, folder, os.getpid())


def goes_at_exit(folder: Path) -> None:
    """Remove a folder with the process, where somebody may hold its path and nothing else."""
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
