"""The training code: commit, what was changed since, what is not tracked, lock file, and this package's own source."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from explain_step.hashes import sha256_bytes, sha256_file
from explain_step.secret_masking import mask_lines, mask_text
from explain_step.snapshot.provenance_machine import unknown

GIT_SECONDS = 2.0
DIFF_BYTES = 64 * 2**10
LARGEST_DIFF = 512 * 2**10
MOST_NAMES = 100
LOCKS = (
    *("pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pixi.lock", "conda-lock.yml"),
    *("requirements.lock", "requirements.txt"),
)
"""The first of them that is there is the lock."""
LOCK_BYTES = 200 * 2**10
"""Of a lock whose text goes into every snapshot; of a larger one the digest does."""
SOURCES = (
    *(
        "*.py",
        "*.pyx",
        "*.pyi",
        "*.toml",
        "*.cfg",
        "*.ini",
        "*.sh",
        "*.R",
        "*.sql",
        "*.c",
        "*.cpp",
        "*.h",
        "*.rs",
    ),
    *("*.yaml", "*.yml", "Dockerfile", "Makefile", "requirements*.txt"),
)
"""Files whose changes are recorded. Changes of others, data and notebooks among them, are only named."""


def repository(where: Path, *, text: bool = True) -> Any:
    """Return commit, remote, dirty state, changed and untracked names, and the diff of source files.

    Parameters
    ----------
    where : path
        A folder in the repository.
    text : bool
        False leaves the text of the diff out.
    """
    git = partial(_git, where)
    commit = git("rev-parse", "HEAD")
    if isinstance(commit, dict):
        return commit
    status = git("status", "--porcelain", "-z", "--untracked-files=normal", keep=True)
    known = isinstance(status, str)
    changed, untracked = _names(status) if known else ([], [])
    remote = git("config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "dirty": bool(changed) if known else status,
        "remote": remote if isinstance(remote, dict) else mask_text(remote),
        "changed": _list(changed) if known else status,
        "untracked": _list(untracked) if known else status,
        "diff": _diff(git, changed=bool(changed) or not known, text=text),
    }


def _names(status: str) -> tuple[list[str], list[str]]:
    """Return changed and untracked names of ``git status --porcelain -z``."""
    changed: list[str] = []
    untracked: list[str] = []
    entries = iter(status.split("\0"))
    for entry in entries:
        if not entry:
            continue
        (untracked if entry.startswith("??") else changed).append(entry[3:])
        if entry[0] in "RC":
            next(entries, None)  # where it was renamed from
    return changed, untracked


def _list(names: list[str]) -> dict[str, Any]:
    return {"count": len(names), "names": [mask_text(name) for name in sorted(names)[:MOST_NAMES]]}


def _diff(git: Any, *, changed: bool, text: bool) -> Any:
    if not changed:
        return {"sha256": sha256_bytes(b""), "bytes": 0, "text": ""}
    options = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
    found = git("diff", "HEAD", *options, "--", *SOURCES, keep=True)
    if isinstance(found, dict):
        return found
    if len(found) > LARGEST_DIFF:
        return unknown(f"it has more than {LARGEST_DIFF} characters; commit before training")
    masked = mask_lines(found)
    data = masked.encode("utf-8", "backslashreplace")
    shown: Any = data[:DIFF_BYTES].decode("utf-8", "ignore") if text else unknown("privacy is strict")
    return {
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "text": shown,
        "truncated": len(data) > DIFF_BYTES,
        "of": "source files against the commit, secrets masked",
    }


def _git(where: Path, *arguments: str, keep: bool = False) -> Any:
    command = [
        "git",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.quotePath=false",
        "-C",
        str(where),
        *arguments,
    ]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
            env=quiet,
            errors="replace",
        )
    except FileNotFoundError:
        return unknown("git is not installed")
    except (OSError, subprocess.SubprocessError) as error:
        return unknown(f"git failed with {type(error).__name__}")
    if done.returncode != 0:
        return unknown(f"git {arguments[0]} found nothing here")
    return done.stdout if keep else done.stdout.strip()


def lock(where: Path) -> Any:
    """Return name, size and digest of the project's lock file, and its text where it is small and plain.

    Looked for in the folder and those above it, up to the repository's. Nothing is resolved and no index is asked.
    """
    for folder in _upwards(where):
        for name in LOCKS:
            place = folder / name
            try:
                if place.is_file():
                    return _lock(place)
            except OSError as error:
                return unknown(f"{name} could not be read: {type(error).__name__}")
    return unknown(f"no {', '.join(LOCKS[:3])} or other lock file beside the code")


def _upwards(where: Path) -> Iterator[Path]:
    for folder in (where.absolute(), *where.absolute().parents):
        yield folder
        if (folder / ".git").exists() or folder == Path.home():
            return


def _lock(place: Path) -> dict[str, Any]:
    size = place.stat().st_size
    record = {"name": place.name, "size": size, "sha256": sha256_file(place)}
    if size > LOCK_BYTES:
        return {**record, "text": unknown(f"it is larger than {LOCK_BYTES} bytes")}
    text = place.read_text(encoding="utf-8", errors="replace")
    if mask_text(text) != text:
        return {**record, "text": unknown("it holds what looks like a credential")}
    return {**record, "text": text}


def own_source() -> dict[str, Any]:
    """Return version and digest of this package's source files: an editable install has no RECORD of them."""
    import explain_step

    root = Path(explain_step.__file__).parent
    lines = [
        f"{path.relative_to(root).as_posix()} {sha256_file(path)}" for path in sorted(root.rglob("*.py"))
    ]
    return {"version": explain_step.__version__, "source_sha256": sha256_bytes("\n".join(lines).encode())}
