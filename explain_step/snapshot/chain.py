"""The chain of snapshots of one model: each names the one before it by its id and by the digest of its manifest.

The id holds the content; the digest holds the whole manifest, which names every byte of figures, pages and provenance
too. Snapshots from before the digest was recorded are linked by the id alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from explain_step.errors import ExplainStepError
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.manifest import MANIFEST, check_schema, is_sealed, parse
from explain_step.types import Finding

MOST = 100
LINK = "previous_manifest_sha256"
"""Key of a manifest: the SHA-256 of the bytes of the ``manifest.json`` before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Previous:
    """The snapshot that another one follows: its id, and the SHA-256 of its ``manifest.json`` where that is known."""

    snapshot_id: str
    manifest_sha256: str | None = None


def link(previous: Previous | None, *, snapshot_id: str) -> dict[str, str | None]:
    """Return what a manifest says of the snapshot before it.

    The same content explained once more follows nothing: it is the same snapshot.
    """
    known = None if previous is None or previous.snapshot_id == snapshot_id else previous
    digest = None if known is None else known.manifest_sha256
    return {
        "previous": None if known is None else known.snapshot_id,
        LINK: digest if _is_id(digest) else None,
    }


def chain(
    manifest: Mapping[str, Any], before: Callable[[str], bytes | None]
) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Follow the snapshots that a verified manifest comes after.

    Parameters
    ----------
    manifest : mapping
    before : callable
        Id of a snapshot to the bytes of its manifest, or None where it is not kept.

    Returns
    -------
    tuple of dict and tuple of Finding
        What was followed: ``snapshot_id`` of the one before, ``followed`` (how many manifests are there and are the named
        ones), ``by_bytes`` (how many of these are held byte for byte, not by the id alone) and ``end`` (why it ends);
        and a finding where a manifest is not what it should be. The files of earlier snapshots are not read, and
        signatures are in no link: they are made afterwards.
    """
    first = manifest.get("previous")
    seen = [str(manifest["snapshot_id"])]
    by_bytes = 0
    current, identity = manifest, first
    while identity is not None and len(seen) <= MOST:
        problem, data = None, before(identity) if _is_id(identity) else None
        if not _is_id(identity) or identity in seen:
            problem = f"names {str(identity)[:80]!r} as the one before it"
        elif data is None:
            return _facts(first, seen, by_bytes, f"{identity[:12]}… is not kept here"), ()
        else:
            held = current.get(LINK) is not None
            current, problem = _read(data, identity, after=current)
            by_bytes += held and problem is None
        if problem is not None:
            finding = Finding(
                code="VER014",
                verdict="fail",
                message=f"the chain is broken: the snapshot {seen[-1][:12]}… {problem}"
                if data is None
                else f"the chain is broken: the snapshot {identity[:12]}… {problem}",
                evidence={"path": MANIFEST, "previous": str(identity)[:80]},
            )
            return _facts(first, seen, by_bytes, "it is broken"), (finding,)
        seen.append(identity)
        identity = current.get("previous")
    return _facts(first, seen, by_bytes, "the first" if identity is None else f"more than {MOST}"), ()


def _facts(first: Any, seen: list[str], by_bytes: int, end: str) -> dict[str, Any]:
    return {"snapshot_id": first, "followed": len(seen) - 1, "by_bytes": by_bytes, "end": end}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _read(data: bytes, identity: str, *, after: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the manifest of an earlier snapshot and what is wrong with it."""
    try:
        manifest = parse(data)
        check_schema(manifest)
        sealed = is_sealed(manifest)
    except ExplainStepError as error:
        return {}, f"cannot be read: {error}"
    if not sealed:
        return manifest, "was changed: its manifest lacks its own digest"
    if manifest["snapshot_id"] != identity:
        return manifest, "has the manifest of another snapshot"
    for key in ("model_id", "run_id"):
        ours, theirs = after["model"].get(key), manifest["model"].get(key)
        if ours is not None and theirs is not None:
            if ours != theirs:
                return manifest, f"was made for another model ({key} {str(theirs)[:80]})"
            break
    if str(manifest["created_at"]) > str(after["created_at"]):
        return manifest, "says that it was made after the one that follows it"
    if after.get(LINK) not in (None, sha256_bytes(data)):
        return (
            manifest,
            "has another manifest than the one that was followed: figures, words or other files changed",
        )
    return manifest, None
