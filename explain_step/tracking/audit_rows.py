"""What an audit says about one object: a row, its findings, and how tags are held against the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from explain_step.tracking.marks import PREFIX
from explain_step.types import Finding, Verdict

Kind = Literal[
    "run", "nested run", "model", "version", "alias", "stage", "registered model", "waiver", "decision log"
]
NOT_APPLICABLE = "not_applicable"
UNDECIDED = "undecided"
EXPLAINED = ("complete", "degraded", "waived")
TITLES: dict[str, str] = {
    "AUD001": "A run that has something to explain is not explained",
    "AUD002": "A logged model is not explained",
    "AUD003": "A registered version is not explained",
    "AUD004": "A protected alias points to a version that the policy refuses",
    "AUD005": "A version in a protected stage is refused by the policy",
    "AUD006": "A version in a protected registered model is refused by the policy",
    "AUD007": "Evidence was changed, or is not whole",
    "AUD008": "The model's files are not those that were explained",
    "AUD009": "The snapshot was made for another model or run",
    "AUD010": "A tag claims what the evidence does not show",
    "AUD011": "A waiver does not hold: it is past, or ends too far ahead",
    "AUD012": "The decision log is broken",
    "AUD013": "Evidence could not be read",
    "AUD014": "A tag or run status could not be written",
    "AUD015": "The snapshot lacks a required section",
    "AUD016": "A protected alias was moved without a recorded decision",
    "AUD017": "Two snapshots follow the same one",
}
"""Every code of an audit; ``docs/audit.md`` says what to do about each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One object of an audit.

    ``status`` is derived from evidence; ``tags`` holds the tags of this package as they were found.
    """

    kind: Kind
    name: str
    status: str
    reason: str
    label: str = ""
    snapshot_id: str | None = None
    manifest_sha256: str | None = None
    verified: Literal["", "manifest", "bytes"] = ""
    findings: tuple[Finding, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    experiment_id: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    version: tuple[str, str] | None = None
    run_status: str | None = None
    parent_run_id: str | None = None
    end_time: int | None = None
    registered: bool = False
    change: str = ""

    @property
    def tag_status(self) -> str | None:
        """What the tag says: a hint."""
        return self.tags.get("status")

    @property
    def verdict(self) -> Verdict:
        """``fail`` where a finding fails, else ``undecided``, ``not_applicable`` or ``pass``."""
        verdicts = {f.verdict for f in self.findings}
        for worst in ("fail", "undecided"):
            if worst in verdicts:
                return "fail" if worst == "fail" else "undecided"
        return "not_applicable" if self.status == NOT_APPLICABLE else "pass"

    @property
    def explained(self) -> bool:
        """Whether there is evidence and it has every required section."""
        return self.status in EXPLAINED


def failing(code: str, message: str, **evidence: Any) -> Finding:
    """Return a finding that fails."""
    return Finding(code=code, verdict="fail", message=message, evidence=evidence)


def undecided(code: str, message: str, **evidence: Any) -> Finding:
    """Return a finding that says that something could not be decided."""
    return Finding(code=code, verdict="undecided", message=message, evidence=evidence)


def own_tags(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the tags of this package without their prefix; the rest is not kept."""
    return {
        key.removeprefix(PREFIX): str(value) for key, value in (tags or {}).items() if key.startswith(PREFIX)
    }


def lies(
    tags: Mapping[str, str],
    *,
    status: str,
    snapshot_ids: Mapping[str, str],
) -> tuple[Finding, ...]:
    """Hold the tags against the evidence.

    Parameters
    ----------
    tags : mapping
        As `own_tags` gives them.
    status : str
        The derived truth.
    snapshot_ids : mapping of snapshot id to SHA-256 of its manifest
        The snapshots that verify; a run can have several models.

    Returns
    -------
    tuple of Finding
        ``AUD010`` where a tag claims more than there is, or another snapshot. A tag that says less than the
        evidence is stale, not a claim.
    """
    if status in (UNDECIDED, NOT_APPLICABLE):
        return ()
    said = tags.get("status")
    if said in EXPLAINED and said != status and not (said == "degraded" and status == "complete"):
        return (failing("AUD010", f"the tag says {said!r}, the evidence says {status!r}", tag=said),)
    if said not in EXPLAINED or not snapshot_ids:
        return ()
    claimed = tags.get("snapshot_id")
    if claimed is not None and claimed not in snapshot_ids:
        return (
            failing("AUD010", f"the tag names snapshot {claimed[:12]}…, which is not there", tag=claimed),
        )
    digest = tags.get("manifest_sha256")
    if digest is not None and digest not in snapshot_ids.values():
        message = "the tag names another manifest.json than the one that is there: one of them was replaced"
        return (failing("AUD010", message, tag=digest),)
    return ()
