"""Verify a snapshot where it is stored: its bytes, the registry's note of them, whose it is, and the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step.errors import ExplainStepError, SnapshotError
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.chain import chain
from explain_step.snapshot.manifest import read_bounded
from explain_step.snapshot.signing import SIGNATURES
from explain_step.snapshot.trust import Noted
from explain_step.snapshot.verify import examine
from explain_step.tracking.binding import model_digest
from explain_step.tracking.fetch import check_source, local_directory, locate
from explain_step.tracking.loading import model_files
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.place import FOLDER, MANIFEST, PAGES, Place, run_place
from explain_step.tracking.target import names_run, resolve_source
from explain_step.types import Finding

if TYPE_CHECKING:
    from explain_step.snapshot.openssf import OpenSSFFound
    from explain_step.snapshot.signing import AllowedKey
    from explain_step.snapshot.timestamps import TimestampFound
    from explain_step.tracking.target import Target

Before = Callable[[str], bytes | None]
"""The id of a snapshot to the bytes of its manifest, or None where it is not kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    directory: Path
    before: Before
    kept: Callable[[], list[str]]
    target: Target | None = None
    noted: Noted | None = None


def verify(
    source: str | Path,
    *,
    allowed_keys: tuple[AllowedKey, ...] = (),
    timestamp: Callable[[bytes], TimestampFound] | None = None,
    openssf: Callable[..., OpenSSFFound] | None = None,
    today: date | None = None,
    tracking_uri: str | None = None,
) -> tuple[Finding, ...]:
    """Check every byte of a snapshot and, where MLflow names it, that it belongs to what names it.

    Parameters
    ----------
    source : path or str
        A snapshot directory, ``runs:/<id>``, ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``. Of a
        directory only the bytes, the signatures and the snapshot before it, where it lies beside, can be checked.
    allowed_keys, timestamp, today
        As for `explain_step.snapshot.verify_directory`.
    openssf : callable, optional
        Folder and ``leave_out`` to what an OpenSSF signature says of the files of the model, or of a directory
        (`explain_step.snapshot.openssf.check_folder`). It changes no level: it does not speak of the manifest's word.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    SnapshotError
        There is no snapshot.
    """
    with _stored(source, tracking_uri=tracking_uri) as stored:
        found = examine(
            stored.directory,
            allowed_keys=allowed_keys,
            today=today,
            noted=stored.noted,
            timestamp=timestamp,
        )
        if found.manifest is None or any(f.code in ("VER003", "VER004") for f in found.findings):
            return found.findings
        more = (
            *_belongs(found.manifest, stored.target),
            *_made_by(found.manifest, stored.target, str(source)),
        )
        exchanged, shown = shown_pages(found.manifest, found.manifest_sha256, stored.target)
        previous, broken = chain(found.manifest, stored.before, kept=stored.kept())
    signed = None if openssf is None else _openssf(openssf, source, tracking_uri=tracking_uri)
    unsigned = () if signed is None or signed.valid else (_not_signed(signed),)
    findings = (*found.findings, *more, *exchanged, *broken, *unsigned)
    if any(f.verdict == "fail" for f in findings):
        return tuple(f for f in findings if f.verdict == "fail")
    (passed,) = found.findings
    facts = {
        "previous": previous,
        **({} if shown is None else {"shown": shown}),
        **({} if signed is None else {"openssf": signed.reason}),
    }
    return (replace(passed, evidence={**passed.evidence, **facts}),)


@contextmanager
def signed_folder(source: str | Path, *, tracking_uri: str | None) -> Iterator[tuple[Path, frozenset[str]]]:
    """Give the folder that an OpenSSF signature of a source is about, and the children that it leaves out.

    It is the logged model without its explanations; of a directory, the snapshot without its signatures.
    """
    directory = local_directory(source)
    if directory is not None:
        yield directory, frozenset({SIGNATURES})
        return
    target = resolve_source(str(source), tracking_uri=tracking_uri)
    if target.model_location is None:
        msg = f"{str(source)!r} has no logged model whose files could be signed."
        raise SnapshotError(msg)
    with model_files(target) as folder:
        yield folder, frozenset({FOLDER})


def _openssf(
    check: Callable[..., OpenSSFFound], source: str | Path, *, tracking_uri: str | None
) -> OpenSSFFound:
    with signed_folder(source, tracking_uri=tracking_uri) as (folder, leave_out):
        return check(folder, leave_out=leave_out)


def _not_signed(signed: OpenSSFFound) -> Finding:
    return _fail("VER015", f"the OpenSSF signature does not hold: {signed.reason}")


@contextmanager
def _stored(source: str | Path, *, tracking_uri: str | None) -> Iterator[_Stored]:
    check_source(source)
    path = Path(source)
    plain = path.is_dir() and not list(
        path.glob(f"*/{MANIFEST}")
    )  # without a manifest too: verify says what is wrong
    directory = path if plain else local_directory(source)
    if directory is not None:
        beside = directory.absolute().parent
        yield _Stored(directory=directory, before=_in_folder(beside), kept=partial(_names, beside))
        return
    target = resolve_source(str(source), tracking_uri=tracking_uri)
    place, folder = locate(str(source), tracking_uri=tracking_uri)
    with place.copied(folder) as copy:
        noted, kept = _note(target, str(source)), partial(_kept, place)
        yield _Stored(directory=copy, before=_before(place), kept=kept, target=target, noted=noted)


def history(place: Place, manifest: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Follow the snapshots before a verified one that is kept at a place, as `explain_step.snapshot.chain.chain` does."""
    return chain(manifest, _before(place), kept=_kept(place))


def _before(place: Place) -> Before:
    local = place.local_root()
    return _in_place(place) if local is None else _in_folder(local / FOLDER)


def _kept(place: Place) -> list[str]:
    return sorted(place.children(FOLDER))


def _names(folder: Path) -> list[str]:
    """Return the names in a folder of snapshots; none where it cannot be listed."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _in_folder(folder: Path) -> Before:
    def read(identity: str) -> bytes | None:
        place = folder / identity / MANIFEST
        if not place.is_file() or place.is_symlink():
            return None
        try:
            return read_bounded(place)
        except (OSError, SnapshotError):
            return b""  # it is there, and nothing that can be read

    return read


def _in_place(place: Place) -> Before:
    def read(identity: str) -> bytes | None:
        folder = f"{FOLDER}/{identity}"
        return place.read(f"{folder}/{MANIFEST}") if MANIFEST in place.children(folder) else None

    return read


def _note(target: Target, source: str) -> Noted:
    """Return the digest of the manifest that the asked version, logged model or run notes."""
    key = f"{PREFIX}manifest_sha256"
    if source.startswith("models:/") and target.versions:
        name, version = target.versions[0]
        tags = target.client.get_model_version(name, version).tags or {}
        if tags.get(key) or target.model_id is None:
            return Noted(sha256=tags.get(key), where=f"version models:/{name}/{version}")
    if target.model_id is not None:
        tags = target.client.get_logged_model(target.model_id).tags or {}
        return Noted(sha256=tags.get(key), where=f"logged model {target.model_id}")
    tags = target.client.get_run(target.run_id).data.tags
    return Noted(sha256=tags.get(key), where=f"run {target.run_id}")


def _belongs(manifest: Mapping[str, Any], target: Target | None) -> Iterator[Finding]:
    """Hold what the snapshot was made for against what MLflow says, as the gate does."""
    if target is None:
        return
    model = manifest["model"]
    key, actual = ("run_id", target.run_id) if target.model_id is None else ("model_id", target.model_id)
    if model.get(key) != actual:
        message = f"the snapshot was made for {key} {model.get(key)}, this one is {actual}"
        yield _fail("VER012", message, claimed=model.get(key), actual=actual)
    if model.get("digest") is None:
        return
    try:
        found = model_digest(target)
    except ExplainStepError as error:
        yield _fail("VER013", f"the model's files cannot be digested: {error}")
        return
    if found != model["digest"]:
        digests = f"digest {str(found)[:12]}…, the snapshot says {model['digest'][:12]}…"
        yield _fail("VER013", f"the model's files are not those that were explained ({digests})")


def _made_by(manifest: Mapping[str, Any], target: Target | None, source: str) -> Iterator[Finding]:
    """Refuse for a run the explanation of another run's model that was not made in it: its tag may name any."""
    if target is None or target.model_id is None or not names_run(source):
        return
    claimed, actual = manifest["model"].get("run_id"), target.run_id
    if claimed == actual or target.client.get_logged_model(target.model_id).source_run_id == actual:
        return
    message = f"the snapshot was made for run_id {claimed}, this one is {actual}"
    yield _fail("VER012", message, claimed=claimed, actual=actual)


def shown_pages(
    manifest: Mapping[str, Any], sha256: str | None, target: Target | None
) -> tuple[tuple[Finding, ...], str | None]:
    """Hold the pages that the run shows against the manifest beside them; say where they are not this snapshot's.

    They are of the newest explanation of the run, so that others are no fault of this snapshot: that is told.
    """
    if target is None or target.run_id is None:
        return (), None
    try:
        place = run_place(target)
        there = place.children(FOLDER)
        read = {n: sha256_bytes(place.read(f"{FOLDER}/{n}")) for n in (MANIFEST, *PAGES) if n in there}
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; the evidence itself was read
        return (), f"the pages that run {target.run_id} shows cannot be read: {error}"
    named = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    other = [f"{FOLDER}/{n}" for n in PAGES if n in read and read[n] != named.get(n)]
    if not other:
        return (), None
    if read.get(MANIFEST) != sha256:
        return (), f"run {target.run_id} shows pages of another snapshot, or of none: {', '.join(other)}"
    message = f"run {target.run_id} shows other pages than the snapshot's: {', '.join(other)}"
    return (_fail("VER017", message, shown=other),), None


def _fail(code: str, message: str, **evidence: Any) -> Finding:
    return Finding(code=code, verdict="fail", message=message, evidence={"path": MANIFEST, **evidence})
