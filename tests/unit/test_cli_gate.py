"""The commands gate, promote and review: text, JSON, JUnit, exit codes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest
from promotion_kit import EXPLAINED, UNEXPLAINED, Mortgage, made_fixture, mortgage_fixture  # noqa: F401

from explain_step import cli, cli_gate
from explain_step.gate.decision import GateDecision
from explain_step.gate.evidence import Request
from explain_step.gate.report import table
from explain_step.tracking.decision_log import decisions_of
from explain_step.types import Finding

POLICY = "version: 1\nname: house\nrequire: {min_rows: 1000}\n"
GLASS = "version: 1\nbreak_glass: {allowed: true, max_hours: 8}\n"


@pytest.fixture
def run(mortgage: Mortgage, capsys: pytest.CaptureFixture[str]) -> Any:
    def _run(*arguments: object) -> tuple[int, str, str]:
        code = cli.invoke([*(str(a) for a in arguments), "--tracking-uri", mortgage.uri])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def decision(*findings: Finding, **given: Any) -> GateDecision:
    facts: dict[str, Any] = {
        "outcome": "refuse",
        "name": "mortgage",
        "version": "3",
        "request": Request(action="alias", target="champion", by="ann"),
        "findings": findings,
        "policy_name": "house",
        "policy_digest": "0" * 64,
        "snapshot_id": None,
        "manifest_sha256": None,
        "model_digest": None,
        "decided_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return GateDecision(**{**facts, **given})


def finding(code: str, verdict: Any = "fail", message: str = "no", **evidence: Any) -> Finding:
    return Finding(code=code, verdict=verdict, message=message, evidence=evidence)


def page(found: GateDecision) -> str:
    return cli_gate._page(found, table(found))


# --- exit codes


def test_yes_no_and_what_to_do_next(run: Any) -> None:
    code, out, err = run("gate", EXPLAINED)
    assert (code, err) == (0, "")
    assert out.startswith("allowed  models:/mortgage/1, policy 'built-in default'")
    code, out, _ = run("gate", UNEXPLAINED)
    assert code == 1
    assert out.startswith("refused  models:/mortgage/2")
    assert re.search(r"GATE002 +fail", out)
    assert "explain-step run models:/mortgage/2" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gate", "models:/mortgage/99"), "names no registered version"),
        (("gate", "models:/mortgage"), "models:/name/3 or models:/name@alias"),
        (("gate", EXPLAINED, "--policy", "/no/such/file"), "does not exist"),
        (("promote", EXPLAINED), "Missing option '--alias'"),
        (("promote", EXPLAINED, "--alias", "latest"), "must not be 'latest'"),
        (("promote", EXPLAINED, "--alias", "a", "--owner", "ann"), "belong to --break-glass"),
        (
            ("promote", EXPLAINED, "--alias", "a", "--break-glass", "--owner", "ann"),
            "needs --reason, --expires",
        ),
        (
            (
                "promote",
                EXPLAINED,
                "--alias=a",
                "--break-glass",
                "--owner=a",
                "--reason=r",
                "--expires=9999999999h",
            ),
            "must be a time that there is",
        ),
        (("review", EXPLAINED, "--note", "x"), "either --approve or --reject"),
        (("review", EXPLAINED, "--note", "x", "--approve", "--reject"), "either --approve or --reject"),
        (("review", EXPLAINED, "--approve"), "Missing option '--note'"),
        (("review", EXPLAINED, "--approve", "--note", " "), "must not be empty"),
    ],
)
def test_wrong_use_is_two(run: Any, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("text", ["version: 2\n", "version: 1\nalias: x\n", "a: [", "- 1\n"])
def test_a_bad_policy_is_two(run: Any, policy: Path, text: str) -> None:
    policy.write_text(text)
    assert run("gate", EXPLAINED, "--policy", policy)[0] == 2


def test_a_server_that_does_not_answer_is_three(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert cli.invoke(["gate", EXPLAINED, "--json", "--tracking-uri", "http://127.0.0.1:9"]) == 3
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3


def test_evidence_that_cannot_be_read_is_three(mortgage: Mortgage, run: Any) -> None:
    (mortgage.model / "link").symlink_to("/etc/hostname")
    code, out, _ = run("gate", EXPLAINED)
    assert code == 3
    assert out.startswith("undecided")
    assert "try again when the tracking server" in " ".join(out.split())


def test_a_log_that_cannot_be_written_is_four(mortgage: Mortgage, run: Any) -> None:
    mortgage.decisions.write_text("a file where the folder should be")
    code, _, err = run("promote", EXPLAINED, "--alias", "champion")
    assert code == 4
    assert "was not moved" in err
    assert mortgage.alias() is None


# --- what is written


def test_promote_moves_and_a_refusal_does_not(mortgage: Mortgage, run: Any, policy: Path) -> None:
    code, out, _ = run("promote", EXPLAINED, "--alias", "champion", "--policy", policy)
    assert (code, mortgage.alias()) == (1, None)
    assert out.rstrip().endswith("alias 'champion' was not moved")
    code, out, _ = run("promote", EXPLAINED, "--alias", "champion", "--by", "ci")
    assert (code, mortgage.alias()) == (0, "1")
    assert out.rstrip().endswith("alias 'champion' points to version 1 of mortgage")
    records = [e.record for e in decisions_of(EXPLAINED, tracking_uri=mortgage.uri).entries]
    assert [(r["by"], r["outcome"]) for r in records] == [("ann", "refuse"), ("ci", "allow")]


def test_dry_runs_say_so(mortgage: Mortgage, run: Any) -> None:
    promoted = run("promote", EXPLAINED, "--alias", "champion", "--dry-run")
    refused = run("promote", UNEXPLAINED, "--alias", "champion", "--dry-run")
    reviewed = run("review", EXPLAINED, "--approve", "--note", "fine", "--dry-run")
    assert [promoted[0], refused[0], reviewed[0]] == [0, 1, 0]
    assert "dry run: alias 'champion' would point to version 1" in promoted[1]
    assert "dry run: alias 'champion' would not move" in refused[1]
    assert "dry run: nothing was written" in reviewed[1]
    assert mortgage.alias() is None
    assert not mortgage.decisions.exists()


def test_json_and_junit_say_the_same(run: Any, policy: Path, tmp_path: Path) -> None:
    report = tmp_path / "reports" / "gate.xml"
    code, out, _ = run("gate", EXPLAINED, "--policy", policy, "--json", "--junit", report)
    facts = json.loads(out, parse_constant=pytest.fail)
    assert (code, facts["exit_code"], facts["outcome"], facts["allowed"]) == (1, 1, "refuse", False)
    assert facts["policy_name"] == "house"
    suite = ET.parse(report).getroot()
    assert int(suite.attrib["failures"]) == sum(f["verdict"] == "fail" for f in facts["findings"]) == 1


def test_the_approval_tag_of_a_deployment_job(mortgage: Mortgage, run: Any, policy: Path) -> None:
    run("gate", EXPLAINED, "--policy", policy, "--approval-tag", "Approval_Check")
    assert mortgage.tags()["Approval_Check"] == "rejected"
    run("promote", EXPLAINED, "--alias", "champion", "--approval-tag", "Approval_Check")
    assert mortgage.tags()["Approval_Check"] == "approved"
    assert run("gate", EXPLAINED, "--approval-tag", "explain_step.status")[0] == 2


@pytest.mark.parametrize("expires", ["2h", "30m", "0.2d"])
def test_break_glass_for_a_while(mortgage: Mortgage, run: Any, policy: Path, expires: str) -> None:
    policy.write_text(GLASS)
    glass = ("--break-glass", "--owner", "ann", "--reason", "outage", "--expires", expires)
    code, out, _ = run("promote", UNEXPLAINED, "--alias", "champion", "--policy", policy, *glass)
    assert (code, mortgage.alias()) == (0, "2")
    assert "break-glass by ann (outage) against GATE" in out
    (entry,) = decisions_of(UNEXPLAINED, tracking_uri=mortgage.uri).entries
    assert entry.record["break_glass"]["reason"] == "outage"


def test_a_review_is_shown_and_kept(mortgage: Mortgage, run: Any) -> None:
    code, out, _ = run("review", EXPLAINED, "--reject", "--note", "leak\x1b[2J?", "--reviewer", "Bob")
    assert code == 0
    assert out.startswith("rejected  models:/mortgage/1")
    assert "\x1b" not in out
    code, out, _ = run("gate", EXPLAINED, "--json")
    (rejected,) = [f for f in json.loads(out)["findings"] if f["code"] == "GATE062"]
    assert (code, rejected["verdict"]) == (1, "fail")
    code, out, _ = run("review", EXPLAINED, "--approve", "--note", "fixed", "--reviewer", "bob", "--json")
    facts = json.loads(out)
    assert (code, facts["decision"], facts["dry_run"]) == (0, "approve", False)
    assert run("gate", EXPLAINED)[0] == 0


def test_nothing_to_review_is_one(run: Any) -> None:
    code, _, err = run("review", UNEXPLAINED, "--approve", "--note", "fine")
    assert code == 1
    assert "cannot be reviewed" in err


# --- the page


def test_what_blocks_comes_first_and_what_does_not_apply_is_one_line() -> None:
    found = decision(
        finding("GATE001", "pass", "all read"),
        finding("GATE031", "undecided", "income has 59%", ci_low=0.55),
        finding("GATE030", "undecided", "`Race`"),
        finding("GATE040", "not_applicable"),
        finding("GATE041", "not_applicable"),
        outcome="undecided",
    )
    lines = click.unstyle(page(found)).splitlines()
    assert lines[0] == "undecided  models:/mortgage/3 for alias 'champion', policy 'house'"
    assert lines[2].startswith("GATE031  undecided  No feature has too large a share: income has 59%")
    assert lines[3].startswith("GATE030  undecided  ")
    assert lines[4].startswith("GATE001  pass       ")
    assert lines[5] == "2 rules do not apply: GATE040, GATE041"
    steps = " ".join(" ".join(lines[6:]).split())
    assert steps.startswith("next: GATE031 is undecided: explain more held-out rows")
    assert "next: GATE030 is undecided: no interval decides it; its message says what is missing" in steps


def test_the_next_step_is_one_that_helps() -> None:
    found = decision(
        finding("GATE013", "fail", "too old"),
        finding("GATE040", "fail", "no segment `nope`", segment="nope"),
        finding("GATE041", "fail", "a gap", value=0.4),
        outcome="refuse",
    )
    text = " ".join(click.unstyle(page(found)).split())
    assert "next: GATE013: explain the version again: explain-step run models:/mortgage/3" in text
    assert "next: GATE040: correct the name in the policy, or explain the version with what it names" in text
    assert "next: GATE041: change the model, or let its owner waive the rule" in text


def test_a_waived_finding_names_the_waiver() -> None:
    waived = {"owner": "ann", "reason": "small data", "expires": "2026-12-31"}
    found = decision(finding("GATE031", waived=waived), outcome="allow")
    text = " ".join(click.unstyle(page(found)).split())
    assert "GATE031 waived" in text
    assert "waived by ann until 2026-12-31: small data" in text


def test_colours_follow_the_verdict() -> None:
    text = page(decision(finding("GATE031"), finding("GATE001", "pass")))
    assert f"\x1b[31m{'fail':<9}\x1b[0m" in text
    assert f"\x1b[32m{'pass':<9}\x1b[0m" in text


@pytest.mark.parametrize("columns", [30, 44, 80, 200])
def test_every_width_wraps(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    long = finding("GATE031", message="the share of a feature is far above what the policy allows " * 3)
    shown = click.unstyle(page(decision(long, finding("GATE001", "pass"))))
    body = shown.splitlines()[1:]
    assert max(len(line) for line in body) <= columns
    assert "far above" in " ".join(shown.split())


def test_hostile_names_cannot_steer_the_terminal() -> None:
    evil = "x\x1b[2J\x1b]0;owned\x07\u202e\r\n"
    found = decision(finding("GATE031", message=evil), name=evil, policy_name=evil)
    found = replace(found, request=Request(action="alias", target=evil, by=evil))
    text = click.unstyle(page(found)) + cli_gate._outcome(found, alias=evil, dry_run=False)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", text)
    assert [line for line in text.splitlines() if line.startswith("owned")] == []


def test_what_happened_to_the_alias_is_the_last_line() -> None:
    found = decision(
        finding("PROMOTE002", message="the evidence changed; the alias points to version 1 again")
    )
    assert cli_gate._outcome(found, alias="champion", dry_run=False).endswith("version 1 again")
