"""Sign a stored snapshot where it is: in a directory, or in MLflow beside the manifest."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from explain_step.errors import SnapshotError
from explain_step.snapshot import verify_directory
from explain_step.snapshot.openssf import OpenSSFFound, sign_folder
from explain_step.snapshot.signing import SIGNATURES, Signer, sign_directory
from explain_step.tracking.fetch import local_directory, locate
from explain_step.tracking.verifying import signed_folder, verify


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """Where a signature was written, and by which key."""

    path: str
    key_id: str
    snapshot_id: str


def sign(
    source: str | Path, signer: Signer, *, dry_run: bool = False, tracking_uri: str | None = None
) -> Signed:
    """Verify a snapshot and add a signature of its manifest.

    Parameters
    ----------
    source : path or str
        A snapshot directory, ``runs:/<id>``, ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``.
    signer : Signer
    dry_run : bool
        Verify, and write nothing.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    SnapshotError
        There is no snapshot, or it does not verify: nothing is signed that does not match its manifest.
    """
    directory = local_directory(source)
    if directory is not None:
        return _signed(directory, signer, str(directory), dry_run=dry_run)
    place, folder = locate(str(source), tracking_uri=tracking_uri)
    with tempfile.TemporaryDirectory(prefix="explain_step_sign_") as copy:
        signed = _signed(place.get(folder, destination=Path(copy)), signer, folder, dry_run=dry_run)
        if not dry_run:
            place.put(Path(copy) / folder / SIGNATURES / f"{signer.key_id}.json", f"{folder}/{SIGNATURES}")
    return signed


def sign_openssf(
    source: str | Path,
    to: str | Path,
    *,
    key: str | Path,
    dry_run: bool = False,
    tracking_uri: str | None = None,
) -> OpenSSFFound:
    """Verify a snapshot, then sign the model that it explains for OpenSSF tools; of a directory, the snapshot.

    Parameters
    ----------
    source : path or str
        As for `sign`. Of a source in MLflow every file of the logged model is signed, without its explanations.
    to : path
        A new file, outside the snapshot: there it would be a file that the manifest does not name.
    key : path
        PEM file of an elliptic-curve private key.
    dry_run : bool
        Sign into a file that is removed again.

    Raises
    ------
    SnapshotError
        There is no snapshot, it does not verify, or it is not that of the model.
    MissingDependency
        The library is not installed (extra ``openssf``).
    """
    wrong = [f for f in verify(source, tracking_uri=tracking_uri) if f.verdict != "pass"]
    if wrong:
        msg = f"{source} was not signed, it does not verify: {wrong[0].code} {wrong[0].message}"
        raise SnapshotError(msg)
    with signed_folder(source, tracking_uri=tracking_uri) as (folder, leave_out):
        found = sign_folder(folder, to, key=key, leave_out=leave_out)
    if dry_run:
        Path(to).unlink()
    return found


def _signed(directory: Path, signer: Signer, shown: str, *, dry_run: bool) -> Signed:
    findings = verify_directory(directory)
    wrong = [f for f in findings if f.verdict != "pass"]
    if wrong:
        msg = f"{shown} was not signed, it does not verify: {wrong[0].code} {wrong[0].message}"
        raise SnapshotError(msg)
    if not dry_run:
        sign_directory(directory, signer)
    return Signed(
        path=f"{shown}/{SIGNATURES}/{signer.key_id}.json",
        key_id=signer.key_id,
        snapshot_id=str(findings[0].evidence["snapshot_id"]),
    )
