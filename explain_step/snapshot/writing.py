"""Write a snapshot: tables first, then the pages that show them, the manifest last, one rename at the end."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from explain_step.canonical import canonical_json, plain_json
from explain_step.config import Config
from explain_step.digests import FrameDigests, frame_digests
from explain_step.errors import SnapshotError
from explain_step.hashes import sha256_bytes
from explain_step.secret_masking import masked
from explain_step.snapshot import provenance
from explain_step.snapshot.chain import Previous, link
from explain_step.snapshot.comparison import Tolerance, choose_tolerance
from explain_step.snapshot.manifest import (
    ALGORITHMS,
    MANIFEST,
    SAFE_NAME,
    SCHEMA_VERSION,
    TEXT_DIGEST,
    TRUST_LEVEL,
    ModelRef,
    dump,
    score_record,
    seal,
    snapshot_id,
)
from explain_step.snapshot.provenance_origin import ROWSET_CELLS, origin, row_digests
from explain_step.snapshot.read import ATTRIBUTIONS, Snapshot, read_directory, read_manifest
from explain_step.snapshot.summary import summarise
from explain_step.snapshot.tables import (
    CSV_ROWS,
    attributions_table,
    csv_bytes,
    digests_of,
    parquet_bytes,
    plain_table,
)
from explain_step.snapshot.verify import verify_directory
from explain_step.types import Artifact, Attributions, Caveat, Figure, MethodSpec, Score, Status, Subject

LOG_LINE = dict.fromkeys(
    ("schema_version", "seq", "ts", "step", "event", "wall_s", "cpu_s", "rss_bytes", "rows", "status")
)
"""Every line of the log has these keys, whatever an event knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotParts:
    """Everything that goes into a snapshot.

    Attributes
    ----------
    figures : callable
        Asked for when all else is ready, by ``page`` too: who draws them gets the time. The same each time.
    page, card : callable, optional
        Snapshot id to HTML, and to Markdown: the page shows the id, which is known when the tables are.
    missing : mapping of str to str
        Sections that could not be made, and why.
    events : sequence of mappings
        The step's log, one JSON line each.
    previous : Previous, optional
        The snapshot this one follows.
    dataset : mapping
        What the caller says about the rows (`explain_step.dataset.described`).
    purpose : str, optional
        Why the explanation is made, as the caller says.
    consumers : mapping of str to int
        Stages that drew random numbers.
    created_at : str, optional
        UTC time of writing; default: now. It stays outside the id.
    all_rows : mapping, optional
        Number and order-free digest of all rows, where the subject is a sample of them.
    """

    model: ModelRef
    subject: Subject
    config: Config
    quantity: Mapping[str, Any]
    status: Status
    reason: str
    artifacts: tuple[Artifact, ...] = ()
    attributions: Attributions | None = None
    scores: tuple[Score, ...] = ()
    figures: Callable[[], tuple[Figure, ...]] = tuple
    caveats: tuple[Caveat, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    page: Callable[[str], str] | None = None
    card: Callable[[str], str] | None = None
    previous: Previous | None = None
    dataset: Mapping[str, Any] = field(default_factory=dict)
    purpose: str | None = None
    consumers: Mapping[str, int] = field(default_factory=dict)
    created_at: str | None = None
    all_rows: Mapping[str, Any] | None = None
    surroundings: Mapping[str, Any] | None = None
    """`surroundings`, where they are known already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    path: str
    role: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """What the id is made of."""

    tables: Mapping[str, pd.DataFrame]
    digests: Mapping[str, str]
    data: Mapping[str, Any]
    withheld: Mapping[str, str]
    id: str


def write(directory: str | Path, *, parts: SnapshotParts) -> Snapshot:
    """Write a snapshot to ``directory/<snapshot id>`` and return it, read back.

    Parameters
    ----------
    directory : path
        The parent folder; made where it does not exist.
    parts : SnapshotParts

    Returns
    -------
    Snapshot
        The existing one where the same content is there already and verifies.

    Raises
    ------
    SnapshotError
        A name cannot be a file name, two parts want one file, or the place holds something else.

    Notes
    -----
    Files are written to a hidden sibling folder, the manifest last, and the folder is renamed at the end: a
    snapshot is there as a whole or not at all.
    """
    content = _content(parts)
    parent = Path(directory)
    target = parent / content.id
    files = sorted(_files(parts, content), key=lambda f: f.path)
    manifest = seal(_manifest(parts, content, files=files))
    if target.exists():
        return _existing(target, manifest)
    parent.mkdir(parents=True, exist_ok=True)
    draft = parent / f".{content.id[:12]}.{uuid.uuid4().hex}"
    try:
        _write_files(draft, files)
        (draft / MANIFEST).write_bytes(dump(manifest))
        try:
            draft.rename(target)
        except OSError:  # another process was first
            if not target.exists():
                raise
            return _existing(target, manifest)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return read_directory(target)


def surroundings(config: Config) -> dict[str, Any]:
    """Return the records of machine, packages and training code; waiting for git and uv is half of their time."""
    return provenance.surroundings(seed=config.seed, text=config.privacy != "strict")


def identify(parts: SnapshotParts) -> str:
    """Return the snapshot id that `write` will give these parts."""
    return _content(parts).id


def _content(parts: SnapshotParts) -> _Content:
    tables: dict[str, pd.DataFrame] = {}
    for artifact in parts.artifacts:
        if not SAFE_NAME.fullmatch(artifact.name) or artifact.name in {*tables, ATTRIBUTIONS}:
            msg = f"Artifact names must be unique and of a-z, 0-9, '_', '.', '-', got {artifact.name!r}."
            raise SnapshotError(msg)
        tables[artifact.name] = plain_table(artifact.table)
    withheld = {}
    if parts.attributions is None:
        withheld[ATTRIBUTIONS] = "no attributions were computed"
    elif parts.config.privacy == "strict":
        withheld[ATTRIBUTIONS] = "privacy is strict: no row is published"
    else:
        tables[ATTRIBUTIONS] = attributions_table(
            parts.attributions, subject=parts.subject, seed=parts.config.seed
        )
    digests = digests_of(tables)
    frame = parts.subject.frame
    found = frame_digests(frame, rowset=frame.size <= ROWSET_CELLS)
    data = {**provenance.data(parts.subject, digest=found.whole), "origin": _data_origin(parts, found)}
    if parts.all_rows is not None:
        data["all_rows"] = dict(parts.all_rows)
    identity = snapshot_id(
        model=asdict(parts.model),
        data=data,
        config=parts.config.canonical(),
        tables=digests,
        scores=[score_record(score) for score in parts.scores],
    )
    return _Content(tables=tables, digests=digests, data=data, withheld=withheld, id=identity)


def _files(parts: SnapshotParts, content: _Content) -> Iterator[_File]:
    for name, table in content.tables.items():
        yield _File(path=f"tables/{name}.parquet", role="table", data=parquet_bytes(table))
        if len(table) <= CSV_ROWS and name != ATTRIBUTIONS:
            yield _File(path=f"tables/{name}.csv", role="table-csv", data=csv_bytes(table))
    summary = summarise(
        snapshot_id=content.id,
        status=parts.status,
        reason=parts.reason,
        model=parts.model,
        quantity=parts.quantity,
        tables=content.tables,
        scores=parts.scores,
        caveats=parts.caveats,
        missing=parts.missing,
    )
    yield _File(path="summary.json", role="summary", data=dump(masked(summary)))
    found = parts.surroundings or surroundings(parts.config)
    seeds = provenance.seeds(parts.config.seed, consumers=parts.consumers)
    records = {
        **found,
        "code": {**found["code"], "seed": seeds},
        "data": content.data,
        "config": parts.config.canonical(),
    }
    for name, record in records.items():
        yield _File(path=f"provenance/{name}.json", role="provenance", data=dump(plain_json(record)))
    lines = [
        canonical_json(masked(plain_json({**LOG_LINE, "seq": i, **event}))) + b"\n"
        for i, event in enumerate(parts.events)
    ]
    yield _File(path="provenance/log.jsonl", role="log", data=b"".join(lines))
    if parts.page is not None:
        yield _File(
            path="report.html", role="page", data=parts.page(content.id).encode("utf-8", "backslashreplace")
        )
    if parts.card is not None:
        yield _File(
            path="card.md", role="card", data=parts.card(content.id).encode("utf-8", "backslashreplace")
        )
    for figure in parts.figures():
        yield _File(path=figure_path(figure), role="figure", data=figure.png)


def _data_origin(parts: SnapshotParts, found: FrameDigests) -> dict[str, Any]:
    """Return what is known of the rows beside their content: outside the id."""
    hidden = None if parts.config.privacy == "strict" else parts.config.redact
    return {
        "dataset": parts.dataset,
        **row_digests(found, list(parts.subject.frame.columns), hidden=hidden),
    }


def figure_path(figure: Figure) -> str:
    """Return the place of a figure in a snapshot: ``figures/<kind>_<slug>.png``."""
    name = f"{figure.kind}_{figure.slug}.png"
    if not SAFE_NAME.fullmatch(name):
        msg = f"Figure kind and slug must be of a-z, 0-9, '_', '.', '-', got {name!r}; use plots.style.slug."
        raise SnapshotError(msg)
    return f"figures/{name}"


def _manifest(parts: SnapshotParts, content: _Content, *, files: list[_File]) -> dict[str, Any]:
    from explain_step import __version__

    config = parts.config.canonical()
    artifacts = {artifact.name: artifact for artifact in parts.artifacts}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "algorithms": ALGORITHMS,
        "snapshot_id": content.id,
        **link(parts.previous, snapshot_id=content.id),
        "status": parts.status,
        "reason": parts.reason,
        "sections": _sections(parts),
        "withheld": content.withheld,
        "caveats": [asdict(caveat) for caveat in parts.caveats],
        "quantity": parts.quantity,
        "model": asdict(parts.model),
        "data": content.data,
        "config": config,
        "config_digest": sha256_bytes(canonical_json(plain_json(config))),
        "scores": [score_record(score) for score in parts.scores],
        "tables": {
            name: {
                "kind": artifacts[name].kind if name in artifacts else ATTRIBUTIONS,
                "meta": artifacts[name].meta if name in artifacts else {"quantity": parts.quantity},
                "rows": len(table),
                "columns": list(table.columns),
                "digest": content.digests[name],
                "tolerance": _tolerance(parts, name).record(),
            }
            for name, table in content.tables.items()
        },
        "figures": [
            {key: value for key, value in {"path": figure_path(f), **asdict(f)}.items() if key != "png"}
            for f in parts.figures()
        ],
        "methods": _methods(parts),
        "files": [
            {"path": f.path, "role": f.role, "sha256": sha256_bytes(f.data), "size": len(f.data)}
            for f in files
        ],
        "created_at": parts.created_at or datetime.now(UTC).isoformat(timespec="milliseconds"),
        "tool": f"explain-step {__version__}",
        "trust_level": TRUST_LEVEL,
        TEXT_DIGEST: "",
        "provenance": origin(purpose=parts.purpose, private=parts.config.privacy == "strict"),
    }
    plain: dict[str, Any] = plain_json(manifest)
    for key in ("reason", "sections", "model"):
        plain[key] = masked(plain[key])
    return plain


def _tolerance(parts: SnapshotParts, name: str) -> Tolerance:
    """Return how far a replay of a table may be off: fixed now, before anybody has recomputed it."""
    method = None if parts.attributions is None else parts.attributions.method
    kind = next((a.kind for a in parts.artifacts if a.name == name), ATTRIBUTIONS)
    cut = (
        (method is not None and method.budget is not None)
        or any(c.code.endswith("_budget") and c.section == kind for c in parts.caveats)
        or (name == "scores" and any(score.method.budget for score in parts.scores))
    )
    return choose_tolerance(None if method is None else method.name, cut=cut)


def _sections(parts: SnapshotParts) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for artifact in parts.artifacts:
        entry = sections.setdefault(artifact.kind, {"state": "present", "tables": []})
        entry["tables"].append(artifact.name)
    for name, reason in parts.missing.items():
        sections[name] = {**sections.get(name, {"tables": []}), "state": "missing", "reason": reason}
    return sections


def _methods(parts: SnapshotParts) -> list[dict[str, Any]]:
    specs: list[tuple[str, MethodSpec]] = []
    if parts.attributions is not None:
        specs.append((ATTRIBUTIONS, parts.attributions.method))
    specs.extend((f"{score.name} ({score.variant})", score.method) for score in parts.scores)
    return [{"of": of, **asdict(spec)} for of, spec in specs]


def _write_files(draft: Path, files: list[_File]) -> None:
    draft.mkdir()
    for before, file in zip([None, *files], files, strict=False):
        if before is not None and before.path == file.path:
            msg = f"Two parts want the file {file.path!r}; kinds and slugs of figures must differ."
            raise SnapshotError(msg)
        place = draft / file.path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(file.data)


def _existing(target: Path, manifest: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot that is there when it is this one; refuse to write over anything else."""
    broken = [finding.message for finding in verify_directory(target) if finding.verdict == "fail"]
    if broken:
        msg = f"{str(target)!r} exists and does not verify ({broken[0]}); move it away or write elsewhere."
        raise SnapshotError(msg)
    found = read_manifest(target)
    for key in ("status", "sections", "withheld"):
        if found.get(key) != manifest[key]:
            msg = (
                f"{str(target)!r} exists with the same tables but another {key} ({found.get(key)!r}, now "
                f"{manifest[key]!r}); a snapshot is never written over: choose another directory."
            )
            raise SnapshotError(msg)
    return read_directory(target)
