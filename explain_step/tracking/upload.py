"""Log a snapshot: evidence under the logged model, a browsable copy on the run, metrics, note, tags."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step.errors import SnapshotError
from explain_step.snapshot import verify_directory
from explain_step.tracking import marks
from explain_step.tracking.logged import LoggedSnapshot, page_route, page_url
from explain_step.tracking.place import FOLDER, MANIFEST, PAGES, Place, evidence_place, run_place

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot
    from explain_step.tracking.target import Target

logger = logging.getLogger("explain_step.tracking")

Files = dict[str, Path]
ATTEMPTS = 6
PAUSE = 0.05
"""Seconds, times the attempt and something random: two steps in each other's way do not stay in step."""
BROWSABLE = {".html", ".md", ".json", ".csv", ".png", ".txt"}
"""What the viewer of MLflow's UI shows."""


def upload(snapshot: Snapshot, target: Target, *, newest: bool = True) -> LoggedSnapshot:
    """Store a written snapshot in MLflow and tie it to run, logged model and versions.

    Payload first, then a check of what arrived, then ``manifest.json``, which is read back with all the
    rest, then the run's copy, metrics and note, and the tags at the very end. What is already there is not
    written again.

    Parameters
    ----------
    snapshot : Snapshot
    target : Target
    newest : bool
        False stores the evidence alone: copy, metrics, note and tags belong to a later explanation.

    Raises
    ------
    SnapshotError
        The folder of this snapshot id holds other content, or the store does not hold what was sent.
    MlflowException, OSError
        The store refused.
    """
    files = _files(Path(snapshot.path))
    folder = f"{FOLDER}/{snapshot.id}"
    manifest = _store(files, evidence_place(target), folder=folder)
    digest = hashlib.sha256(manifest).hexdigest()
    facts = json.loads(manifest)
    reason = str(facts.get("reason") or "")
    if newest:
        reason = _extras(snapshot, target, files=files, facts=facts)
        marks.mark(
            target,
            status=snapshot.status,
            reason=reason or "every required section is present",
            snapshot_id=snapshot.id,
            manifest_sha256=digest,
            schema=facts.get("schema_version"),
        )
    return LoggedSnapshot(
        status=snapshot.status,
        reason=reason,
        id=snapshot.id,
        snapshot=snapshot,
        run_id=target.run_id,
        model_id=target.model_id,
        versions=target.versions,
        model_uri=target.model_uri,
        run_uri=None if target.run_id is None else f"runs:/{target.run_id}",
        path=folder,
        artifact_uri=f"{str(target.evidence_location).rstrip('/')}/{folder}",
        manifest_sha256=digest,
        url=page_url(target),
    )


def _files(root: Path) -> Files:
    files = {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}
    if MANIFEST not in files:
        msg = f"{str(root)!r} is not a snapshot: there is no {MANIFEST}. Write it with explain_step.explain."
        raise SnapshotError(msg)
    return files


def _store(files: Files, place: Place, *, folder: str) -> bytes:
    """Store the files under ``folder`` with the manifest last; return the bytes of the stored manifest.

    A stored snapshot of the same content stays as it is while every byte of it verifies. Two steps that store
    the same snapshot at once write files of the same names; whoever does not read back what he wrote looks
    again, and takes the other's if that is whole.
    """
    ours = files[MANIFEST].read_bytes()
    for attempt in range(ATTEMPTS):
        stored = _standing(ours, place, folder=folder)
        if stored is not None:
            return stored
        try:
            _send(files, place, folder=folder)
            if _arrived(files, place, folder=folder):
                return ours
        except Exception as error:  # the store's own, unless another step has stored the same meanwhile
            if marks.unreachable(error):
                raise
            stored = _standing(ours, place, folder=folder)
            if stored is not None:
                return stored
            # a store that writes in place, as old MLflow does, may have shown another step's half-written file
            if not isinstance(error, SnapshotError) or attempt == ATTEMPTS - 1:
                raise
        time.sleep(PAUSE * (attempt + 1) * os.urandom(1)[0] / 64)
    msg = f"{place.location}/{folder} does not hold what was sent, after {ATTEMPTS} attempts."
    raise SnapshotError(msg)


def _standing(ours: bytes, place: Place, *, folder: str) -> bytes | None:
    """Return the manifest of a stored snapshot of the same content that verifies; None where there is none.

    A damaged one loses its manifest first, so that at no time a manifest stands over wrong bytes.
    """
    if MANIFEST not in place.children(folder):
        return None
    stored = place.read(f"{folder}/{MANIFEST}")
    _same_content(stored, ours, where=f"{place.location}/{folder}")
    damage = _damage(place, folder)
    if damage is None:
        return stored
    logger.warning("explain_step: the stored snapshot is damaged and written again: %s", damage)
    if not place.remove(f"{folder}/{MANIFEST}"):
        msg = f"{place.location}/{folder} is damaged ({damage}) and its manifest cannot be removed."
        raise SnapshotError(msg)
    return None


def _send(files: Files, place: Place, *, folder: str) -> None:
    payload = {name: path for name, path in files.items() if name != MANIFEST}
    for name, path in payload.items():
        _put(place, path, f"{folder}/{name}")
    _check(payload, place, folder=folder)
    place.put(files[MANIFEST], folder)


def _arrived(files: Files, place: Place, *, folder: str) -> bool:
    """Tell whether every stored byte is ours: another step may have written between our files."""
    with place.copied(folder) as copy:
        return all(
            (copy / n).is_file() and (copy / n).read_bytes() == p.read_bytes() for n, p in files.items()
        )


def _same_content(stored: bytes, ours: bytes, *, where: str) -> None:
    """Accept a stored manifest of the same snapshot (another time or host); refuse any other content.

    What is no JSON is no content: a store may have cut a manifest off and said that it has it.
    """
    try:
        same = json.loads(stored)["snapshot_id"] == json.loads(ours)["snapshot_id"]
    except (KeyError, TypeError):
        same = False
    except (ValueError, RecursionError):
        return
    if not same:
        msg = f"{where} holds other content under this snapshot id; nothing was overwritten. Remove it."
        raise SnapshotError(msg)


def _damage(place: Place, folder: str) -> str | None:
    """Return what is wrong with a stored snapshot; None where every byte of a copy verifies."""
    with place.copied(folder) as copy:
        findings = verify_directory(copy)
    wrong = [f.message for f in findings if f.verdict != "pass"]
    return wrong[0] if wrong else None


def _put(place: Place, path: Path, name: str) -> None:
    place.put(path, name.rpartition("/")[0])


def _check(payload: Files, place: Place, *, folder: str) -> None:
    """Compare what the store lists with what was sent; leftovers of an interrupted attempt are removed."""
    place.remove_partial(folder)
    there = place.sizes(folder)
    for extra in sorted(set(there) - set(payload) - {MANIFEST}):
        if not place.remove(f"{folder}/{extra}"):
            where = f"{place.location}/{folder}/{extra}"
            msg = f"{where} is left of an interrupted attempt and cannot be removed; remove it and log again."
            raise SnapshotError(msg)
    wrong = [
        n for n, path in payload.items() if n not in there or there[n] not in (None, path.stat().st_size)
    ]
    if wrong:
        msg = f"The artifact store {place.location} does not hold what was sent: {', '.join(wrong[:5])}."
        raise SnapshotError(msg)


def _extras(snapshot: Snapshot, target: Target, *, files: Files, facts: Mapping[str, Any]) -> str:
    """Make the conveniences; the first that fails ends them and is named in the reason."""
    reason = str(facts.get("reason") or "")
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the copy on the run", lambda: _browsable(files, target)),
        ("the metrics", lambda: marks.log_metrics(target, snapshot)),
        ("the dataset", lambda: marks.log_rows(target, facts.get("data") or {})),
        ("the note", lambda: marks.write_notes(target, _note(snapshot, target, reason=reason))),
    )
    for what, act in steps:
        try:
            act()
        except Exception as error:  # named in the reason; stores raise types of their own
            if marks.unreachable(error):
                raise
            logger.warning("explain_step: the evidence is stored, %s could not be written: %s", what, error)
            return "; ".join(filter(None, (reason, f"{what} could not be written: {error}")))
    return reason


def _browsable(files: Files, target: Target) -> None:
    """Put what the viewer shows directly under ``explanations/`` of the run, for the newest snapshot."""
    if target.run_id is None:
        return
    place = run_place(target)
    shown = {n: p for n, p in files.items() if p.suffix in BROWSABLE and not n.startswith("provenance/")}
    manifest = shown.pop(MANIFEST)
    there = {n: s for n, s in place.sizes(FOLDER).items() if n.count("/") <= 1}
    if MANIFEST in there and place.read(f"{FOLDER}/{MANIFEST}") == manifest.read_bytes():
        return
    for _ in range(ATTEMPTS):
        for name, path in shown.items():
            _put(place, path, f"{FOLDER}/{name}")
        for stale in sorted(set(there) - set(shown)):
            if stale.startswith(("figures/", "tables/")):
                place.remove(f"{FOLDER}/{stale}")
        place.put(manifest, FOLDER)
        if not _mixed(place, manifest, pages=[shown[n] for n in PAGES if n in shown]):
            return


def _mixed(place: Place, manifest: Path, *, pages: list[Path]) -> bool:
    """Tell whether another step on this run has put a page between ours; the one whose manifest stands writes again."""
    ours = [path.read_bytes() == place.read(f"{FOLDER}/{path.name}") for path in (manifest, *pages)]
    return ours[0] and not all(ours)


def _note(snapshot: Snapshot, target: Target, *, reason: str) -> str:
    told = "" if snapshot.status == "complete" or not reason else f" ({marks.short(reason)})"
    lines = [f"**Explanation: {snapshot.status}**{told}"]
    leaders = _leaders(snapshot)
    if leaders:
        lines.append(f"Leading columns: {leaders}.")
    lines.append(f"[Open the page]({page_route(target)}); snapshot `{snapshot.id[:12]}`.")
    if target.note:
        lines.append(target.note)
    return "\n\n".join(lines)


def _leaders(snapshot: Snapshot) -> str:
    table = snapshot.tables.get("importance")
    if table is None or table.empty:
        return ""
    total = table.groupby("feature", sort=False)["mean_abs_shap"].mean().nlargest(3)
    return ", ".join("`" + " ".join(str(name).replace("`", "'").split())[:60] + "`" for name in total.index)
