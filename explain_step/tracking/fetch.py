"""Get a stored snapshot as a local directory, from wherever it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from explain_step.errors import InvalidInput, SnapshotError
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.place import FOLDER, MANIFEST, Place, open_place
from explain_step.tracking.target import RUN_ID, names_run, resolve_source, shown_model
from explain_step.tracking.temporary import goes_at_exit

if TYPE_CHECKING:
    from explain_step.tracking.target import Target

Candidate = tuple[str | None, str | None]
"""An artifact root, and the snapshot id that a tag names there."""


def fetch(
    source: str | Path, *, tracking_uri: str | None = None, destination: str | Path | None = None
) -> Path:
    """Return a local directory with a snapshot.

    Parameters
    ----------
    source : path or str
        A directory, ``runs:/<id>`` or a run id, ``models:/name/3``, ``models:/name@alias``,
        ``models:/m-<id>``.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.
    destination : path, optional
        Where to download to. Without it a local artifact store is read in place, and a remote one goes to a
        new temporary directory that is removed with the process.

    Raises
    ------
    SnapshotError
        There is no snapshot; the message has the command that makes one.
    InvalidInput
        The source names no run, model or version.

    Notes
    -----
    The tag ``explain_step.snapshot_id`` only says where to look first. What counts is a folder with a
    manifest, which is written last; without the tag the newest of them is taken.
    """
    directory = local_directory(source)
    if directory is not None:
        return directory
    place, found = locate(str(source), tracking_uri=tracking_uri)
    return place.get(found, destination=_own(place) if destination is None else Path(destination))


def _own(place: Place) -> Path | None:
    """Return a folder for a download that nobody has named; a caller may keep the path and nothing else."""
    if place.local_root() is not None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="explain_step_read_"))
    goes_at_exit(folder)
    return folder


def locate(source: str, *, tracking_uri: str | None = None) -> tuple[Place, str]:
    """Return the artifact root and the folder of the snapshot that a URI or run id names.

    Raises
    ------
    SnapshotError
        There is no snapshot.
    """
    target = resolve_source(source, tracking_uri=tracking_uri)
    for location, hint in _candidates(target, from_run=names_run(source)):
        if location is None:
            continue
        place = open_place(location, tracking_uri=target.client.tracking_uri)
        found = newest(place, hint=hint)
        if found is not None:
            return place, found
    raise SnapshotError(_nothing(source, target))


def check_source(source: str | Path) -> None:
    """Refuse a blank source, as an unset variable of a script gives it: as a path it is the current folder."""
    if isinstance(source, str) and not source.strip():
        msg = f"Argument source must be a snapshot directory, runs:/<id> or models:/…; it is {source!r}."
        raise InvalidInput(msg)


def local_directory(source: str | Path) -> Path | None:
    """Return the source where it is a directory with a manifest; None where it is a URI or a run id."""
    check_source(source)
    text = str(source)
    if isinstance(source, str) and (text.startswith(("models:/", "runs:/")) or RUN_ID.fullmatch(text)):
        return None
    path = Path(source)
    if (path / MANIFEST).is_file():
        return path
    inside = sorted(p.parent for p in path.glob(f"*/{MANIFEST}")) if path.is_dir() else []
    if len(inside) == 1:
        return inside[0]
    found = (
        "no directory"
        if not path.is_dir()
        else f"{len(inside)} snapshots in it"
        if inside
        else f"no {MANIFEST} in it"
    )
    msg = (
        f"Argument source must be a snapshot directory, runs:/<id>, models:/name/3, models:/name@alias or "
        f"models:/m-<id>; {text!r} has {found}."
    )
    raise SnapshotError(msg)


def _candidates(target: Target, *, from_run: bool) -> Iterator[Candidate]:
    """Yield where the evidence may be, the likeliest first."""
    client = target.client
    run_tags = {} if target.run_id is None else client.get_run(target.run_id).data.tags
    run_hint = run_tags.get(f"{PREFIX}snapshot_id")
    if from_run:
        elsewhere = shown_model(run_tags)
        if elsewhere is not None and elsewhere != target.model_id:
            yield client.get_logged_model(elsewhere).artifact_location, run_hint
    if target.model_id is not None:
        yield target.model_location, _model_hint(target)
    if from_run or target.model_id is None:
        yield target.run_location, run_hint


def _model_hint(target: Target) -> str | None:
    for name, version in target.versions[:1]:
        hint = target.client.get_model_version(name, version).tags.get(f"{PREFIX}snapshot_id")
        if hint:
            return str(hint)
    tags = target.client.get_logged_model(str(target.model_id)).tags or {}
    return tags.get(f"{PREFIX}snapshot_id")


def newest(place: Place, *, hint: str | None) -> str | None:
    """Return the folder of the hinted snapshot, or of the newest one that has a manifest."""
    folders = sorted(name for name, is_dir in place.children(FOLDER).items() if is_dir)
    if hint in folders and MANIFEST in place.children(f"{FOLDER}/{hint}"):
        return f"{FOLDER}/{hint}"
    complete = [f"{FOLDER}/{name}" for name in folders if MANIFEST in place.children(f"{FOLDER}/{name}")]
    if len(complete) < 2:
        return complete[0] if complete else None
    return max(complete, key=lambda folder: (created_at(place, folder), folder))


def created_at(place: Place, folder: str) -> str:
    """Return when a snapshot says it was made (ISO 8601); '' where its manifest cannot be read."""
    try:
        manifest = json.loads(place.read(f"{folder}/{MANIFEST}"))
    except ValueError:
        return ""
    return (
        str(manifest.get("created_at") or manifest.get("created") or "") if isinstance(manifest, dict) else ""
    )


def _nothing(source: str, target: Target) -> str:
    tags: dict[str, str] = {}
    if target.model_id is not None:
        tags = target.client.get_logged_model(target.model_id).tags or {}
    elif target.run_id is not None:
        tags = target.client.get_run(target.run_id).data.tags
    status = tags.get(f"{PREFIX}status", "none")
    if status in ("complete", "degraded"):
        where = target.evidence_location
        return (
            f"{source!r} is said to be explained (status {status}), and there is no snapshot at {where}. The artifact "
            "store was moved or is not mounted here, or files were deleted; where they are gone, explain it again."
        )
    reason = tags.get(f"{PREFIX}reason")
    said = f"{status}: {reason}" if reason else status
    name = (
        source
        if source.startswith("models:/")
        else target.model_uri or f"runs:/{PurePosixPath(source).name}/<model>"
    )
    return (
        f"{source!r} has no explanation (status {said}). Make one: "
        f"explain-step run {name} <held-out rows.parquet> --target <label column>"
    )
