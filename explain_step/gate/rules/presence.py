"""Whether there is a snapshot, whether it is whole, and whether it belongs to this version."""

from __future__ import annotations

from collections.abc import Iterator

from explain_step.gate.evidence import Evidence
from explain_step.gate.policy import Policy
from explain_step.gate.rules.base import Rule, condensed, found, of_snapshot
from explain_step.gate.rules.tables import as_mapping
from explain_step.types import Finding


def _readable(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    for problem in evidence.unreadable:
        yield found("GATE001", "undecided", f"evidence could not be read: {problem}")
    if not evidence.unreadable:
        yield found("GATE001", "pass", "all evidence could be read")


def _snapshot(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    there = bool(evidence.manifest or evidence.verification)
    if evidence.unreadable and evidence.absent is None and not there:  # GATE001 leaves it undecided
        yield found("GATE002", "not_applicable", "it is not known whether there is an explanation snapshot")
    elif evidence.absent is not None or not there:
        reason = evidence.absent or "there is no explanation snapshot"
        yield found("GATE002", "fail", f"{evidence.uri} is not explained: {reason}")
    else:
        yield found("GATE002", "pass", "there is an explanation snapshot", snapshot_id=evidence.snapshot_id)


def _bytes(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    if not evidence.verification and not evidence.manifest:
        yield found("GATE003", "not_applicable", "there is no snapshot to verify")
    elif any(f.verdict != "pass" for f in evidence.verification):
        yield from condensed(_verified(problem) for problem in evidence.verification)
    elif not evidence.verification or not evidence.manifest_sha256:
        yield found("GATE003", "fail", "the snapshot was not verified: nothing is known of its bytes")
    elif not evidence.manifest:
        yield found("GATE003", "fail", "the snapshot has no manifest that could be read")
    else:
        yield from condensed(_verified(problem) for problem in evidence.verification)


def _verified(finding: Finding) -> Finding:
    if finding.verdict == "pass":
        return found("GATE003", "pass", finding.message, found=finding.evidence)
    message = f"the snapshot does not verify: {finding.code} {finding.message}"
    return found("GATE003", "fail", message, found=finding.evidence)


def _model_bytes(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    explained = as_mapping(evidence.manifest.get("model")).get("digest")
    stored = evidence.model_digest
    facts = {"explained": explained, "stored": stored}
    if explained is None:
        yield found(
            "GATE004", "fail", "the snapshot names no stored model: it was made without MLflow", **facts
        )
    elif stored is None and evidence.unreadable:
        yield found("GATE004", "not_applicable", "the model's files could not be read", **facts)
    elif stored is None:
        yield found("GATE004", "fail", "the model's files are not there", **facts)
    elif stored != explained:
        message = (
            f"the model's files are not those that were explained (digest {stored[:12]}…, the snapshot "
            f"says {str(explained)[:12]}…)"
        )
        yield found("GATE004", "fail", message, **facts)
    elif evidence.model_problem is not None:
        message = f"the digest of the model's files does not cover what is loaded: {evidence.model_problem}"
        yield found("GATE004", "fail", message, **facts)
    else:
        yield found("GATE004", "pass", "every file of the model is the one that was explained", **facts)


def _owner(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    """Hold what the snapshot was made for against what the registry says.

    A logged model can be registered several times and copied, so the model decides where there is one; a
    version without a logged model has only its run.
    """
    key = "run_id" if evidence.model_id is None else "model_id"
    actual = evidence.run_id if evidence.model_id is None else evidence.model_id
    claimed = as_mapping(evidence.manifest.get("model")).get(key)
    if actual is None:
        yield found("GATE005", "fail", "the registry names neither a logged model nor a run for this version")
    elif claimed == actual:
        yield found("GATE005", "pass", f"the snapshot was made for this {key}", **{key: actual})
    else:
        message = f"the snapshot was made for {key} {claimed}, this version has {actual}"
        yield found("GATE005", "fail", message, claimed=claimed, actual=actual)


def _registry(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    """Compare two trust domains: the artifact store's manifest and the registry's note of it."""
    noted, read = evidence.registry_sha256, evidence.manifest_sha256
    if noted is None:
        yield found("GATE006", "not_applicable", "the registry notes no digest of a manifest")
    elif read is not None and noted.strip().lower() == read.lower():
        yield found("GATE006", "pass", "the registry notes the same manifest", manifest_sha256=read)
    else:
        message = (
            f"the registry notes a manifest with SHA-256 {noted[:12]}…, the one beside the model has "
            f"{str(read)[:12]}…: one of the two was changed; explain the version again"
        )
        yield found("GATE006", "fail", message, registry=noted, manifest_sha256=read)


PRESENCE = (
    Rule(code="GATE001", title="The evidence can be read", check=_readable),
    Rule(code="GATE002", title="There is an explanation snapshot", check=_snapshot),
    Rule(code="GATE003", title="Every byte of the snapshot verifies", check=_bytes),
    Rule(
        code="GATE004",
        title="The stored model is the explained one",
        check=of_snapshot("GATE004", _model_bytes),
    ),
    Rule(
        code="GATE005", title="The snapshot was made for this version", check=of_snapshot("GATE005", _owner)
    ),
    Rule(
        code="GATE006",
        title="The registry notes the same manifest",
        check=of_snapshot("GATE006", _registry),
    ),
)
