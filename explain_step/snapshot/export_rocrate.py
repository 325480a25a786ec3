"""A snapshot as an RO-Crate: what each file is, with its digest, and what made it (https://w3id.org/ro/crate)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from explain_step.errors import require

if TYPE_CHECKING:
    from explain_step.snapshot.read import Snapshot

EXTRA = "crate"
METADATA = "ro-crate-metadata.json"
MEDIA = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".png": "image/png",
    ".html": "text/html",
    ".md": "text/markdown",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
}


def rocrate(shot: Snapshot) -> str:
    """Return ``ro-crate-metadata.json`` of a crate that holds the snapshot in ``snapshot/``.

    The same snapshot gives the same bytes. The library has no digests of its own; those of the manifest are given as
    ``sha256``.

    Raises
    ------
    MissingDependency
        rocrate is not installed.
    """
    require("rocrate", extra=EXTRA)
    from rocrate.rocrate import ROCrate

    crate: Any = ROCrate()
    crate.name = f"Explanation snapshot {shot.id[:12]}"
    crate.description = (
        f"Status {shot.status}: {shot.reason}. {shot.manifest['quantity'].get('phrase', '')}".strip()
    )
    crate.datePublished = datetime.fromisoformat(shot.manifest["created_at"])
    dataset = (shot.manifest["data"].get("origin") or {}).get("dataset") or {}
    if dataset.get("licence"):
        crate.license = _licence(crate, str(dataset["licence"]))
    files = [_file(crate, shot, entry) for entry in shot.manifest["files"]]
    _made(crate, shot, [_manifest(crate, shot), *files])
    graph = crate.metadata.generate()
    graph["@graph"] = sorted(graph["@graph"], key=lambda entity: str(entity["@id"]))
    return json.dumps(graph, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _licence(crate: Any, words: str) -> Any:
    """Return the licence as an entity of its own: words are no identifier, an address is."""
    from rocrate.model import ContextEntity

    facts = {"@type": "CreativeWork", "name": words, "description": f"Licence of the explained rows: {words}"}
    identifier = words if re.fullmatch(r"https?://[^\s<>\"{}|\\^`]+", words) else "#licence"
    return crate.add(ContextEntity(crate, identifier, properties=facts))


def _manifest(crate: Any, shot: Snapshot) -> Any:
    facts = {
        "name": "manifest",
        "description": "manifest of the snapshot: it names every other file with its digest",
        "contentSize": str((shot.path / "manifest.json").stat().st_size),
        "encodingFormat": "application/json",
    }
    return _add(crate, shot, "manifest.json", facts)


def _file(crate: Any, shot: Snapshot, entry: Mapping[str, Any]) -> Any:
    suffix = "." + entry["path"].rpartition(".")[2]
    facts = {
        "name": entry["role"],
        "description": f"{entry['role']} of the snapshot: {entry['path']}",
        "sha256": entry["sha256"],
        "contentSize": str(entry["size"]),
        "encodingFormat": MEDIA.get(suffix, "application/octet-stream"),
    }
    return _add(crate, shot, entry["path"], facts)


def _add(crate: Any, shot: Snapshot, path: str, facts: Mapping[str, str]) -> Any:
    return crate.add_file(str(shot.path / path), dest_path=f"snapshot/{path}", properties=dict(facts))


def _made(crate: Any, shot: Snapshot, results: list[Any]) -> None:
    """Say which tool made the files from which model and rows: an action, in the terms of the process-run profile."""
    from rocrate.model import ContextEntity

    tool, _, version = str(shot.manifest["tool"]).partition(" ")
    data, model = shot.manifest["data"], shot.model
    given = {
        "#tool": {
            "@type": "SoftwareApplication",
            "name": tool,
            "url": f"https://pypi.org/project/{tool}/",
            "version": version,
            "softwareVersion": version,
        },
        "#model": {
            "@type": "CreativeWork",
            "name": model.name or model.model_class,
            "description": f"the explained model, a {model.model_class}",
            "identifier": [
                f"{k}:{v}" for k, v in (("directory-v1", model.digest), ("model_id", model.model_id)) if v
            ],
        },
        "#rows": {"@type": "Dataset", "name": "explained rows", "identifier": f"frame-v1:{data['digest']}"},
    }
    entities = {key: crate.add(ContextEntity(crate, key, properties=facts)) for key, facts in given.items()}
    action = {
        "@type": "CreateAction",
        "name": "explain",
        "description": f"the model's predictions on {data['rows']} rows were explained",
        "endTime": shot.manifest["created_at"],
    }
    made = crate.add(ContextEntity(crate, "#explanation", properties=action))
    made["instrument"] = entities["#tool"]
    made["object"] = [entities["#model"], entities["#rows"]]
    made["result"] = results
    crate.root_dataset["mentions"] = made
