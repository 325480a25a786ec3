"""People: who signed the manifest, who approves this snapshot, and who rejects it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from explain_step.gate.evidence import Evidence, Review
from explain_step.gate.naming import folded, listed, named, person
from explain_step.gate.policy import Policy
from explain_step.gate.rules.base import Rule, found, of_snapshot
from explain_step.types import Finding

SKEW = timedelta(minutes=5)


def _signature(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked, there = policy.require.signature, evidence.signatures
    facts = {"keys": asked.keys, "signatures": [[s.key_id, s.valid, s.reason] for s in there]}
    if not asked.required:
        yield found("GATE060", "not_applicable", "the policy asks for no signature", **facts)
        return
    good = [s.key_id for s in there if s.valid is True and s.key_id in asked.keys]
    if good:
        yield found("GATE060", "pass", f"the manifest is signed with {named(good[0])}", **facts)
    elif not there:
        yield found("GATE060", "fail", "the manifest is not signed: sign it with explain-step sign", **facts)
    else:
        why = "; ".join(f"{named(s.key_id)}: {_why(s.valid, s.reason)}" for s in there[:5])
        yield found("GATE060", "fail", f"no signature of the manifest counts: {why}", **facts)


def _why(valid: bool, reason: str) -> str:
    return "valid, and its key is not allowed by the policy" if valid else reason or "not valid"


def counted(evidence: Evidence, policy: Policy) -> dict[str, Review]:
    """Return the last word on exactly this snapshot of each reviewer whose word counts.

    A review of another snapshot or manifest, by somebody who is not listed, or (where the policy wants
    authenticated reviewers) one that anybody could have written, is as if it were not there. So is an
    approval with a time in the future; at the same time a rejection counts before an approval. Names that differ
    in more than case are two people here, so that nobody takes back the rejection of somebody with a like name.
    """
    asked = policy.reviews
    last: dict[str, Review] = {}
    for review in sorted(evidence.reviews, key=lambda r: (_at(r), r.decision != "approve")):
        who = person(review.reviewer)
        meant = not asked.reviewers or listed(review.reviewer, asked.reviewers)
        known = review.authenticated is True or not asked.authenticated
        early = review.decision == "approve" and _at(review) > evidence.now + SKEW
        if folded(who) and meant and known and not early and _meant(review, evidence):
            last[who] = review
    return last


def _at(review: Review) -> datetime:
    return review.at if review.at.tzinfo is not None else review.at.replace(tzinfo=UTC)


def _meant(review: Review, evidence: Evidence) -> bool:
    same = review.snapshot_id == evidence.snapshot_id and evidence.snapshot_id is not None
    return same and review.manifest_sha256 == evidence.manifest_sha256


def _approvals(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    needed = policy.reviews.approvals
    if not needed:
        yield found("GATE061", "not_applicable", "the policy asks for no approval")
        return
    authors = {folded(name) for name in (evidence.author or "", *evidence.authors)} - {""}
    # names that look alike count as one person when they approve
    approving = {folded(r.reviewer): r for r in counted(evidence, policy).values() if r.decision == "approve"}
    others = _people(
        r.reviewer for r in approving.values() if not any(_alike(r.reviewer, a) for a in authors)
    )
    facts = {"approvals": others, "required": needed, "author": evidence.author, "authors": evidence.authors}
    have = f"{len(others)} of {needed} approvals of this snapshot by people other than the author"
    # without an author any one of them could be the author
    if len(others) - (0 if authors else 1) >= needed:
        yield found("GATE061", "pass", f"there are {have}: {', '.join(map(named, others))}", **facts)
    elif len(others) >= needed:
        message = f"the author of the run is not known, so {named(others[0])} may be the author; one more approval decides"
        yield found("GATE061", "undecided", message, **facts)
    else:
        more = _left_out(evidence, approvals=len(others))
        yield found("GATE061", "fail", f"there are {have}{more}", **facts)


def _people(names: Iterable[str]) -> list[str]:
    """Return names that may not be one person's, sorted: of an account with and without its domain the former.

    Examples
    --------
    >>> _people(["bea", "cy", "bea@bank.example"]), _people(["bea@a.example", "bea@b.example"])
    (['bea@bank.example', 'cy'], ['bea@a.example', 'bea@b.example'])
    """
    kept: list[str] = []
    for name in sorted(names, key=lambda n: _account(folded(n)) == folded(n)):
        if not any(_alike(name, other) for other in kept):
            kept.append(name)
    return sorted(kept)


def _alike(name: str, other: str) -> bool:
    r"""Whether two names may be one person's: also the name of an account with and without its domain.

    Examples
    --------
    >>> _alike("Ann@bank.example", "ann"), _alike("BANK\\ann", "ann"), _alike("ann@a.example", "ann@b.example")
    (True, True, False)
    """
    ours, theirs = folded(name), folded(other)
    return ours == theirs or _account(ours) == theirs or ours == _account(theirs)


def _account(name: str) -> str:
    r"""Return a name without its domain (``ann@bank.example``, ``BANK\ann``)."""
    return name.rpartition("\\")[2].partition("@")[0]


def _left_out(evidence: Evidence, *, approvals: int) -> str:
    """Return a hint where more people approved something than count."""
    everybody = _people({folded(r.reviewer) for r in evidence.reviews if r.decision == "approve"})
    if len(everybody) <= approvals:
        return "; ask for a review with explain-step review"
    return (
        f"; {len(everybody) - approvals} more do not count: of another snapshot, withdrawn, by the author, by "
        f"somebody not listed, or not authenticated"
    )


def _rejections(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    last = counted(evidence, policy)
    against = [r for r in last.values() if r.decision == "reject"]
    for review in against:
        note = f": {review.note}" if review.note else ""
        message = f"{named(review.reviewer)} rejects this snapshot{note}"
        yield found("GATE062", "fail", message, reviewer=review.reviewer, at=_at(review).isoformat())
    if not against and last:
        yield found("GATE062", "pass", f"none of {len(last)} reviewers rejects this snapshot")
    elif not against:
        yield found("GATE062", "not_applicable", "there is no review of this snapshot that counts")


PEOPLE = (
    Rule(
        code="GATE060",
        title="The manifest is signed by an allowed key",
        check=of_snapshot("GATE060", _signature),
    ),
    Rule(
        code="GATE061",
        title="Enough people approve this snapshot",
        check=of_snapshot("GATE061", _approvals),
    ),
    Rule(code="GATE062", title="Nobody rejects this snapshot", check=of_snapshot("GATE062", _rejections)),
)
