"""Who let a protected alias point where it points: the record of the move, and moves without one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from explain_step.gate import folded
from explain_step.secret_masking import mask_text
from explain_step.tracking.audit_rows import failing, undecided
from explain_step.tracking.decision_log import (
    DECISION_TAG,
    DecisionLog,
    Entry,
    decisions_of,
    promoted_tag,
    written_at,
)
from explain_step.types import Finding

TAKEN_BACK = ("refused_by_server", "reverted")
"""Events of the decision log that say that an allowed move did not last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """An alias was allowed to point to a version: when, and by whose break-glass (``owner``, ``reason``, ``expires``)."""

    at: datetime
    break_glass: Mapping[str, Any] | None = None


def move_findings(
    version: Any, alias: str, *, siblings: Sequence[Any], log: DecisionLog, tracking_uri: str
) -> tuple[Finding, ...]:
    """Report an alias that nobody decided to move to this version.

    Parameters
    ----------
    version : ModelVersion
        Where the alias points.
    alias : str
    siblings : sequence of ModelVersion
        Every version of the registered model: a later decision on another one means that the alias went back here
        without one.
    log : DecisionLog
        Of ``version``.
    tracking_uri : str
    """
    here = f"alias {alias!r} was moved to version {version.version} without a recorded decision"
    ours = latest(version, alias, log.entries)
    if ours is None:
        return (failing("AUD016", f"{here}: neither the decision log nor the server has one"),)
    for other in siblings:
        if str(other.version) == str(version.version):
            continue
        try:
            theirs = latest(other, alias, _entries_after(other, ours.at, tracking_uri=tracking_uri))
        except Exception as error:  # noqa: BLE001 - stores raise types of their own; told, and never a pass
            told = mask_text(f"{type(error).__name__}: {error}")[:200]
            return (undecided("AUD012", f"the decision log of version {other.version} was not read: {told}"),)
        if theirs is not None and theirs.at > ours.at:
            when = theirs.at.isoformat(timespec="seconds")
            message = f"{here}: the last one, of {when}, is for version {other.version}"
            return (failing("AUD016", message),)
    return ()


def break_glass_words(version: Any, alias: str, log: DecisionLog, *, now: datetime) -> str | None:
    """Say by whose break-glass an alias points to a version, against the rules; None where it was judged by them."""
    move = latest(version, alias, log.entries)
    glass = None if move is None else move.break_glass
    if move is None or glass is None:
        return None
    until = str(glass.get("expires"))
    try:
        ended = datetime.fromisoformat(until) <= now
    except (ValueError, TypeError):
        ended = True
    return mask_text(
        f"promoted by break-glass of {str(glass.get('owner'))[:100]} on {move.at.isoformat(timespec='seconds')} "
        f"({str(glass.get('reason'))[:200]}), which {'expired' if ended else 'expires'} at {until[:40]}"
    )


def latest(version: Any, alias: str, entries: Iterable[Entry]) -> Move | None:
    """Return how an alias was last allowed to point to a version, by the log or by a gated server's tag."""
    moves = (_in_log(version, alias, entries), _in_tag(version.tags or {}, alias))
    return max((move for move in moves if move is not None), key=lambda move: move.at, default=None)


def _in_log(version: Any, alias: str, entries: Iterable[Entry]) -> Move | None:
    kept: list[Move] = []
    for entry in entries:
        record = entry.record
        event, request = record.get("event"), record.get("request")
        target = request.get("target") if isinstance(request, Mapping) else None
        about = (str(record.get("name")), str(record.get("version")), folded(str(target)))
        moment = written_at(entry.file)
        if about != (version.name, str(version.version), folded(alias)) or moment is None:
            continue
        if event == "decision" and record.get("outcome") == "allow":
            kept.append(Move(at=moment, break_glass=_glass(record)))
        elif event in TAKEN_BACK and kept:
            kept.pop()
    return kept[-1] if kept else None


def _in_tag(tags: Mapping[str, str], alias: str) -> Move | None:
    try:
        facts = json.loads(tags[promoted_tag(alias)])
        moment = datetime.fromisoformat(facts["at"])
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return Move(at=aware, break_glass=_glass(facts))


def _glass(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = record.get("break_glass")
    return found if isinstance(found, Mapping) else None


def _entries_after(version: Any, moment: datetime, *, tracking_uri: str) -> tuple[Entry, ...]:
    """Read the log of another version only where its tag points to a record that is younger."""
    pointer = str((version.tags or {}).get(DECISION_TAG, ""))
    try:
        newest = written_at(str(json.loads(pointer)["path"]).rpartition("/")[2])
    except (KeyError, ValueError, TypeError, RecursionError):
        newest = None
    if newest is None or newest <= moment:
        return ()
    return decisions_of(f"models:/{version.name}/{version.version}", tracking_uri=tracking_uri).entries
