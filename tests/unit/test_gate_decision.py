"""The decision: deterministic, pure, and nothing that stands against a version is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_kit import asserting, evidence, manifest, moment, policy, setting

from explain_step.canonical import canonical_json
from explain_step.errors import InvalidInput
from explain_step.gate import DEFAULT, RULES, BreakGlassUse, Request, Rule, decide
from explain_step.types import Finding

CAP: dict[str, Any] = {"assertions": [{"features": "*", "max_share": 0.5}]}
WAIVER = {
    "rules": "GATE031",
    "registered_model": "mortgage",
    "version": 3,
    "owner": "dee",
    "reason": "known",
    "expires": (moment() + timedelta(days=1)).date().isoformat(),
}


def waived(**changes: Any) -> Any:
    return policy(**CAP, waivers=[{**WAIVER, **changes}])


def use(**changes: Any) -> BreakGlassUse:
    facts = {"owner": "dee", "reason": "outage", "expires": moment() + timedelta(hours=1)}
    return BreakGlassUse(**{**facts, **changes})


def test_a_decision_is_deterministic_and_plain_json() -> None:
    asked = waived()
    first, second = decide(evidence(), asked), decide(evidence(), asked)
    assert first == second
    assert canonical_json(first.record()) == canonical_json(second.record())
    record = json.loads(json.dumps(first.record(), allow_nan=False))
    assert record["policy_digest"] == asked.digest
    assert record["outcome"] == "allow"
    assert record["summary"] == "1 finding is waived, every other rule holds"


def test_no_rule_depends_on_the_request() -> None:
    bare = decide(evidence(), policy(**CAP))
    asked = decide(
        evidence(),
        policy(**CAP),
        request=Request(action="alias", target="champion", by="x", authenticated=True),
    )
    assert asked.findings == bare.findings
    assert asked.outcome == bare.outcome == "refuse"
    assert (str(asked.request), str(bare.request)) == ("alias 'champion'", "check")


def test_outcomes_in_order() -> None:
    refused, undecided = (
        decide(evidence(), policy(**CAP)),
        decide(evidence(unreadable=("the store",)), DEFAULT),
    )
    assert refused.summary.startswith("GATE031 `debt` has 64.2% [")
    assert undecided.outcome == "undecided"
    assert "the store" in undecided.summary
    assert decide(evidence(unreadable=("the store",)), policy(**CAP)).outcome == "refuse"
    assert "(and 1 more)" in decide(evidence(unreadable=("the store",)), policy(**CAP)).summary
    nothing = decide(evidence(), DEFAULT, rules=())
    assert nothing.outcome == "refuse"
    assert nothing.summary == "no rule has anything to judge"


def test_evidence_needs_a_time_with_a_zone() -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        evidence(now=datetime(2026, 1, 1))


def test_a_waiver_covers_its_rule_and_version_until_its_day_ends() -> None:
    decision = decide(evidence(), waived())
    assert decision.allowed
    (finding,) = [f for f in decision.findings if "waived" in f.evidence]
    assert (finding.code, finding.verdict) == ("GATE031", "fail")
    assert finding.evidence["waived"] == {"owner": "dee", "reason": "known", "expires": WAIVER["expires"]}
    assert "is used" in next(f.message for f in decision.findings if f.code == "GATE090")
    for change in ({"version": "4"}, {"registered_model": "mort"}, {"rules": "GATE032"}):
        other = decide(evidence(), waived(**change))
        assert other.outcome == "refuse"
        assert not [f for f in other.findings if "waived" in f.evidence]
    day = datetime.fromisoformat(f"{WAIVER['expires']}T23:59:59+00:00")
    assert decide(evidence(now=day), waived()).allowed
    assert decide(evidence(now=day + timedelta(seconds=2)), waived()).outcome == "refuse"


def test_a_waiver_that_is_past_or_not_needed_is_still_seen() -> None:
    past = decide(evidence(), waived(expires="2020-01-01"))
    assert past.outcome == "refuse"
    (line,) = [f for f in past.findings if f.code == "GATE090"]
    assert line.verdict == "not_applicable"
    assert "has expired" in line.message
    idle = decide(evidence(), policy(waivers=[WAIVER]))
    assert idle.summary == "every rule holds"
    (line,) = [f for f in idle.findings if f.code == "GATE090"]
    assert "is not needed" in line.message
    assert line.evidence["owner"] == "dee"


def test_a_waiver_that_ends_too_far_ahead_changes_nothing() -> None:
    for expires, days, allowed in (
        ("9999-12-31", 366, False),
        ((moment() + timedelta(days=367)).date().isoformat(), 366, False),
        ((moment() + timedelta(days=366)).date().isoformat(), 366, True),
        ((moment() + timedelta(days=31)).date().isoformat(), 30, False),
        ((moment() + timedelta(days=2000)).date().isoformat(), 3660, True),
    ):
        asked = waived(expires=expires).model_copy(update={"max_waiver_days": days})
        decision = decide(evidence(), asked)
        assert decision.allowed is allowed, expires
        (line,) = [f for f in decision.findings if f.code == "GATE090"]
        assert (f"ends more than {days} days ahead (max_waiver_days)" in line.message) is not allowed


def test_an_undecided_finding_can_be_waived_and_integrity_cannot() -> None:
    wide = setting("importance", {"feature": "debt"}, {"share_ci_low": 0.3, "share_ci_high": 0.7})
    assert decide(wide, waived()).allowed
    assert decide(wide, policy(**CAP)).outcome == "undecided"
    smuggled = waived().model_copy(
        update={"waivers": (waived().waivers[0].model_copy(update={"rules": ("GATE004", "GATE031")}),)}
    )
    refused = decide(evidence(model_digest=None), smuggled)
    assert refused.outcome == "refuse"
    assert "waived" not in refused.blocking[0].evidence  # nor does a record say so


def test_a_finding_cannot_bring_its_own_waiver() -> None:
    def check(evidence: Any, policy: Any) -> Any:
        yield Finding(code="OWN001", verdict="fail", message="no", evidence={"waived": {"owner": "me"}})

    rule = Rule(code="OWN001", title="own", check=check)
    decision = decide(evidence(), DEFAULT, rules=(*RULES, rule))
    assert decision.outcome == "refuse"
    assert decision.blocking[0].evidence == {}


def test_break_glass_is_recorded_also_where_it_is_not_needed() -> None:
    allowed = {"break_glass": {"allowed": True, "owners": ["Dee"], "max_hours": 2}}
    broken = decide(evidence(model_digest=None), policy(**allowed), break_glass=use())
    assert broken.allowed
    assert [f.code for f in broken.blocking] == ["GATE004"]
    assert broken.summary.startswith("break-glass by dee (outage) against GATE004")
    assert broken.record()["break_glass"]["owner"] == "dee"
    idle = decide(evidence(), policy(**allowed), break_glass=use())
    assert idle.record()["break_glass"]["reason"] == "outage"
    assert "every rule holds without it" in idle.summary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"owner": "eve"}, "not to 'eve'"),
        ({"owner": " "}, "owner and a reason"),
        ({"reason": ""}, "owner and a reason"),
        ({"expires": moment() - timedelta(minutes=1)}, "expired"),
        ({"expires": moment() + timedelta(hours=3)}, "within 2 hours"),
        ({"expires": moment().replace(tzinfo=None)}, "time zone"),
    ],
)
def test_break_glass_that_the_policy_does_not_permit(change: dict[str, Any], words: str) -> None:
    asked = policy(break_glass={"allowed": True, "owners": ["dee"], "max_hours": 2})
    with pytest.raises(InvalidInput, match=words):
        decide(evidence(), asked, break_glass=use(**change))
    with pytest.raises(InvalidInput, match="not permitted"):
        decide(evidence(), DEFAULT, break_glass=use(**change))


def test_break_glass_may_last_as_long_as_the_policy_says_and_ends_at_its_end() -> None:
    asked = policy(break_glass={"allowed": True, "max_hours": 2})
    assert decide(evidence(), asked, break_glass=use(expires=moment() + timedelta(hours=2))).allowed
    with pytest.raises(InvalidInput, match="expired"):
        decide(evidence(), asked, break_glass=use(expires=moment()))


VERDICTS = st.sampled_from(["pass", "fail", "undecided", "not_applicable"])


def _rules(verdicts: list[Any]) -> tuple[Rule, ...]:
    def of(verdict: Any) -> Any:
        return lambda e, p: [Finding(code="GATE031", verdict=verdict, message="-")]

    return tuple(Rule(code="GATE031", title="-", check=of(v)) for v in verdicts)


@settings(deadline=None)
@given(st.lists(VERDICTS, max_size=6), st.sampled_from(["fail", "undecided"]), st.booleans())
def test_one_more_finding_against_never_turns_a_refusal_into_an_allow(
    verdicts: list[Any], more: Any, with_waiver: bool
) -> None:
    asked = waived(version="9") if with_waiver else DEFAULT
    before = decide(evidence(), asked, rules=_rules(verdicts))
    after = decide(evidence(), asked, rules=_rules([*verdicts, more]))
    assert not after.allowed
    assert before.allowed == (not {"fail", "undecided"} & set(verdicts) and "pass" in verdicts)
    if before.outcome == "refuse" and "fail" in verdicts:
        assert after.outcome == "refuse"


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["status", "sections", "quantity", "model", "created_at", "data", "tables", "scores"]
        ),
        st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
        min_size=1,
        max_size=4,
    )
)
def test_no_strange_manifest_raises_or_is_allowed_by_what_it_lacks(changes: dict[str, Any]) -> None:
    asked = policy(
        assertions=[
            {"features": "*", "max_share": 0.9, "max_total_share": 1, "direction": "increasing"},
            {"features": "debt", "monotone": "increasing"},
            {"features": "group", "levels": {"a": "positive"}},
        ],
        drift={"max_share_change": 0.5},
        segments={"required": "group", "max_performance_gap": 1, "max_importance_gap": 9},
    )
    decision = decide(evidence(manifest=manifest(**changes)), asked)
    canonical_json(decision.record())
    if set(changes) & {"status", "sections", "quantity", "model", "created_at"}:
        assert not decision.allowed


def test_inputs_are_not_changed() -> None:
    given_evidence = evidence()
    before = {name: table.copy() for name, table in given_evidence.tables.items()}
    everything = policy(
        **CAP,
        scores=[{"name": "masking_r2", "min": 0}],
        segments={"max_importance_gap": 1, "required": "group"},
    )
    decide(replace(given_evidence), everything)
    decide(given_evidence, asserting(features="group", levels={"a": "positive"}))
    for name, table in before.items():
        assert table.equals(given_evidence.tables[name])
