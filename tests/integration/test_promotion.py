"""Promotion against a real store: decide, log, move, look again, move back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from promotion_kit import EXPLAINED, NAME, OTHER, UNEXPLAINED, Mortgage, made_fixture, mortgage_fixture  # noqa: F401
from tracking_kit import tree

import explain_step
from explain_step import digests, hashes
from explain_step.errors import ExplainStepError, InvalidInput, SnapshotError
from explain_step.tracking import decision_log, registry
from explain_step.tracking.evidence import gather
from explain_step.tracking.fetch import newest
from explain_step.tracking.place import open_place

Hook = Callable[[], None]


def promote(mortgage: Mortgage, uri: str = EXPLAINED, alias: str = "champion", **given: Any) -> Any:
    return explain_step.promote(uri, alias, tracking_uri=mortgage.uri, **given)


def log_of(mortgage: Mortgage, uri: str = EXPLAINED) -> decision_log.DecisionLog:
    return decision_log.decisions_of(uri, tracking_uri=mortgage.uri)


def events(mortgage: Mortgage, uri: str = EXPLAINED) -> list[tuple[str, str]]:
    found = log_of(mortgage, uri)
    assert found.breaks == ()
    return [(e.record["event"], e.record["outcome"]) for e in found.entries]


def after_the_move(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Let something happen right after the first move of an alias; everything else stays real."""
    move = registry.move_alias
    done: list[bool] = []

    def moved(*args: Any, **kwargs: Any) -> None:
        move(*args, **kwargs)
        if not done:
            done.append(True)
            hook()

    monkeypatch.setattr(registry, "move_alias", moved)


# --- what is decided, and what moves


def test_an_unexplained_version_is_refused_and_logged(mortgage: Mortgage) -> None:
    decision = promote(mortgage, UNEXPLAINED)
    assert decision.outcome == "refuse"
    assert "GATE002" in decision.summary
    assert "not explained" in decision.summary
    assert mortgage.alias() is None
    assert events(mortgage, UNEXPLAINED) == [("decision", "refuse")]


def test_an_explained_version_is_promoted_and_the_log_says_who_and_by_what(mortgage: Mortgage) -> None:
    decision = promote(mortgage)
    assert decision.allowed
    assert mortgage.alias() == "1"
    (entry,) = log_of(mortgage).entries
    record = entry.record
    assert record["by"] == "ann"
    assert record["alias_before"] is None
    assert record["request"] == {"action": "alias", "target": "champion", "by": "ann", "authenticated": False}
    assert record["policy_digest"] == decision.policy_digest
    assert record["manifest_sha256"] == decision.manifest_sha256
    assert {f["code"] for f in record["findings"]} >= {"GATE001", "GATE005"}
    assert json.loads(mortgage.tags()["explain_step.decision"])["sha256"] == entry.sha256


def test_the_log_changes_neither_digest_nor_evidence(mortgage: Mortgage) -> None:
    before = digests.directory_digest(mortgage.model)
    place = open_place(mortgage.model.as_uri(), tracking_uri=mortgage.uri)
    snapshot = newest(place, hint=None)
    for alias in ("champion", "second"):
        assert promote(mortgage, alias=alias).allowed
    explain_step.review(EXPLAINED, decision="approve", note="fine", tracking_uri=mortgage.uri)
    assert len(list(mortgage.decisions.iterdir())) == 3
    assert digests.directory_digest(mortgage.model) == before
    assert newest(place, hint=None) == newest(place, hint="decisions") == snapshot
    assert explain_step.gate(EXPLAINED, tracking_uri=mortgage.uri).allowed
    assert explain_step.verify(EXPLAINED, tracking_uri=mortgage.uri)[0].verdict == "pass"


def test_an_alias_names_the_version_that_is_judged(mortgage: Mortgage) -> None:
    promote(mortgage, alias="challenger")
    decision = promote(mortgage, f"models:/{NAME}@challenger")
    assert (decision.version, mortgage.alias()) == ("1", "1")


def test_dry_run_writes_nothing(mortgage: Mortgage, tmp_path: Path) -> None:
    before = (tree(mortgage.model), (tmp_path / "mlflow.db").read_bytes())
    assert promote(mortgage, dry_run=True, approval_tag="approval").allowed
    assert not promote(mortgage, UNEXPLAINED, dry_run=True, approval_tag="approval").allowed
    review = {"decision": "approve", "note": "fine", "dry_run": True, "tracking_uri": mortgage.uri}
    assert explain_step.review(EXPLAINED, **review).reviewer == "ann"
    assert mortgage.alias() is None
    assert (tree(mortgage.model), (tmp_path / "mlflow.db").read_bytes()) == before


def test_gate_writes_nothing_but_the_approval_tag(mortgage: Mortgage) -> None:
    before = tree(mortgage.model)
    assert explain_step.gate(EXPLAINED, approval_tag="Approval_Check", tracking_uri=mortgage.uri).allowed
    assert not explain_step.gate(
        UNEXPLAINED, approval_tag="Approval_Check", tracking_uri=mortgage.uri
    ).allowed
    assert mortgage.tags("1")["Approval_Check"] == "approved"
    assert mortgage.tags("2")["Approval_Check"] == "rejected"
    assert tree(mortgage.model) == before
    with pytest.raises(InvalidInput, match="approval_tag"):
        explain_step.gate(EXPLAINED, approval_tag="explain_step.status", tracking_uri=mortgage.uri)


def test_without_a_log_nothing_moves(mortgage: Mortgage) -> None:
    mortgage.decisions.write_text("a file where the folder should be")
    with pytest.raises(ExplainStepError, match=r"could not be logged, so alias 'champion' was not moved"):
        promote(mortgage)
    assert mortgage.alias() is None
    assert "explain_step.decision" not in mortgage.tags()


def test_a_refusal_stands_without_a_log(mortgage: Mortgage, caplog: pytest.LogCaptureFixture) -> None:
    (mortgage.unexplained / "explanations").write_text("a file where the folder should be")
    assert promote(mortgage, UNEXPLAINED).outcome in ("refuse", "undecided")
    assert "could not be written to the decision log" in caplog.text


def test_a_champion_without_evidence_leaves_the_drift_undecided(mortgage: Mortgage) -> None:
    mortgage.client.set_registered_model_alias(NAME, "champion", "2")
    asked = {"version": 1, "drift": {"max_share_change": 0.5}}
    decision = explain_step.gate(EXPLAINED, asked, tracking_uri=mortgage.uri)
    (finding,) = [f for f in decision.findings if f.code == "GATE050"]
    assert (decision.outcome, finding.verdict) == ("undecided", "undecided")
    assert (
        "version 2 (champion) cannot be compared: there is no finished explanation snapshot"
        in finding.message
    )


# --- the second look


def test_changed_model_files_move_the_alias_back(mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(mortgage, OTHER)
    after_the_move(monkeypatch, lambda: (mortgage.model / "MLmodel").write_text("flavors: {}"))
    decision = promote(mortgage)
    assert decision.outcome == "refuse"
    assert decision.findings[0].code == "PROMOTE002"
    assert "other model files" in decision.summary
    assert "points to version 3 again" in decision.summary
    assert mortgage.alias() == "3"
    assert events(mortgage)[-2:] == [("decision", "allow"), ("reverted", "refuse")]


def test_an_alias_that_was_there_before_is_left_where_it_was(
    mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(mortgage)
    after_the_move(monkeypatch, lambda: (mortgage.model / "MLmodel").write_text("flavors: {}"))
    decision = promote(mortgage)
    assert decision.outcome == "refuse"
    assert "the alias pointed to this version before, and was left" in decision.summary
    assert mortgage.alias() == "1"


def test_lost_evidence_removes_an_alias_that_was_not_there(
    mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        for folder in (mortgage.model / "explanations").iterdir():
            if (folder / "manifest.json").exists():
                shutil.rmtree(folder)

    after_the_move(monkeypatch, lose)
    decision = promote(mortgage, alias="live")
    assert not decision.allowed
    assert "points to no version again" in decision.summary
    assert mortgage.alias("live") is None


def test_a_second_look_that_fails_moves_the_alias_back(
    mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(mortgage, OTHER)
    after_the_move(
        monkeypatch, lambda: monkeypatch.setattr(client_class(), "get_model_version", _interrupted)
    )
    with pytest.raises(KeyboardInterrupt):
        promote(mortgage)
    monkeypatch.undo()
    assert mortgage.alias() == "3"


def client_class() -> type:
    return mlflow.MlflowClient


def _interrupted(*args: Any, **kwargs: Any) -> Any:
    raise KeyboardInterrupt


def test_somebody_elses_alias_is_left(mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs() -> None:
        mortgage.client.set_registered_model_alias(NAME, "champion", "2")
        (mortgage.model / "MLmodel").write_text("flavors: {}")

    after_the_move(monkeypatch, theirs)
    decision = promote(mortgage)
    assert "somebody else let the alias point to version 2" in decision.summary
    assert mortgage.alias() == "2"


def test_a_promotion_that_was_overtaken_is_not_called_done(
    mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_move(monkeypatch, lambda: mortgage.client.set_registered_model_alias(NAME, "champion", "3"))
    decision = promote(mortgage)
    assert (decision.outcome, decision.findings[0].code) == ("undecided", "PROMOTE003")
    assert mortgage.alias() == "3"
    assert events(mortgage) == [("decision", "allow"), ("overtaken", "undecided")]


# --- break-glass and waivers


GLASS = {"version": 1, "break_glass": {"allowed": True, "owners": ["ann"], "max_hours": 4}}


def test_break_glass_is_logged_also_where_it_was_not_needed(mortgage: Mortgage) -> None:
    use = {"owner": "ann", "reason": "outage", "expires": datetime.now(UTC) + timedelta(hours=1)}
    for uri in (UNEXPLAINED, EXPLAINED):
        assert promote(mortgage, uri, policy=GLASS, break_glass=use).allowed
        record = log_of(mortgage, uri).entries[-1].record
        assert record["break_glass"]["owner"] == "ann"
        assert record["break_glass"]["reason"] == "outage"
    assert "explain_step.break_glass" not in mortgage.tags("1") | mortgage.tags("2")
    assert mortgage.alias() == "1"


@pytest.mark.parametrize(
    ("policy", "changed", "message"),
    [
        (None, {}, "not permitted"),
        (GLASS, {"owner": "bob"}, "permitted to ann"),
        (GLASS, {"reason": " "}, "reason"),
        (GLASS, {"expires": "2020-01-01T00:00Z"}, "expired"),
        (GLASS, {"expires": "2999-01-01"}, "within 4 hours"),
        (GLASS, {"expires": "soon"}, "ISO 8601"),
        (GLASS, {"because": "x"}, "must have owner, reason and expires"),
    ],
)
def test_break_glass_that_is_not_permitted(
    mortgage: Mortgage, policy: Any, changed: dict[str, str], message: str
) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    use = {"owner": "ann", "reason": "outage", "expires": soon, **changed}
    with pytest.raises(InvalidInput, match=message):
        promote(mortgage, UNEXPLAINED, policy=policy, break_glass=use)
    assert mortgage.alias() is None
    tried = [entry.record for entry in log_of(mortgage, UNEXPLAINED).entries]
    if set(changed) <= {"owner", "reason"} or changed.get("expires", "")[:2] in ("20", "29"):
        (record,) = tried  # whoever tries is on record
        assert (record["event"], record["break_glass"]["owner"]) == ("break_glass_refused", use["owner"])
        assert message in record["reason"]
    else:
        assert tried == []  # it was no use of break-glass at all


def test_a_waived_finding_is_allowed_and_in_the_log(mortgage: Mortgage) -> None:
    policy = {"version": 1, "require": {"min_rows": 1_000}}
    refused = promote(mortgage, policy=policy)
    assert refused.outcome == "refuse"
    (finding,) = refused.blocking
    waiver = {
        "rules": [finding.code],
        "registered_model": NAME,
        "version": 1,
        "owner": "ann",
        "reason": "small",
    }
    ends = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    policy["waivers"] = [{**waiver, "expires": ends}]
    assert promote(mortgage, policy=policy).allowed
    found = log_of(mortgage).entries[-1].record["findings"]
    (waived,) = [f for f in found if "waived" in f["evidence"]]
    assert (waived["code"], waived["evidence"]["waived"]["owner"]) == (finding.code, "ann")


# --- wrong use


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/mortgage/99", "names no registered version"),
        ("models:/nobody/1", "names no registered version"),
        ("models:/mortgage@nobody", "names no registered version"),
        ("models:/mortgage/latest", "must be models:/name/3"),
        ("models:/mortgage", "number of the version or an alias"),
        ("models:/m-0123456789abcdef0123456789abcdef", "register_model"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "register_model"),
        ("mortgage/1", "must be models:/name/3"),
    ],
)
def test_what_is_not_a_registered_version(mortgage: Mortgage, uri: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        promote(mortgage, uri)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        explain_step.gate(uri, tracking_uri=mortgage.uri)


@pytest.mark.parametrize("alias", ["", "a b", "latest", "LATEST", "v12", "x" * 256, "../x"])
def test_aliases_that_mlflow_refuses(mortgage: Mortgage, alias: str) -> None:
    with pytest.raises(InvalidInput, match="Argument alias"):
        promote(mortgage, alias=alias)
    assert not mortgage.decisions.exists()


def test_no_global_uri_is_set(mortgage: Mortgage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    promote(mortgage)
    assert mlflow.get_tracking_uri() == before


# --- reviews


def review(mortgage: Mortgage, uri: str = EXPLAINED, **given: Any) -> Any:
    return explain_step.review(
        uri, **{"decision": "approve", "note": "fine", "tracking_uri": mortgage.uri, **given}
    )


def test_a_review_is_bound_to_the_snapshot_and_read_as_evidence(mortgage: Mortgage) -> None:
    given = review(mortgage, note="segments looked at \u2014 \u00fcber")
    review(mortgage, reviewer="Bob", decision="reject")
    evidence = gather(NAME, "1", client=mortgage.client)
    assert {(r.reviewer, r.decision) for r in evidence.reviews} == {("ann", "approve"), ("Bob", "reject")}
    assert given in evidence.reviews
    assert given.manifest_sha256 == evidence.manifest_sha256
    assert given.snapshot_id == evidence.snapshot_id
    assert not given.authenticated


def test_one_reviewer_has_one_current_review_and_the_log_keeps_both(mortgage: Mortgage) -> None:
    review(mortgage, reviewer="Bob", decision="reject", note="no")
    review(mortgage, reviewer="BOB", note="fixed")
    (current,) = gather(NAME, "1", client=mortgage.client).reviews
    assert (current.decision, current.note) == ("approve", "fixed")
    assert [e.record["review"]["decision"] for e in log_of(mortgage).entries] == ["reject", "approve"]


def test_the_longest_note_that_is_taken_fits_an_old_store(mortgage: Mortgage) -> None:
    review(mortgage, note="n" * 4_500)
    (tag,) = [v for k, v in mortgage.tags().items() if k.startswith("explain_step.review.ann-")]
    assert len(tag) <= 5_000
    with pytest.raises(InvalidInput, match=r"shorten it by about \d+"):
        review(mortgage, note="n" * 5_000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decision": "maybe"}, "'approve' or 'reject'"),
        ({"note": " "}, "note must not be empty"),
        ({"reviewer": ""}, "reviewer must not be empty"),
    ],
)
def test_reviews_that_are_not_taken(mortgage: Mortgage, given: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        review(mortgage, **given)


def test_only_a_snapshot_that_verifies_can_be_reviewed(mortgage: Mortgage) -> None:
    with pytest.raises(SnapshotError, match="cannot be reviewed: there is no finished explanation"):
        review(mortgage, UNEXPLAINED)
    page = next((mortgage.model / "explanations").glob("*/report.html"))
    page.write_text(page.read_text() + "<!-- changed -->")
    with pytest.raises(SnapshotError, match=r"does not verify: .*report\.html"):
        review(mortgage)
    assert not [k for k in mortgage.tags() if k.startswith("explain_step.review.")]


# --- the log


@pytest.fixture
def four(mortgage: Mortgage) -> list[Path]:
    for alias in ("a", "b", "c", "d"):
        promote(mortgage, alias=alias)
    return sorted(mortgage.decisions.iterdir())


def test_an_intact_log_has_no_breaks(mortgage: Mortgage, four: list[Path]) -> None:
    found = log_of(mortgage)
    assert found.breaks == ()
    assert [e.file for e in found.entries] == [p.name for p in four]
    assert [e.record["number"] for e in found.entries] == [1, 2, 3, 4]
    assert [e.record["request"]["target"] for e in found.entries] == ["a", "b", "c", "d"]


def test_breaks_are_named(mortgage: Mortgage, four: list[Path]) -> None:
    text = four[1].read_text()
    four[1].write_text(text.replace('"b"', '"x"'))
    assert any(f"{four[1].name} was changed" in b for b in log_of(mortgage).breaks)
    four[1].unlink()
    assert any(f"{four[1].name} is missing" in b for b in log_of(mortgage).breaks)
    four[1].write_text(text)
    assert log_of(mortgage).breaks == ()
    (mortgage.decisions / "note.txt").write_text("x")
    assert log_of(mortgage).breaks == ("note.txt is not a record",)


def test_a_missing_end_is_told_by_the_tag(mortgage: Mortgage, four: list[Path]) -> None:
    four[3].unlink()
    (told,) = log_of(mortgage).breaks
    assert "is missing: the version's tag points to it" in told


def test_a_log_that_is_cut_at_both_ends_is_told(mortgage: Mortgage, four: list[Path]) -> None:
    four[0].unlink()
    assert any(f"{four[0].name} is missing" in b for b in log_of(mortgage).breaks)


def test_records_of_two_writers_and_of_a_slow_clock_stay_in_order(mortgage: Mortgage) -> None:
    place = open_place(mortgage.model.as_uri(), tracking_uri=mortgage.uri)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = decision_log.append(place, {"event": "one"}, now=now)
    late = decision_log.append(place, {"event": "two"}, now=now - timedelta(days=1))
    assert late.file > first.file
    assert decision_log.decisions(place).breaks == ()
    fork = json.loads((mortgage.decisions / late.file).read_text()) | {"event": "two, elsewhere"}
    body = decision_log._bytes(fork)
    digest = hashes.sha256_bytes(body)[:12]
    (mortgage.decisions / f"20260101T000000.000009Z-{digest}.json").write_bytes(body)
    third = decision_log.append(place, {"event": "three"}, now=now)
    found = decision_log.decisions(place)
    assert [e.record["event"] for e in found.entries] == ["one", "two", "two, elsewhere", "three"]
    (told,) = found.breaks
    assert "both were written at the same time" in told
    assert third.record["number"] == 4
    (mortgage.decisions / late.file).unlink()
    assert any("only 2 records are before it" in b for b in decision_log.decisions(place).breaks)


def test_records_are_strict_json(mortgage: Mortgage) -> None:
    place = open_place(mortgage.model.as_uri(), tracking_uri=mortgage.uri)
    entry = decision_log.append(
        place, {"event": "x", "by": "a\ud800\x1b[31m", "n": float("nan")}, now=datetime.now(UTC)
    )
    text = (mortgage.decisions / entry.file).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["n"] is None
    (mortgage.decisions / entry.file).write_text(text.replace("null", "NaN", 1))
    assert any("holds no JSON object" in b for b in decision_log.decisions(place).breaks)


@pytest.mark.parametrize("text", ["", "x", "[]", '{"path": 1}'])
def test_a_head_that_is_none(mortgage: Mortgage, text: str) -> None:
    mortgage.client.set_model_version_tag(NAME, "1", "explain_step.decision", text)
    with pytest.raises(InvalidInput, match="must name path and sha256"):
        log_of(mortgage)


def test_the_log_of_a_version_without_a_logged_model_is_with_its_run(
    mortgage: Mortgage, tmp_path: Path
) -> None:
    run = mortgage.client.create_run(mortgage.client.get_experiment_by_name("tests").experiment_id)
    (tmp_path / "MLmodel").write_text("flavors: {}")
    mortgage.client.log_artifact(run.info.run_id, str(tmp_path / "MLmodel"), "model")
    source = f"{run.info.artifact_uri}/model"
    version = mortgage.client.create_model_version(NAME, source, run_id=run.info.run_id).version
    uri = f"models:/{NAME}/{version}"
    assert promote(mortgage, uri).outcome == "refuse"
    assert events(mortgage, uri) == [("decision", "refuse")]
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    assert len(list((root / "explanations" / "decisions").iterdir())) == 1


# --- names


def test_gate_is_the_function_whatever_is_imported_first() -> None:
    text = (
        "import sys, explain_step\n"
        "assert not {'pandas', 'numpy', 'mlflow', 'pydantic'} & set(sys.modules)\n"
        "from explain_step.gate import decide\n"
        "import explain_step.gate.rules\n"
        "from explain_step import gate\n"
        "import importlib\n"
        "package = importlib.import_module('explain_step.gate')\n"
        "assert package.decide is decide and package.rules.RULES\n"
        "assert gate is explain_step.gate and gate.__module__ == 'explain_step.promotion'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", text], check=True)
