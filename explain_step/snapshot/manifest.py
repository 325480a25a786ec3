"""The manifest: what a snapshot is, which bytes belong to it, and the identity of its content.

Schema version
--------------
``SCHEMA_VERSION`` counts the form of the directory and the manifest; it is not the version of the package.

- A new optional key, table, column or file: no bump. Readers ignore what they do not know.
- A key that is removed, renamed or gets another meaning, a changed rule of `snapshot_id` or of a digest,
  another place of a file: bump by one. Keep the old reader, keep a snapshot of the old version under
  ``tests/snapshots/``, and keep verifying it.
- A reader refuses a version above its own: it cannot know what changed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from explain_step.canonical import canonical_json, plain_json, unique_keys
from explain_step.errors import SnapshotError
from explain_step.hashes import sha256_bytes
from explain_step.types import MethodSpec, Score

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
TEXT_DIGEST = "text_sha256"
"""Key of a manifest: the SHA-256 of its JSON text without the two digests. RFC 8785 writes 1, 1.0 and -0.0 as people read
them, so that its digest alone would not tell the one spelling from the other; manifests from before have no such key."""
TRUST_LEVEL = (
    "L0 self-consistent: the digests stand beside the files. They show accidents, not a writer who changes a "
    "file and its digest together; for that, compare the SHA-256 of manifest.json with a copy kept elsewhere."
)
ALGORITHMS = {"files": "sha256", "frames": "frame-v1", "tables": "table-v1", "directory": "directory-v1"}
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_FILES = 10_000
MAX_BYTES = 2**34
"""Of all files together: a file without content takes no room on the disk, whatever its size."""
MAX_DEPTH = 60
"""Of lists and objects in each other; a manifest has about ten."""
SAFE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,150}[a-z0-9_-])?")
_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "snapshot_id": str,
    "status": str,
    "reason": str,
    "sections": dict,
    "caveats": list,
    "quantity": dict,
    "model": dict,
    "data": dict,
    "config": dict,
    "config_digest": str,
    "scores": list,
    "tables": dict,
    "figures": list,
    "methods": list,
    "files": list,
    "created_at": str,
    "tool": str,
    "trust_level": str,
    "manifest_digest": str,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """Which model was explained, and how sure that is.

    Attributes
    ----------
    name, version : str, optional
        Registered model and version.
    run_id, model_id, uri : str, optional
        The MLflow run, the logged model, and the URI that was asked for.
    model_class : str
        Class name for display.
    digest : str, optional
        `directory_digest` of the logged model's files without ``explanations/``; None for a model that was
        given as an object only.
    binding : {"verified", "declared"}
        ``verified``: the logged model was loaded and gave the explained model's predictions on the
        explained rows.
    binding_note : str
        How the binding was checked, or why it could not be.
    """

    name: str | None = None
    version: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    uri: str | None = None
    model_class: str = ""
    digest: str | None = None
    binding: Literal["verified", "declared"] = "declared"
    binding_note: str = "the model was given as an object; no logged model was compared with it"


def snapshot_id(
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    config: Mapping[str, Any],
    tables: Mapping[str, str],
    scores: Sequence[Mapping[str, Any]],
) -> str:
    """Return the identity of a snapshot's content.

    Parameters
    ----------
    model : mapping
        Of it, ``digest`` and ``model_class`` count: a name, a version or a run is where a model is, not
        what it is.
    data : mapping
        Everything but ``origin`` counts.
    config : mapping
        The canonical options.
    tables : mapping of str to str
        `explain_step.digests.table_digest` of each table.
    scores : sequence of mappings
        ``name, variant, value, ci_low, ci_high, direction, n`` count; numbers as in a table,
        the scores of one name as one column.

    Returns
    -------
    str
        64 hexadecimal digits. Times, hosts, figures, the page and the manifest's words stay outside.
    """
    content = {
        "algorithm": "snapshot-v1",
        "model": {key: model.get(key) for key in ("digest", "model_class")},
        "data": {key: value for key, value in data.items() if key != "origin"},
        "config": config,
        "tables": tables,
        "scores": _score_identities(scores),
    }
    return sha256_bytes(canonical_json(plain_json(content)))


def _score_identities(scores: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Describe scores, rounding the scores of one name together.

    An additivity error is rounding noise of the model's outputs: beside its random control it is zero.
    """
    from explain_step.digests import rounded

    identities = []
    for name in sorted({str(score["name"]) for score in scores}):
        group = [score for score in scores if str(score["name"]) == name]
        keys = ("value", "ci_low", "ci_high")
        numbers = [float("nan") if score[key] is None else score[key] for score in group for key in keys]
        texts = rounded(numbers)
        for i, score in enumerate(group):
            words = [str(score[key]) for key in ("name", "variant", "direction", "n")]
            identities.append([*words, *texts[3 * i : 3 * i + 3]])
    return sorted(identities)


def score_record(score: Score) -> dict[str, Any]:
    """Return a score as plain JSON."""
    record: dict[str, Any] = plain_json(asdict(score))
    return record


def score_from(record: Mapping[str, Any]) -> Score:
    """Return the score of a `score_record`."""
    values = dict(record)
    return Score(**{**values, "method": MethodSpec(**values["method"])})


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with ``manifest_digest``: the SHA-256 of its canonical JSON without that key.

    `TEXT_DIGEST` is computed first where the manifest has that key: how each number is spelled counts too.
    """
    body = {key: value for key, value in manifest.items() if key != "manifest_digest"}
    if TEXT_DIGEST in body:
        rest = {key: value for key, value in body.items() if key != TEXT_DIGEST}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        body[TEXT_DIGEST] = sha256_bytes(text.encode("utf-8", "surrogatepass"))
    return {**body, "manifest_digest": sha256_bytes(canonical_json(body))}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest has the digests that `seal` gives it."""
    sealed = seal(manifest)
    return all(sealed.get(key) == manifest.get(key) for key in ("manifest_digest", TEXT_DIGEST))


def dump(value: Any) -> bytes:
    """Return the file bytes of a JSON value: sorted keys, two spaces, no NaN, UTF-8, newline at the end."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def read_bounded(place: Path) -> bytes:
    """Return the bytes of a manifest, of a larger file one byte more than `parse` takes: a file may have any size."""
    return read_regular(place, most=MAX_MANIFEST_BYTES + 1)


def read_regular(place: Path, *, most: int) -> bytes:
    """Return the first bytes of a regular file, or of one that a link leads to.

    Raises
    ------
    OSError
        It cannot be read, or is something else: a pipe would be waited for, and a device has no end.
    """
    with open(place, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(place))
        return file.read(most)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``; refuse whatever `dump` would not have written.

    Raises
    ------
    SnapshotError
        Not UTF-8, not strict JSON (NaN, duplicate keys, too deep), not an object, or too large.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        msg = f"{MANIFEST} must have at most {MAX_MANIFEST_BYTES} bytes, it has more."
        raise SnapshotError(msg)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        _check_depth(value, MAX_DEPTH)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        msg = f"{MANIFEST} is not strict JSON: {str(error) or type(error).__name__}."
        raise SnapshotError(msg) from error
    if not isinstance(value, dict):
        msg = f"{MANIFEST} must hold a JSON object, got {type(value).__name__}."
        raise SnapshotError(msg)
    return value


def _no_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text[:80]} is no number of 64 bits"
        raise ValueError(msg)
    return value


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        msg = f"lists and objects are nested more than {MAX_DEPTH} deep"
        raise ValueError(msg)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        if isinstance(item, dict | list):
            _check_depth(item, left - 1)


def check_schema(manifest: Mapping[str, Any]) -> None:
    """Raise `SnapshotError` unless the manifest has the form of a schema this package reads.

    The places of files are checked too: only names from `SAFE_NAME`, so that no path can leave the directory.
    """
    version = manifest.get("schema_version")
    if type(version) is not int or version < 1:
        msg = f"{MANIFEST} must have an integer schema_version from 1, got {version!r}."
        raise SnapshotError(msg)
    if version > SCHEMA_VERSION:
        msg = (
            f"{MANIFEST} has schema_version {version}; this explain_step reads up to {SCHEMA_VERSION}. "
            f"Install a newer explain-step."
        )
        raise SnapshotError(msg)
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind):
            msg = f"{MANIFEST} lacks {key!r} or it has the wrong type."
            raise SnapshotError(msg)
    for key in ("caveats", "figures", "methods", "scores"):
        if not all(isinstance(entry, dict) for entry in manifest[key]):
            msg = f"{MANIFEST}: an entry of {key!r} is not an object."
            raise SnapshotError(msg)
    _check_files(manifest["files"])
    _check_tables(manifest)


def _check_files(files: Sequence[Any]) -> None:
    if len(files) > MAX_FILES:
        msg = f"{MANIFEST} must name at most {MAX_FILES} files, got {len(files)}."
        raise SnapshotError(msg)
    seen: set[str] = set()
    for entry in files:
        _check_entry(entry)
        if entry["path"] in seen:
            msg = f"{MANIFEST} names {entry['path']!r} twice."
            raise SnapshotError(msg)
        seen.add(entry["path"])
    if sum(entry["size"] for entry in files) > MAX_BYTES:
        msg = f"{MANIFEST} must name files of at most {MAX_BYTES:,} bytes together, it names more."
        raise SnapshotError(msg)


def _check_entry(entry: Any) -> None:
    form = {"path": str, "sha256": str, "size": int, "role": str}
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in form.items()):
        msg = f"{MANIFEST}: an entry of files must have path, sha256, size and role, got {str(entry)[:200]}."
        raise SnapshotError(msg)
    if not is_safe_path(entry["path"]) or entry["path"] == MANIFEST:
        msg = f"{MANIFEST} names an unsafe path {entry['path'][:200]!r}; a snapshot's files have plain names."
        raise SnapshotError(msg)
    if not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) or entry["size"] < 0:
        msg = f"{MANIFEST}: digest or size of {entry['path']!r} is malformed."
        raise SnapshotError(msg)


def _check_tables(manifest: Mapping[str, Any]) -> None:
    paths = {entry["path"] for entry in manifest["files"]}
    for name, entry in manifest["tables"].items():
        form = {"kind": str, "digest": str, "meta": dict}
        malformed = not isinstance(entry, dict) or any(
            not isinstance(entry.get(k), t) for k, t in form.items()
        )
        if not SAFE_NAME.fullmatch(name) or malformed:
            msg = f"{MANIFEST}: the table {name[:80]!r} is malformed."
            raise SnapshotError(msg)
        if f"tables/{name}.parquet" not in paths:
            msg = f"{MANIFEST}: the table {name!r} has no file among its files."
            raise SnapshotError(msg)


def is_safe_path(path: str) -> bool:
    """Return whether a relative path is at most one folder deep and made of plain lower-case names.

    Examples
    --------
    >>> is_safe_path("tables/importance.parquet"), is_safe_path("../x"), is_safe_path("/x")
    (True, False, False)
    """
    parts = path.split("/")
    return len(parts) <= 2 and all(SAFE_NAME.fullmatch(part) for part in parts)


def identity_of(manifest: Mapping[str, Any], *, tables: Mapping[str, str]) -> str:
    """Return the snapshot id that a manifest and the digests of its tables give."""
    return snapshot_id(
        model=manifest["model"],
        data=manifest["data"],
        config=manifest["config"],
        tables=tables,
        scores=manifest["scores"],
    )
