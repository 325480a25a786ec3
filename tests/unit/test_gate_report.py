"""A decision as a table and as JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from rules_kit import evidence, manifest, moment, policy
from test_gate_decision import use, waived

from explain_step.gate import DEFAULT, RULES, Rule, decide, junit, table
from explain_step.types import Finding

NASTY = "\x1b[2J<b a=\"'&]]>\x00\u202e\ud800\ufffe line\nbreak"


def test_the_table_has_what_stands_against_the_version_first() -> None:
    decision = decide(evidence(model_digest="0" * 64, unreadable=("the store",)), DEFAULT)
    rows = table(decision)
    assert len(rows) == len(decision.findings)
    assert [(r.code, r.verdict) for r in rows[:2]] == [("GATE001", "undecided"), ("GATE004", "fail")]
    assert rows[1].title == "The stored model is the explained one"
    code, title, verdict, message = rows[1]
    assert (code, title, verdict, message) == (rows[1].code, rows[1].title, rows[1].verdict, rows[1].message)


def test_waived_findings_say_by_whom() -> None:
    row = next(r for r in table(decide(evidence(), waived())) if r.verdict == "waived")
    assert row.code == "GATE031"
    assert "(waived by dee until" in row.message
    assert row.message.endswith(": known)")


def test_nothing_in_the_table_moves_a_cursor() -> None:
    broken = manifest(status=NASTY, reason=NASTY)
    for row in table(decide(evidence(manifest=broken, name=NASTY, unreadable=(NASTY,)), DEFAULT)):
        assert row.message.isprintable()


def test_junit_counts_and_names_every_finding() -> None:
    decision = decide(evidence(unreadable=("the store",)), waived(rules=["GATE031", "GATE032"]))
    suite = ET.fromstring(junit(decision).encode())
    cases = suite.findall("testcase")
    assert suite.tag == "testsuite"
    assert int(suite.get("tests", "")) == len(cases) == len(decision.findings)
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(key, "")) == len(suite.findall(f"testcase/{tag}"))
    assert suite.get("errors") == "1"
    assert suite.get("failures") == "0"
    waived_case = next(c for c in cases if (c.get("name") or "").startswith("GATE031"))
    skipped = waived_case.find("skipped")
    assert skipped is not None
    assert "waived by dee" in (skipped.get("message") or "")
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}[
        "policy_digest"
    ] == decision.policy_digest
    assert junit(decision) == junit(decision)


def test_junit_of_a_refusal_fails() -> None:
    suite = ET.fromstring(junit(decide(evidence(model_digest=None), DEFAULT)).encode())
    assert [c.get("name") for c in suite if c.find("failure") is not None] == [
        "GATE004 The stored model is the explained one"
    ]
    assert "the model's files are not there" in ET.tostring(suite, encoding="unicode")


def test_junit_holds_any_text_as_text() -> None:
    def check(evidence: object, policy: object) -> list[Finding]:
        return [Finding(code="OWN001", verdict="fail", message=NASTY)]

    rules = (*RULES, Rule(code="OWN001", title=NASTY, check=check))
    given = evidence(name=NASTY, manifest=manifest(status=NASTY))
    text = junit(decide(given, DEFAULT, rules=rules), rules=rules)
    suite = ET.fromstring(text.encode("utf-8"))
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert "<b" in "".join(f.get("message") or "" for f in suite.iter("failure"))


def test_junit_names_break_glass() -> None:
    asked = policy(break_glass={"allowed": True})
    suite = ET.fromstring(junit(decide(evidence(model_digest=None), asked, break_glass=use())).encode())
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["outcome"] == "allow"
    assert (properties["break_glass"] or "").startswith("dee until ")
    assert moment().isoformat()[:10] in (properties["break_glass"] or "")
    assert suite.get("failures") == "1"


@pytest.mark.parametrize("rules", [(), RULES[:2]])
def test_fewer_rules_give_shorter_reports(rules: tuple[Rule, ...]) -> None:
    decision = decide(evidence(), DEFAULT, rules=rules)
    assert len(table(decision)) == len(rules)
    assert ET.fromstring(junit(decision)).get("tests") == str(len(rules))
