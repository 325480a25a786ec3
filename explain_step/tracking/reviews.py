"""A person's word on one snapshot: bound to its bytes, kept as a tag of the version and in the decision log."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Literal

from explain_step.errors import ExplainStepError, InvalidInput, SnapshotError
from explain_step.gate import Evidence, Review, folded
from explain_step.gate import person as person_of
from explain_step.tracking import decision_log
from explain_step.tracking.evidence import REVIEW_TAG, gather
from explain_step.tracking.place import FOLDER
from explain_step.tracking.registry import find, person, set_tag
from explain_step.tracking.target import resolve_source
from explain_step.tracking.verifying import shown_pages

LARGEST_TAG = 4_950
"""Older MLflow stores keep 5,000 characters of a version's tag; a gated server adds a few to ours."""


def review(
    model_uri: str,
    *,
    decision: Literal["approve", "reject"],
    note: str,
    reviewer: str | None = None,
    tracking_uri: str | None = None,
    dry_run: bool = False,
) -> Review:
    """Approve or reject the explanation snapshot of a registered version.

    The review is bound to the snapshot that is there now, by its id and the digest of its manifest: another
    snapshot needs another review. One reviewer has one current review of a version; the log keeps all.

    Parameters
    ----------
    model_uri : str
        ``models:/name/3`` or ``models:/name@alias``.
    decision : {"approve", "reject"}
    note : str
        What was looked at and why; not empty.
    reviewer : str, optional
        Default: ``MLFLOW_TRACKING_USERNAME``, or the user of the operating system. It is the client's word;
        a gated server adds who was authenticated.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.
    dry_run : bool
        Check everything and write nothing.

    Raises
    ------
    InvalidInput
        No such version, another decision, an empty or too long note.
    SnapshotError
        The version has no snapshot that verifies, so there is nothing to review; or it is to be approved, and the run
        shows another page than the snapshot's.
    """
    if decision not in ("approve", "reject"):
        msg = f"Argument decision must be 'approve' or 'reject', got {decision!r}."
        raise InvalidInput(msg)
    who = person() if reviewer is None else reviewer
    for argument, text in (("note", note), ("reviewer", who)):
        if not text.strip():
            msg = f"Argument {argument} must not be empty: a review says who looked and what was found."
            raise InvalidInput(msg)
    registered = find(model_uri, tracking_uri=tracking_uri)
    evidence = gather(registered.name, registered.version, client=registered.client)
    snapshot_id, manifest_sha256 = _bound(evidence)
    if decision == "approve":
        _check_page(evidence, model_uri, tracking_uri=tracking_uri)
    found = Review(
        reviewer=who.strip(),
        decision=decision,
        snapshot_id=snapshot_id,
        manifest_sha256=manifest_sha256,
        at=datetime.now(UTC),
        note=note.strip(),
    )
    value = as_tag(found)
    if not dry_run:
        record = {"event": "review", "by": found.reviewer, "name": registered.name}
        record |= {"version": registered.version, "review": json.loads(value)}
        decision_log.write(registered, record, now=found.at)
        set_tag(registered, review_tag(found.reviewer), value)
    return found


def _bound(evidence: Evidence) -> tuple[str, str]:
    """Return id and manifest digest of the snapshot, of which every byte was verified just now."""
    if evidence.usable and evidence.snapshot_id and evidence.manifest_sha256:
        return evidence.snapshot_id, evidence.manifest_sha256
    if evidence.unreadable:
        msg = (
            f"{evidence.uri} cannot be reviewed now, its evidence could not be read: {evidence.unreadable[0]}"
        )
        raise ExplainStepError(msg)
    wrong = [
        f"it does not verify: {f.code} {f.message}" for f in evidence.verification if f.verdict != "pass"
    ]
    reason = evidence.absent or (wrong[0] if wrong else "there is no explanation snapshot")
    msg = f"{evidence.uri} cannot be reviewed: {reason}"
    raise SnapshotError(msg)


def _check_page(evidence: Evidence, model_uri: str, *, tracking_uri: str | None) -> None:
    """Refuse where the page that was most likely read, that of the run, is not the one that would be approved."""
    target = resolve_source(model_uri, tracking_uri=tracking_uri)
    exchanged, _ = shown_pages(evidence.manifest or {"files": ()}, evidence.manifest_sha256, target)
    if exchanged:
        msg = (
            f"{evidence.uri} was not approved: {exchanged[0].code} {exchanged[0].message}. Remove these, or explain again, "
            f"and read {FOLDER}/{evidence.snapshot_id}/report.html of the logged model."
        )
        raise SnapshotError(msg)


def review_tag(reviewer: str) -> str:
    """Return the key of a reviewer's tag: readable, and one for each person whatever the spelling of case.

    Somebody with a like name (``ánn``) has another, so that the one does not keep out the reviews of the other.

    Examples
    --------
    >>> review_tag("Ann Lee") == review_tag("ANN LEE"), review_tag("Ann Lee")[:28]
    (True, 'explain_step.review.ann_lee-')
    >>> review_tag("ánn") == review_tag("ann")
    False
    """
    slug = re.sub(r"[^a-z0-9]+", "_", folded(reviewer)).strip("_")[:40] or "reviewer"
    name = person_of(reviewer).encode("utf-8", "replace")
    return f"{REVIEW_TAG}{slug}-{hashlib.sha256(name).hexdigest()[:12]}"


def as_tag(review: Review) -> str:
    """Return a review as the text of a tag, which `explain_step.tracking.evidence.parse_review` reads.

    Raises
    ------
    InvalidInput
        It is longer than a tag may be.
    """
    plain = {
        "reviewer": review.reviewer,
        "decision": review.decision,
        "snapshot_id": review.snapshot_id,
        "manifest_sha256": review.manifest_sha256,
        "at": review.at.isoformat(),
        "note": review.note,
    }
    text = json.dumps(plain, sort_keys=True)
    if len(text) > LARGEST_TAG:
        over = len(text) - LARGEST_TAG
        msg = f"Argument note must fit a tag of {LARGEST_TAG:,} characters; shorten it by about {over:,}."
        raise InvalidInput(msg)
    return text
