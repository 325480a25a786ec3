"""Small things left on runs, logged models and versions: status tags, metrics and a note."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from explain_step.secret_masking import mask_text
from explain_step.tracking.logged import LoggedSnapshot
from explain_step.types import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explain_step.snapshot import Previous, Snapshot
    from explain_step.tracking.target import Target

logger = logging.getLogger("explain_step.tracking")

PREFIX = "explain_step."
TAG_LENGTH = 500
NO_ANSWER = re.compile(
    r"NewConnectionError|NameResolutionError|Failed to establish|[Cc]onnection refused|timed out"
)
COLUMN_TYPES = {
    "float64": "double",
    "float32": "float",
    "int64": "long",
    "int32": "integer",
    "bool": "boolean",
}
DIGEST_LENGTH = 36
TOP = 20
OUTPUTS = 10
NOTE_TAG = "mlflow.note.content"
NOTE_LENGTH = 5000
"""Longer descriptions are cut or refused by some stores; ours steps back rather than cut the user's."""
BEGIN, END = "<!-- explain_step -->", "<!-- /explain_step -->"


def mark(
    target: Target,
    *,
    status: Status,
    reason: str,
    snapshot_id: str | None = None,
    manifest_sha256: str | None = None,
    schema: str | int | None = None,
) -> None:
    """Write the status tags on run, logged model and every registered version; the status itself last.

    Tags that are not given stay as they are: after a failed second attempt ``snapshot_id`` still names the
    evidence that is there.
    """
    facts = {
        "reason": reason,
        "snapshot_id": snapshot_id,
        "manifest_sha256": manifest_sha256,
        "schema": None if schema is None else str(schema),
        "evidence": None if snapshot_id is None else f"{target.evidence_uri}/explanations/{snapshot_id}",
        "status": status,
    }
    tags = {f"{PREFIX}{key}": short(value) for key, value in facts.items() if value is not None}
    if target.run_id is not None:
        _tag_run(target, tags)
    if target.model_id is not None:
        target.client.set_logged_model_tags(target.model_id, tags)
    for name, version in target.versions:
        for key, value in tags.items():
            target.client.set_model_version_tag(name, version, key, value)


def _tag_run(target: Target, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    target.client.log_batch(str(target.run_id), tags=[RunTag(key, value) for key, value in tags.items()])


def short(text: str) -> str:
    """Return a text as a tag value: one line, cut with an ellipsis."""
    plain = " ".join(str(text).split())
    return plain if len(plain) <= TAG_LENGTH else plain[: TAG_LENGTH - 1] + "…"


def mark_failure(
    target: Target | None, error: BaseException, *, said: str | None = None, status: Status = "failed"
) -> LoggedSnapshot:
    """Record that the step failed and why, and return it as a `LoggedSnapshot`. Never raises.

    ``said`` is what is published of the error; by default its kind and its text.

    Without a target the active run, if there is one, is marked. Where the server cannot be reached nothing
    more is sent to it: the tag stays ``pending``, which counts as incomplete, and the training does not wait
    a second time.
    """
    reason = mask_text(f"{type(error).__name__}: {error}" if said is None else said)
    known = target
    try:
        if unreachable(error):
            logger.warning(
                "explain_step: status %r was not written, the server does not answer: %s", status, reason
            )
        else:
            known = target if target is not None else _active_target()
            if known is not None:
                mark(known, status=status, reason=reason)
    except Exception as second:  # noqa: BLE001 - promise 1: the training survives; stores raise types of their own
        logger.warning(
            "explain_step: status %r could not be written (%s); its reason was: %s", status, second, reason
        )
    return failed(known, reason=reason, status=status)


def undelivered(target: Target | None, *, reason: str, silent: bool) -> LoggedSnapshot:
    """Record that an explanation was made and is not stored: ``incomplete``. Never raises."""
    try:
        if target is not None and not silent:
            mark(target, status="incomplete", reason=reason)
    except Exception as error:  # noqa: BLE001 - promise 1: the training survives; stores raise types of their own
        logger.warning("explain_step: status 'incomplete' could not be written: %s", error)
    return failed(target, reason=reason, status="incomplete")


def failed(target: Target | None, *, reason: str, status: Status = "failed") -> LoggedSnapshot:
    """Return a `LoggedSnapshot` without a snapshot."""
    if target is None:
        return LoggedSnapshot(status=status, reason=reason)
    return LoggedSnapshot(
        status=status,
        reason=reason,
        run_id=target.run_id,
        model_id=target.model_id,
        versions=target.versions,
        model_uri=target.model_uri,
        run_uri=None if target.run_id is None else f"runs:/{target.run_id}",
    )


def _active_target() -> Target | None:
    import mlflow

    from explain_step.tracking.target import resolve

    return None if mlflow.active_run() is None else resolve()


def unreachable(error: BaseException | None) -> bool:
    """Tell whether an error comes from a server that cannot be reached.

    MLflow keeps only the text of what happened on the wire. A server that answers 500 or drops a connection
    in the middle of a file may still take a tag, and does not count.
    """
    while error is not None:
        if isinstance(error, TimeoutError | ConnectionRefusedError) or NO_ANSWER.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def previous_snapshot_id(target: Target) -> str | None:
    """Return the snapshot id that the tags of the logged model, or of the run without one, name so far."""
    found = previous_snapshot(target)
    return None if found is None else found.snapshot_id


def previous_snapshot(target: Target) -> Previous | None:
    """Return the snapshot that the tags of the logged model, or of the run without one, name so far.

    Id and digest of the manifest are tags of one request, so they are of one snapshot. The digest is the registry's
    word, not that of the files, which somebody may have changed since.
    """
    from explain_step.snapshot import Previous

    if target.model_id is not None:
        tags = target.client.get_logged_model(target.model_id).tags or {}
    elif target.run_id is not None:
        tags = target.client.get_run(target.run_id).data.tags
    else:
        tags = {}
    found = tags.get(f"{PREFIX}snapshot_id")
    digest = tags.get(f"{PREFIX}manifest_sha256")
    return None if found is None else Previous(snapshot_id=str(found), manifest_sha256=digest)


def log_metrics(target: Target, snapshot: Snapshot) -> None:
    """Log the leading importances and the scores as metrics of run and logged model, in one batch.

    Values that are already there are not logged again.
    """
    if target.run_id is None:
        return
    from mlflow.entities import Metric

    there = target.client.get_run(target.run_id).data.metrics
    now = int(time.time() * 1000)
    new = [
        Metric(key, value, now, 0, model_id=target.model_id)
        for key, value in metrics_of(snapshot.tables).items()
        if there.get(key) != value
    ]
    if new:
        target.client.log_batch(target.run_id, metrics=new)


def metrics_of(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return the metrics ``explain_step/importance/<feature>``, ``…/score/<name>``, ``…/performance/<metric>``.

    The 20 leading features of each output (at most 10 outputs; their name is part of the key where there are
    several), and every defined score and performance. Non-finite values are left out.
    """
    found: dict[str, float] = {}
    if "importance" in tables:
        table = tables["importance"]
        outputs = list(dict.fromkeys(table["output"].astype(str)))
        for output in outputs[:OUTPUTS]:
            rows = table[table["output"].astype(str) == output].nlargest(TOP, "mean_abs_shap")
            middle = f"{key_part(output)}/" if len(outputs) > 1 else ""
            for feature, value in zip(rows["feature"], rows["mean_abs_shap"], strict=True):
                found[f"explain_step/importance/{middle}{key_part(feature)}"] = float(value)
    if "scores" in tables:
        table = tables["scores"]
        table = table[~table["variant"].astype(str).str.startswith("control")]
        several = table["score"].duplicated(keep=False)
        for name, variant, value, many in zip(
            table["score"], table["variant"], table["value"], several, strict=True
        ):
            last = f".{key_part(variant)}" if many else ""
            found[f"explain_step/score/{key_part(name)}{last}"] = (
                float("nan") if value is None else float(value)
            )
    if "performance" in tables:
        table = tables["performance"]
        for name, value in zip(table["metric"], table["value"], strict=True):
            found[f"explain_step/performance/{key_part(name)}"] = float(value)
    return {key: value for key, value in found.items() if math.isfinite(value)}


def log_rows(target: Target, data: Mapping[str, Any]) -> None:
    """Show the explained rows among the datasets of the run: their number, columns and digest, no value.

    ``data`` is the manifest's part of that name. MLflow's own digest reads only the first 10,000 rows; ours
    reads all, and is cut to the 36 characters that fit.
    """
    if target.run_id is None or not data.get("digest"):
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag

    columns = [
        {
            "name": str(c["name"]),
            "type": COLUMN_TYPES.get(str(c["type"]), "string"),
            "required": not c["missing"],
        }
        for c in data["columns"]
    ]
    rows = Dataset(
        name="explained rows",
        digest=str(data["digest"])[:DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {"explain_step": "rows given to explain_step.log_explanations"}}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": data["rows"], "num_elements": data["rows"] * len(columns)}),
    )
    used = DatasetInput(dataset=rows, tags=[InputTag("mlflow.data.context", "explanation")])
    target.client.log_inputs(target.run_id, datasets=[used])


def key_part(name: Any) -> str:
    """Return a name as a part of a metric key; one that MLflow refuses becomes a slug and a short hash.

    Examples
    --------
    >>> key_part("debt ratio"), key_part("x<y")
    ('debt ratio', 'x_y-5264b2ba')
    """
    text = str(name)
    if re.fullmatch(r"[A-Za-z0-9_\-][A-Za-z0-9_\-. ]{0,79}", text) and text == text.rstrip(" ."):
        return text
    slug = re.sub(r"[^A-Za-z0-9_\-]+", "_", text).strip("_")[:60]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else digest


def write_notes(target: Target, text: str) -> None:
    """Put a short note into the descriptions of the run and the versions; what stood there stays."""
    client = target.client
    if target.run_id is not None:
        old = client.get_run(target.run_id).data.tags.get(NOTE_TAG, "")
        new = with_note(old, text)
        if new != old:
            client.set_tag(target.run_id, NOTE_TAG, new)
    for name, version in target.versions:
        old = client.get_model_version(name, version).description or ""
        new = with_note(old, text)
        if new != old:
            client.update_model_version(name, version, new)


def with_note(description: str, text: str) -> str:
    r"""Return the description with our part added, or replaced where it is already there.

    Examples
    --------
    >>> with_note("Trained by Ann.", "Explained.")
    'Trained by Ann.\n\n<!-- explain_step -->\nExplained.\n<!-- /explain_step -->'
    >>> with_note(with_note("Trained by Ann.", "Explained."), "Again.").count("explain_step")
    2
    """
    block = f"{BEGIN}\n{text.strip()}\n{END}"
    ours = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    if ours.search(description):
        new = ours.sub(lambda _: block, description, count=1)
    else:
        new = f"{description.rstrip()}\n\n{block}" if description.strip() else block
    return new if len(new) <= NOTE_LENGTH else description
