"""Runs and logged models of an experiment: which are explained, which have nothing to explain."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from explain_step.tracking.audit_look import Sight, look, unreadable
from explain_step.tracking.audit_rows import NOT_APPLICABLE, UNDECIDED, Row, failing, lies, own_tags

RUNS_PER_PAGE = 1_000
MODELS_PER_PAGE = 100
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
OLD_MODEL_TAG = "mlflow.log-model.history"
VERSIONS_TAG = "mlflow.modelVersions"
LIVE = ("RUNNING", "SCHEDULED")
EVIDENCE = re.compile(r"models:/(m-[0-9a-f]{32})/")
NO_MODEL = "no model was logged: there is nothing to explain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What every part of an audit needs: a client, threads for the artifact stores, how deep to look."""

    client: Any
    pool: Executor
    full: bool
    tick: Callable[[int], None]

    @property
    def tracking_uri(self) -> str:
        """Of the client."""
        return str(self.client.tracking_uri)


def audit_experiment(experiment_id: str, *, means: Means) -> list[Row]:
    """Return a row for each logged model and each live run of an experiment.

    Pages are read one after the other, and only rows are kept: params and metrics of a page are gone before
    the next one.
    """
    models: list[Row] = []
    for page in _model_pages(means.client, experiment_id):
        models.extend(means.pool.map(lambda model: judge_model(model, means=means), page))
        means.tick(len(page))
    of_run: dict[str, list[Row]] = defaultdict(list)
    for row in models:
        if row.run_id is not None:
            of_run[row.run_id].append(row)
    runs: list[Row] = []
    for page in _run_pages(means.client, experiment_id):
        runs.extend(
            means.pool.map(lambda run: judge_run(run, of_run.get(run.info.run_id, []), means=means), page)
        )
        means.tick(len(page))
    return _settled(runs, models)


def _model_pages(client: Any, experiment_id: str) -> Iterator[list[Any]]:
    token = None
    while True:
        page = client.search_logged_models(
            experiment_ids=[experiment_id], max_results=MODELS_PER_PAGE, page_token=token
        )
        yield list(page)
        token = page.token
        if not token:
            return


def _run_pages(client: Any, experiment_id: str) -> Iterator[list[Any]]:
    """Yield live runs, the oldest first: runs that start meanwhile come at the end and shift no page."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            max_results=RUNS_PER_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield list(page)
        token = page.token
        if not token:
            return


def judge_model(model: Any, *, means: Means) -> Row:
    """Return the row of a logged model."""
    tags = own_tags(model.tags)
    facts: dict[str, Any] = {
        "kind": "model",
        "name": f"models:/{model.model_id}",
        "label": str(model.name or ""),
        "tags": tags,
        "experiment_id": str(model.experiment_id),
        "run_id": model.source_run_id or None,
        "model_id": str(model.model_id),
        "registered": VERSIONS_TAG in (model.tags or {}),
    }
    ready = str(model.status).rpartition(".")[2]
    if ready != "READY":
        reason = f"the logged model is {ready}: it was not finished, nobody can load it"
        return Row(**facts, status=NOT_APPLICABLE, reason=reason)
    sight = look(
        model.artifact_location,
        tracking_uri=means.tracking_uri,
        owner=("model_id", str(model.model_id)),
        hint=tags.get("snapshot_id"),
        full=means.full,
    )
    return row_of(sight, facts, code="AUD002", absent="the logged model has no explanation")


def row_of(sight: Sight, facts: Mapping[str, Any], *, code: str, absent: str) -> Row:
    """Return the row that a sight gives, with ``code`` where there is no snapshot at all."""
    tags: Mapping[str, str] = facts["tags"]
    status, reason, findings = sight.status, sight.reason, sight.findings
    if not sight.present:
        status, reason = _without(tags, absent)
        findings = (failing(code, reason),)
    there = {} if sight.snapshot_id is None else {sight.snapshot_id: str(sight.manifest_sha256)}
    return Row(
        **facts,
        status=status,
        reason=reason,
        snapshot_id=sight.snapshot_id,
        manifest_sha256=sight.manifest_sha256,
        verified=sight.verified,
        findings=(*findings, *lies(tags, status=status, snapshot_ids=there)),
    )


def _without(tags: Mapping[str, str], absent: str) -> tuple[str, str]:
    """Return status and reason where there is no snapshot; a tag that admits a failure is believed."""
    said = tags.get("status")
    if said == "failed":
        return "failed", tags.get("reason") or absent
    return "incomplete", absent


def judge_run(run: Any, models: list[Row], *, means: Means) -> Row:
    """Return the row of a run: explained where it or one of its logged models has a snapshot that verifies."""
    tags = own_tags(run.data.tags)
    parent = run.data.tags.get(PARENT_TAG)
    facts: dict[str, Any] = {
        "kind": "run" if parent is None else "nested run",
        "name": str(run.info.run_id),
        "label": str(run.info.run_name or run.data.tags.get(NAME_TAG) or ""),
        "tags": tags,
        "experiment_id": str(run.info.experiment_id),
        "run_id": str(run.info.run_id),
        "run_status": str(run.info.status),
        "parent_run_id": parent,
        "end_time": run.info.end_time,
    }
    ready = [m for m in models if m.status != NOT_APPLICABLE]
    explained = [m for m in ready if m.explained]
    if explained:
        return _from_models(explained, facts, of=len(ready))
    own = _elsewhere(run, tags, means=means) or _on_the_run(run, tags, means=means)
    pledged = "status" in tags or OLD_MODEL_TAG in run.data.tags
    if not (own.present or ready or pledged):
        return Row(**facts, status=NOT_APPLICABLE, reason=NO_MODEL)
    unread = next((m for m in ready if m.status == UNDECIDED), None)
    if unread is not None and not own.present:
        own = Sight(status=UNDECIDED, reason=unread.reason, present=True, findings=unread.findings[:1])
    broken = next((m for m in ready if m.findings and m.findings[0].code != "AUD002"), None)
    if broken is not None and not own.present:
        own = Sight(status="incomplete", reason=broken.reason, present=True, findings=broken.findings[:1])
    return row_of(own, facts, code="AUD001", absent=_unexplained(facts))


def _from_models(explained: list[Row], facts: Mapping[str, Any], *, of: int) -> Row:
    """Return the row of a run with at least one explained model; the others have rows of their own."""
    best = min(explained, key=lambda m: (m.status != "complete", m.name))
    reason = best.reason
    if len(explained) < of:
        reason = f"{len(explained)} of {of} logged models are explained; {best.name}: {reason}"
    there = {str(m.snapshot_id): str(m.manifest_sha256) for m in explained}
    return Row(
        **facts,
        status=best.status,
        reason=reason,
        snapshot_id=best.snapshot_id,
        manifest_sha256=best.manifest_sha256,
        verified=best.verified,
        findings=lies(facts["tags"], status=best.status, snapshot_ids=there),
    )


def _on_the_run(run: Any, tags: Mapping[str, str], *, means: Means) -> Sight:
    """Look under the run itself: it keeps the evidence where there is no logged model."""
    return look(
        run.info.artifact_uri,
        tracking_uri=means.tracking_uri,
        owner=("run_id", str(run.info.run_id)),
        hint=tags.get("snapshot_id"),
        full=means.full,
    )


def _elsewhere(run: Any, tags: Mapping[str, str], *, means: Means) -> Sight | None:
    """Look where the run's tag says that it explained a model of another run; None where that does not hold."""
    named = EVIDENCE.match(tags.get("evidence", ""))
    if named is None:
        return None
    try:
        location = means.client.get_logged_model(named[1]).artifact_location
    except Exception as error:  # noqa: BLE001 - stores raise types of their own
        return None if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" else unreadable(error)
    sight = look(
        location,
        tracking_uri=means.tracking_uri,
        owner=("model_id", named[1]),
        hint=tags.get("snapshot_id"),
        full=means.full,
    )
    return sight if sight.run_id == run.info.run_id else None


def _unexplained(facts: Mapping[str, Any]) -> str:
    status = facts["run_status"]
    if status in LIVE:
        return f"the run has no explanation; it is {status}: still at work, or killed"
    return f"the run ended ({status}) without an explanation"


def _settled(runs: list[Row], models: list[Row]) -> list[Row]:
    """Tell apart what has nothing to explain: trials of a search, models whose run was deleted.

    A nested run has nothing to explain where its parent is explained, or where it ended without a model. A
    run that was judged at its own end (a tag other than ``pending``) keeps its own word.
    """
    explained = {row.name for row in runs if row.explained}
    with_model = {row.run_id for row in models if row.status != NOT_APPLICABLE}
    judged = {row.name: _trial(row, explained, with_model) for row in runs}
    return [*judged.values(), *(_of_trial(row, judged) for row in models)]


def _trial(row: Row, explained: set[str], with_model: set[str | None]) -> Row:
    plain = row.tag_status in (None, "pending") and row.status == "incomplete" and row.snapshot_id is None
    tampered = any(f.code != "AUD001" for f in row.findings)
    if row.kind != "nested run" or not plain or tampered:
        return row
    if row.parent_run_id in explained:
        reason = "a nested run of an explained run"
    elif row.run_id not in with_model and row.run_status == "FINISHED":
        reason = "a nested run that ended without a model: there is nothing to explain"
    else:
        return row
    return replace(row, status=NOT_APPLICABLE, reason=reason, findings=())


def _of_trial(row: Row, judged: Mapping[str, Row]) -> Row:
    """Give an unexplained, unregistered model the word on its run; registered versions have their own rows."""
    lacking = [f.code for f in row.findings] == ["AUD002"] and row.tag_status in (None, "pending")
    if not lacking or row.registered or row.run_id is None:
        return row
    run = judged.get(row.run_id)
    if run is None:
        return replace(row, status=NOT_APPLICABLE, reason="its run was deleted", findings=())
    if run.status == NOT_APPLICABLE:
        return replace(row, status=NOT_APPLICABLE, reason=f"a model of {run.reason}", findings=())
    return row
