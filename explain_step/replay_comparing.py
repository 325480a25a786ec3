"""A recomputed snapshot against the recorded one: inputs, tables, sections, gate, files, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from explain_step import replay_inputs as inputs
from explain_step.gate import INTEGRITY, RULES, Evidence, decide, load_policy
from explain_step.replay_answers import is_redrawn, model_told
from explain_step.replay_result import DECISIVE, InputDifference, Replay
from explain_step.snapshot.comparison import (
    DEFAULT,
    TableComparison,
    Tolerance,
    compare_table,
    recorded_tolerance,
    worst,
)
from explain_step.snapshot.read import ATTRIBUTIONS
from explain_step.types import Finding

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from explain_step.gate import Policy
    from explain_step.snapshot import Snapshot

WITH_ROW_IDS = (ATTRIBUTIONS, "examples")
OTHER_SAMPLE = (
    "another sample of the rows was drawn than the recorded one, for it is spread over the model's output, which is "
    "another here; tables of the sample cannot be equal"
)


def differences(
    shot: Snapshot, again: Snapshot, *, model_class: str, digest: str | None
) -> Iterator[InputDifference]:
    """Yield which input of the recomputation is not the recorded one.

    Parameters
    ----------
    shot, again : Snapshot
        Recorded and recomputed.
    model_class : str
        Of the model that was asked.
    digest : str, optional
        Of the model's files, where they were read.
    """
    recorded = shot.manifest
    if digest is not None and digest != shot.model.digest:
        facts = {"recorded": shot.model.digest, "found": digest}
        yield InputDifference(input="model", message="the model's files are others", facts=facts)
    if digest is None and model_class != shot.model.model_class:
        message = f"the model is a {model_class}, recorded {shot.model.model_class}"
        yield InputDifference(input="model", message=message)
    yield from inputs.data_differences(recorded["data"], again.manifest["data"])
    yield from inputs.config_differences(recorded["config"], again.manifest["config"])
    before, now = (inputs.provenance_record(s.path, "environment") for s in (shot, again))
    yield from inputs.environment_differences(before, now)
    code, code_now = (inputs.provenance_record(s.path, "code") for s in (shot, again))
    yield from inputs.code_differences(recorded, again.manifest, code=code, now=code_now)


def compared(
    shot: Snapshot,
    again: Snapshot,
    *,
    found: tuple[InputDifference, ...],
    notes: tuple[str, ...],
    given_policy: Any,
    digested: bool,
) -> Replay:
    """Return the verdict per table and for the whole."""
    same_rows = not any(d.facts.get("key") == "digest" for d in found)
    redrawn = same_rows and not any(d.input in ("config", "seed") for d in found) and is_redrawn(shot, again)
    replayed, renamed = (
        _with_recorded_ids(shot, again) if same_rows and not redrawn else (again.tables, False)
    )
    same = inputs.same_numbers_expected(list(found))
    tables = tuple(_tables(shot, replayed, same_environment=same, missing=_missing(again)))
    other, untold = model_told(shot, again, found, renamed=replayed, digested=digested, redrawn=redrawn)
    found = (*found, *other)
    notes = (*notes, *untold, *((OTHER_SAMPLE,) if redrawn else ()))
    gate = _gate(shot, again, replayed, policy=load_policy(given_policy))
    sections = _other_sections(shot, again)
    verdict = worst([table.verdict for table in tables])
    reasons = [f"{d.input}: {d.message}" for d in found if d.input in DECISIVE]
    reasons += [f"the gate: {', '.join(gate['changed'])}"] if gate["changed"] else []
    reasons += sections
    if reasons:
        verdict = "different"
    if renamed:
        notes = (*notes, "the rows have another index than the recorded ones; they were matched by position")
    return Replay(
        verdict=verdict,
        reason=_reason(verdict, tables, reasons, found),
        snapshot_id=shot.id,
        replayed_id=again.id,
        tables=tables,
        inputs=found,
        notes=notes,
        gate=gate,
        files=_files(shot, again),
    )


def _tables(
    shot: Snapshot,
    replayed: Mapping[str, pd.DataFrame],
    *,
    same_environment: bool,
    missing: Mapping[str, str],
) -> Iterator[TableComparison]:
    for name, table in shot.tables.items():
        tolerance = recorded_tolerance(shot.manifest["tables"][name])
        if name in replayed:
            yield compare_table(
                table, replayed[name], name=name, tolerance=tolerance, same_environment=same_environment
            )
        else:
            kind = str(shot.manifest["tables"][name]["kind"])
            why = missing.get(kind, "the recomputation did not make it")
            yield _only_once(name, f"not in the replay: {why}", tolerance)
    for name in replayed:
        if name not in shot.tables:
            yield _only_once(name, "only in the replay", DEFAULT)


def _only_once(name: str, reason: str, tolerance: Tolerance) -> TableComparison:
    return TableComparison(name=name, verdict="different", kind=tolerance.kind, reason=reason)


def _missing(shot: Snapshot) -> dict[str, str]:
    return {name: str(s["reason"]) for name, s in shot.manifest["sections"].items() if s.get("reason")}


def _with_recorded_ids(shot: Snapshot, again: Snapshot) -> tuple[Mapping[str, pd.DataFrame], bool]:
    """Return the recomputed tables with the recorded names of rows, where only the index of the rows is another.

    The rows themselves have their digest, so the attributions of both sides are of the same rows in the same order.
    """
    ours, theirs = shot.tables.get(ATTRIBUTIONS), again.tables.get(ATTRIBUTIONS)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return again.tables, False
    names = dict(zip(theirs["row_id"], ours["row_id"], strict=True))
    if all(key == value for key, value in names.items()):
        return again.tables, False
    renamed = {
        name: again.tables[name].assign(row_id=again.tables[name]["row_id"].map(lambda i: names.get(i, i)))
        for name in WITH_ROW_IDS
        if name in again.tables
    }
    return {**again.tables, **renamed}, True


def _other_sections(shot: Snapshot, again: Snapshot) -> list[str]:
    before, now = (set(_missing(s)) for s in (shot, again))
    return [f"section {n} is missing now: {_missing(again)[n]}" for n in sorted(now - before)] + [
        f"section {n} was missing and is there now" for n in sorted(before - now)
    ]


# --- the gate, and the files


def _gate(
    shot: Snapshot, again: Snapshot, replayed: Mapping[str, pd.DataFrame], *, policy: Policy
) -> dict[str, Any]:
    """Judge both sides by the rules about content, and name each rule whose verdict changed."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    rules = [rule for rule in RULES if rule.code not in INTEGRITY]
    before = decide(_evidence(shot, shot.tables, shot, now=now), policy, rules=rules)
    after = decide(_evidence(again, replayed, shot, now=now), policy, rules=rules)
    ours, theirs = (Counter((f.code, f.verdict) for f in d.findings) for d in (before, after))
    changed = sorted({code for code, _ in (ours - theirs) + (theirs - ours)})
    if before.outcome != after.outcome:
        changed = [f"{before.outcome} became {after.outcome}", *changed]
    return {
        "policy": policy.name,
        "recorded": before.outcome,
        "replayed": after.outcome,
        "changed": changed,
    }


def _evidence(of: Snapshot, tables: Mapping[str, pd.DataFrame], shot: Snapshot, *, now: datetime) -> Evidence:
    """Return what the gate looks at; whose model it is stays the recording's."""
    return Evidence(
        name=shot.model.name or "replay",
        version=shot.model.version or "0",
        now=now,
        verification=(Finding(code="VER000", verdict="pass", message="verified, or made in this process"),),
        manifest=of.manifest,
        tables=tables,
        model_id=shot.model.model_id,
        run_id=shot.model.run_id,
        model_digest=shot.model.digest,
    )


def _files(shot: Snapshot, again: Snapshot) -> dict[str, Any]:
    """Compare the bytes of figures and pages: told, never judged, for they change with a font."""
    before, now = (
        {f["path"]: f["sha256"] for f in s.manifest["files"] if f["role"] in ("figure", "page", "card")}
        for s in (shot, again)
    )
    if not now:
        return {}
    other = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    return {"same_bytes": len(set(before) | set(now)) - len(other), "other_bytes": other}


def _reason(
    verdict: str, tables: tuple[TableComparison, ...], reasons: list[str], found: tuple[InputDifference, ...]
) -> str:
    if reasons:
        return "; ".join(reasons)
    bad = [f"{t.name}: {t.reason}" for t in tables if t.verdict == verdict and t.reason]
    if verdict == "identical":
        return f"all {len(tables)} tables have the recorded numbers"
    if verdict in ("within_tolerance", "consistent"):
        return f"all {len(tables)} tables are within their tolerance"
    others = sorted({d.input for d in found})
    cause = f" ({' and '.join(others)} differ)" if others else " (no input differs)"
    return "; ".join(bad[:3]) + (cause if verdict == "different" else "")
