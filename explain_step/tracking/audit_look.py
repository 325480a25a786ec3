"""Look at one artifact root: whether there is a snapshot, whether it is whole, and what it was made for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from explain_step import digests, hashes
from explain_step.errors import ExplainStepError
from explain_step.secret_masking import mask_text
from explain_step.snapshot import read_manifest
from explain_step.tracking.audit_rows import UNDECIDED, failing, undecided
from explain_step.tracking.evidence import snapshot_facts
from explain_step.tracking.fetch import newest
from explain_step.tracking.loading import files_at
from explain_step.tracking.place import FOLDER, MANIFEST, Place, open_place
from explain_step.types import Finding

MAX_MANIFEST_BYTES = 16 * 2**20
NO_SNAPSHOT = "there is no explanation snapshot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What was found at one artifact root.

    ``status``: of the manifest; ``incomplete`` where there is no snapshot that holds; ``undecided`` where it
    could not be read. ``present``: whether there is a folder with a manifest at all.
    """

    status: str
    reason: str
    present: bool = False
    snapshot_id: str | None = None
    manifest_sha256: str | None = None
    run_id: str | None = None
    verified: Literal["", "manifest", "bytes"] = ""
    findings: tuple[Finding, ...] = ()


ABSENT = Sight(status="incomplete", reason=NO_SNAPSHOT)


def look(
    location: str | None,
    *,
    tracking_uri: str,
    owner: tuple[str, str] | None,
    hint: str | None = None,
    full: bool = False,
) -> Sight:
    """Return what is at an artifact root.

    Parameters
    ----------
    location : str, optional
        Artifact root of a logged model or of a run.
    tracking_uri : str
    owner : tuple of str, optional
        ``("model_id", id)`` or ``("run_id", id)``: what the snapshot has to be made for.
    hint : str, optional
        Snapshot id to look for first.
    full : bool
        False: the manifest's seal, the presence and the size of every file. True: every byte, and the digest
        of the model's files.

    Notes
    -----
    Nothing is raised: a store that does not answer gives an ``undecided`` sight, and the audit goes on.
    """
    if location is None:
        return ABSENT
    try:
        if _nothing_local(location, owner=owner):
            return ABSENT
        place = open_place(location, tracking_uri=tracking_uri)
        folder = newest(place, hint=hint)
        if folder is None:
            return ABSENT
        return _full(place, hint=hint, owner=owner) if full else _quick(place, folder, owner=owner)
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; told in the row, and never a pass
        return unreadable(error)


def _nothing_local(location: str, *, owner: tuple[str, str] | None) -> bool:
    """Tell by one look at a local directory that nothing was ever explained there: most runs of a sweep.

    Raises
    ------
    ExplainStepError
        The files of a logged model are not on this machine: what is not seen is not called absent.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if not is_local_uri(location):
        return False
    root = Path(local_file_uri_to_path(location))
    if os.path.lexists(root / FOLDER):  # also a link that leads nowhere
        return False
    if owner is not None and owner[0] == "model_id" and not root.is_dir():
        msg = f"the model's files are not on this machine: {location}"
        raise ExplainStepError(msg)
    return True


def unreadable(error: BaseException) -> Sight:
    """Return the sight of something that could not be read."""
    told = mask_text(f"{type(error).__name__}: {error}")[:300]
    return Sight(
        status=UNDECIDED,
        reason=f"the evidence could not be read: {told}",
        present=True,
        findings=(undecided("AUD013", f"the evidence could not be read: {told}"),),
    )


def _quick(place: Place, folder: str, *, owner: tuple[str, str] | None) -> Sight:
    sizes = place.sizes(folder)
    if (sizes.get(MANIFEST) or 0) > MAX_MANIFEST_BYTES:
        return _broken(f"{MANIFEST} has {sizes[MANIFEST]} bytes")
    with _manifest_of(place, folder) as file:
        digest = hashes.sha256_file(file)
        try:
            manifest = read_manifest(file.parent)
        except ExplainStepError as error:
            return _broken(_plain(str(error), file.parent))
    wrong = _missing(manifest, sizes)
    if wrong is not None:
        return _broken(wrong)
    return _owned(manifest, digest, owner=owner, verified="manifest")


@contextmanager
def _manifest_of(place: Place, folder: str) -> Iterator[Path]:
    """Yield a local manifest: in place where the store is local, else a copy."""
    root = place.local_root()
    if root is not None:
        yield root / folder / MANIFEST
        return
    with tempfile.TemporaryDirectory(prefix="explain_step_audit_") as copy:
        yield place.get(f"{folder}/{MANIFEST}", destination=Path(copy))


def _plain(message: str, folder: Path) -> str:
    """Return a message without the name of the temporary copy."""
    return message.replace(f"{folder}/", "").replace(str(folder), "the snapshot")


def _missing(manifest: Mapping[str, Any], sizes: Mapping[str, int | None]) -> str | None:
    for entry in manifest["files"]:
        if entry["path"] not in sizes:
            return f"{entry['path']} is missing"
        if sizes[entry["path"]] not in (None, entry["size"]):
            return f"{entry['path']} was changed: {sizes[entry['path']]} bytes, not {entry['size']}"
    return None


def _full(place: Place, *, hint: str | None, owner: tuple[str, str] | None) -> Sight:
    facts = snapshot_facts(place, hint=hint)
    problems = [f for f in facts.get("verification", ()) if f.verdict != "pass"]
    if problems:
        return _broken("; ".join(f"{f.code} {f.message}" for f in problems[:3]))
    manifest = facts["manifest"]
    sight = _owned(manifest, facts["manifest_sha256"], owner=owner, verified="bytes")
    explained = manifest["model"].get("digest")
    if owner is None or owner[0] != "model_id" or not sight.verified:
        return sight
    with files_at(place) as directory:
        stored = digests.directory_digest(directory)
    return sight if stored == explained else _another_model(stored, explained)


def _another_model(stored: str, explained: str | None) -> Sight:
    said = "none" if explained is None else f"{explained[:12]}…"
    reason = f"the model's files are not those that were explained (digest {stored[:12]}…, snapshot: {said})"
    return _refused("AUD008", reason)


def _owned(
    manifest: Mapping[str, Any],
    digest: str,
    *,
    owner: tuple[str, str] | None,
    verified: Literal["manifest", "bytes"],
) -> Sight:
    claimed = None if owner is None else manifest["model"].get(owner[0])
    if owner is not None and claimed != owner[1]:
        return _refused("AUD009", f"the snapshot was made for {owner[0]} {claimed}, not for {owner[1]}")
    status, reason = str(manifest["status"]), str(manifest["reason"])
    lacking = (failing("AUD015", f"the snapshot is {status}: {reason}"),) if status == "incomplete" else ()
    run_id = manifest["model"].get("run_id")
    return Sight(
        status=status,
        reason=reason,
        present=True,
        snapshot_id=str(manifest["snapshot_id"]),
        manifest_sha256=digest,
        run_id=None if run_id is None else str(run_id),
        verified=verified,
        findings=lacking,
    )


def _broken(message: str) -> Sight:
    return _refused("AUD007", f"the snapshot does not verify: {message}")


def _refused(code: str, reason: str) -> Sight:
    return Sight(status="incomplete", reason=reason, present=True, findings=(failing(code, reason),))
