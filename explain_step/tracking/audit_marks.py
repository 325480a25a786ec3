"""Write what an audit found to the tags that say otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from explain_step.secret_masking import mask_text
from explain_step.tracking.audit_rows import NOT_APPLICABLE, UNDECIDED, Row, failing
from explain_step.tracking.marks import PREFIX, short

TAGGED = ("run", "nested run", "model", "version")


def mark_row(row: Row, *, client: Any, fail_runs: bool, dry_run: bool) -> Row:
    """Write status and reason of one object, and return the row with what was changed.

    The digest of a manifest is never written: it stands for the moment of logging, and a later one would
    vouch for evidence that was replaced.
    """
    tags = _wanted(row)
    fails = fail_runs and _finished_unexplained(row)
    told = [f"{key} = {value}" for key, value in tags.items() if key != "reason"]
    told += ["run status = FAILED"] if fails else []
    if not told:
        return row
    if dry_run:
        return replace(row, change=f"would set {', '.join(told)}")
    try:
        _write(row, tags, client=client)
        if fails:
            client.set_terminated(row.run_id, "FAILED", end_time=row.end_time)
    except Exception as error:  # noqa: BLE001 - a store or a gate refuses one object; the audit goes on and tells it
        message = mask_text(f"could not be marked: {type(error).__name__}: {error}")[:200]
        return replace(row, findings=(*row.findings, failing("AUD014", message)), change="failed")
    return replace(row, change=f"set {', '.join(told)}")


def _wanted(row: Row) -> dict[str, str]:
    """Return the tags that have to change; none where nothing is known for sure."""
    if row.kind not in TAGGED or row.status in (NOT_APPLICABLE, UNDECIDED) or row.tag_status == row.status:
        return {}
    tags = {"reason": short(row.reason)}
    if row.snapshot_id is not None and "snapshot_id" not in row.tags:
        tags["snapshot_id"] = row.snapshot_id
    return {**tags, "status": row.status}


def _finished_unexplained(row: Row) -> bool:
    run = row.kind in ("run", "nested run") and row.run_status == "FINISHED"
    return run and row.status in ("incomplete", "failed")


def _write(row: Row, tags: dict[str, str], *, client: Any) -> None:
    full = {f"{PREFIX}{key}": value for key, value in tags.items()}
    if not full:
        return
    if row.kind == "model":
        client.set_logged_model_tags(row.model_id, full)
    elif row.kind == "version" and row.version is not None:
        for key, value in full.items():
            client.set_model_version_tag(*row.version, key, value)
    else:
        _tag_run(row, full, client=client)


def _tag_run(row: Row, tags: dict[str, str], *, client: Any) -> None:
    from mlflow.entities import RunTag

    client.log_batch(str(row.run_id), tags=[RunTag(key, value) for key, value in tags.items()])
