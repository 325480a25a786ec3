"""One judge for every plugin: evidence from the server's stores, the policy, a decision, a record, a refusal."""

from __future__ import annotations

import contextvars
import json
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from explain_step.errors import ExplainStepError, InvalidInput
from explain_step.gate import (
    DEFAULT,
    BreakGlassUse,
    Evidence,
    GateDecision,
    Policy,
    Request,
    check_break_glass,
    decide,
    person,
)
from explain_step.secret_masking import told
from explain_step.server import places, rows, settings
from explain_step.server.audit_log import AuditLog
from explain_step.server.client import Candidate, StoreClient
from explain_step.server.settings import Deployment
from explain_step.server.user import User, current_user
from explain_step.tracking.evidence import gather, parse_review
from explain_step.tracking.marks import PREFIX
from explain_step.types import Finding

BREAK_GLASS_TAG = f"{PREFIX}break_glass"
EXPLAINABLE = ("GATE002", "GATE003", "GATE004", "GATE005")
"""What is remedied by explaining the version (again)."""
MESSAGE_LENGTH = 700


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """What a promotion rests on: the evidence, and the use of break-glass that was given for it."""

    evidence: Evidence
    break_glass: BreakGlassUse | None


class Judge:
    """Decides for one server process.

    Parameters
    ----------
    registry : SqlAlchemyStore
        The model registry; only its reading methods are called.
    tracking : callable
        Returns the tracking store.
    deployment : Deployment
    """

    def __init__(self, registry: Any, tracking: Callable[[], Any], *, deployment: Deployment) -> None:
        self.registry = registry
        self.tracking = tracking
        self.deployment = deployment
        self.audit = AuditLog(settings.audit_path())

    def policy(self) -> Policy:
        """Return the policy that holds now; refuse where it cannot be read."""
        try:
            return settings.current_policy()
        except ExplainStepError as error:
            self.refuse("policy", f"The promotion policy cannot be read: {error}", codes=("GATE001",))
            raise

    def require(
        self,
        name: str,
        version: str,
        request: Request,
        *,
        policy: Policy,
        candidate: Candidate | None = None,
        found: Candidate | None = None,
    ) -> Allowed | None:
        """Return the evidence if the version may be promoted; refuse otherwise. No allow is remembered.

        ``candidate`` is a version that does not exist yet, ``found`` one as it was read for this request.
        None where nothing is refused although it may not be (dry-run).
        """
        user = current_user()
        asked = Request(
            action=request.action, target=request.target, by=user.name, authenticated=user.authenticated
        )
        try:
            evidence = self.evidence(name, version, policy=policy, known=candidate or found)
            glass = None if candidate is not None else self.break_glass(name, version, policy, user)
            decision = decide(evidence, policy, request=asked, break_glass=glass)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in the check is a refusal
            text = f"The evidence for models:/{name}/{version} could not be judged ({told(error, most=300)})."
            self.refuse(str(asked), text, name=name, version=version, codes=("GATE001",))
            return None
        facts = _facts(decision)
        if decision.allowed:
            self.must_stay(evidence, asked)
            self.record(str(asked), "allow", name=name, version=version, **facts)
        else:
            text = refusal_text(decision, source=None if candidate is None else candidate.source)
            self.refuse(str(asked), text, name=name, version=version, **facts)
        return Allowed(evidence=evidence, break_glass=glass) if decision.allowed else None

    def must_stay(self, evidence: Evidence, asked: Request) -> None:
        """Refuse what MLflow will remove for good: a champion would vanish with the next ``mlflow gc``."""
        try:
            gone = deleted_origin(self.tracking(), evidence)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in the check is a refusal
            gone = f"whether its experiment is deleted could not be asked ({type(error).__name__})"
        if gone is not None:
            text = f"{evidence.uri} may not get {asked}: {gone}."
            self.refuse(str(asked), text, name=evidence.name, version=evidence.version)

    def evidence(
        self, name: str, version: str, *, policy: Policy, known: Candidate | None = None
    ) -> Evidence:
        """Gather the evidence within the time that the operator allows.

        Raises
        ------
        TimeoutError
            It took longer; the reading goes on in the background and is thrown away.
        """
        client = StoreClient(registry=self.registry, tracking=self.tracking, known=known)
        context = contextvars.copy_context()  # the workspace of the request
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain_step_gate")
        try:
            asked = executor.submit(
                context.run,
                lambda: self._with_rejections(
                    gather(name, version, client=client, policy=policy, open_at=self.open_at)
                ),
            )
            return asked.result(timeout=settings.timeout())
        except TimeoutError as error:
            msg = f"the evidence was not read within {settings.timeout():g} seconds"
            raise TimeoutError(msg) from error
        finally:
            executor.shutdown(wait=False)

    def _with_rejections(self, evidence: Evidence) -> Evidence:
        """Add who rejects the same snapshot at another version: a copy may have been made before, or without it."""
        if evidence.snapshot_id is None:
            return evidence
        known = map(parse_review, rows.reviews_of_snapshot(self.registry, evidence.snapshot_id))
        against = [r for r in known if r is not None and r.decision == "reject" and r not in evidence.reviews]
        return replace(evidence, reviews=(*evidence.reviews, *against))

    def open_at(self, location: str) -> Any:
        """Open an artifact location in the server's own store."""
        return places.open_at(location, deployment=self.deployment)

    def refuse(self, action: str, message: str, **facts: Any) -> None:
        """Record a refusal and raise it as MLflow's PERMISSION_DENIED; in dry-run only record it."""
        try:
            dry = settings.mode() == "dry-run"
        except ExplainStepError:
            dry = False
        self.record(action, "would_refuse" if dry else "refuse", message=message, **facts)
        if not dry:
            deny(message)

    def record(self, action: str, outcome: str, **facts: Any) -> None:
        """Write a line to the audit log; refuse what cannot be recorded.

        As 403, not as the 500 of any other error: MLflow's client repeats that for minutes.
        """
        user = current_user()
        who = {"user": user.name, "authenticated": user.authenticated}
        try:
            self.audit.write({"action": action, "outcome": outcome, **who, **facts})
        except OSError as error:
            why = error.strerror or str(error)
            told = f" It is refused all the same: {facts['message']}" if outcome == "refuse" else ""
            deny(
                f"{action}: the audit log of the server cannot be written ({why}), so nothing was changed; "
                f"tell who runs the server.{told}"
            )

    def break_glass(self, name: str, version: str, policy: Policy, user: User) -> BreakGlassUse | None:
        """Return the use of break-glass that a version carries and the policy permits to this user."""
        if not policy.break_glass.allowed:
            return None
        tags = self.registry.get_model_version(name, version).tags or {}
        text = tags.get(BREAK_GLASS_TAG)
        if text is None:
            return None
        try:
            use = parse_break_glass(text)
            check_break_glass(use, policy, now=datetime.now(UTC))
        except InvalidInput:
            return None  # expired or not permitted any more: the rules decide
        if user.authenticated and person(use.owner) != person(user.name):
            return None
        return use


def deleted_origin(tracking: Any, evidence: Evidence) -> str | None:
    """Say what a version hangs on that is deleted: its experiment, the run that holds its files, or made its model.

    Narrow queries: they are asked before and after each promotion.
    """
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun

    model, run = evidence.model_id, evidence.run_id
    if model is None and run is None:
        return None
    owner: Any = SqlRun if model is None else SqlLoggedModel
    key, what = (
        (SqlRun.run_uuid, f"run {run}") if model is None else (owner.model_id, f"logged model {model}")
    )
    with tracking.ManagedSessionMaker() as session:
        asked = session.query(
            SqlExperiment.experiment_id, SqlExperiment.lifecycle_stage, owner.lifecycle_stage
        )
        joined = asked.join(owner, owner.experiment_id == SqlExperiment.experiment_id)
        row = joined.filter(key == (run if model is None else model)).first()
        source = session.query(SqlRun.lifecycle_stage).filter(SqlRun.run_uuid == run).scalar()
    if row is None or row[2] == "deleted":
        return f"{what}, which holds its files, is deleted"
    if row[1] == "deleted":
        return f"experiment {row[0]}, which holds its files, is deleted; restore it first"
    return f"run {run}, which logged it, is deleted; restore it first" if source == "deleted" else None


def deny(message: str) -> NoReturn:
    """Raise the error that MLflow's server answers with 403 and its UI shows in the dialog."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    raise MlflowException(message[:MESSAGE_LENGTH], error_code=PERMISSION_DENIED)


def parse_break_glass(text: str) -> BreakGlassUse:
    """Return the use of break-glass that a tag's JSON value describes.

    Raises
    ------
    InvalidInput
        Not a JSON object with owner, reason and expires (ISO 8601 with a time zone).
    """
    try:
        plain = json.loads(text)
        expires = datetime.fromisoformat(plain["expires"])
        use = BreakGlassUse(owner=str(plain["owner"]), reason=str(plain["reason"]), expires=expires)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"Tag {BREAK_GLASS_TAG} must be JSON with owner, reason and expires (ISO 8601), got {text[:100]!r}."
        raise InvalidInput(msg) from error
    if expires.tzinfo is None:
        msg = f"Tag {BREAK_GLASS_TAG}: expires must have a time zone, got {plain['expires']!r}."
        raise InvalidInput(msg)
    return use


def refusal_text(decision: GateDecision, *, source: str | None = None) -> str:
    """Say which version is refused, why, and what to do, in plain text that is read at once in a dialog.

    Parameters
    ----------
    decision : GateDecision
    source : str, optional
        Where the version would come from that does not exist yet and is refused entry.

    Returns
    -------
    str
        One line; the command is its end, so that it can be copied.
    """
    uri = f"models:/{decision.name}/{decision.version}"
    if source is None:
        what, known = f"{uri} may not get {decision.request}", uri
    else:
        known = source if source.startswith("models:/") else ""
        what = f"{known or 'A new version'} may not enter {decision.name}"
    blocking = decision.blocking
    reasons = "; ".join(_reason(f, uri) for f in blocking[:2]) or "no rule holds for it"
    more = f" (and {len(blocking) - 2} more)" if len(blocking) > 2 else ""
    return f"{what}: {reasons}{more}. {_remedy(decision, known)}"


def _reason(finding: Finding, uri: str) -> str:
    """Return the words of a finding before its code; the version has been named already."""
    text = " ".join(finding.message.split()).rstrip(".")
    text = f"it {text.removeprefix(f'{uri} ')}" if text.startswith(f"{uri} ") else text
    return f"{text if len(text) <= 180 else f'{text[:179]}…'} ({finding.code})"


def _remedy(decision: GateDecision, known: str) -> str:
    """Name the command, quoted for a shell; a source that is no version or model has to become one first."""
    first = "" if known else "Register it under another name first. "
    target = shlex.quote(known or "models:/NAME/VERSION")
    codes = {f.code for f in decision.blocking}
    if codes & set(EXPLAINABLE):
        return f"{first}Explain it: explain-step run {target} rows.parquet --target LABEL"
    if "/" not in known.removeprefix("models:/"):  # a logged model: the command reads versions
        first, target = "Register it under another name first. ", "models:/NAME/VERSION"
    policy = "" if decision.policy_digest == DEFAULT.digest else " --policy policy.yaml"
    return f"{first}All findings: explain-step gate {target}{policy}"


def _facts(decision: GateDecision) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "codes": [f.code for f in decision.blocking],
        "policy": decision.policy_digest,
        "snapshot_id": decision.snapshot_id,
        "manifest_sha256": decision.manifest_sha256,
    }
    waived = [f"{f.code}: {f.evidence['waived']}" for f in decision.findings if "waived" in f.evidence]
    if waived:
        facts["waived"] = waived
    if decision.break_glass is not None:
        facts["break_glass"] = decision.record()["break_glass"]
    return facts
