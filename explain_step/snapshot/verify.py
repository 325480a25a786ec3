"""Check a snapshot offline: files, the manifest itself, and the id that the tables give.

Codes
-----
====== ==========================================================================
VER000 everything matches (verdict ``pass``)
VER001 there is no directory, or no manifest in it
VER002 the manifest is not strict JSON in the form it was written
VER003 the manifest has a form or a schema version that cannot be read
VER004 the manifest does not have its own digest
VER005 a file is missing
VER006 a file or directory is there that the manifest does not name
VER007 a file has other bytes
VER008 a link or a special file
VER009 the tables do not give the snapshot id, or a table does not have its digest
VER010 a file in ``signatures/`` is not a signature that holds for the manifest
VER011 the registry notes another digest of the manifest
VER012 the snapshot was made for another logged model or run
VER013 the model's files are not those that were explained
VER014 the snapshot before this one is not what the chain says
VER015 a given OpenSSF signature does not hold for the model's files, or the snapshot's
VER016 the level that was asked for, by listed keys or a time stamp, is not reached
VER017 the run shows other pages than the snapshot's, beside its manifest
====== ==========================================================================

What a pass proves has levels (`explain_step.snapshot.trust`). Digests beside the files (L0) show accidents only.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from explain_step.canonical import canonical_json, plain_json
from explain_step.errors import ExplainStepError, SnapshotError
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.manifest import (
    MANIFEST,
    check_schema,
    dump,
    identity_of,
    is_sealed,
    parse,
    read_bounded,
    read_regular,
)
from explain_step.snapshot.signing import SIGNATURES, AllowedKey, signatures_of, trusted
from explain_step.snapshot.timestamps import TimestampFound
from explain_step.snapshot.trust import Noted, Trust, trust_of
from explain_step.types import Finding, SignatureFound

MAX_DEPTH = 6
"""Folders below a snapshot that are looked into; its own files are at most one deep."""


def verify_directory(
    path: str | Path,
    *,
    allowed_keys: tuple[AllowedKey, ...] = (),
    today: date | None = None,
    noted: Noted | None = None,
    timestamp: Callable[[bytes], TimestampFound] | None = None,
) -> tuple[Finding, ...]:
    """Return what is wrong with a snapshot, each file at fault by name; one ``pass`` if nothing is.

    Never raises for what the directory holds, follows no link, and reads no table whose bytes are not the
    named ones.

    Parameters
    ----------
    path : path
        The snapshot directory.
    allowed_keys : tuple of AllowedKey
        Keys whose signatures count; the passing finding says which level they reach.
    today : date, optional
        For keys that expire.
    noted : Noted, optional
        What a registry notes of the snapshot. Another digest of the manifest is a finding.
    timestamp : callable, optional
        Bytes of the manifest to what a time stamp says of them (`explain_step.snapshot.timestamps`).

    Returns
    -------
    tuple of Finding
        ``evidence["path"]`` is the relative path of the file at fault. Of a pass, ``level`` is the level of trust that is
        reached, and ``lacking`` says for each of the others why it is not.
    """
    return examine(path, allowed_keys=allowed_keys, today=today, noted=noted, timestamp=timestamp).findings


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What verification found, and what it has read on the way.

    Attributes
    ----------
    findings : tuple of Finding
        As of `verify_directory`.
    manifest : dict, optional
        None where it cannot be read. It may be used only where every finding passes.
    manifest_sha256 : str, optional
        Of the bytes that were read.
    signatures : tuple of SignatureFound
    """

    findings: tuple[Finding, ...]
    manifest: dict[str, Any] | None = None
    manifest_sha256: str | None = None
    signatures: tuple[SignatureFound, ...] = ()


def examine(
    path: str | Path,
    *,
    allowed_keys: tuple[AllowedKey, ...] = (),
    today: date | None = None,
    thorough: bool = True,
    noted: Noted | None = None,
    timestamp: Callable[[bytes], TimestampFound] | None = None,
) -> Examined:
    """Verify a snapshot and return what was read with what was found.

    Parameters
    ----------
    path, allowed_keys, today, noted, timestamp
        As for `verify_directory`.
    thorough : bool
        False saves what costs most and what no forger needs: the digests of the tables, which the snapshot id
        rests on, are taken from the manifest instead of computed from their values, and the manifest may have
        its values in other bytes. The bytes of every file and the manifest's own digest are checked in both.
    """
    root = Path(path)
    found = list(_directory(root))
    if found:
        return Examined(findings=tuple(found))
    data, manifest, problem = _manifest(root, form=thorough)
    if manifest is None:
        return Examined(findings=(problem,) if problem is not None else ())
    findings = [] if problem is None else [problem]
    findings.extend(_files(root, manifest))
    bare = not can_compute()
    if not findings:
        findings.extend(_config(manifest))
    if not findings and not bare:
        findings.extend(_identity(root, manifest, compute=thorough))
    digest = sha256_bytes(data)
    # of the bytes that were judged: a manifest that is exchanged meanwhile brings no signature with it
    signatures = signatures_of(root, manifest=data) if not findings else ()
    findings.extend(_signatures(signatures))
    findings.extend(_noted(noted, digest))
    judged = trusted(signatures, allowed_keys, today=today or datetime.now(UTC).date())
    trust = trust_of(
        noted=noted,
        signatures=judged,
        listed=bool(allowed_keys),
        timestamp=None if timestamp is None else timestamp(data),
    )
    return Examined(
        findings=tuple(findings) or (_passed(manifest, trust, signatures=judged, bare=bare),),
        manifest=manifest,
        manifest_sha256=digest,
        signatures=signatures,
    )


def _fail(code: str, message: str, *, path: str, **evidence: Any) -> Finding:
    return Finding(code=code, verdict="fail", message=message, evidence={"path": path, **evidence})


def _passed(
    manifest: Mapping[str, Any], trust: Trust, *, signatures: tuple[Mapping[str, Any], ...], bare: bool
) -> Finding:
    n = len(manifest["files"])
    said = trust.words
    if bare:
        said += "; the tables' bytes were checked, their values not read: that takes pandas and pyarrow"
    if signatures and "L2" in trust.lacking:
        said += f"; {trust.lacking['L2']}"
    return Finding(
        code="VER000",
        verdict="pass",
        message=f"every byte of {n} files and the manifest matches; {said}",
        evidence={
            "snapshot_id": manifest["snapshot_id"],
            "files": n,
            "level": trust.level,
            "lacking": dict(trust.lacking),
            "signatures": [dict(s) for s in signatures],
        },
    )


def _noted(noted: Noted | None, digest: str) -> Iterator[Finding]:
    if noted is not None and noted.sha256 is not None and noted.sha256.strip().lower() != digest:
        message = (
            f"{noted.where} notes a manifest with SHA-256 {noted.sha256[:12]}…, this one has {digest[:12]}…: "
            "one of the two was changed"
        )
        yield _fail("VER011", message, path=MANIFEST, noted=noted.sha256, sha256=digest)


def _signatures(found: tuple[SignatureFound, ...]) -> Iterator[Finding]:
    for signature in found:
        if not signature.valid:
            message = f"{signature.file} does not count: {signature.reason}"
            yield _fail("VER010", message, path=signature.file)


def _directory(root: Path) -> Iterator[Finding]:
    if not root.is_dir():
        yield _fail("VER001", f"{str(root)!r} is not a directory", path=".")
        return
    place = root / MANIFEST
    try:
        mode = place.lstat().st_mode
    except OSError:
        yield _fail("VER001", f"{MANIFEST} is missing: not a snapshot, or not a finished one", path=MANIFEST)
        return
    if not stat.S_ISREG(mode):
        yield _fail("VER008", f"{MANIFEST} is not a regular file", path=MANIFEST)


def _manifest(root: Path, *, form: bool) -> tuple[bytes, dict[str, Any] | None, Finding | None]:
    """Return the manifest's bytes, the manifest as far as it can be used, and what is wrong with it."""
    data = b""
    try:
        data = read_bounded(root / MANIFEST)
        manifest = parse(data)
    except (OSError, SnapshotError) as error:
        return data, None, _fail("VER002", str(error), path=MANIFEST)
    try:
        check_schema(manifest)
        sealed = is_sealed(manifest)
    except ExplainStepError as error:
        return data, None, _fail("VER003", str(error), path=MANIFEST)
    if not sealed:
        return (
            data,
            manifest,
            _fail("VER004", f"{MANIFEST} was changed: it lacks its own digest", path=MANIFEST),
        )
    if form and dump(manifest) != data:
        problem = _fail("VER002", f"{MANIFEST} has the right values in other bytes", path=MANIFEST)
        return data, manifest, problem
    return data, manifest, None


def _files(root: Path, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    named = {entry["path"]: entry for entry in manifest["files"]}
    present: set[str] = set()
    for name, mode in _walk(root, ""):
        if name == MANIFEST or _of_signatures(name, mode):
            continue
        present.add(name)
        if stat.S_ISDIR(mode):
            if not any(path.startswith(f"{name}/") for path in named):
                yield _fail("VER006", f"{name}/ is a directory that the manifest does not name", path=name)
        elif mode == 0:
            yield _fail("VER007", f"{name} cannot be read", path=name)
        elif not stat.S_ISREG(mode):
            yield _fail("VER008", f"{name} is a link or a special file, not a regular file", path=name)
        elif name not in named:
            yield _fail("VER006", f"{name} is an extra file: the manifest does not name it", path=name)
        else:
            yield from _content(root, named[name])
    for name in sorted(set(named) - present):
        yield _fail("VER005", f"{name} is missing", path=name)


def _of_signatures(name: str, mode: int) -> bool:
    """Tell whether this is the folder of signatures or a file in it: what is signed cannot name them."""
    return (name == SIGNATURES and stat.S_ISDIR(mode)) or (
        Path(name).parent.as_posix() == SIGNATURES and stat.S_ISREG(mode)
    )


def _walk(root: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield relative path and mode of everything below ``root``, in order, following no link.

    Of what lies deeper than `MAX_DEPTH` only the uppermost folder is named. A folder that cannot be read has
    mode 0.
    """
    try:
        with os.scandir(root) as scanned:
            entries = sorted(scanned, key=lambda e: e.name)
    except OSError:
        yield prefix.rstrip("/") or ".", 0
        return
    for entry in entries:
        name = f"{prefix}{os.fsencode(entry.name).decode('utf-8', 'backslashreplace')}"
        mode = entry.stat(follow_symlinks=False).st_mode
        yield name, mode
        if stat.S_ISDIR(mode) and prefix.count("/") < MAX_DEPTH:
            yield from _walk(Path(entry.path), f"{name}/")


def _content(root: Path, entry: Mapping[str, Any]) -> Iterator[Finding]:
    name = entry["path"]
    try:
        size, digest = _measured(root / name, expected=entry["size"])
    except OSError as error:
        yield _fail("VER007", f"{name} cannot be read: {error.strerror}", path=name)
        return
    if size != entry["size"]:
        message = f"{name} was changed: {size} bytes, the manifest says {entry['size']}"
        yield _fail("VER007", message, path=name, size=size, expected_size=entry["size"])
    elif digest != entry["sha256"]:
        expected = entry["sha256"]
        message = f"{name} was changed: its SHA-256 is {digest[:12]}…, the manifest says {expected[:12]}…"
        yield _fail("VER007", message, path=name, sha256=digest, expected_sha256=expected)


def _measured(place: Path, *, expected: int) -> tuple[int, str]:
    """Return size and SHA-256 of a file, which may have become a link, a pipe or endless since it was listed.

    Another size is another content: a file of terabytes, which may take no room on the disk, is not read.
    """
    handle = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size != expected:
            return found.st_size, ""
        digest, size = hashlib.sha256(), 0
        while size <= expected and (block := file.read(1 << 20)):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def can_compute() -> bool:
    """Return whether tables can be read here. The bytes of every file are checked in any case."""
    return all(find_spec(name) is not None for name in ("numpy", "pandas", "pyarrow"))


def _config(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        digest = sha256_bytes(canonical_json(plain_json(manifest["config"])))
    except (ExplainStepError, KeyError, TypeError, ValueError) as error:
        yield _fail(
            "VER003", f"{MANIFEST}: the digest of the config cannot be computed: {error}", path=MANIFEST
        )
        return
    if digest != manifest["config_digest"]:
        yield _fail("VER009", f"{MANIFEST}: the config does not have its digest", path=MANIFEST)


def _identity(root: Path, manifest: Mapping[str, Any], *, compute: bool) -> Iterator[Finding]:
    """Compare the snapshot id with that of the tables' digests, which are computed from their values if ``compute``."""
    digests = {name: str(entry["digest"]) for name, entry in manifest["tables"].items()}
    files = {entry["path"]: entry for entry in manifest["files"]}
    for name, named in sorted(digests.items()) if compute else ():
        path = f"tables/{name}.parquet"
        try:
            digests[name] = _table_digest(root, files[path])
        except Exception as error:  # noqa: BLE001 - a forger's bytes raise anything in a parser
            yield _fail("VER009", f"{path} cannot be read as a table: {error}", path=path)
            return
        if digests[name] != named:
            yield _fail("VER009", f"{path} does not have the table digest of the manifest", path=path)
    try:
        found = identity_of(manifest, tables=digests)
    except (ExplainStepError, KeyError, TypeError, ValueError) as error:
        yield _fail("VER003", f"{MANIFEST}: the snapshot id cannot be computed: {error}", path=MANIFEST)
        return
    if found != manifest["snapshot_id"]:
        expected = manifest["snapshot_id"]
        message = f"the content gives the snapshot id {found[:12]}…, the manifest says {expected[:12]}…"
        yield _fail("VER009", message, path=MANIFEST, snapshot_id=found, expected=expected)


def held_to(findings: tuple[Finding, ...], *, keys: bool, timestamp: bool) -> tuple[Finding, ...]:
    """Return the findings for somebody who asks for signatures by listed keys (L2), or for a time stamp too (L3).

    A pass that lacks what was asked for is ``VER016``: whoever takes a signature away would get the answer of one.
    """
    wanted = ["L2"] * keys + ["L3"] * timestamp
    return tuple(
        _fail(
            "VER016", f"{lacking}; the bytes are those that the manifest names", path=MANIFEST, **f.evidence
        )
        if f.verdict == "pass" and (lacking := _lacking(f.evidence["lacking"], wanted))
        else f
        for f in findings
    )


def _lacking(lacking: Mapping[str, str], wanted: list[str]) -> str:
    return "; ".join(f"{level} was asked for: {lacking[level]}" for level in wanted if level in lacking)


def _table_digest(root: Path, entry: Mapping[str, Any]) -> str:
    from explain_step.digests import table_digest
    from explain_step.snapshot.tables import read_parquet

    data = read_regular(root / entry["path"], most=entry["size"] + 1)
    if sha256_bytes(data) != entry["sha256"]:
        msg = "it was changed while it was verified"
        raise SnapshotError(msg)
    return table_digest(read_parquet(data))


def main(arguments: list[str] | None = None) -> int:
    """Verify a directory with the standard library and ``cryptography`` alone; return 0 where everything matches."""
    import argparse
    import sys

    from explain_step.snapshot.signing import load_allowed_keys

    parser = argparse.ArgumentParser(prog="python -m explain_step.snapshot.verify", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--allowed-keys", type=Path, help="file of key ids, one of which must have signed")
    given = parser.parse_args(arguments)
    asked = given.allowed_keys is not None
    try:
        keys = load_allowed_keys(given.allowed_keys) if asked else ()
    except ExplainStepError as error:
        parser.error(str(error))
    findings = held_to(verify_directory(given.directory, allowed_keys=keys), keys=asked, timestamp=False)
    for finding in findings:
        sys.stdout.write(f"{finding.verdict} {finding.code} {finding.message}\n")
    return int(any(finding.verdict != "pass" for finding in findings))


if __name__ == "__main__":
    raise SystemExit(main())
