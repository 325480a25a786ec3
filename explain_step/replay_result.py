"""What a replay found: one verdict per table, the inputs that differ, and one verdict for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explain_step.snapshot.comparison import ReplayVerdict, TableComparison

if TYPE_CHECKING:
    from explain_step.config import Config
    from explain_step.gate import Policy
    from explain_step.snapshot import Snapshot

Input = Literal["model", "data", "config", "seed", "environment", "code"]
DECISIVE: frozenset[str] = frozenset({"model", "data", "config", "seed"})
"""Inputs that a replay must share with the recording. Environment and code may differ, if the numbers do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputDifference:
    """One input of the recomputation that is not the recorded one."""

    input: Input
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """The result of `explain_step.replay`.

    Attributes
    ----------
    verdict : {"identical", "within_tolerance", "consistent", "not_replayable", "different"}
        The worst of the tables; ``different`` also where model, data, config or seed differ, a section is there only
        once, or the gate would decide otherwise.
    reason : str
        One line for people.
    tables : tuple of TableComparison
        One per recorded table, and per table that only the replay has.
    inputs : tuple of InputDifference
        What differs among model, data, config, seed, environment and code.
    notes : tuple of str
        What could not be compared, and what was assumed.
    gate : mapping
        Outcomes before and after under one policy, and the codes whose verdict changed.
    snapshot_id : str
        Of the recording.
    replayed_id : str, optional
        Of the recomputation; equal where model, data, config, tables and scores are the same.
    files : mapping
        Figures and pages: how many have the same bytes, and the names of the others. Informative.
    environment : {"current", "recreate"}
    """

    verdict: ReplayVerdict
    reason: str
    snapshot_id: str
    tables: tuple[TableComparison, ...] = ()
    inputs: tuple[InputDifference, ...] = ()
    notes: tuple[str, ...] = ()
    gate: Mapping[str, Any] = field(default_factory=dict)
    replayed_id: str | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    environment: str = "current"

    @property
    def replays(self) -> bool:
        """Whether the numbers were reached again."""
        return self.verdict in ("identical", "within_tolerance", "consistent")

    def record(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {**asdict(self), "replays": self.replays}


def from_record(record: Mapping[str, Any]) -> Replay:
    """Return the `Replay` of its ``record()``."""
    values = {key: value for key, value in record.items() if key in Replay.__dataclass_fields__}
    values["tables"] = tuple(TableComparison(**table) for table in record["tables"])
    values["inputs"] = tuple(InputDifference(**found) for found in record["inputs"])
    values["notes"] = tuple(record["notes"])
    return Replay(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the caller of a replay gave."""

    data: Any = None
    y: Any = None
    background: Any = None
    sample_weight: Any = None
    model: Any = None
    config: Mapping[str, Any] | Config | str | Path | None = None
    policy: Policy | Mapping[str, Any] | str | Path | None = None
    figures: bool = True
    tracking_uri: str | None = None


def not_replayable(shot: Snapshot, reason: str, **more: Any) -> Replay:
    """Return that nothing could be recomputed, and why."""
    return Replay(verdict="not_replayable", reason=reason, snapshot_id=shot.id, **more)


def recorded_uri(shot: Snapshot) -> str | None:
    """Return where the explained model is in MLflow; None for one that was given as an object.

    A place on a disk does not count: a snapshot of a stranger could name a folder that came with it, with its digest.
    """
    uri = f"models:/{shot.model.model_id}" if shot.model.model_id else shot.model.uri
    return uri if str(uri).startswith(("models:/", "runs:/")) else None
