"""Registered models: versions, aliases, and the places that the policy protects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from explain_step.errors import ExplainStepError, InvalidInput
from explain_step.gate import Policy, decide, matches
from explain_step.tracking.audit_look import Sight, look, unreadable
from explain_step.tracking.audit_moves import break_glass_words, move_findings
from explain_step.tracking.audit_places import (
    Held,
    held_by,
    history_findings,
    log_findings,
    place_row,
    row_of_decision,
    unread_place,
)
from explain_step.tracking.audit_rows import Row, own_tags
from explain_step.tracking.audit_runs import Means, row_of
from explain_step.tracking.decision_log import DecisionLog
from explain_step.tracking.evidence import gather
from explain_step.tracking.target import model_id_of

PER_PAGE = 100
VERSIONS_PER_PAGE = 1_000
PROMPT_TAG = "mlflow.prompt.is_prompt"


def audit_registry(
    names: Sequence[str] | None,
    *,
    policy: Policy,
    now: datetime,
    known: Mapping[str, Row],
    only: tuple[frozenset[str], frozenset[str]] | None,
    means: Means,
) -> Iterator[Row]:
    """Yield a row for each version, alias, protected stage and place in a protected registered model.

    Parameters
    ----------
    names : sequence of str, optional
        Registered models; None means all of them.
    policy : Policy
    now : datetime
    known : mapping of model id to Row
        Logged models that were looked at already.
    only : pair of frozenset, optional
        Ids of runs and of logged models: versions of others are left out.
    means : Means
    """
    for registered in _registered(means.client, names):
        every = _versions(means.client, registered)
        versions = [v for v in every if only is None or _meant(v, only)]
        of_version = aliases_of(registered)
        rows = means.pool.map(
            lambda v, of=of_version, r=registered, every=every: _judged(
                v,
                siblings=every,
                held=held_by(r.name, v, of.get(str(v.version), []), policy),
                aliases=of.get(str(v.version), []),
                policy=policy,
                now=now,
                known=known,
                means=means,
            ),
            versions,
        )
        for found in rows:
            yield from found
        means.tick(len(versions))


def _registered(client: Any, names: Sequence[str] | None) -> Iterator[Any]:
    if names is not None:
        yield from (_named_model(client, name) for name in dict.fromkeys(names))
        return
    for query in (
        None,
        f"tag.`{PROMPT_TAG}` = 'true'",
    ):  # a registered model that is tagged as a prompt is hidden
        token = None
        while True:
            page = client.search_registered_models(query, max_results=PER_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                break


def _named_model(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        msg = f"Argument registered_models must be names of registered models; there is no {name!r}."
        raise InvalidInput(msg) from error


def _versions(client: Any, registered: Any) -> list[Any]:
    """Return every version, also those that a search hides.

    One version with the tag of a prompt hides all versions of its registered model from MLflow's search; and a name
    that a search cannot quote hides its own.
    """
    quoted = _quoted(registered.name)
    tagged: list[Any] = []
    seen: dict[str, Any] = {}
    if quoted is not None:
        tagged = _search(client, f"name = {quoted} AND tag.`{PROMPT_TAG}` = 'true'")
        seen = {str(v.version): v for v in (*_search(client, f"name = {quoted}"), *tagged)}
    if quoted is None or tagged or PROMPT_TAG in (registered.tags or {}):
        last = max((int(v.version) for v in (*(registered.latest_versions or ()), *seen.values())), default=0)
        hidden = [str(n) for n in range(1, last + 1) if str(n) not in seen]
        seen |= {n: v for n in hidden if (v := _version_or_none(client, registered.name, n)) is not None}
    return [v for _, v in sorted(seen.items(), key=lambda item: int(item[0])) if not _is_prompt(v)]


def _quoted(name: str) -> str | None:
    """Return a name for a search; None where MLflow's grammar, which has no escapes, cannot hold it."""
    if "'" not in name and "\\" not in name:
        return f"'{name}'"
    return None if any(sign in name for sign in '"\\`') else f'"{name}"'


def _search(client: Any, query: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(query, max_results=VERSIONS_PER_PAGE, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _version_or_none(client: Any, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _is_prompt(version: Any) -> bool:
    """Tell whether a version holds a prompt and no model: the tag alone does not make it one."""
    somewhere = re.search(r"[:/\\\\]", str(version.source or "")) is not None
    return PROMPT_TAG in (version.tags or {}) and not version.run_id and not somewhere


def aliases_of(registered: Any) -> dict[str, list[str]]:
    """Return the aliases of each version number."""
    given: dict[str, list[str]] = {}
    for alias, version in sorted((registered.aliases or {}).items()):
        given.setdefault(str(version), []).append(str(alias))
    return given


def _meant(version: Any, only: tuple[frozenset[str], frozenset[str]]) -> bool:
    runs, models = only
    source = str(version.source or "")
    return version.run_id in runs or source.removeprefix("models:/") in models


def _judged(
    version: Any,
    *,
    siblings: Sequence[Any],
    held: tuple[Held, ...],
    aliases: Sequence[str],
    policy: Policy,
    now: datetime,
    known: Mapping[str, Row],
    means: Means,
) -> list[Row]:
    facts = _facts(version)
    if not held:
        row = _cheap(version, facts, known=known, means=means)
        return [row, *(_alias_row(row, alias) for alias in aliases)]
    try:
        evidence = gather(version.name, str(version.version), client=means.client, policy=policy, now=now)
        decision = decide(evidence, policy, request=held[0].request)
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; told in the row, and never a pass
        row = row_of(unreadable(error), facts, code="AUD003", absent="")
        return [row, *(unread_place(row, place, error) for place in held)]
    facts |= {"model_id": evidence.model_id, "run_id": evidence.run_id}
    row = row_of_decision(decision, facts, evidence=evidence)
    log, broken = log_findings(row, tracking_uri=means.tracking_uri)
    if evidence.usable:
        broken += history_findings(row, evidence.manifest, tracking_uri=means.tracking_uri)
    row = replace(row, findings=(*row.findings, *broken))
    places = [
        _moved(
            place_row(row, place, decision, policy),
            place,
            version,
            siblings=siblings,
            log=log,
            now=now,
            means=means,
        )
        for place in held
    ]
    plain = [alias for alias in aliases if not matches(alias, policy.protected.aliases)]
    return [row, *places, *(_alias_row(row, alias) for alias in plain)]


def _moved(
    row: Row,
    place: Held,
    version: Any,
    *,
    siblings: Sequence[Any],
    log: DecisionLog | None,
    now: datetime,
    means: Means,
) -> Row:
    """Add to the row of a protected alias that nobody decided to move it there, or that break-glass did."""
    if place.kind != "alias" or log is None:
        return row
    words = break_glass_words(version, place.target, log, now=now)
    if words is not None and row.findings:
        refused = row.findings[0]
        row = replace(
            row,
            findings=(replace(refused, message=f"{refused.message}; {words}"), *row.findings[1:]),
            reason=f"{row.reason}; {words}",
        )
    found = move_findings(version, place.target, siblings=siblings, log=log, tracking_uri=means.tracking_uri)
    return replace(row, findings=(*row.findings, *found))


def _facts(version: Any) -> dict[str, Any]:
    return {
        "kind": "version",
        "name": f"models:/{version.name}/{version.version}",
        "tags": own_tags(version.tags),
        "run_id": version.run_id or None,
        "version": (str(version.name), str(version.version)),
        "registered": True,
    }


def _cheap(version: Any, facts: dict[str, Any], *, known: Mapping[str, Row], means: Means) -> Row:
    """Judge a version that holds no protected place by its logged model, looked at once."""
    absent = "the registered version has no explanation"
    try:
        model_id = model_id_of(means.client, version)
        location, owner = _location(means.client, version, model_id)
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; told in the row
        return row_of(unreadable(error), facts, code="AUD003", absent=absent)
    facts |= {"model_id": model_id}
    seen = known.get(model_id or "")
    if seen is not None and seen.snapshot_id:
        return row_of(_seen_again(seen), facts, code="AUD003", absent=absent)
    sight = look(
        location,
        tracking_uri=means.tracking_uri,
        owner=owner,
        hint=facts["tags"].get("snapshot_id"),
        full=means.full,
    )
    return row_of(sight, facts, code="AUD003", absent=absent)


def _location(client: Any, version: Any, model_id: str | None) -> tuple[str, tuple[str, str] | None]:
    """Return the artifact root of a version, and what a snapshot there has to be made for."""
    stored = str(client.get_model_version_download_uri(version.name, version.version))
    if model_id is None:
        return stored, ("run_id", str(version.run_id))
    location = str(client.get_logged_model(model_id).artifact_location)
    if location.rstrip("/") != stored.rstrip("/"):  # what is downloaded is not what the source names
        msg = f"the version's files are at {stored[:200]}, not at the place of logged model {model_id}"
        raise ExplainStepError(msg)
    return location, ("model_id", model_id)


def _seen_again(seen: Row) -> Sight:
    return Sight(
        status=seen.status,
        reason=seen.reason,
        present=True,
        snapshot_id=seen.snapshot_id,
        manifest_sha256=seen.manifest_sha256,
        verified=seen.verified,
        findings=tuple(f for f in seen.findings if f.code != "AUD010"),
    )


def _alias_row(row: Row, alias: str) -> Row:
    """Return the row of an alias that is not protected: the word on its version, without a finding."""
    name = f"models:/{row.version[0]}@{alias}" if row.version else alias
    return replace(row, kind="alias", name=name, label=row.name, findings=(), tags={}, run_status=None)
