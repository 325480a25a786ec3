"""Snapshots: a directory of tables, figures and pages, with a manifest that names every byte.

`write` makes one, `read_directory` gives it back, `verify_directory` checks it offline.
"""

from explain_step.snapshot.chain import Previous
from explain_step.snapshot.completing import with_model
from explain_step.snapshot.manifest import SCHEMA_VERSION, ModelRef, snapshot_id
from explain_step.snapshot.read import Snapshot, StoredTables, read_directory, read_manifest
from explain_step.snapshot.signing import signatures_of
from explain_step.snapshot.summary import summarise
from explain_step.snapshot.verify import Examined, examine, verify_directory
from explain_step.snapshot.write import SnapshotParts, identify, write

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
    "verify_directory",
    "with_model",
    "write",
]
