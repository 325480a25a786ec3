"""A hashed lock of the installed distributions (PEP 751), made by ``uv`` from what it has in its cache."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explain_step.hashes import sha256_bytes
from explain_step.secret_masking import mask_text
from explain_step.snapshot.provenance_machine import unknown

LOCK_SECONDS = 5.0
LARGEST_LOCK = 400 * 2**10
"""About 600 distributions; a larger lock is named by its digest."""
OURS = "explain-step"
NO_WHEEL = re.compile(r"\b([a-z0-9]+(?:-+[a-z0-9]+)*)==\S+ has no (?:usable )?wheels", re.I)
"""How ``uv`` names a distribution that its index offers as source alone."""
MOST_SOURCES = 5
"""Distributions without a wheel that are left out; each costs another call."""


def pylock(distributions: Sequence[Mapping[str, Any]], *, where: Path) -> Any:
    """Return a ``pylock.toml`` with the digests of the wheels of every installed distribution, or why there is none.

    Parameters
    ----------
    distributions : sequence of mapping
        As of `explain_step.snapshot.provenance_packages.distributions`.
    where : path
        The project: its settings of ``uv`` name the index.

    Notes
    -----
    No network is used: what is not in the cache of ``uv``, because ``pip`` or another machine installed it, has no
    digest here; what the index offers as source alone is in ``left_out``. The lock names the wheels that an index offers
    for these versions; that the installed files came from them, the digests of RECORD tell.
    """
    pins = {d["name"]: d["version"] for d in distributions if d["from_index"] and d["name"] != OURS}
    left_out = [d["name"] for d in distributions if not d["from_index"] and d["name"] != OURS]
    if not pins:
        return unknown("no distribution was installed from an index")
    until = time.monotonic() + LOCK_SECONDS
    try:
        done = _compiled(pins, where=where, until=until)
        for _ in range(MOST_SOURCES):
            source = next((name for name in NO_WHEEL.findall(done.stderr) if name in pins), None)
            if done.returncode == 0 or source is None:
                break
            left_out.append(source)
            del pins[source]
            done = _compiled(pins, where=where, until=until)
    except FileNotFoundError:
        return unknown("uv is not installed")
    except (OSError, subprocess.SubprocessError) as error:
        return unknown(f"uv failed with {type(error).__name__}")
    if done.returncode != 0:
        said = " ".join(word for word in done.stderr.split() if any(c.isalnum() for c in word))
        return unknown(f"uv has not all of them in its cache: {mask_text(said)[:200]}")
    return _record(done.stdout, left_out=sorted(left_out))


def find_uv() -> str | None:
    """Return the path of ``uv``: in an environment that is not activated it stands beside the interpreter."""
    found = shutil.which("uv")
    if found is None and sys.executable:
        found = shutil.which("uv", path=str(Path(sys.executable).parent))
    return found


def _compiled(pins: Mapping[str, str], *, where: Path, until: float) -> subprocess.CompletedProcess[str]:
    options = ("--offline", "--no-deps", "--only-binary", ":all:", "--no-header", "--no-annotate", "--quiet")
    return subprocess.run(
        [
            find_uv() or "uv",
            "pip",
            "compile",
            "-",
            "--format",
            "pylock.toml",
            "--python",
            _python(),
            *options,
        ],
        input="\n".join(f"{name}=={version}" for name, version in pins.items()),
        capture_output=True,
        text=True,
        timeout=max(0.1, until - time.monotonic()),
        check=False,
        cwd=where,
        errors="replace",
    )


def _python() -> str:
    """Return the running interpreter: ``uv`` would lock for the first that it finds."""
    return sys.executable or platform.python_version()


def _record(text: str, *, left_out: list[str]) -> Any:
    if mask_text(text) != text:
        return unknown("it holds what looks like a credential")
    data = text.encode("utf-8")
    shown: Any = text if len(data) <= LARGEST_LOCK else unknown(f"it is larger than {LARGEST_LOCK} bytes")
    return {
        "of": "wheels that the index offers for the installed versions, from the cache of uv",
        "sha256": sha256_bytes(data),
        "size": len(data),
        "left_out": left_out,
        "text": shown,
    }
