"""Sign a stored snapshot where it is: in a directory, or in MLflow beside the manifest."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from explain_step.errors import SnapshotError
from explain_step.snapshot import verify_directory
from explain_step.snapshot.signing import SIGNATURES, Signer, sign_directory
from explain_step.tracking.fetch import local_directory, locate


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """Where a signature was written, and by which key."""

    path: str
    key_id: str
    snapshot_id: str


def sign(source: str | Path, signer: Signer, *, tracking_uri: str | None = None) -> Signed:
    """Verify a snapshot and add a signature of its manifest.

    Parameters
    ----------
    source : path or str
        A snapshot directory, ``runs:/<id>``, ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``.
    signer : Signer
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    SnapshotError
        There is no snapshot, or it does not verify: nothing is signed that does not match its manifest.
    """
    directory = local_directory(source)
    if directory is not None:
        return _signed(directory, signer, str(directory))
    place, folder = locate(str(source), tracking_uri=tracking_uri)
    with tempfile.TemporaryDirectory(prefix="explain_step_sign_") as copy:
        signed = _signed(place.get(folder, destination=Path(copy)), signer, folder)
        place.put(Path(copy) / folder / SIGNATURES / f"{signer.key_id}.json", f"{folder}/{SIGNATURES}")
    return signed


def _signed(directory: Path, signer: Signer, shown: str) -> Signed:
    findings = verify_directory(directory)
    wrong = [f for f in findings if f.verdict != "pass"]
    if wrong:
        msg = f"{shown} was not signed, it does not verify: {wrong[0].code} {wrong[0].message}"
        raise SnapshotError(msg)
    written = sign_directory(directory, signer)
    return Signed(
        path=f"{shown}/{SIGNATURES}/{written.name}",
        key_id=signer.key_id,
        snapshot_id=str(findings[0].evidence["snapshot_id"]),
    )
