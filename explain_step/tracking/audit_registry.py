"""Registered models: versions, aliases, and the places that the policy protects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from explain_step.errors import InvalidInput
from explain_step.gate import Evidence, GateDecision, Policy, Request, decide, folded, matches
from explain_step.gate.policy import Waiver
from explain_step.tracking.audit_look import Sight, look, unreadable
from explain_step.tracking.audit_rows import (
    EXPLAINED,
    NOT_APPLICABLE,
    UNDECIDED,
    Kind,
    Row,
    failing,
    lies,
    own_tags,
    undecided,
)
from explain_step.tracking.audit_runs import Means, row_of
from explain_step.tracking.evidence import gather
from explain_step.tracking.target import model_id_of
from explain_step.types import Finding

PER_PAGE = 100
VERSIONS_PER_PAGE = 1_000
PROMPT_TAG = "mlflow.prompt.is_prompt"
PROMPT_SOURCE = "prompt-template"
INTEGRITY = {"GATE002": "AUD003", "GATE003": "AUD007", "GATE004": "AUD008", "GATE005": "AUD009"}
PLACES: dict[Kind, str] = {"alias": "AUD004", "stage": "AUD005", "registered model": "AUD006"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A protected place that a version holds."""

    kind: Kind
    target: str

    @property
    def request(self) -> Request:
        """What a gate would have been asked."""
        action = {"alias": "alias", "stage": "stage", "registered model": "registered_model"}[self.kind]
        return Request(action=action, target=self.target)  # type: ignore[arg-type]


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
        versions = [v for v in _versions(means.client, registered) if only is None or _meant(v, only)]
        of_version = aliases_of(registered)
        rows = means.pool.map(
            lambda v, of=of_version, r=registered: _judged(
                v,
                held=_held(r.name, v, of.get(str(v.version), []), policy),
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

    One version with the tag of a prompt hides all versions of its registered model from MLflow's search.
    """
    quote = '"' if "'" in registered.name else "'"
    name = f"name = {quote}{registered.name}{quote}"
    found = _search(client, name)
    tagged = _search(client, f"{name} AND tag.`{PROMPT_TAG}` = 'true'")
    seen = {str(v.version): v for v in (*found, *tagged)}
    if tagged or PROMPT_TAG in (registered.tags or {}):
        last = max((int(v.version) for v in (*(registered.latest_versions or ()), *seen.values())), default=0)
        hidden = [str(n) for n in range(1, last + 1) if str(n) not in seen]
        seen |= {n: v for n in hidden if (v := _version_or_none(client, registered.name, n)) is not None}
    return [v for _, v in sorted(seen.items(), key=lambda item: int(item[0])) if not _is_prompt(v)]


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
    return version.source == PROMPT_SOURCE and not version.run_id and PROMPT_TAG in (version.tags or {})


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


def _held(name: str, version: Any, aliases: Sequence[str], policy: Policy) -> tuple[Held, ...]:
    """Return the protected places that a version holds; names are compared folded."""
    protected = policy.protected
    held = [Held(kind="alias", target=alias) for alias in aliases if matches(alias, protected.aliases)]
    stage = str(version.current_stage or "None")
    if matches(stage, protected.stages):
        held.append(Held(kind="stage", target=stage))
    if matches(name, protected.registered_models):
        held.append(Held(kind="registered model", target=name))
    return tuple(held)


def _judged(
    version: Any,
    *,
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
        return [row, *(_unread_place(row, place, error) for place in held)]
    facts |= {"model_id": evidence.model_id, "run_id": evidence.run_id}
    row = _row_of_decision(decision, facts, evidence=evidence)
    places = [_place(row, place, decision, policy) for place in held]
    plain = [alias for alias in aliases if not matches(alias, policy.protected.aliases)]
    return [row, *places, *(_alias_row(row, alias) for alias in plain)]


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
    if model_id is not None:
        return str(client.get_logged_model(model_id).artifact_location), ("model_id", model_id)
    location = str(client.get_model_version_download_uri(version.name, version.version))
    return location, ("run_id", str(version.run_id))


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


def _row_of_decision(decision: GateDecision, facts: Mapping[str, Any], *, evidence: Evidence) -> Row:
    """Return the row of a version that was judged by the gate's rules, on every byte."""
    found = [
        failing(INTEGRITY[f.code], f.message) if f.verdict == "fail" else undecided("AUD013", f.message)
        for f in decision.findings
        if f.verdict in ("fail", "undecided") and (f.code in INTEGRITY or f.code == "GATE001")
    ]
    status, reason = _status(decision, evidence, found)
    there = {} if evidence.snapshot_id is None else {evidence.snapshot_id: str(evidence.manifest_sha256)}
    return Row(
        **facts,
        status=status,
        reason=reason,
        snapshot_id=evidence.snapshot_id if status in EXPLAINED else None,
        manifest_sha256=evidence.manifest_sha256 if status in EXPLAINED else None,
        verified="bytes" if status in EXPLAINED and evidence.usable else "",
        findings=(*found, *lies(facts["tags"], status=status, snapshot_ids=there)),
    )


def _status(decision: GateDecision, evidence: Evidence, found: Sequence[Finding]) -> tuple[str, str]:
    if any(f.verdict == "undecided" for f in found):
        return UNDECIDED, next(f.message for f in found if f.verdict == "undecided")
    if not found:
        return str(evidence.manifest["status"]), str(evidence.manifest["reason"])
    if decision.allowed:
        return "waived", decision.summary
    return "incomplete", found[0].message


def _place(row: Row, place: Held, decision: GateDecision, policy: Policy) -> Row:
    """Return the row of a protected place: whether its version may hold it."""
    findings: tuple[Finding, ...] = ()
    reason = decision.summary
    if not decision.allowed:
        code = PLACES[place.kind]
        message = f"{_named(row, place)} is protected and holds version {row.version[1] if row.version else ''}: {reason}"
        make = undecided if decision.outcome == "undecided" else failing
        findings = (make(code, message, blocking=[f.code for f in decision.blocking]),)
        findings += tuple(_expired(w, decision) for w in policy.waivers if _was_meant(w, row, decision))
    return replace(
        row,
        kind=place.kind,
        name=_named(row, place),
        label=row.name,
        reason=reason,
        findings=findings,
        tags={},
    )


def _named(row: Row, place: Held) -> str:
    name = row.version[0] if row.version else ""
    if place.kind == "alias":
        return f"models:/{name}@{place.target}"
    return f"models:/{name}/{place.target}" if place.kind == "stage" else f"models:/{name}"


def _unread_place(row: Row, place: Held, error: BaseException) -> Row:
    message = f"{_named(row, place)} is protected; its version could not be judged: {type(error).__name__}"
    return replace(
        row,
        kind=place.kind,
        name=_named(row, place),
        label=row.name,
        findings=(undecided(PLACES[place.kind], message),),
        tags={},
    )


def _was_meant(waiver: Waiver, row: Row, decision: GateDecision) -> bool:
    """Tell whether a waiver that has expired covered what stands against this version."""
    if row.version is None or decision.decided_at <= waiver.ends:
        return False
    same = folded(waiver.registered_model) == folded(row.version[0]) and waiver.version == row.version[1]
    return same and bool({f.code for f in decision.blocking} & set(waiver.rules))


def _expired(waiver: Waiver, decision: GateDecision) -> Finding:
    message = (
        f"the waiver of {', '.join(waiver.rules)} by {waiver.owner} ({waiver.reason}) expired on "
        f"{waiver.expires.isoformat()}"
    )
    return failing("AUD011", message, decided_at=decision.decided_at.isoformat())


def expired_waivers(policy: Policy, *, now: datetime) -> list[Row]:
    """Return a row for each waiver that has expired; it fails nothing by itself."""
    return [
        Row(
            kind="waiver",
            name=f"models:/{w.registered_model}/{w.version}",
            label=", ".join(w.rules),
            status=NOT_APPLICABLE,
            reason=f"expired on {w.expires.isoformat()} (owner {w.owner}): remove it from the policy, or renew it",
            version=(w.registered_model, w.version),
            findings=(replace(failing("AUD011", "the waiver has expired"), verdict="not_applicable"),),
        )
        for w in policy.waivers
        if now > w.ends
    ]
