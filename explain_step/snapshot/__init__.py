"""Snapshots: a directory of tables, figures and pages, with a manifest that names every byte.

`write` makes one, `read_directory` gives it back, `verify_directory` checks it offline.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explain_step.snapshot.chain import Previous
    from explain_step.snapshot.completing import with_model
    from explain_step.snapshot.manifest import SCHEMA_VERSION, ModelRef, snapshot_id
    from explain_step.snapshot.read import Snapshot, StoredTables, read_directory, read_manifest
    from explain_step.snapshot.signing import signatures_of
    from explain_step.snapshot.summary import summarise
    from explain_step.snapshot.verify import Examined, examine, verify_directory
    from explain_step.snapshot.writing import SnapshotParts, identify, surroundings, write

_HOMES = {
    **dict.fromkeys(("Snapshot", "StoredTables", "read_directory", "read_manifest"), "read"),
    **dict.fromkeys(("SCHEMA_VERSION", "ModelRef", "snapshot_id"), "manifest"),
    **dict.fromkeys(("Examined", "examine", "verify_directory"), "verify"),
    **dict.fromkeys(("SnapshotParts", "identify", "surroundings", "write"), "writing"),
    "Previous": "chain",
    "signatures_of": "signing",
    "summarise": "summary",
    "with_model": "completing",
}
"""Where each name is; imported when asked for, so that `verify` runs where pandas is not installed."""

__all__ = [
    "SCHEMA_VERSION",
    "Examined",
    "ModelRef",
    "Previous",
    "Snapshot",
    "SnapshotParts",
    "StoredTables",
    "examine",
    "identify",
    "read_directory",
    "read_manifest",
    "signatures_of",
    "snapshot_id",
    "summarise",
    "surroundings",
    "verify_directory",
    "with_model",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
