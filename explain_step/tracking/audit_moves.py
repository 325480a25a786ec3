"""Who let a protected alias point where it points: the record of the move, and moves without one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
            theirs = latest(other, alias, _entries_after(other, ours, tracking_uri=tracking_uri))
        except Exception as error:  # noqa: BLE001 - stores raise types of their own; told, and never a pass
            told = mask_text(f"{type(error).__name__}: {error}")[:200]
            return (undecided("AUD012", f"the decision log of version {other.version} was not read: {told}"),)
        if theirs is not None and theirs > ours:
            when = theirs.isoformat(timespec="seconds")
            message = f"{here}: the last one, of {when}, is for version {other.version}"
            return (failing("AUD016", message),)
    return ()


def latest(version: Any, alias: str, entries: Iterable[Entry]) -> datetime | None:
    """Return when an alias was last allowed to point to a version, by the log or by a gated server's tag."""
    moments = [
        moment
        for moment in (_in_log(version, alias, entries), _in_tag(version.tags or {}, alias))
        if moment is not None
    ]
    return max(moments, default=None)


def _in_log(version: Any, alias: str, entries: Iterable[Entry]) -> datetime | None:
    kept: list[datetime] = []
    for entry in entries:
        record = entry.record
        event, request = record.get("event"), record.get("request")
        target = request.get("target") if isinstance(request, Mapping) else None
        about = (str(record.get("name")), str(record.get("version")), folded(str(target)))
        moment = written_at(entry.file)
        if about != (version.name, str(version.version), folded(alias)) or moment is None:
            continue
        if event == "decision" and record.get("outcome") == "allow":
            kept.append(moment)
        elif event in TAKEN_BACK and kept:
            kept.pop()
    return kept[-1] if kept else None


def _in_tag(tags: Mapping[str, str], alias: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(json.loads(tags[promoted_tag(alias)])["at"])
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


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
