"""A decision for people and for CI: rows of a table, and JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

from explain_step.gate.decision import WAIVER, GateDecision
from explain_step.gate.rules import RULES, Rule
from explain_step.types import Finding

SUITE = "explain-step gate"


class Row(NamedTuple):
    """One finding: ``verdict`` is the rule's, or ``waived``."""

    code: str
    title: str
    verdict: str
    message: str


def table(decision: GateDecision, *, rules: Sequence[Rule] = RULES) -> list[Row]:
    """Return one row per finding, what stands against the version first; nothing in it moves a cursor."""
    titles = {rule.code: rule.title for rule in rules} | {WAIVER: "Waivers"}
    against = set(map(id, decision.blocking))
    ordered = sorted(decision.findings, key=lambda f: id(f) not in against)
    return [
        Row(
            code=f.code,
            title=titles.get(f.code, ""),
            verdict=_verdict(f, blocks=id(f) in against),
            message=_printable(_message(f)),
        )
        for f in ordered
    ]


def _verdict(finding: Finding, *, blocks: bool) -> str:
    return "waived" if "waived" in finding.evidence and not blocks else finding.verdict


def _message(finding: Finding) -> str:
    waived = finding.evidence.get("waived")
    if waived is None:
        return finding.message
    return f"{finding.message} (waived by {waived['owner']} until {waived['expires']}: {waived['reason']})"


def junit(decision: GateDecision, *, rules: Sequence[Rule] = RULES) -> str:
    """Return the decision as JUnit XML: one test case per finding.

    ``failure``: the rule fails. ``error``: it is undecided. ``skipped``: it does not apply, or it is waived;
    the message says which. With break-glass the findings stay what they are, and a property names who.
    """
    rows = table(decision, rules=rules)
    kinds = [_kind(row.verdict) for row in rows]
    suite = ET.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(rows)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        timestamp=decision.decided_at.isoformat(timespec="seconds"),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(decision).items():
        ET.SubElement(properties, "property", name=name, value=_xml(value))
    for row, kind in zip(rows, kinds, strict=True):
        case = ET.SubElement(
            suite, "testcase", classname=_xml(f"{decision.name}.{decision.version}"), name=_name(row)
        )
        if kind is not None:
            ET.SubElement(case, kind, message=_xml(row.message), type=row.verdict)
    ET.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suite, encoding="unicode")}\n'


def _name(row: Row) -> str:
    return _xml(f"{row.code} {row.title}".strip())


def _kind(verdict: str) -> str | None:
    kinds = {"fail": "failure", "undecided": "error", "not_applicable": "skipped", "waived": "skipped"}
    return kinds.get(verdict)


def _properties(decision: GateDecision) -> dict[str, str]:
    facts = {
        "outcome": decision.outcome,
        "summary": decision.summary,
        "model": f"models:/{decision.name}/{decision.version}",
        "snapshot_id": decision.snapshot_id or "",
        "policy": decision.policy_name,
        "policy_digest": decision.policy_digest,
    }
    if decision.break_glass is not None:
        use = decision.break_glass
        facts["break_glass"] = f"{use.owner} until {use.expires.isoformat()}: {use.reason}"
    return facts


def _printable(text: str) -> str:
    """Return text on one line without control characters, direction marks or lone surrogates."""
    return "".join(c if c.isprintable() else " " for c in text)


def _xml(text: str) -> str:
    """Return text without what XML 1.0 cannot hold; what it must escape is escaped when it is written."""
    return "".join(c for c in _printable(text) if c not in "\ufffe\uffff")
