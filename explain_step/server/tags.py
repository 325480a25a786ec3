"""The tags of the gate on a model version: written only where they say what the verified evidence says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from explain_step.errors import ExplainStepError
from explain_step.gate import Policy, check_break_glass, folded, person
from explain_step.hashes import sha256_bytes
from explain_step.secret_masking import told
from explain_step.server.client import StoreClient
from explain_step.server.judge import BREAK_GLASS_TAG, Allowed, Judge, parse_break_glass
from explain_step.server.racing import DELETING_TAG
from explain_step.server.user import current_user
from explain_step.snapshot.manifest import check_schema, parse, seal
from explain_step.tracking.decision_log import DECISION_TAG, PROMOTED_TAG, parse_head, promoted_tag
from explain_step.tracking.evidence import REVIEW_TAG, located_place, parse_review
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.place import FOLDER, MANIFEST
from explain_step.tracking.reviews import review_tag

SNAPSHOT_ID = re.compile(r"[0-9a-f]{64}")
OPEN_STATUS = ("pending", "failed", "incomplete")
"""A status that claims nothing."""
PROVEN_STATUS = ("complete", "degraded", "waived")
FREE = ("reason",)
FACTS = ("snapshot_id", "manifest_sha256", "schema", "evidence")
MOST_REASON = 500
"""So much of owner and reason of break-glass is noted with the move; the audit log of the server has all of it."""
RECORD = re.compile(r"explanations/decisions/[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")


def is_reserved(key: str) -> bool:
    """Tell whether a tag key belongs to explain_step, however a database compares keys."""
    return folded(key).startswith(PREFIX)


def travels(key: str) -> bool:
    """Tell whether a tag goes with a copy: facts and reviews do, not so what was done with the one version."""
    stays = (BREAK_GLASS_TAG, DELETING_TAG)
    return is_reserved(key) and key not in stays and not key.startswith(PROMOTED_TAG)


def reviews_left_out(origin: Mapping[str, str], kept: Iterable[Any]) -> list[Any]:
    """Return the reviews of a version that are not among the tags of its copy."""
    from mlflow.entities.model_registry import ModelVersionTag

    there = {str(tag.key) for tag in kept}
    reviews = (item for item in origin.items() if item[0].startswith(REVIEW_TAG) and item[0] not in there)
    return [ModelVersionTag(key, value) for key, value in reviews]


def may_not_delete(key: str) -> str | None:
    """Say why a tag must stay; None where it may go."""
    if is_reserved(key) and key != BREAK_GLASS_TAG:
        return f"the tag {key!r} belongs to explain_step and stays"
    return None


def checked(judge: Judge, name: str, version: str, tag: Any) -> Any:
    """Return the tag to be written; refuse a tag of ours that is not true.

    Every other tag passes as it is. A review is stamped with the user whom the server has authenticated.
    """
    key, value = str(tag.key), str(tag.value)
    if not is_reserved(key):
        return tag
    try:
        problem, written = _judged(judge, name, version, key, value)
    except Exception as error:  # noqa: BLE001 - evidence that cannot be read proves no tag
        problem, written = f"it could not be checked ({told(error)})", value
    where = f"{name}/{version}"
    if problem is not None:
        judge.refuse(
            "set tag", f"{where}: tag {key!r} refused: {problem}.", name=name, version=version, tag=key
        )
        return tag
    if key in (BREAK_GLASS_TAG, DECISION_TAG) or key.startswith(REVIEW_TAG):
        judge.record("set tag", "allow", name=name, version=version, tag=key, value=written)
    return type(tag)(key, written)


def promotion(alias: str, *, at: datetime, allowed: Allowed, policy: Policy) -> tuple[str, str]:
    """Return key and value of the tag that notes that the server lets an alias point to a version.

    It is what `explain-step audit` knows a judged move by; a decision log has no room for many writers at once. The
    use of break-glass is noted too: its own tag may be taken away.
    """
    user, glass = current_user(), allowed.break_glass
    facts: dict[str, Any] = {
        "alias": alias,
        "at": at.isoformat(),
        "by": user.name,
        "authenticated": user.authenticated,
        "policy": policy.digest,
        "snapshot_id": allowed.evidence.snapshot_id,
    }
    if glass is not None:
        expires = glass.expires.isoformat()
        facts["break_glass"] = {
            "owner": glass.owner,
            "reason": glass.reason[:MOST_REASON],
            "expires": expires,
        }
    return promoted_tag(alias), json.dumps(facts, sort_keys=True)


def _judged(judge: Judge, name: str, version: str, key: str, value: str) -> tuple[str | None, str]:
    """Return what is wrong with a tag, and the value to be written."""
    part = key.removeprefix(PREFIX)
    if key == BREAK_GLASS_TAG:
        return _break_glass_problem(judge, value), value
    if key.startswith(REVIEW_TAG):
        return _review(judge, name, version, key, value)
    if part in FREE or (part == "status" and value in OPEN_STATUS):
        return None, value
    if part == "decision":
        return _decision_problem(judge, name, version, value), value
    if part in FACTS or (part == "status" and value in PROVEN_STATUS):
        return _fact_problem(judge, name, version, part, value), value
    return "explain_step has no such tag", value


def _break_glass_problem(judge: Judge, value: str) -> str | None:
    user = current_user()
    try:
        use = parse_break_glass(value)
        check_break_glass(use, judge.policy(), now=datetime.now(UTC))
    except ExplainStepError as error:
        return str(error).rstrip(".")
    if user.authenticated and person(use.owner) != person(user.name):
        return f"its owner {use.owner!r} is not the user {user.name!r}"
    return None


def _review(judge: Judge, name: str, version: str, key: str, value: str) -> tuple[str | None, str]:
    review, user = parse_review(value), current_user()
    if review is None or review.decision not in ("approve", "reject"):
        return "it is not a review", value
    if user.authenticated and person(review.reviewer) != person(user.name):
        return f"the reviewer {review.reviewer!r} is not the user {user.name!r}", value
    if review.authenticated and not user.authenticated:
        return "only the server says that a reviewer is authenticated", value
    if user.authenticated:
        return _review_of(user.name, key), _stamped(value, authenticated=True, reviewer=user.name)
    there = judge.registry.get_model_version(name, version).tags or {}
    for like in (
        text for known, text in there.items() if folded(known) == folded(key)
    ):  # one row for some databases
        before = parse_review(like)
        if before is not None and person(before.reviewer) != person(review.reviewer):
            return f"it would replace the review of {before.reviewer!r}", value
    return None, _stamped(value, authenticated=False, reviewer=review.reviewer)


def _review_of(reviewer: str, key: str) -> str | None:
    """Refuse a review under any key but the reviewer's: under somebody else's it would keep that one's out."""
    own = review_tag(reviewer)
    return None if key == own else f"reviews of {reviewer!r} are the tag {own!r}"


def _stamped(value: str, **facts: Any) -> str:
    return json.dumps({**json.loads(value), **facts}, sort_keys=True)


def _decision_problem(judge: Judge, name: str, version: str, value: str) -> str | None:
    """Accept a pointer to a decision where the record is, with the digest that the pointer names."""
    head = parse_head(value) or {}
    path = head.get("path", "")
    if not RECORD.fullmatch(path):
        return "it names no record under explanations/decisions/"
    place = located_place(_client(judge), name, version, judge.open_at)[0]
    folder, _, file = path.rpartition("/")
    if file not in place.children(folder):
        return f"there is no {path} beside the model"
    found = sha256_bytes(place.read(path))
    return None if found == head.get("sha256") else f"{path} has another digest"


def _fact_problem(judge: Judge, name: str, version: str, part: str, value: str) -> str | None:
    """Hold a fact against the snapshot that it speaks of."""
    if part == "status":
        evidence = judge.evidence(name, version, policy=judge.policy())
        said = str(evidence.manifest.get("status"))
        ok = evidence.usable and value in (said, "waived")
        return None if ok else f"no verified snapshot of this version says {value!r}"
    place, hint = located_place(_client(judge), name, version, judge.open_at)
    named = (
        value.rstrip("/").rpartition("/")[2]
        if part == "evidence"
        else value
        if part == "snapshot_id"
        else hint
    )
    if named is None or not SNAPSHOT_ID.fullmatch(named):
        return (
            "it names no snapshot"
            if part in ("snapshot_id", "evidence")
            else "explain_step.snapshot_id is missing"
        )
    if MANIFEST not in place.children(f"{FOLDER}/{named}"):
        return f"there is no finished snapshot {named[:12]}… of this version"
    data = place.read(f"{FOLDER}/{named}/{MANIFEST}")
    facts = _facts(data, place=named)
    if part in facts and facts[part] != value:
        return f"the snapshot {named[:12]}… says {facts[part][:70]!r}"
    return None


def _facts(data: bytes, *, place: str) -> Mapping[str, str]:
    manifest = parse(data)
    check_schema(manifest)
    if seal(manifest)["manifest_digest"] != manifest["manifest_digest"] or manifest["snapshot_id"] != place:
        return {"snapshot_id": "its manifest was changed", "manifest_sha256": "its manifest was changed"}
    return {
        "snapshot_id": str(manifest["snapshot_id"]),
        "manifest_sha256": sha256_bytes(data),
        "schema": str(manifest["schema_version"]),
    }


def _client(judge: Judge) -> StoreClient:
    return StoreClient(registry=judge.registry, tracking=judge.tracking)
