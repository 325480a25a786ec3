"""Signatures and reviews: whose word counts, and which."""

from __future__ import annotations

from typing import Any

import pytest
from rules_kit import evidence, findings, moment, policy, review, said, verdicts

from explain_step.gate import DEFAULT, SignatureFound, decide

SIGNED = policy(require={"signature": {"required": True, "keys": ["k1", "k2"]}})
ONE, TWO = (policy(reviews={"approvals": n}) for n in (1, 2))


@pytest.mark.parametrize(
    ("signatures", "verdict"),
    [
        ((), "fail"),
        ((SignatureFound(key_id="k1", valid=True),), "pass"),
        ((SignatureFound(key_id="k3", valid=True),), "fail"),
        ((SignatureFound(key_id="K1", valid=True),), "fail"),
        ((SignatureFound(key_id="k1", valid=False, reason="another manifest"),), "fail"),
        ((SignatureFound(key_id="k3", valid=True), SignatureFound(key_id="k2", valid=True)), "pass"),
        ((SignatureFound(key_id="k1", valid="yes"),), "fail"),  # type: ignore[arg-type]
    ],
)
def test_only_a_valid_signature_by_an_allowed_key_counts(signatures: Any, verdict: str) -> None:
    given = evidence(signatures=signatures)
    assert verdicts("GATE060", given, SIGNED) == {verdict}
    assert verdicts("GATE060", given, DEFAULT) == {"not_applicable"}


def test_a_signature_that_does_not_count_says_why() -> None:
    given = evidence(
        signatures=(
            SignatureFound(key_id="k1", valid=False, reason="it is of another manifest"),
            SignatureFound(key_id="k9", valid=True),
        )
    )
    message = said("GATE060", given, SIGNED)
    assert "it is of another manifest" in message
    assert "`k9`: valid, and its key is not allowed" in message


@pytest.mark.parametrize(
    ("reviews", "verdict"),
    [
        ([], "fail"),
        ([review("bea")], "fail"),
        ([review("bea"), review("cy")], "pass"),
        ([review("bea"), review("BEA"), review(" béa "), review("b\u200bea")], "fail"),
        ([review("bea"), review("bea@bank.example")], "fail"),
        ([review("bea"), review("BANK\\bea"), review("bea@bank.example"), review("cy")], "pass"),
        ([review("BANK\\bea"), review("bea")], "fail"),
        ([review("bea@a.example"), review("bea@b.example")], "pass"),
        ([review("bea"), review("ann")], "fail"),
        ([review("bea"), review("ANN")], "fail"),
        ([review("bea"), review("cy", snapshot_id="0" * 64)], "fail"),
        ([review("bea"), review("cy", manifest_sha256="0" * 64)], "fail"),
        ([review("bea"), review("cy"), review("cy", "reject", minutes=-1)], "fail"),
        ([review("bea"), review("cy", "reject", minutes=-9), review("cy", minutes=-5)], "pass"),
        ([review("bea"), review("cy"), review("cy", "reject")], "fail"),  # at the same time
        ([review("bea"), review("cy", minutes=60)], "fail"),  # from the future
        ([review("bea"), review("cy", "approved")], "fail"),
        ([review("bea"), review("cy", None)], "fail"),
        ([review("bea"), review("  ")], "fail"),
        ([review("bea"), review("cy", at=moment().replace(tzinfo=None))], "pass"),
    ],
)
def test_approvals_are_of_distinct_people_on_exactly_this_snapshot(reviews: Any, verdict: str) -> None:
    assert verdicts("GATE061", evidence(reviews=tuple(reviews)), TWO) == {verdict}
    assert verdicts("GATE061", evidence(reviews=tuple(reversed(reviews))), TWO) == {verdict}


def test_an_unknown_author_may_be_any_of_those_who_approve() -> None:
    for author in (None, "", " "):
        for people, verdict in ((["bea"], "undecided"), (["bea", "cy"], "pass"), ([], "fail")):
            given = evidence(author=author, reviews=tuple(map(review, people)))
            assert verdicts("GATE061", given, ONE) == {verdict}


def test_only_listed_or_authenticated_reviewers_count() -> None:
    listed = policy(reviews={"approvals": 1, "reviewers": ["risk-*"]})
    assert verdicts("GATE061", evidence(reviews=(review("bea"),)), listed) == {"fail"}
    assert "do not count" in said("GATE061", evidence(reviews=(review("bea"),)), listed)
    assert verdicts("GATE061", evidence(reviews=(review("Risk-Bea"),)), listed) == {"pass"}
    known = policy(reviews={"approvals": 1, "authenticated": True})
    assert verdicts("GATE061", evidence(reviews=(review("bea"),)), known) == {"fail"}
    assert verdicts("GATE061", evidence(reviews=(review("bea", authenticated=True),)), known) == {"pass"}
    # what anybody could have written neither approves nor takes back
    both = (review("bea", "reject", minutes=-9, authenticated=True), review("bea", minutes=-1))
    assert verdicts("GATE061", evidence(reviews=both), known) == {"fail"}
    assert verdicts("GATE062", evidence(reviews=both), known) == {"fail"}


def test_a_rejection_stands_until_the_same_person_takes_it_back() -> None:
    no = review("dee", "reject", minutes=-9, note="proxy of income")
    given = evidence(reviews=(review("bea"), review("cy"), no))
    assert decide(given, TWO).outcome == "refuse"
    assert "`dee` rejects this snapshot: proxy of income" in said("GATE062", given, TWO)
    assert verdicts("GATE062", given, DEFAULT) == {"fail"}
    again = evidence(reviews=(review("bea"), no, review("dee", minutes=-1)))
    assert verdicts("GATE062", again, TWO) == {"pass"}
    elsewhere = evidence(reviews=(review("dee", "reject", snapshot_id="0" * 64),))
    assert verdicts("GATE062", elsewhere, DEFAULT) == {"not_applicable"}
    unlisted = policy(reviews={"approvals": 1, "reviewers": ["bea"]})
    assert verdicts("GATE062", given, unlisted) == {"pass"}


def test_reviews_of_a_snapshot_without_identity_do_not_count() -> None:
    manifest = {k: v for k, v in evidence().manifest.items() if k != "snapshot_id"}
    given = evidence(manifest=manifest, reviews=(review("bea", snapshot_id=None),))
    assert verdicts("GATE061", given, ONE) == {"fail"}


def test_messages_name_who_and_how_many() -> None:
    given = evidence(reviews=(review("bea"), review("ann")))
    assert "1 of 2 approvals" in said("GATE061", given, TWO)
    (finding,) = findings("GATE061", given, ONE)
    assert finding.evidence["approvals"] == ["bea"]


def test_nobody_whom_the_server_saw_making_the_model_approves_it() -> None:
    given = evidence(reviews=(review("bea"), review("cy")), authors=("Cy",))
    assert verdicts("GATE061", given, TWO) == {"fail"}
    given = evidence(reviews=(review("bea"), review("cy")), author=None, authors=("dan",))
    assert verdicts("GATE061", given, TWO) == {"pass"}


def test_a_name_that_looks_alike_is_not_on_the_list_and_takes_nothing_back() -> None:
    one = policy(reviews={"approvals": 1, "reviewers": ["bea", "risk-*"]})
    for name in ("béa", "be\u200ba", "\uff42ea", "r\u00ecsk-1"):
        assert verdicts("GATE061", evidence(reviews=(review(name),)), one) == {"fail"}
    for name in ("Bea", " bea ", "Risk-1"):
        assert verdicts("GATE061", evidence(reviews=(review(name),)), one) == {"pass"}
    both = evidence(reviews=(review("bea", "reject", minutes=-9), review("béa", minutes=-5)))
    assert verdicts("GATE062", both, DEFAULT) == {"fail"}
