"""One artifact root, of a run or of a logged model: put, list, get, remove."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from explain_step.errors import ExplainStepError, SnapshotError
from explain_step.tracking.deadline import bounded, in_one_thread

if TYPE_CHECKING:
    from explain_step.tracking.target import Target

FOLDER = "explanations"
"""Folder of the evidence under a logged model (or run), and of the browsable copy under a run."""
MANIFEST = "manifest.json"
PAGES = ("report.html", "card.md")
"""What people read on a run: copies of files of the newest snapshot, which nothing seals."""
PARTIAL = ".artifact.uploading."
"""How MLflow's local store names a file that is being written."""
PARTIAL_SECONDS = 10.0
"""Such a file that has not been written to for so long is one of an upload that is dead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An artifact root.

    Files are put one at a time: MLflow publishes a single file atomically, a directory in no stated order
    and, on a full disk, with a truncated file left behind.
    """

    location: str
    repository: Any

    def put(self, file: Path, folder: str) -> None:
        """Store ``file`` in ``folder`` under its own name."""
        bounded(self.repository.log_artifact, str(file), folder)

    def sizes(self, folder: str) -> dict[str, int | None]:
        """Return every file under ``folder`` by its relative path, with its size where the store tells."""
        found: dict[str, int | None] = {}
        waiting = [folder]
        while waiting:
            self._check_links(waiting[-1])
            for entry in bounded(self.repository.list_artifacts, waiting.pop()):
                if entry.is_dir:
                    waiting.append(entry.path)
                else:
                    relative = PurePosixPath(entry.path).relative_to(folder).as_posix()
                    found[relative] = None if entry.file_size is None else int(entry.file_size)
        return found

    def children(self, folder: str = "") -> dict[str, bool]:
        """Return the names directly in ``folder`` and whether each is a folder."""
        self._check_links(folder)
        entries = bounded(self.repository.list_artifacts, folder or None)
        return {PurePosixPath(e.path).name: bool(e.is_dir) for e in entries}

    def get(self, path: str, *, destination: Path | None = None) -> Path:
        """Return a local path of a file or folder; without destination a local store is read in place."""
        if destination is not None:
            destination.mkdir(parents=True, exist_ok=True)
        where = None if destination is None else str(destination)
        return Path(bounded(self.repository.download_artifacts, path, where))

    def local_root(self) -> Path | None:
        """Return the directory of a local artifact store; None where the files are elsewhere."""
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        local = isinstance(self.repository, LocalArtifactRepository)
        return Path(self.repository.artifact_dir) if local else None

    def check_sizes(self, folder: str, *, most_files: int, most_bytes: int) -> None:
        """Raise `ExplainStepError` where a folder holds more files or bytes than is stated."""
        root = self.local_root()
        if root is None:
            sizes: Iterable[int | None] = self.sizes(folder).values()
        else:
            sizes = [
                (Path(at) / name).lstat().st_size for at, _, names in os.walk(root / folder) for name in names
            ]
        count, total = len(list(sizes)), sum(size or 0 for size in sizes)
        if count > most_files or total > most_bytes:
            msg = (
                f"{folder} has {count} files and {total} bytes; at most {most_files} files and {most_bytes} "
                "bytes are read"
            )
            raise ExplainStepError(msg)

    def copy(self, folder: str, *, destination: Path, most_files: int, most_bytes: int) -> Path:
        """Copy a folder and return the copy; `check_sizes` first. A link in it raises `SnapshotError`."""
        self.check_sizes(folder, most_files=most_files, most_bytes=most_bytes)
        root = self.local_root()
        inside = () if root is None else os.walk(root / folder)
        for at, folders, names in inside:
            for name in (*folders, *names):
                self._check_links((Path(at) / name).relative_to(root or at).as_posix())
        return self.get(folder, destination=destination)

    def _check_links(self, path: str) -> None:
        """Refuse a path of a local store that a link is on the way of: it may lead out of the store, to anything."""
        root = self.local_root()
        parts = () if root is None else PurePosixPath(path).parts
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if root is not None and (root / name).is_symlink():
                msg = (
                    f"{name!r} at {self.location} is a symbolic link, and evidence is read from regular files and folders "
                    "only. Put the folder or file itself there, or remove the link and explain again."
                )
                raise SnapshotError(msg)

    @contextmanager
    def copied(self, folder: str) -> Iterator[Path]:
        """Give a copy of a folder; that of a local store is read in place."""
        root = self.local_root()
        if root is not None:
            yield root / folder
            return
        with tempfile.TemporaryDirectory(prefix="explain_step_stored_") as copy:
            yield self.get(folder, destination=Path(copy))

    def read(self, path: str) -> bytes:
        """Return the bytes of a stored file. In a local store only regular files are read, no links."""
        root = self.local_root()
        if root is not None and stat.S_ISREG((root / path).lstat().st_mode):
            return (root / path).read_bytes()
        with tempfile.TemporaryDirectory(prefix="explain_step_") as folder:
            local = Path(folder) / "file"
            # what every repository class implements; download_artifacts lists the folder first and draws a progress bar
            bounded(self.repository._download_file, path, str(local))
            return local.read_bytes()

    def remove_partial(self, folder: str) -> None:
        """Remove what an interrupted upload to a local store has left half-written, once nobody writes it any more.

        MLflow puts a file there under a temporary name, which it neither lists nor removes.
        """
        root = self.local_root()
        for file in () if root is None else sorted((root / folder).rglob(f"{PARTIAL}*")):
            for _ in range(int(PARTIAL_SECONDS / 0.2)):
                if not file.exists() or time.time() - file.stat().st_mtime > PARTIAL_SECONDS:
                    break
                time.sleep(0.2)
            file.unlink(missing_ok=True)

    def remove(self, path: str) -> bool:
        """Remove a stored file; False where the store cannot."""
        try:
            bounded(self.repository.delete_artifacts, path)
        except NotImplementedError:  # MLflow's answer for stores that cannot delete
            return False
        return True


def open_place(location: str | None, *, tracking_uri: str) -> Place:
    """Open an artifact root by its location, as MLflow itself would, without a global URI."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if location is None:
        msg = "There is neither a logged model nor a live run to keep an explanation; log the model first."
        raise SnapshotError(msg)
    repository = bounded(get_artifact_repository, location, tracking_uri=tracking_uri)
    return Place(location=location, repository=in_one_thread(repository))


def evidence_place(target: Target) -> Place:
    """Return where the evidence is kept: the logged model, or the run without one."""
    return open_place(target.evidence_location, tracking_uri=target.client.tracking_uri)


def run_place(target: Target) -> Place:
    """Return the artifact root of the run."""
    return open_place(target.run_location, tracking_uri=target.client.tracking_uri)
