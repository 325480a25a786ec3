"""Every rule of the gate can pass and can fail; each is held against evidence that is changed in one place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rules_kit import (
    asserting,
    balanced,
    champion,
    evidence,
    findings,
    manifest,
    moment,
    policy,
    quantity,
    review,
    setting,
    verdicts,
    with_table,
    without,
)

from explain_step.canonical import canonical_json
from explain_step.gate import DEFAULT, INTEGRITY, RULES, Evidence, Policy, Rule, SignatureFound, decide
from explain_step.types import Finding

BROKEN = Finding(code="VER007", verdict="fail", message="tables/x has other bytes", evidence={"message": "m"})
SHARE = {"features": "*", "max_share": 0.7}
KEY = SignatureFound(key_id="k1", valid=True)
SIGNED = policy(require={"signature": {"required": True, "keys": ["k1"]}})
DRIFT = policy(drift={"max_share_change": 0.1})


def _moved(share: float) -> Evidence:
    tables = dict(evidence().tables)
    table = tables["importance"].copy()
    debt = table["feature"] == "debt"
    table.loc[debt, ["share", "share_ci_low", "share_ci_high"]] = [share, share - 0.01, share + 0.01]
    table = balanced(table, debt.to_numpy())
    return evidence(champion=champion(tables={**tables, "importance": table}))


# code: (passes, its policy, fails, its policy)
CASES: dict[str, tuple[Any, Policy, Any, Policy | None]] = {
    "GATE001": (evidence, DEFAULT, None, None),  # cannot fail: what cannot be read is undecided
    "GATE002": (evidence, DEFAULT, lambda: evidence(absent="there is none", manifest={}), DEFAULT),
    "GATE003": (evidence, DEFAULT, lambda: evidence(verification=(BROKEN,)), DEFAULT),
    "GATE004": (evidence, DEFAULT, lambda: evidence(model_digest="0" * 64), DEFAULT),
    "GATE005": (evidence, DEFAULT, lambda: evidence(model_id="m-2"), DEFAULT),
    "GATE006": (evidence, DEFAULT, lambda: evidence(registry_sha256="0" * 64), DEFAULT),
    "GATE010": (evidence, DEFAULT, lambda: evidence(manifest=manifest(status="incomplete")), DEFAULT),
    "GATE011": (evidence, DEFAULT, lambda: without("dependence"), DEFAULT),
    "GATE012": (
        evidence,
        DEFAULT,
        lambda: evidence(manifest=manifest(model={**manifest()["model"], "binding": "declared"})),
        DEFAULT,
    ),
    "GATE013": (evidence, DEFAULT, evidence, policy(require={"max_age_days": 0.01})),
    "GATE014": (evidence, DEFAULT, evidence, policy(require={"min_rows": 10_000})),
    "GATE015": (
        evidence,
        policy(require={"exact": True}),
        lambda: evidence(manifest=quantity(exact=False)),
        policy(require={"exact": True}),
    ),
    "GATE016": (
        evidence,
        DEFAULT,
        lambda: evidence(manifest=quantity(feature_perturbation="correlation_dependent")),
        DEFAULT,
    ),
    "GATE020": (
        evidence,
        policy(scores=[{"name": "masking_r2", "min": 0.9}]),
        evidence,
        policy(scores=[{"name": "sparsity_gini", "max": 0.5}]),
    ),
    "GATE021": (
        evidence,
        policy(performance=[{"name": "roc_auc", "min": 0.7}]),
        evidence,
        policy(performance=[{"name": "roc_auc", "max": 0.7}]),
    ),
    "GATE030": (
        evidence,
        asserting(features="leak", forbidden=True),
        evidence,
        asserting(features="debt", forbidden=True),
    ),
    "GATE031": (evidence, asserting(**SHARE), evidence, asserting(features="*", max_share=0.5)),
    "GATE032": (
        evidence,
        asserting(features=["group", "age"], max_total_share=0.05),
        evidence,
        asserting(features=["debt", "income"], max_total_share=0.9),
    ),
    "GATE033": (
        evidence,
        asserting(features="debt", direction="increasing"),
        evidence,
        asserting(features="debt", direction="decreasing"),
    ),
    "GATE034": (
        evidence,
        asserting(features="debt", monotone="increasing"),
        evidence,
        asserting(features="income", monotone="increasing"),
    ),
    "GATE035": (
        evidence,
        asserting(features="group", levels={"a": "positive", "b": "negative"}),
        evidence,
        asserting(features="group", levels={"a": "negative"}),
    ),
    "GATE040": (
        evidence,
        policy(segments={"required": "group"}),
        evidence,
        policy(segments={"required": "grup"}),
    ),
    "GATE041": (
        evidence,
        policy(segments={"max_performance_gap": 0.2}),
        lambda: setting(
            "segments",
            {"level": "a"},
            {
                "metric_difference": -0.3,
                "metric_difference_ci_low": -0.35,
                "metric_difference_ci_high": -0.25,
            },
        ),
        policy(segments={"max_performance_gap": 0.2}),
    ),
    "GATE042": (
        evidence,
        policy(segments={"max_importance_gap": 2.0}),
        lambda: setting(
            "segments",
            {"level": "a", "feature": "debt"},
            {"difference": 9.0, "difference_ci_low": 8.0, "difference_ci_high": 10.0},
        ),
        policy(segments={"max_importance_gap": 2.0}),
    ),
    "GATE043": (
        evidence,
        policy(segments={"max_rate_gap": {"selection_rate": 0.3}}),
        lambda: setting(
            "segment_rates",
            {"level": "(gap)", "rate": "selection_rate"},
            {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6},
        ),
        policy(segments={"max_rate_gap": {"selection_rate": 0.3}}),
    ),
    "GATE050": (lambda: evidence(champion=champion()), DRIFT, lambda: _moved(0.2), DRIFT),
    "GATE060": (lambda: evidence(signatures=(KEY,)), SIGNED, evidence, SIGNED),
    "GATE061": (
        lambda: evidence(reviews=(review("bea"),)),
        policy(reviews={"approvals": 1}),
        evidence,
        policy(reviews={"approvals": 1}),
    ),
    "GATE062": (
        lambda: evidence(reviews=(review("bea"),)),
        DEFAULT,
        lambda: evidence(reviews=(review("bea", "reject"),)),
        DEFAULT,
    ),
}


def test_the_rules_have_unique_increasing_codes_and_every_rule_of_a_module_is_registered() -> None:
    codes = [rule.code for rule in RULES]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"GATE\d{3}", code) for code in codes)
    folder = Path(import_module("explain_step.gate.rules").__file__ or "").parent
    there: list[Rule] = []
    for path in sorted(folder.glob("*.py")):
        module = import_module(f"explain_step.gate.rules.{path.stem}")
        for value in vars(module).values():
            values = value if isinstance(value, tuple) else (value,)
            there += [v for v in values if isinstance(v, Rule)]
    assert {id(rule) for rule in there} == {id(rule) for rule in RULES}
    assert {"GATE001", "GATE002", "GATE003", "GATE004", "GATE005"} <= INTEGRITY
    assert set(CASES) == set(codes)


@pytest.mark.parametrize("code", sorted(CASES))
def test_every_rule_can_pass_and_can_fail(code: str) -> None:
    good, asked, bad, asked_too = CASES[code]
    assert verdicts(code, good(), asked) == {"pass"}
    if asked_too is not None:
        assert "fail" in verdicts(code, bad(), asked_too)
    else:
        assert verdicts(code, evidence(unreadable=("the store",)), asked) == {"undecided"}


@pytest.mark.parametrize("code", sorted(CASES))
def test_every_finding_is_strict_json_and_speaks(code: str) -> None:
    good, asked, bad, asked_too = CASES[code]
    given = [(good(), asked)] + ([] if bad is None else [(bad(), asked_too)])
    for found in (f for e, p in given for f in findings(code, e, p)):
        assert found.code == code
        assert len(found.message) > 15
        canonical_json(dict(found.evidence))
        assert "nan" not in found.message.lower().split()


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": {}, "verification": ()},
        {"verification": ()},
        {"manifest": {}},
        {"manifest_sha256": None},
        {"absent": "it is gone"},
        {"verification": (Finding(code="VER000", verdict="not_applicable", message="-"),)},
        {"verification": (Finding(code="VER000", verdict="undecided", message="-"),)},
    ],
)
def test_a_snapshot_that_was_not_verified_is_refused(change: dict[str, Any]) -> None:
    decision = decide(evidence(**change), DEFAULT)
    assert decision.outcome == "refuse"
    assert {f.code for f in decision.blocking} <= {"GATE002", "GATE003", "GATE006"}
    assert "None" not in decision.summary


def test_nothing_is_said_of_a_snapshot_that_is_gone_or_was_not_verified() -> None:
    for change in ({"absent": "it is gone"}, {"verification": ()}, {"verification": (BROKEN,)}):
        rest = [f for f in decide(evidence(**change), DEFAULT).findings if f.code > "GATE003"]
        assert {f.verdict for f in rest} == {"not_applicable"}, change


def test_what_could_not_be_read_leaves_open_whether_there_is_a_snapshot() -> None:
    given = evidence(unreadable=("the store",), manifest={}, manifest_sha256=None, verification=(), tables={})
    decision = decide(given, DEFAULT)
    assert decision.outcome == "undecided"
    assert [f.code for f in decision.blocking] == ["GATE001"]


def test_every_rule_speaks_also_where_the_policy_asks_nothing_of_it() -> None:
    asked = policy(require={"sections": []})
    for given in (evidence(), evidence(manifest={}, verification=(), tables={})):
        assert [f.code for f in decide(given, asked).findings] == [rule.code for rule in RULES]


def test_default_evidence_passes_the_default_policy() -> None:
    decision = decide(evidence(), DEFAULT)
    assert decision.outcome == "allow", decision.summary
    assert decision.summary == "every rule holds"


@pytest.mark.parametrize(
    "change",
    [{"status": s} for s in ("pending", "failed", "incomplete", "waived", "Complete", "", None, ["complete"])]
    + [
        {"created_at": t}
        for t in ("yesterday", "", None, 5, "2020-01-01T00:00:00", "9999-12-31T00:00:00+00:00")
    ]
    + [{"sections": {}}, {"sections": []}, {"quantity": {}}, {"model": {}}]
    + [{"quantity": {"rows": r, "exact": True, "outputs": ["yes"]}} for r in (True, 1, "500", None, 500.0)],
)
def test_a_strange_manifest_is_refused(change: dict[str, Any]) -> None:
    assert decide(evidence(manifest=manifest(**change)), DEFAULT).outcome == "refuse"


@pytest.mark.parametrize("table", ["importance", "dependence", "segments", "examples"])
def test_a_section_needs_its_table_with_rows_and_numbers(table: str) -> None:
    number = {"importance": "mean_abs_shap", "dependence": "value", "segments": "n", "examples": "shap"}[
        table
    ]
    ways = [
        without(table),
        with_table(table, lambda t: t.iloc[:0]),
        with_table(table, lambda t: t.assign(**{number: float("nan")})),
        with_table(table, lambda t: t.drop(columns=number)),
        with_table(table, lambda t: t.assign(**{number: "much"})),
    ]
    for given in ways:
        assert decide(given, DEFAULT).outcome == "refuse"
        assert verdicts("GATE011", given, DEFAULT) == {"fail"}
    if column := {"importance": "feature", "segments": "segment"}.get(table):  # what its numbers are of
        unnamed = with_table(table, lambda t: t.drop(columns=column))
        assert verdicts("GATE011", unnamed, DEFAULT) == {"fail"}
    other = [s for s in ("importance", "examples") if s != table]
    assert verdicts("GATE011", ways[0], policy(require={"sections": other})) == {"pass"}


def test_segments_need_a_group_of_rows_beside_all_rows() -> None:
    whole = with_table("segments", lambda t: t[t["segment"] == "(all rows)"])
    hidden = with_table("segments", lambda t: t.assign(n=t["n"].where(t["segment"] == "(all rows)")))
    empty = with_table("segments", lambda t: t.assign(n=t["n"].where(t["segment"] == "(all rows)", 0)))
    for given in (whole, hidden, empty):
        (said,) = findings("GATE011", given, DEFAULT)
        assert said.verdict == "fail"
        assert "segments is not there: the table `segments` shows no group of rows" in said.message


def test_a_missing_section_says_the_manifests_reason() -> None:
    sections = {
        **manifest()["sections"],
        "examples": {"state": "missing", "reason": "no labels", "tables": []},
    }
    found = findings("GATE011", evidence(manifest=manifest(sections=sections)), DEFAULT)
    assert [f.verdict for f in found] == ["fail"]
    assert "examples is not there: no labels" in found[0].message


def test_importance_must_cover_every_input_and_output() -> None:
    found = findings("GATE011", without("importance", feature="age"), DEFAULT)
    assert found[0].verdict == "fail"
    assert "`age`" in found[0].message
    two = quantity(outputs=["yes", "maybe"])
    assert verdicts("GATE011", evidence(manifest=two), DEFAULT) == {"fail"}


def test_a_declared_binding_passes_only_where_the_policy_accepts_it() -> None:
    declared = {**manifest()["model"], "binding": "declared", "binding_note": "pickled"}
    lenient = policy(require={"binding": "declared"})
    assert verdicts("GATE012", evidence(manifest=manifest(model=declared)), lenient) == {"pass"}
    assert verdicts("GATE012", evidence(), lenient) == {"pass"}
    odd = {**declared, "binding": "checked"}
    assert verdicts("GATE012", evidence(manifest=manifest(model=odd)), lenient) == {"fail"}


def test_a_snapshot_that_names_no_stored_model_is_of_no_version() -> None:
    unbound = manifest(model={**manifest()["model"], "digest": None})
    for stored in (evidence().model_digest, None):
        (finding,) = findings("GATE004", evidence(manifest=unbound, model_digest=stored), DEFAULT)
        assert finding.verdict == "fail"
        assert "made without MLflow" in finding.message


def test_an_accepted_status_says_its_reason() -> None:
    given = evidence(manifest=manifest(status="degraded", reason="there are no labels"))
    (finding,) = findings("GATE010", given, DEFAULT)
    assert (finding.verdict, finding.message) == ("pass", "the snapshot is degraded: there are no labels")


def test_age_counts_from_the_snapshot_to_now() -> None:
    asked = policy(require={"max_age_days": 30})
    assert verdicts("GATE013", evidence(now=moment() + timedelta(days=29)), asked) == {"pass"}
    assert verdicts("GATE013", evidence(now=moment() + timedelta(days=31)), asked) == {"fail"}
    assert verdicts("GATE013", evidence(now=moment() - timedelta(hours=1, minutes=4)), asked) == {"pass"}
    assert verdicts("GATE013", evidence(now=moment() - timedelta(hours=2)), asked) == {"fail"}


def test_no_rule_depends_on_the_registrys_tag_where_it_is_absent() -> None:
    given = evidence(registry_sha256=None)
    assert verdicts("GATE006", given, DEFAULT) == {"not_applicable"}
    assert decide(given, DEFAULT).allowed


def test_evidence_of_verification_is_kept_whatever_its_keys() -> None:
    found = findings("GATE003", evidence(verification=(BROKEN,)), DEFAULT)
    assert json.dumps(dict(found[0].evidence)) == '{"found": {"message": "m"}}'


def test_a_model_without_logged_model_is_held_to_its_run() -> None:
    given = evidence(model_id=None)
    assert verdicts("GATE005", given, DEFAULT) == {"pass"}
    assert verdicts("GATE005", replace(given, run_id="r-2"), DEFAULT) == {"fail"}
    assert verdicts("GATE005", replace(given, run_id=None), DEFAULT) == {"fail"}


def test_what_does_not_verify_is_named_also_where_the_manifest_was_not_taken() -> None:
    """As evidence is gathered: of a snapshot that does not verify nothing else is kept."""
    given = evidence(verification=(BROKEN,), manifest={}, manifest_sha256=None, tables={})
    (finding,) = findings("GATE003", given, DEFAULT)
    assert finding.verdict == "fail"
    assert f"{BROKEN.code} {BROKEN.message}" in finding.message
