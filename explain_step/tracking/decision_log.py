"""The append-only log of decisions: one JSON file each, beside the evidence, every one naming the one before."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from explain_step.canonical import plain_json
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.gate import folded
from explain_step.hashes import sha256_bytes
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.place import FOLDER, Place, evidence_place
from explain_step.tracking.registry import Registered, find, set_tag, tags_of
from explain_step.tracking.target import resolve_source

DECISIONS = f"{FOLDER}/decisions"
DECISION_TAG = f"{PREFIX}decision"
PROMOTED_TAG = f"{PREFIX}promoted."
"""A gated server writes it where it lets a protected alias move; clients cannot write it there."""
SCHEMA = 1
FILE = re.compile(r"(\d{8}T\d{6}\.\d{6})Z-([0-9a-f]{12})\.json")
TIME = "%Y%m%dT%H%M%S.%f"
SKEW = timedelta(days=1)
"""Clocks may differ by so much: a record is still named after the one before it."""
MAX_RECORD_BYTES = 4 * 2**20
TRIES = 20
"""How often a record is written where others write to the same log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One record: its file name, the digest of its bytes, and what it says."""

    file: str
    sha256: str
    record: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Path under the artifact root."""
        return f"{DECISIONS}/{self.file}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionLog:
    """The records in order, and every break of the chain in words; an intact log has none.

    A writer who replaces the whole log and the tag leaves no break: the chain shows accidents, deletions and
    changes by those who do not know it.
    """

    entries: tuple[Entry, ...] = ()
    breaks: tuple[str, ...] = ()


def log_place(registered: Registered) -> Place:
    """Return where the log of a version is: with the evidence, under its logged model or else its run."""
    return evidence_place(resolve_source(registered.uri, tracking_uri=registered.client.tracking_uri))


def write(registered: Registered, content: Mapping[str, Any], *, now: datetime | None = None) -> Entry:
    """Append one record to the log of a version and point the version's tag to it.

    Parameters
    ----------
    registered : Registered
    content : mapping
        What happened: ``event``, ``by`` and the facts. Values become plain JSON.
    now : datetime, optional
        Default: the current time.

    Raises
    ------
    SnapshotError, MlflowException, OSError
        The record or the tag could not be written. Nothing that was there has changed.
    """
    entry = append(log_place(registered), content, now=now or datetime.now(UTC))
    pointer = {"path": entry.path, "sha256": entry.sha256, "event": str(content.get("event", ""))}
    set_tag(registered, DECISION_TAG, json.dumps(pointer, sort_keys=True))
    return entry


def append(place: Place, content: Mapping[str, Any], *, now: datetime) -> Entry:
    """Store one record as a new file.

    The name has the time and the digest; it sorts after every other name, also when a clock is behind.
    """
    for left in reversed(range(TRIES)):
        names = _names(place)
        try:
            entry, body = _put_next(place, names, content, now=now)
            break
        except Exception:
            if not left or _names(place) == names:
                raise  # a gated server takes no record that does not follow the newest one
    if place.read(entry.path) != body:
        msg = f"{place.location}/{entry.path} does not hold what was sent."
        raise SnapshotError(msg)
    return entry


def _put_next(
    place: Place, names: Sequence[str], content: Mapping[str, Any], *, now: datetime
) -> tuple[Entry, bytes]:
    """Send the record that follows those of some names."""
    last = _last(names, now)
    record = plain_json(
        {
            **content,
            "schema": SCHEMA,
            "at": now.isoformat(),
            "number": len(names) + 1,
            "previous": _link_to(place, last),
        }
    )
    body = _bytes(record)
    digest = sha256_bytes(body)
    entry = Entry(file=f"{_after(last, now)}-{digest[:12]}.json", sha256=digest, record=record)
    if entry.file in names:
        msg = f"{place.location}/{entry.path} is there already; a record is never overwritten."
        raise SnapshotError(msg)
    with tempfile.TemporaryDirectory(prefix="explain_step_decision_") as folder:
        (Path(folder) / entry.file).write_bytes(body)
        place.put(Path(folder) / entry.file, DECISIONS)
    return entry, body


def _last(names: Sequence[str], now: datetime) -> str | None:
    """Return the newest record. A name of the future is a stray clock or an attack; what follows it would have no end."""
    return next((name for name in reversed(names) if not _early(name, now)), None)


def _link_to(place: Place, last: str | None) -> dict[str, str] | None:
    if last is None:
        return None
    return {"file": last, "sha256": sha256_bytes(place.read(f"{DECISIONS}/{last}"))}


def promoted_tag(alias: str) -> str:
    """Return the tag in which a gated server notes that a version may have an alias; names are folded."""
    return f"{PROMOTED_TAG}{folded(alias)}"


def written_at(name: str) -> datetime | None:
    """Return the time that the file name of a record says; None where it is none.

    Examples
    --------
    >>> written_at("20260102T030405.000006Z-0123456789ab.json").isoformat()
    '2026-01-02T03:04:05.000006+00:00'
    """
    try:
        return datetime.strptime(name.partition("Z")[0], TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def record_problem(name: str, file: Path, *, now: datetime) -> str | None:
    """Say why a file is no record that may join a log: nothing is ever taken out again. None where it may."""
    named = FILE.fullmatch(name)
    if named is None:
        return "a record of the decision log is named after its time and digest"
    if file.stat().st_size > MAX_RECORD_BYTES:
        return f"a record has at most {MAX_RECORD_BYTES} bytes"
    if _early(name, now):
        return "its name is of the future, and no record could follow it"
    body = file.read_bytes()
    if _parsed(body) is None or sha256_bytes(body)[:12] != named[2]:
        return "it is no JSON object with the digest that its name says"
    return None


def order_problem(place: Place, name: str, file: Path, *, now: datetime) -> str | None:
    """Say why a record does not follow the newest one: it would break the chain for good. None where it does."""
    names = _names(place)
    last, record = _last(names, now), _parsed(file.read_bytes()) or {}
    number = record.get("number")
    follows = record.get("previous") == _link_to(place, last) and (last is None or name > last)
    if follows and not (isinstance(number, int) and number > len(names) + 1):
        return None
    return "it does not follow the newest record of the log; read the log again"


def _early(name: str, now: datetime) -> bool:
    """Whether a record is named after a time that is still to come, or after none."""
    moment = written_at(name)
    return moment is None or moment > now + SKEW


def _bytes(record: Any) -> bytes:
    """Return strict JSON that people can read in MLflow's viewer."""
    text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _names(place: Place) -> list[str]:
    """Return the file names of the records, oldest first."""
    return sorted(n for n, is_dir in place.children(DECISIONS).items() if not is_dir and FILE.fullmatch(n))


def _after(last: str | None, now: datetime) -> str:
    moment = now.astimezone(UTC)
    found = FILE.fullmatch(last or "")
    if found is not None:
        before = datetime.strptime(found[1], TIME).replace(tzinfo=UTC)
        moment = max(moment, before + timedelta(microseconds=1))
    return moment.strftime(TIME) + "Z"


def decisions(place: Place, *, head: Mapping[str, str] | None = None) -> DecisionLog:
    """Read the log in order and check its chain.

    Parameters
    ----------
    place : Place
        An artifact root, from `log_place`.
    head : mapping, optional
        ``path`` and ``sha256`` of the record that a version's tag points to: it tells when the end is missing.

    Returns
    -------
    DecisionLog
        ``breaks`` names changed, missing and foreign files, and records that were written at the same time.
    """
    there = place.children(DECISIONS)
    names = _names(place)
    breaks = [f"{name} is not a record" for name in sorted(set(there) - set(names))]
    entries = []
    for name in names:
        body = place.read(f"{DECISIONS}/{name}")
        record = _parsed(body)
        if record is None:
            breaks.append(f"{name} is not a record: it holds no JSON object")
            record = {}
        entries.append(Entry(file=name, sha256=sha256_bytes(body), record=record))
    breaks += _chain(entries) + _head(entries, head)
    return DecisionLog(entries=tuple(entries), breaks=tuple(breaks))


def decisions_of(model_uri: str, *, tracking_uri: str | None = None) -> DecisionLog:
    """Read the log of a registered version, held against the version's tag.

    The log belongs to the logged model: it has the decisions on every version and copy of it.

    Raises
    ------
    InvalidInput
        There is no such version.
    """
    registered = find(model_uri, tracking_uri=tracking_uri)
    head = parse_head(tags_of(registered).get(DECISION_TAG))
    return decisions(log_place(registered), head=head)


def parse_head(text: str | None) -> Mapping[str, str] | None:
    """Return what the tag ``explain_step.decision`` says; None where it is not there.

    Raises
    ------
    InvalidInput
        The tag is there and does not point to a record.
    """
    if text is None:
        return None
    found = _parsed(text.encode("utf-8", "replace"))
    if found is None or not all(isinstance(found.get(key), str) for key in ("path", "sha256")):
        msg = f"The tag {DECISION_TAG} must name path and sha256 of a record, got {text[:200]!r}."
        raise InvalidInput(msg)
    return {key: found[key] for key in ("path", "sha256")}


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _chain(entries: Sequence[Entry]) -> list[str]:
    """Return the breaks between neighbours."""
    by_name = {entry.file: entry for entry in entries}
    breaks = []
    for i, entry in enumerate(entries):
        named = FILE.fullmatch(entry.file)
        if named is not None and named[2] != entry.sha256[:12]:
            breaks.append(f"{entry.file} was changed: its content has the digest {entry.sha256[:12]}")
        breaks += _link(entry, entries[i - 1] if i else None, by_name)
        number = entry.record.get("number")
        if isinstance(number, int) and number > i + 1:
            breaks.append(f"{entry.file} is record {number}, but only {i} records are before it")
    return breaks


def _link(entry: Entry, before: Entry | None, by_name: Mapping[str, Entry]) -> list[str]:
    """Return what is wrong between a record and the one that it names as the one before."""
    link = entry.record.get("previous")
    if not isinstance(link, Mapping):
        return [] if before is None else [f"{entry.file} names no record before it"]
    file, digest = str(link.get("file")), str(link.get("sha256"))
    found = by_name.get(file)
    if found is None:
        return [f"{file} is missing: {entry.file} names it as the record before"]
    if found.sha256 != digest:
        return [f"{file} is not what it was when {entry.file} was written"]
    if found is not before:
        return [f"{entry.file} follows {file}, not the record before it: both were written at the same time"]
    return []


def _head(entries: Sequence[Entry], head: Mapping[str, str] | None) -> list[str]:
    if head is None:
        return []
    found = next((e for e in entries if e.path == head["path"]), None)
    if found is None:
        return [f"{head['path']} is missing: the version's tag points to it"]
    return [] if found.sha256 == head["sha256"] else [f"{found.file} is not what the version's tag says"]
