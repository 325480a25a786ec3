"""The spool: snapshots on this machine that are on their way to MLflow, each with where it has to go.

An entry is written before the first byte is sent and removed when everything has arrived, so that it also survives a
process that is killed::

    <spool>/<snapshot id, short>-<random>/
        entry.json
        <snapshot id>/        as `explain_step.snapshot.write` made it
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from explain_step.canonical import canonical_json
from explain_step.secret_masking import MASK, mask_text

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot
    from explain_step.tracking.target import Target

logger = logging.getLogger("explain_step.tracking")

VARIABLE = "EXPLAIN_STEP_SPOOL"
ENTRY = "entry.json"
FORM = 1
MOST_BYTES = 1 << 20
DRAFT_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Where an explanation belongs, as the caller said it: enough to find it again without a server.

    Attributes
    ----------
    run_id, model_uri : str, optional
        As for `resolve`.
    run_only : bool
        The run alone carries the explanation, whatever models it has.
    tracking_uri : str, optional
        Default: MLflow's current one. In an entry: absolute, without user name and password.
    """

    run_id: str | None = None
    model_uri: str | None = None
    run_only: bool = False
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One spooled snapshot.

    Attributes
    ----------
    path : Path
        Its folder in the spool.
    snapshot_id : str
    asked : Asked
    whole : bool
        False where the server did not answer before the snapshot was written: the digest of the model is missing in it.
    kept_at : str
        UTC time (ISO 8601).
    """

    path: Path
    snapshot_id: str
    asked: Asked
    whole: bool
    kept_at: str

    @property
    def directory(self) -> Path:
        """The snapshot itself."""
        return self.path / self.snapshot_id


def spool_folder() -> Path:
    """Return the spool of this user: ``EXPLAIN_STEP_SPOOL``, or a folder for data of the platform."""
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        return Path(given).expanduser().absolute()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "explain_step" / "spool"


def keep(snapshot: Snapshot, asked: Asked, *, whole: bool) -> Entry:
    """Copy a snapshot into the spool, readable by this user alone; it is there as a whole or not at all.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    folder = spool_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(folder)
    name = f"{snapshot.id[:16]}-{uuid.uuid4().hex[:8]}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    later = _for_later(asked)
    entry = Entry(path=folder / name, snapshot_id=snapshot.id, asked=later, whole=whole, kept_at=now)
    draft = folder / f".{name}"
    try:
        draft.mkdir(mode=0o700)
        shutil.copytree(snapshot.path, draft / snapshot.id)
        facts = {
            "form": FORM,
            "asked": asdict(later),
            "snapshot_id": snapshot.id,
            "whole": whole,
            "kept_at": now,
        }
        (draft / ENTRY).write_bytes(canonical_json(facts) + b"\n")
        draft.rename(entry.path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return entry


def _sweep(folder: Path) -> None:
    """Remove copies that were not finished within a day: their process was killed."""
    for draft in folder.glob(".*"):
        if draft.is_dir() and time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)


def entries(folder: Path) -> tuple[Entry, ...]:
    """Return what is in a spool, the oldest first. What is no entry is named in the log and left alone."""
    if not folder.is_dir():
        return ()
    found = [
        entry
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and (entry := _read(path)) is not None
    ]
    return tuple(sorted(found, key=lambda e: (e.kept_at, e.path.name)))


def _read(path: Path) -> Entry | None:
    try:
        if path.is_symlink():
            raise ValueError("it is a link")
        facts = _facts(path / ENTRY)
        if facts["form"] != FORM:
            raise ValueError(f"form {facts['form']} is not known here")
        if type(facts["whole"]) is not bool:
            raise ValueError("whole must be true or false")
        identity = str(facts["snapshot_id"])
        if not (path / identity).resolve().is_relative_to(path.resolve()):
            raise ValueError("the snapshot id is a path")
        return Entry(
            path=path,
            snapshot_id=identity,
            asked=Asked(**facts["asked"]),
            whole=facts["whole"],
            kept_at=str(facts["kept_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("explain_step: %s is no entry of a spool: %s", path, error)
        return None


def _facts(place: Path) -> Any:
    """Return what an entry's own file holds; a pipe or an endless file would keep all other entries waiting."""
    found = place.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        raise ValueError(f"{ENTRY} is not a small regular file")
    return json.loads(place.read_bytes())


@contextmanager
def held(entry: Entry | None) -> Iterator[bool]:
    """Keep other processes from sending an entry meanwhile; False where one does already. A process that dies lets go.

    Where there are no such locks, or the entry is gone, nobody is kept out: what is sent twice ends the same.
    """
    try:
        handle = None if entry is None else os.open(entry.path / ENTRY, os.O_RDONLY)
    except OSError:
        handle = None
    try:
        yield handle is None or _locked(handle)
    finally:
        if handle is not None:
            os.close(handle)


def _locked(handle: int) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, some network file systems
        return True
    return True


def forget(entry: Entry | None) -> None:
    """Remove an entry whose snapshot has arrived. The entry's own file goes first: half an entry is none."""
    if entry is not None:
        (entry.path / ENTRY).unlink(missing_ok=True)
        shutil.rmtree(entry.path, ignore_errors=True)


def asked_for(
    *, run_id: str | None = None, model_uri: str | None = None, tracking_uri: str | None = None
) -> Asked:
    """Note what the caller asks for, with the active run where none is named. Nothing is sent."""
    import mlflow

    here = tracking_uri is None or tracking_uri == mlflow.get_tracking_uri()
    active = mlflow.active_run() if run_id is None and here else None
    found = run_id if active is None else str(active.info.run_id)
    return Asked(run_id=found, model_uri=model_uri, tracking_uri=tracking_uri)


def _for_later(asked: Asked) -> Asked:
    """Note the server too, by a URI that holds in another process and has no password."""
    import mlflow

    return replace(
        asked, tracking_uri=mask_text(absolute(asked.tracking_uri or str(mlflow.get_tracking_uri())))
    )


def usable_uri(entry: Entry) -> str | None:
    """Return where an entry goes; with the password of MLflow's own setting, None where that is another server."""
    import mlflow

    kept = entry.asked.tracking_uri
    if kept is None or MASK not in kept:
        return kept
    current = str(mlflow.get_tracking_uri())
    return current if mask_text(absolute(current)) == kept else None


def as_resolved(asked: Asked, target: Target | None) -> Asked:
    """Note which model was found: the newest of a run may be another one later."""
    if target is None:
        return asked
    run_id = target.run_id if target.run_id is not None else asked.run_id
    if asked.model_uri is not None:
        return replace(asked, run_id=run_id)
    return replace(asked, run_id=run_id, model_uri=target.model_uri, run_only=target.model_id is None)


def absolute(uri: str) -> str:
    """Return a tracking URI that means the same from another working directory.

    Examples
    --------
    >>> absolute("http://127.0.0.1:5000"), absolute("databricks")
    ('http://127.0.0.1:5000', 'databricks')
    >>> absolute("sqlite:///runs.db") == f"sqlite:///{Path('runs.db').absolute()}"
    True
    """
    scheme = urlsplit(uri).scheme
    if scheme.startswith("sqlite"):
        head, _, path = uri.partition(":///")
        return f"{head}:///{Path(path).absolute()}" if path and ":memory:" not in path else uri
    if not scheme and not uri.startswith("databricks"):
        return str(Path(uri).absolute())
    return uri
