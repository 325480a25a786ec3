"""Give a written snapshot the model facts that could not be known when it was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from explain_step.canonical import plain_json
from explain_step.hashes import sha256_bytes
from explain_step.secret_masking import masked
from explain_step.snapshot.chain import Previous, link
from explain_step.snapshot.manifest import MANIFEST, ModelRef, dump, identity_of, seal
from explain_step.snapshot.read import Snapshot, read_directory
from explain_step.snapshot.signing import SIGNATURES
from explain_step.snapshot.summary import summarise

Text = Callable[[str], str]


def with_model(
    snapshot: Snapshot,
    ref: ModelRef,
    *,
    directory: Path,
    page: Text,
    card: Text,
    previous: Previous | None = None,
) -> Snapshot:
    """Write the snapshot again under ``directory``, for the model that ``ref`` names, and return it.

    Tables, figures and provenance keep every byte; id, manifest, summary, page and card are those that `write` would
    have made with this model.

    Parameters
    ----------
    snapshot : Snapshot
        One that verifies. It is not changed.
    ref : ModelRef
    directory : path
        Parent folder of the new one.
    page, card : callable
        Snapshot id to text.
    previous : Previous, optional
        The snapshot that this one follows.
    """
    old = snapshot.manifest
    facts: dict[str, Any] = {**old, "model": masked(plain_json(asdict(ref)))}
    identity = identity_of(facts, tables={name: entry["digest"] for name, entry in old["tables"].items()})
    summary = summarise(
        snapshot_id=identity,
        status=snapshot.status,
        reason=snapshot.reason,
        model=ref,
        quantity=old["quantity"],
        tables=snapshot.tables,
        scores=snapshot.scores,
        caveats=snapshot.caveats,
        missing=missing(old),
    )
    new = {
        "report.html": page(identity).encode("utf-8", "backslashreplace"),
        "card.md": card(identity).encode("utf-8", "backslashreplace"),
        "summary.json": dump(masked(summary)),
    }
    target = directory / identity
    # a signature is of the manifest that is replaced here
    shutil.copytree(snapshot.path, target, ignore=shutil.ignore_patterns(SIGNATURES))
    (target / MANIFEST).unlink()
    for entry in old["files"]:
        if entry["path"] in new:
            (target / entry["path"]).write_bytes(new[entry["path"]])
    chained = {"snapshot_id": identity, **link(previous, snapshot_id=identity)}
    files = [_entry(entry, new.get(entry["path"])) for entry in old["files"]]
    (target / MANIFEST).write_bytes(dump(seal({**facts, **chained, "files": files})))
    return read_directory(target)


def _entry(entry: Mapping[str, Any], data: bytes | None) -> dict[str, Any]:
    return dict(entry) if data is None else {**entry, "sha256": sha256_bytes(data), "size": len(data)}


def missing(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the sections that could not be made, and why."""
    sections = manifest["sections"].items()
    return {name: entry["reason"] for name, entry in sections if entry.get("state") == "missing"}
