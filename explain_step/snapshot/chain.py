"""The chain of snapshots of one model: each names the one before it by its id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from explain_step.errors import ExplainStepError
from explain_step.snapshot.manifest import MANIFEST, check_schema, parse, seal
from explain_step.types import Finding

MOST = 100


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
        ones) and ``end`` (why it ends); and a finding where a manifest is not what it should be. The id holds
        the content of a snapshot, not its figures, words or signatures.
    """
    first = manifest.get("previous")
    seen = [str(manifest["snapshot_id"])]
    current, identity = manifest, first
    while identity is not None and len(seen) <= MOST:
        problem, data = None, before(identity) if _is_id(identity) else None
        if not _is_id(identity) or identity in seen:
            problem = f"names {str(identity)[:80]!r} as the one before it"
        elif data is None:
            return _facts(first, seen, f"{identity[:12]}… is not kept here"), ()
        else:
            current, problem = _read(data, identity, after=current)
        if problem is not None:
            finding = Finding(
                code="VER014",
                verdict="fail",
                message=f"the chain is broken: the snapshot {seen[-1][:12]}… {problem}"
                if data is None
                else f"the chain is broken: the snapshot {identity[:12]}… {problem}",
                evidence={"path": MANIFEST, "previous": str(identity)[:80]},
            )
            return _facts(first, seen, "it is broken"), (finding,)
        seen.append(identity)
        identity = current.get("previous")
    return _facts(first, seen, "the first" if identity is None else f"more than {MOST}"), ()


def _facts(first: Any, seen: list[str], end: str) -> dict[str, Any]:
    return {"snapshot_id": first, "followed": len(seen) - 1, "end": end}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _read(data: bytes, identity: str, *, after: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the manifest of an earlier snapshot and what is wrong with it."""
    try:
        manifest = parse(data)
        check_schema(manifest)
        sealed = seal(manifest)["manifest_digest"]
    except ExplainStepError as error:
        return {}, f"cannot be read: {error}"
    if sealed != manifest["manifest_digest"]:
        return manifest, "was changed: its manifest lacks its own digest"
    if manifest["snapshot_id"] != identity:
        return manifest, "has the manifest of another snapshot"
    if str(manifest["created_at"]) > str(after["created_at"]):
        return manifest, "says that it was made after the one that follows it"
    return manifest, None
