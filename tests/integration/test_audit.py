"""The audit tells what the evidence shows, whatever the tags say and whoever changed what."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from audit_kit import POLICY, explain, sql, train
from snapshot_kit import frame, subject
from tracking_kit import Store, current_store, fitted, log

import explain_step
from explain_step.errors import InvalidInput
from explain_step.gate import INTEGRITY, RULES
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.chain import Previous
from explain_step.snapshot.manifest import dump, seal


def audited(store: Store, **settings: Any) -> pd.DataFrame:
    return explain_step.audit(tracking_uri=store.uri, policy=settings.pop("policy", POLICY), **settings)


def one(found: pd.DataFrame, kind: str, name: str | None = None) -> pd.Series:
    rows = found[found["kind"].eq(kind) & (found["name"].eq(name) if name else True)]
    assert len(rows) == 1, rows.to_string()
    return rows.iloc[0]


# --- what is explained, and what has nothing to explain


def test_an_explained_run_model_version_and_alias_pass(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    assert explain_step.promote("models:/mortgage/1", "Champion", policy=POLICY).allowed
    found = audited(active_store)
    for kind in ("run", "model", "version", "alias"):
        row = one(found, kind)
        assert (row["status"], row["tag_status"] or "degraded", row["verdict"]) == (
            "degraded",
            "degraded",
            "pass",
        )
        assert row["snapshot_id"] == made.snapshot.name
    assert one(found, "run")["verified"] == "manifest"
    assert one(found, "version")["verified"] == "bytes"  # it is behind a protected alias
    assert one(found, "alias")["name"] == "models:/mortgage@Champion"
    assert set(found["codes"]) == {""}


def test_the_tag_is_not_the_truth(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage", explained=False)
    active_store.client.set_tag(made.run_id, "explain_step.status", "complete")
    active_store.client.set_logged_model_tags(made.model_id, {"explain_step.status": "complete"})
    active_store.client.set_model_version_tag("mortgage", "1", "explain_step.status", "complete")
    found = audited(active_store)
    for kind, code in (("run", "AUD001"), ("model", "AUD002"), ("version", "AUD003")):
        row = one(found, kind)
        assert (row["status"], row["tag_status"], row["verdict"]) == ("incomplete", "complete", "fail")
        assert row["codes"] == f"{code} AUD010"
        assert "the tag says 'complete', the evidence says 'incomplete'" in row["problem"]


def test_sweeps_do_not_drown_the_list(active_store: Store, tmp_path: Path) -> None:
    with mlflow.start_run() as parent:
        for _ in range(2):
            with mlflow.start_run(nested=True):
                mlflow.log_metric("loss", 0.5)
        with mlflow.start_run(nested=True):
            log(fitted(C=0.1))
        log(fitted())
        explain(tmp_path, run_id=parent.info.run_id)
    with mlflow.start_run():
        mlflow.log_param("rows", 10)
    found = audited(active_store)
    assert one(found[found["status"] == "degraded"], "run")["name"] == parent.info.run_id
    nested = found[found["kind"] == "nested run"]
    assert list(nested["status"]) == ["not_applicable"] * 3
    assert sorted(found[found["kind"] == "model"]["status"]) == ["degraded", "not_applicable"]
    assert set(found["verdict"]) == {"pass", "not_applicable"}


def test_a_nested_run_with_a_model_counts_where_its_parent_is_not_explained(
    active_store: Store, tmp_path: Path
) -> None:
    with mlflow.start_run(), mlflow.start_run(nested=True):
        log(fitted())
    found = audited(active_store)
    assert one(found, "nested run")["codes"] == "AUD001"
    assert one(found, "run")["status"] == "not_applicable"


def test_a_run_that_promised_an_explanation_is_incomplete_without_a_model(active_store: Store) -> None:
    with mlflow.start_run(tags={"explain_step.status": "pending"}):
        pass
    run = active_store.client.create_run(active_store.experiment_id, tags={"explain_step.status": "pending"})
    found = audited(active_store)
    ended = one(found[found["run_status"] == "FINISHED"], "run")
    running = one(found, "run", run.info.run_id)
    assert (ended["codes"], ended["reason"]) == ("AUD001", "the run ended (FINISHED) without an explanation")
    assert (running["codes"], running["status"]) == ("AUD001", "incomplete")
    assert "still at work, or killed" in running["reason"]


def test_a_failed_step_keeps_its_reason_and_deleted_runs_are_left_out(
    active_store: Store, tmp_path: Path
) -> None:
    failed = train(active_store, tmp_path, explained=False)
    active_store.client.set_tag(failed.run_id, "explain_step.status", "failed")
    active_store.client.set_tag(failed.run_id, "explain_step.reason", "no rows")
    gone = train(active_store, tmp_path, explained=False)
    active_store.client.delete_run(gone.run_id)
    found = audited(active_store)
    run = one(found, "run")
    assert (run["name"], run["status"], run["reason"]) == (failed.run_id, "failed", "no rows")
    orphan = one(found, "model", gone.uri)
    assert (orphan["status"], orphan["reason"]) == ("not_applicable", "its run was deleted")


def test_a_run_that_explains_a_model_of_another_run(active_store: Store, tmp_path: Path) -> None:
    from snapshot_kit import parts

    from explain_step.snapshot import ModelRef, write
    from explain_step.tracking import model_digest, resolve, upload

    made = train(active_store, tmp_path, explained=False)
    with mlflow.start_run() as later:
        target = resolve(model_uri=made.uri)
        ref = ModelRef(
            model_class="Repeater",
            run_id=target.run_id,
            model_id=made.model_id,
            digest=model_digest(target),
        )
        upload(write(tmp_path / "w", parts=parts(model=ref)), target)
    found = audited(active_store)
    assert one(found, "run", later.info.run_id)["status"] == "degraded"
    assert one(found, "run", made.run_id)["status"] == "degraded"  # its model is explained
    other = active_store.client.create_run(
        active_store.experiment_id,
        tags={
            "explain_step.status": "complete",
            "explain_step.evidence": f"{made.uri}/explanations/x",
        },
    )
    claim = one(audited(active_store), "run", other.info.run_id)  # names evidence that was made for another
    assert claim["codes"] == "AUD001 AUD010"


# --- behind the gate's back


def test_an_alias_that_was_moved_in_the_database_is_found(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage")
    train(active_store, tmp_path, registered="mortgage", explained=False)
    assert explain_step.promote("models:/mortgage/1", "champion", policy=POLICY).allowed
    assert one(audited(active_store, registered_models="mortgage"), "alias")["verdict"] == "pass"
    sql(active_store, "update registered_model_aliases set version = 2 where name = 'mortgage'")
    found = audited(active_store, registered_models="mortgage")
    alias = one(found, "alias")
    assert (alias["codes"], alias["verdict"], alias["version"]) == ("AUD004 AUD016", "fail", "2")
    assert "GATE002" in alias["problem"]
    assert one(found, "version", "models:/mortgage/2")["codes"] == "AUD003"


@pytest.mark.parametrize("alias", ["CHAMPION", "chámpion"])
def test_protected_names_are_folded(active_store: Store, tmp_path: Path, alias: str) -> None:
    train(active_store, tmp_path, registered="mortgage", explained=False)
    active_store.client.set_registered_model_alias("mortgage", "x", "1")
    sql(active_store, "update registered_model_aliases set alias = ?", alias)
    assert one(audited(active_store), "alias")["codes"] == "AUD004 AUD016"


def test_an_explained_version_that_nobody_decided_on_is_found(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage")
    active_store.client.set_registered_model_alias("mortgage", "champion", "1")
    alias = one(audited(active_store, registered_models="mortgage"), "alias")
    assert (alias["status"], alias["codes"], alias["verdict"]) == ("degraded", "AUD016", "fail")
    assert "without a recorded decision" in alias["problem"]
    refused = explain_step.promote(
        "models:/mortgage/1", "champion", policy={**POLICY, "require": {"min_rows": 10**6}}
    )
    assert not refused.allowed
    assert one(audited(active_store), "alias")["codes"] == "AUD016"  # a refusal is no decision for it
    assert explain_step.promote("models:/mortgage/1", "live", policy=POLICY).allowed
    assert (
        one(audited(active_store), "alias", "models:/mortgage@champion")["codes"] == "AUD016"
    )  # nor one on "live"
    assert explain_step.promote("models:/mortgage/1", "Champion", policy=POLICY).allowed
    assert one(audited(active_store), "alias", "models:/mortgage@champion")["codes"] == ""


def test_an_alias_that_went_back_without_a_decision_is_found(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage")
    train(active_store, tmp_path, registered="mortgage", C=0.5)
    for version in ("1", "2"):
        assert explain_step.promote(f"models:/mortgage/{version}", "champion", policy=POLICY).allowed
    assert one(audited(active_store), "alias")["codes"] == ""
    sql(active_store, "update registered_model_aliases set version = 1 where name = 'mortgage'")
    alias = one(audited(active_store), "alias")
    assert (alias["codes"], alias["version"]) == ("AUD016", "1")
    assert "is for version 2" in alias["problem"]
    assert explain_step.promote("models:/mortgage/1", "champion", policy=POLICY).allowed
    assert one(audited(active_store), "alias")["codes"] == ""


def test_an_alias_by_break_glass_says_whose_word_it_was(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage", explained=False)
    policy = {**POLICY, "break_glass": {"allowed": True}}
    ends = datetime.now(UTC) + timedelta(hours=1)
    use = {"owner": "ann", "reason": "outage 17", "expires": ends.isoformat()}
    assert explain_step.promote("models:/mortgage/1", "champion", policy=policy, break_glass=use).allowed
    alias = one(audited(active_store), "alias")
    assert (alias["codes"], alias["verdict"]) == ("AUD004", "fail")
    assert "promoted by break-glass of ann" in alias["problem"]
    assert f"(outage 17), which expires at {ends.isoformat()}" in alias["problem"]
    later = one(audited(active_store, now=ends + timedelta(minutes=1)), "alias")
    assert f"which expired at {ends.isoformat()}" in later["problem"]
    explain(tmp_path, run_id=active_store.client.get_model_version("mortgage", "1").run_id)
    assert one(audited(active_store), "alias")["codes"] == ""  # the rules hold now


def test_stages_and_protected_registered_models(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="prod.mortgage", explained=False)
    sql(active_store, "update model_versions set current_stage = 'Production'")
    policy = {**POLICY, "protected": {"registered_models": ["PROD.*"]}}
    found = audited(active_store, policy=policy)
    assert one(found, "stage")["codes"] == "AUD005"
    assert one(found, "stage")["name"] == "models:/prod.mortgage/Production"
    assert one(found, "registered model")["codes"] == "AUD006"


def test_one_version_tagged_as_a_prompt_does_not_hide_the_others(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage", explained=False)
    train(active_store, tmp_path, registered="mortgage", explained=False)
    active_store.client.set_registered_model_alias("mortgage", "champion", "2")
    active_store.client.set_model_version_tag("mortgage", "1", "mlflow.prompt.is_prompt", "true")
    active_store.client.set_registered_model_tag("mortgage", "mlflow.prompt.is_prompt", "true")
    found = audited(active_store)
    assert one(found, "alias")["codes"] == "AUD004 AUD016"
    assert set(found[found["kind"] == "version"]["version"]) == {"1", "2"}


def test_prompts_are_not_models(active_store: Store) -> None:
    active_store.client.register_prompt("greeting", "Hello {{name}}")
    active_store.client.set_prompt_alias("greeting", "champion", 1)
    assert audited(active_store).empty


# --- changed evidence, changed models


def test_changed_bytes_are_found(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    card = made.snapshot / "card.md"
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("Snapshot", "snapshot"), encoding="utf-8")  # same size: only its bytes tell
    assert one(audited(active_store), "model")["verdict"] == "pass"
    found = audited(active_store, full=True)
    for kind in ("run", "model", "version"):
        assert one(found, kind)["codes"].split() == ["AUD007", "AUD010"], kind
    assert "card.md" in one(found, "model")["problem"]
    active_store.client.set_registered_model_alias("mortgage", "champion", "1")
    quick = audited(active_store)  # a protected version is always verified in full
    assert one(quick, "alias")["codes"] == "AUD004 AUD016"
    assert "AUD007" in one(quick, "version")["codes"]


@pytest.mark.parametrize("how", ["shorter", "gone", "manifest"])
def test_a_quick_audit_finds_what_it_says(active_store: Store, tmp_path: Path, how: str) -> None:
    made = train(active_store, tmp_path)
    if how == "shorter":
        (made.snapshot / "card.md").write_text("x", encoding="utf-8")
    elif how == "gone":
        (made.snapshot / "report.html").unlink()
    else:
        place = made.snapshot / "manifest.json"
        manifest = json.loads(place.read_text(encoding="utf-8"))
        place.write_text(json.dumps({**manifest, "status": "complete"}), encoding="utf-8")
    row = one(audited(active_store), "model")
    assert (row["status"], row["codes"]) == ("incomplete", "AUD007 AUD010")


def test_a_changed_model_file_is_found(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    weights = next(p for p in made.place.glob("model.*"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert one(audited(active_store, full=True), "model")["codes"] == "AUD008 AUD010"
    active_store.client.set_registered_model_alias("mortgage", "champion", "1")
    assert "AUD008" in one(audited(active_store), "version")["codes"]


def test_copied_evidence_is_found(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path)
    other = train(active_store, tmp_path, registered="mortgage", explained=False, C=0.01)
    shutil.copytree(made.snapshot.parent, other.place / "explanations")
    found = audited(active_store)
    assert one(found, "model", other.uri)["codes"] == "AUD009"
    assert one(found, "run", other.run_id)["codes"] == "AUD009"
    assert one(found, "version")["codes"] == "AUD009"


def test_replaced_evidence_does_not_agree_with_the_tag(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    active_store.client.set_model_version_tag("mortgage", "1", "explain_step.manifest_sha256", "0" * 64)
    row = one(audited(active_store), "version")
    assert row["codes"] == "AUD010"
    assert "one of them was replaced" in row["problem"]
    assert row["snapshot_id"] == made.snapshot.name


def test_a_version_whose_files_were_moved_elsewhere(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage")
    sql(active_store, "update model_versions set storage_location = ?", (tmp_path / "evil").as_uri())
    row = one(audited(active_store), "version")
    assert row["verdict"] == "undecided"
    assert "not at the place of logged model" in row["problem"]


def test_files_that_are_not_on_this_machine_are_undecided(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path)
    shutil.move(made.place, tmp_path / "away")
    row = one(audited(active_store), "model")
    assert (row["status"], row["codes"], row["verdict"]) == ("undecided", "AUD013", "undecided")
    assert one(audited(active_store), "run")["verdict"] == "undecided"
    assert explain_step.audit(tracking_uri=active_store.uri, mark=True)["change"].eq("").all()


# --- waivers


def test_a_waiver_counts_until_it_expires(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage")
    assert explain_step.promote("models:/mortgage/1", "champion", policy=POLICY).allowed
    strict = {**POLICY, "require": {**POLICY["require"], "status": ["complete"]}}
    refused = one(audited(active_store, policy=strict), "alias")
    assert (refused["codes"], refused["status"]) == ("AUD004", "degraded")
    rules = sorted({rule.code for rule in RULES} - set(INTEGRITY))
    waiver = {"registered_model": "mortgage", "version": "1", "owner": "ann", "reason": "pilot"}
    policy = {**strict, "waivers": [{**waiver, "rules": rules, "expires": "2026-05-31"}]}
    before = audited(active_store, policy=policy, now=datetime(2026, 5, 1, tzinfo=UTC))
    assert one(before, "alias")[["status", "verdict"]].tolist() == ["waived", "pass"]
    assert before[before["kind"] == "waiver"].empty
    after = audited(active_store, policy=policy, now=datetime(2026, 6, 1, tzinfo=UTC))
    assert one(after, "alias")["codes"] == "AUD004 AUD011"
    assert "(pilot) expired on 2026-05-31" in one(after, "alias")["problem"]
    assert one(after, "waiver")["verdict"] == "not_applicable"
    far = {**strict, "waivers": [{**waiver, "rules": rules, "expires": "9999-12-31"}]}
    never = audited(active_store, policy=far)
    assert one(never, "alias")["codes"] == "AUD004 AUD011"
    assert "ends on 9999-12-31, more than 366 days ahead" in one(never, "waiver")["reason"]


# --- marking


def test_marking_writes_what_the_evidence_says(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage", explained=False)
    client = active_store.client
    client.set_tag(made.run_id, "explain_step.status", "complete")
    end = client.get_run(made.run_id).info.end_time
    dry = audited(active_store, mark=True, fail_runs=True, dry_run=True)
    assert one(dry, "run")["change"] == "would set status = incomplete, run status = FAILED"
    assert client.get_run(made.run_id).data.tags["explain_step.status"] == "complete"
    written = audited(active_store, mark=True, fail_runs=True)
    assert one(written, "run")["change"] == "set status = incomplete, run status = FAILED"
    run = client.get_run(made.run_id)
    assert run.data.tags["explain_step.status"] == "incomplete"
    assert run.data.tags["explain_step.reason"] == "the run ended (FINISHED) without an explanation"
    assert (run.info.status, run.info.end_time) == ("FAILED", end)
    assert client.get_logged_model(made.model_id).tags["explain_step.status"] == "incomplete"
    assert client.get_model_version("mortgage", "1").tags["explain_step.status"] == "incomplete"
    again = audited(active_store, mark=True, fail_runs=True)
    assert again["change"].eq("").all()


def test_marking_never_vouches_for_a_manifest(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path)
    active_store.client.create_registered_model("late")
    active_store.client.create_model_version("late", made.uri, run_id=made.run_id)
    found = audited(active_store, mark=True)
    assert one(found, "version")["change"] == f"set snapshot_id = {made.snapshot.name}, status = degraded"
    tags = active_store.client.get_model_version("late", "1").tags
    assert tags["explain_step.status"] == "degraded"
    assert "explain_step.manifest_sha256" not in tags


def test_live_runs_are_never_failed(active_store: Store) -> None:
    run = active_store.client.create_run(active_store.experiment_id, tags={"explain_step.status": "pending"})
    audited(active_store, mark=True, fail_runs=True)
    assert active_store.client.get_run(run.info.run_id).info.status == "RUNNING"


# --- scope


def test_scopes(active_store: Store, tmp_path: Path) -> None:
    here = train(active_store, tmp_path, registered="mortgage")
    elsewhere = active_store.client.create_experiment("other", artifact_location=tmp_path.as_uri())
    with current_store(active_store.uri, elsewhere):
        there = train(active_store, tmp_path, registered="loans")
    for named in ("tests", active_store.experiment_id):
        found = audited(active_store, experiments=named)
        assert list(found["kind"]) == ["run", "model", "version"]
        assert set(found["run_id"]) == {here.run_id}
    found = audited(active_store, registered_models=["loans"])
    assert list(found["name"]) == ["models:/loans/1"]
    assert set(found["model_id"]) == {there.model_id}
    assert len(audited(active_store)) == 6
    for unknown in ({"experiments": "nope"}, {"registered_models": "nope"}):
        with pytest.raises(InvalidInput, match="there is no 'nope'"):
            audited(active_store, **unknown)


def test_pages_are_followed(active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from explain_step.tracking import audit_registry, audit_runs

    for _ in range(3):
        train(active_store, tmp_path, registered="mortgage", explained=False)
    monkeypatch.setattr(audit_runs, "RUNS_PER_PAGE", 2)
    monkeypatch.setattr(audit_runs, "MODELS_PER_PAGE", 1)
    monkeypatch.setattr(audit_registry, "VERSIONS_PER_PAGE", 1)
    seen: list[int] = []
    found = audited(active_store, progress=seen.append)
    assert found.groupby("kind").size().to_dict() == {"model": 3, "run": 3, "version": 3}
    assert sum(seen) == 9


@pytest.mark.slow
@pytest.mark.oldest
def test_behind_a_server(server_store: Store, tmp_path: Path) -> None:
    with current_store(server_store.uri, server_store.experiment_id):
        with mlflow.start_run() as run:
            log(fitted())
            explain(tmp_path, run_id=run.info.run_id)
        with mlflow.start_run():
            log(fitted(C=0.1))
        found = audited(server_store, experiments=server_store.experiment_id)
        assert sorted(found[found["kind"] == "run"]["status"]) == ["degraded", "incomplete"]
        assert sorted(found[found["kind"] == "model"]["status"]) == ["degraded", "incomplete"]
        full = audited(server_store, experiments=server_store.experiment_id, full=True)
        assert one(full[full["verified"] == "bytes"], "model")["status"] == "degraded"


# --- the snapshots before


def test_forks_and_broken_chains_behind_a_protected_alias_are_told(
    active_store: Store, tmp_path: Path
) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    digest = sha256_bytes((made.snapshot / "manifest.json").read_bytes())
    first = Previous(snapshot_id=made.snapshot.name, manifest_sha256=digest)
    for seed in (5, 6):
        explain(tmp_path, run_id=made.run_id, previous=first, subject=subject(frame(30, seed=seed)))
    assert set(audited(active_store)["codes"]) == {""}  # nothing protected is looked at so closely
    assert explain_step.promote("models:/mortgage/1", "champion", policy=POLICY).allowed
    row = one(audited(active_store), "version")
    assert (row["codes"], row["verdict"]) == ("AUD017", "pass")
    assert f"follows {made.snapshot.name[:12]}… as well" in row["problem"]
    manifest = made.snapshot / "manifest.json"
    manifest.write_bytes(dump(seal(json.loads(manifest.read_text()) | {"reason": "better words"})))
    row = one(audited(active_store), "version")
    assert (row["codes"], row["verdict"]) == ("AUD007", "fail")
    assert "the chain is broken" in row["problem"]


# --- the decision log


def test_a_removed_decision_is_found(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    for alias in ("champion", "live"):
        explain_step.promote("models:/mortgage/1", alias, policy=POLICY)
    assert one(audited(active_store), "version")["codes"] == ""
    first, _ = sorted((made.place / "explanations" / "decisions").iterdir())
    first.unlink()
    row = one(audited(active_store), "version")
    assert row["codes"] == "AUD012"
    assert first.name in row["problem"]


@pytest.mark.parametrize("name", ["a'b", 'a"b', "a'b\"c", "a\\b", "a'b\\c", "a`b", "a%b", "a;b"])
def test_a_name_that_no_search_can_quote_hides_nothing(store: Store, name: str) -> None:
    run = store.client.create_run(store.experiment_id)
    store.client.create_registered_model(name)
    store.client.create_model_version(name, "file:///nowhere", run_id=run.info.run_id)
    store.client.set_registered_model_alias(name, "champion", "1")
    assert one(audited(store), "alias", f"models:/{name}@champion").verdict != "pass"
