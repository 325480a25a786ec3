"""Replay: recompute everything that a snapshot holds, and compare the tables by the tolerances it recorded."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explain_step import replay_inputs as inputs
from explain_step import snapshot, tracking
from explain_step.compute import Explanation, compute
from explain_step.config import Config
from explain_step.errors import ExplainStepError, InvalidInput, SnapshotError
from explain_step.frames import to_frame
from explain_step.gate import INTEGRITY, RULES, Evidence, decide, load_policy
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
from explain_step.step import write_snapshot
from explain_step.tracking.checked import CheckedModel, copied_model
from explain_step.types import Finding

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from explain_step.gate import Policy
    from explain_step.snapshot import Snapshot

UNHURRIED = 1e7
"""Seconds: a recording that no budget cut is recomputed without one, so that a slow machine cuts nothing."""
WITH_ROW_IDS = (ATTRIBUTIONS, "examples")


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
    tracking_uri: str | None = None


def replay(
    source: str | Path,
    *,
    data: Any = None,
    y: Any = None,
    background: Any = None,
    sample_weight: Any = None,
    model: Any = None,
    config: Mapping[str, Any] | Config | str | Path | None = None,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    env: Literal["current", "recreate"] = "current",
    wheels: str | Path | None = None,
    tracking_uri: str | None = None,
) -> Replay:
    """Recompute an explanation and compare every table with the stored one.

    Parameters
    ----------
    source : path or str
        A snapshot directory, ``runs:/<id>``, ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``.
    data : frame-like of n rows, optional
        The explained rows, as they were given. Default: the file that the snapshot names as its source, where it is
        there. A snapshot itself holds no rows.
    y : array-like of n labels or column name, optional
        Default: the recorded target, where it is a column of ``data``.
    background : frame-like, optional
        Needed where background rows were given to the recording.
    sample_weight : array-like of n weights or column name, optional
        Needed where weights were given.
    model : object, URI or directory, optional
        Default: the logged model that the snapshot names. Files are digested before they are loaded; a format that
        runs code is loaded only where the digest is the recorded one.
    config : Config, mapping or path, optional
        Default: the recorded options. Others are reported as differing.
    policy : Policy, mapping or path, optional
        Both sides are judged by it, integrity apart; a changed verdict makes the replay ``different``. Default: the
        built-in policy.
    env : {"current", "recreate"}
        ``recreate``: build the recorded environment with ``uv`` and replay inside.
    wheels : path, optional
        With ``recreate``: a folder of wheels; nothing is downloaded then.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Returns
    -------
    Replay
        ``.verdict``, ``.tables``, ``.inputs``, ``.reason``. What cannot be recomputed is ``not_replayable`` with the
        reason, not an error.

    Raises
    ------
    SnapshotError
        There is no snapshot, or its bytes do not verify: then nothing is recomputed.
    InvalidInput
        An argument breaks a rule.

    Examples
    --------
    >>> import tempfile, pandas as pd, explain_step
    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"income": [1.0, 2, 3, 4, 5, 6] * 5, "debt": [1.0, 0, 2] * 10})
    >>> model = LinearRegression().fit(X, X["income"] - X["debt"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shot = explain_step.explain(model, X, directory=folder)
    ...     replay(shot.path, data=X, model=model).verdict
    'identical'
    """
    if env not in ("current", "recreate"):
        msg = f"Argument env must be 'current' or 'recreate', got {env!r}."
        raise InvalidInput(msg)
    if wheels is not None and env != "recreate":
        msg = "Argument wheels belongs to env='recreate'; leave it out, or recreate the environment."
        raise InvalidInput(msg)
    given = Given(
        data=data,
        y=y,
        background=background,
        sample_weight=sample_weight,
        model=model,
        config=config,
        policy=policy,
        tracking_uri=tracking_uri,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="explain_step_replay_")))
        path = tracking.fetch(source, tracking_uri=tracking_uri, destination=folder / "snapshot")
        check_bytes(path)
        return replay_directory(snapshot.read_directory(path), given, folder=folder)


def check_bytes(path: Path) -> None:
    """Raise `SnapshotError` unless a snapshot verifies: changed tables are not worth a recomputation."""
    wrong = [finding for finding in snapshot.verify_directory(path) if finding.verdict == "fail"]
    if wrong:
        msg = f"{str(path)!r} was not replayed, it does not verify: {wrong[0].code} {wrong[0].message}"
        raise SnapshotError(msg)


def replay_directory(shot: Snapshot, given: Given, *, folder: Path) -> Replay:
    """Recompute a verified snapshot in this process. ``folder`` is a temporary one for copies and results."""
    lacking = _lacking(shot, given)
    if lacking is not None:
        return _not_replayable(shot, lacking)
    try:
        config, cut = _config(shot, given)
        model, digest, notes = _model(shot, given, folder=folder)
        with tracking.quiet_autologging():
            explanation = _compute(shot, given, model=model, config=config, cut=cut)
            again = write_snapshot(
                explanation, ref=replace(shot.model, digest=digest), directory=folder / "replayed"
            )
    except ExplainStepError as error:
        return _not_replayable(shot, str(error))
    found = tuple(_differences(shot, again, explanation=explanation, digest=digest))
    return _compared(shot, again, found=found, notes=notes, policy=given.policy)


def _not_replayable(shot: Snapshot, reason: str) -> Replay:
    return Replay(verdict="not_replayable", reason=reason, snapshot_id=shot.id)


# --- what is needed


def _lacking(shot: Snapshot, given: Given) -> str | None:
    """Say which input is needed and not there."""
    data = shot.manifest["data"]
    if given.data is None and _source(shot) is None:
        return "a snapshot holds no rows; give the explained ones (data=, --data)"
    themselves = data.get("background_digest") == data.get("digest") or "themselves" in str(
        data.get("background")
    )
    if given.background is None and not themselves:
        return f"the rows were compared with {data.get('background')}; give these (background=, --background)"
    if given.sample_weight is None and data.get("weights_digest") is not None:
        return "the rows had weights; give them (sample_weight=, --sample-weight)"
    return None


def _source(shot: Snapshot) -> Path | None:
    """Return the file that the recording names as its source, where it is a file here."""
    dataset = (shot.manifest["data"].get("origin") or {}).get("dataset") or {}
    named = dataset.get("source")
    if not isinstance(named, str) or not named.lower().endswith((".parquet", ".csv", ".feather")):
        return None
    return Path(named) if Path(named).is_file() else None


def _config(shot: Snapshot, given: Given) -> tuple[Config, bool]:
    """Return the options of the recomputation, and whether a budget or a fallback shaped the recording."""
    from explain_step.config import load

    config = Config.parse(shot.manifest["config"]) if given.config is None else load(given.config, {})[0]
    methods = shot.manifest["methods"]
    cut = any(method.get("budget") for method in methods) or any(
        caveat.code.endswith("_budget") or caveat.code in ("budget_cut", "explainer_fallback")
        for caveat in shot.caveats
    )
    return config, cut


def _model(shot: Snapshot, given: Given, *, folder: Path) -> tuple[Any, str | None, tuple[str, ...]]:
    """Return the model, the digest of its files, and what a reader must know about it."""
    wanted = given.model if given.model is not None else _recorded_uri(shot)
    if wanted is None:
        msg = "the snapshot names no logged model; give the fitted model (model=, --model)"
        raise SnapshotError(msg)
    if not isinstance(wanted, str | Path):
        note = "the model was given by the caller as an object; its files were not compared"
        return wanted, shot.model.digest, (note,)
    copy: CheckedModel = copied_model(wanted, destination=folder / "model", tracking_uri=given.tracking_uri)
    notes = () if shot.model.digest else ("the snapshot has no digest of the model's files to compare with",)
    return copy.load(shot.model.digest), copy.digest if shot.model.digest else None, notes


def _recorded_uri(shot: Snapshot) -> str | None:
    return f"models:/{shot.model.model_id}" if shot.model.model_id else shot.model.uri


def _compute(shot: Snapshot, given: Given, *, model: Any, config: Config, cut: bool) -> Explanation:
    unhurried = config if cut else config.model_copy(update={"budget": max(config.budget, UNHURRIED)})
    frame = to_frame(given.data if given.data is not None else str(_source(shot)), argument="data")
    recorded = shot.manifest["data"]
    y = given.y
    if y is None and recorded.get("labels_digest") is not None:
        y = recorded.get("target") or None
        if y not in frame.columns:
            msg = f"the rows had labels ({y or 'without a name'}); give them (y=, --target)"
            raise SnapshotError(msg)
    made = compute(
        model, frame, y, config=unhurried, background=given.background, sample_weight=given.sample_weight
    )
    return replace(made, config=config)


# --- what differs


def _differences(
    shot: Snapshot, again: Snapshot, *, explanation: Explanation, digest: str | None
) -> Iterator[InputDifference]:
    recorded = shot.manifest
    if digest != shot.model.digest:
        facts = {"recorded": shot.model.digest, "found": digest}
        yield InputDifference(input="model", message="the model's files are others", facts=facts)
    found_class = explanation.subject.model.model_class
    if found_class != shot.model.model_class:
        message = f"the model is a {found_class}, recorded {shot.model.model_class}"
        yield InputDifference(input="model", message=message)
    yield from inputs.data_differences(recorded["data"], again.manifest["data"])
    yield from inputs.config_differences(recorded["config"], again.manifest["config"])
    before, now = (inputs.provenance_record(s.path, "environment") for s in (shot, again))
    yield from inputs.environment_differences(before, now)
    code, code_now = (inputs.provenance_record(s.path, "code") for s in (shot, again))
    yield from inputs.code_differences(recorded, again.manifest, code=code, now=code_now)


def _compared(
    shot: Snapshot,
    again: Snapshot,
    *,
    found: tuple[InputDifference, ...],
    notes: tuple[str, ...],
    policy: Any,
) -> Replay:
    same_data = not any(d.input == "data" for d in found)
    replayed, renamed = _with_recorded_ids(shot, again) if same_data else (again.tables, False)
    same = inputs.same_numbers_expected(list(found))
    tables = tuple(_tables(shot, replayed, same_environment=same, missing=_missing(again)))
    found = (*found, *_other_answers(shot, replayed, found))
    gate = _gate(shot, again, replayed, policy=load_policy(policy))
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


def _other_answers(
    shot: Snapshot, again: Mapping[str, pd.DataFrame], found: tuple[InputDifference, ...]
) -> Iterator[InputDifference]:
    """Yield the model as differing input where it answers otherwise on rows that are the recorded ones."""
    ours, theirs = shot.tables.get(ATTRIBUTIONS), again.get(ATTRIBUTIONS)
    told = any(d.input in ("data", "model", "config", "seed") for d in found)
    if told or ours is None or theirs is None or len(ours) != len(theirs):
        return
    columns = ["row_id", "output", "prediction"]
    answers = compare_table(ours[columns], theirs[columns], name="predictions", same_environment=False)
    if answers.verdict == "different":
        message = f"it answers otherwise on the recorded rows: {answers.reason}"
        yield InputDifference(input="model", message=message)


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
