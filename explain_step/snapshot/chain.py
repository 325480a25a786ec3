"""The chain of snapshots of one model: each names the one before it by its id and by the digest of its manifest.

The id holds the content; the digest holds the whole manifest, which names every byte of figures, pages and provenance
too. Snapshots from before the digest was recorded are linked by the id alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
    manifest: Mapping[str, Any], before: Callable[[str], bytes | None], *, kept: Iterable[str] = ()
) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Follow the snapshots that a verified manifest comes after.

    Parameters
    ----------
    manifest : mapping
    before : callable
        Id of a snapshot to the bytes of its manifest, or None where it is not kept.
    kept : iterable of str
        Ids of the snapshots that are kept with it; at most `MOST` are looked at.

    Returns
    -------
    tuple of dict and tuple of Finding
        What was followed: ``snapshot_id`` of the one before, ``followed`` (how many manifests are there and are the named
        ones), ``by_bytes`` (how many of these are held byte for byte, not by the id alone), ``end`` (why it ends) and
        ``forks`` (see `forks`); and a finding where a manifest is not what it should be. The files of earlier snapshots are
        not read, and signatures are in no link: they are made afterwards.
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
            found = forks(manifest, [*seen, identity], before, kept=kept)
            return _facts(first, seen, by_bytes, f"{identity[:12]}… is not kept here", found), ()
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
    end = "the first" if identity is None else f"more than {MOST}"
    return _facts(first, seen, by_bytes, end, forks(manifest, seen, before, kept=kept)), ()


def forks(
    manifest: Mapping[str, Any],
    line: Sequence[str],
    before: Callable[[str], bytes | None],
    *,
    kept: Iterable[str],
) -> list[dict[str, str]]:
    """Return the snapshots that follow one of a line although another one of the line follows it already.

    Two steps that explain a model at the same time may do that, and so does somebody who writes a second history: which
    of the two it is, the chain does not tell.

    Parameters
    ----------
    manifest : mapping
        Of the newest snapshot of the line.
    line : sequence of str
        Ids, the newest first.
    before, kept
        As for `chain`.

    Returns
    -------
    list of dict
        ``snapshot_id`` and ``previous`` of each. Manifests that are not intact, or speak of another model, are left out.
    """
    others = (identity for identity in kept if _is_id(identity) and identity not in line)
    pairs = [
        {"snapshot_id": identity, "previous": previous}
        for identity in sorted(islice(others, MOST))
        if (previous := _follows(before(identity), identity, model=manifest["model"])) is not None
    ]
    newest = [pair for pair in pairs if pair["previous"] == line[0]]
    return [pair for pair in pairs if pair["previous"] in line[1:]] + (newest if len(newest) > 1 else [])


def _follows(data: bytes | None, identity: str, *, model: Mapping[str, Any]) -> str | None:
    """Return what an intact manifest of the same model names as the one before it."""
    try:
        manifest = parse(data or b"")
        check_schema(manifest)
        intact = is_sealed(manifest) and manifest["snapshot_id"] == identity
    except ExplainStepError:
        return None
    previous = manifest.get("previous")
    same = manifest["model"].get("model_id") == model.get("model_id")
    return previous if intact and same and _is_id(previous) else None


def _facts(
    first: Any, seen: list[str], by_bytes: int, end: str, found: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    facts = {"snapshot_id": first, "followed": len(seen) - 1, "by_bytes": by_bytes, "end": end}
    return {**facts, "forks": list(found)}


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
    if after.get(LINK) is None:
        # bytes that the later one names were there before it, whatever the clocks of two machines say
        if str(manifest["created_at"]) > str(after["created_at"]):
            return manifest, "says that it was made after the one that follows it"
    elif after[LINK] != sha256_bytes(data):
        return (
            manifest,
            "has another manifest than the one that was followed: figures, words or other files changed",
        )
    return manifest, None
