"""What a benchmark measured, kept as JSON with machine, versions and command; `performance_page.py` makes the page of it."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "pandas", "scikit-learn", "xgboost", "lightgbm", "shap", "numba", "mlflow", "matplotlib")


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def save(path: str | None, found: dict[str, Any]) -> None:
    """Write what was found to ``path``, or nothing without one."""
    if path is None:
        return
    whole = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": _command(),
        "machine": machine(),
        "versions": {name: _version(name) for name in PACKAGES},
        "found": found,
    }
    Path(path).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return processor, number of cores, memory and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(memory / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _command() -> str:
    """Return the command without what differs between machines: where other Pythons lie, and where results are kept."""
    script = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parents[1]
    shown, hide = ["python", script.relative_to(root).as_posix()], False
    for word in sys.argv[1:]:
        if hide:
            hide = False
            continue
        hide = word.endswith("-python") or word == "--save"
        shown += [] if word == "--save" else [word, "P"] if hide else [word]
    return " ".join(shown)
