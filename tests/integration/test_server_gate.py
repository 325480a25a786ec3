"""The gated server does what it says: refuses in words, lets the rest pass, records, and starts whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import server_kit
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from gate_kit import World

pytestmark = pytest.mark.slow


def fresh(prefix: str = "m") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def test_a_version_without_evidence_is_refused_in_words(world: World) -> None:
    bad = world.unexplained(fresh())
    with pytest.raises(MlflowException, match="PERMISSION_DENIED") as caught:
        world.client.set_registered_model_alias(bad.name, "champion", bad.version)
    text = str(caught.value)
    assert f"models:/{bad.name}/{bad.version}" in text
    assert "is not explained" in text
    assert f"explain-step run models:/{bad.name}/{bad.version} rows.parquet --target LABEL" in text
    assert world.aliases(bad.name) == {}


def test_the_message_is_short_plain_text_for_the_dialog(world: World) -> None:
    bad = world.unexplained(fresh())
    answer = world.server.alias(bad.name, bad.version)
    assert answer.status_code == 403
    message = answer.json()["message"]
    assert len(message) < 700
    assert "\n" not in message
    assert "<" not in message


def test_an_explained_version_passes(world: World) -> None:
    assert world.server.alias("mortgage", "1").status_code == 200
    assert world.aliases("mortgage")["champion"] == "1"


def test_the_server_notes_what_it_let_pass_and_nobody_else_can(world: World) -> None:
    from explain_step import audit

    name = fresh()
    version = world.another_version(name)
    key = "explain_step.promoted.champion"
    body = {"name": name, "version": version, "key": key, "value": '{"at": "2026-01-01T00:00:00+00:00"}'}
    assert world.server.api("POST", "model-versions/set-tag", **body).status_code == 403

    def codes() -> str:
        settings = {"tracking_uri": world.server.url, "policy": str(world.server.policy)}
        found = audit(registered_models=name, **settings)
        return str(found[found["kind"].eq("alias")]["codes"].item())

    assert world.server.alias(name, version, "Champion").status_code == 200
    tags = world.client.get_model_version(name, version).tags
    note = json.loads(tags[key])
    assert (note["alias"], note["snapshot_id"]) == ("Champion", world.good.snapshot_id)
    assert codes() == ""
    removed = world.server.api("DELETE", "model-versions/delete-tag", name=name, version=version, key=key)
    assert removed.status_code == 403
    with contextlib.closing(sqlite3.connect(world.server.folder / "mlflow.db")) as direct, direct:
        direct.execute("DELETE FROM model_version_tags WHERE name = ? AND key = ?", (name, key))
    assert codes() == "AUD016"


def test_what_is_not_protected_passes(world: World) -> None:
    bad = world.unexplained(fresh())
    assert world.server.alias(bad.name, bad.version, "dev").status_code == 200
    body = {"name": bad.name, "version": bad.version, "archive_existing_versions": False}
    assert (
        world.server.api("POST", "model-versions/transition-stage", **body, stage="Staging").status_code
        == 200
    )
    answer = world.server.api(
        "POST", "model-versions/set-tag", name=bad.name, version=bad.version, key="a", value="b"
    )
    assert answer.status_code == 200
    assert (
        world.server.api("DELETE", "model-versions/delete", name=bad.name, version=bad.version).status_code
        == 200
    )


def test_a_stage_an_alias_pattern_and_a_protected_model_take_an_explained_version(world: World) -> None:
    version = world.another_version(fresh("prod."))
    name = fresh()
    version = world.another_version(name)
    body = {"name": name, "version": version, "archive_existing_versions": False}
    assert (
        world.server.api("POST", "model-versions/transition-stage", **body, stage="Production").status_code
        == 200
    )
    assert world.server.alias(name, version, "live-eu").status_code == 200


def test_a_copy_of_an_explained_version_passes_with_its_tags(world: World) -> None:
    assert world.server.alias("mortgage", "1").status_code == 200
    source = world.client.get_model_version("mortgage", "1")
    assert source.tags["explain_step.status"] == "complete"
    assert any(key.startswith("explain_step.promoted.") for key in source.tags)
    name = fresh("prod.")
    copied = world.client.copy_model_version("models:/mortgage/1", name)
    inherited = {k: v for k, v in source.tags.items() if not k.startswith("explain_step.promoted.")}
    assert copied.tags == inherited  # a promotion is of one version
    assert world.server.alias(name, str(copied.version)).status_code == 200
    again = world.client.copy_model_version(f"models:/{name}/1", fresh("prod."))
    assert world.server.alias(again.name, str(again.version)).status_code == 200


def test_an_alias_may_be_taken_away_and_is_judged_when_it_comes_back(world: World) -> None:
    name = fresh()
    good, bad = world.another_version(name), world.unexplained(name)
    assert world.server.alias(name, good).status_code == 200
    assert (
        world.server.api("DELETE", "registered-models/alias", name=name, alias="champion").status_code == 200
    )
    assert world.server.alias(name, bad.version).status_code == 403
    assert world.aliases(name) == {}
    assert ("delete alias 'champion'", good) in records_of(world, name)


def records_of(world: World, name: str) -> list[tuple[str, str | None]]:
    lines = [json.loads(line) for line in world.server.audit.read_text().splitlines()]
    return [(r["action"], r.get("version")) for r in lines if r.get("name") == name]


def test_a_version_that_leaves_a_protected_stage_is_recorded(world: World) -> None:
    name = fresh()
    first, second = world.another_version(name), world.another_version(name)

    def move(version: str, stage: str, *, archive: bool = False) -> int:
        body = {"name": name, "version": version, "stage": stage, "archive_existing_versions": archive}
        return world.server.api("POST", "model-versions/transition-stage", **body).status_code

    assert move(first, "Production") == 200
    assert move(second, "Production") == 200
    assert move(second, "Production", archive=True) == 200  # it stays itself
    assert move(second, "Staging") == 200
    assert move(second, "None") == 200  # it had left already
    assert records_of(world, name) == [
        ("stage 'Production'", first),
        ("stage 'Production'", second),
        ("stage 'Production'", second),
        ("leave stage 'Production'", first),
        ("leave stage 'Production'", second),
    ]


def test_a_version_of_a_protected_model_that_lost_its_evidence_leaves_its_stage(world: World) -> None:
    name = fresh("prod.")
    version = world.another_version(name)
    body = {"name": name, "version": version, "archive_existing_versions": False}
    stage = functools.partial(world.server.api, "POST", "model-versions/transition-stage", **body)
    assert stage(stage="Production").status_code == 200
    with world.changed(world.good.evidence / "manifest.json") as manifest:
        manifest.unlink()
        assert stage(stage="Staging").status_code == 403
        assert stage(stage="Archived").status_code == 200
        assert stage(stage="Production").status_code == 403
        gone = world.server.api("DELETE", "model-versions/delete", name=name, version=version)
    assert gone.status_code == 200
    assert ("leave stage 'Production'", version) in records_of(world, name)


def test_prompts_work_in_every_name_space(world: World) -> None:
    for name in (fresh("prompt"), fresh("prod.prompt")):
        first = world.client.register_prompt(name=name, template="Say {{x}}.")
        world.client.register_prompt(name=name, template="Say {{x}} again.")
        world.client.set_prompt_alias(name, "champion", 2)
        assert world.client.get_prompt_version_by_alias(name, "champion").version == 2
        world.client.set_prompt_version_tag(name, first.version, "team", "a")
        world.client.set_prompt_tag(name, "owner", "b")
        world.client.delete_prompt_alias(name, "champion")


def test_the_policy_is_read_at_every_decision(world: World) -> None:
    name = fresh()
    version = world.another_version(name)
    text = world.server.policy.read_text()
    try:
        world.server.policy.write_text(
            "version: 1\nprotected: {aliases: [gold]}\nrequire: {min_rows: 100000}\n"
        )
        refused = world.server.alias(name, version, "gold")
        allowed = world.server.alias(name, version, "champion")
    finally:
        world.server.policy.write_text(text)
    assert refused.status_code == 403
    assert "explain-step gate" in refused.json()["message"]
    assert allowed.status_code == 200
    assert world.server.alias(name, version, "gold").status_code == 200


def test_an_unreadable_policy_refuses_promotion_and_nothing_else(world: World) -> None:
    name = fresh()
    version = world.another_version(name)
    text = world.server.policy.read_text()
    try:
        world.server.policy.write_text("version: 1\nprotectd: {}\n")
        health = world.server.request("GET", "/explain-step/health")
        refused = world.server.alias(name, version)
        read = world.server.api("GET", "registered-models/get", name=name)
        run = world.client.create_run(world.experiment_id)
        world.client.log_metric(run.info.run_id, "loss", 0.1)
        model = world.client.create_logged_model(world.experiment_id, source_run_id=run.info.run_id)
        path = model.artifact_location.removeprefix("mlflow-artifacts:/")
        trained = world.server.put(f"{path}/MLmodel", b"flavors: {}\n")
    finally:
        world.server.policy.write_text(text)
    assert refused.status_code == 403
    assert "policy" in refused.json()["message"]
    assert (health.status_code, health.json()["active"]) == (503, False)
    assert (read.status_code, trained.status_code) == (200, 200)


def test_health_says_what_is_guarded(world: World) -> None:
    answer = world.server.request("GET", "/explain-step/health")
    assert answer.status_code == 200
    facts = answer.json()
    assert facts["active"] is True
    parts = {facts["registry"], facts["tracking"], facts["artifacts"]}
    assert parts == {"guarded", "sealed"}
    assert facts["mode"] == "enforce"
    assert facts["policy"]["name"] == "tests of the gate"
    assert facts["protected"]["aliases"] == ["champion", "live-*"]
    assert len(facts["policy"]["digest"]) == 64


def test_every_decision_is_in_the_audit_log_and_the_lines_are_chained(world: World) -> None:
    bad = world.unexplained(fresh())
    world.server.alias(bad.name, bad.version)
    lines = world.server.audit.read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    mine = [r for r in records if r.get("name") == bad.name]
    assert [(r["outcome"], r["codes"], r["user"]) for r in mine] == [("refuse", ["GATE002"], "unknown")]
    assert {"time", "pid", "policy", "version", "action", "message"} <= set(mine[0])
    last: dict[int, str] = {}
    for line, record in zip(lines, records, strict=True):
        assert record["previous"] == last.get(record["pid"], "")
        last[record["pid"]] = hashlib.sha256(line).hexdigest()


def glass(owner: str = "ann", reason: str = "outage", *, hours: float = 1) -> str:
    expires = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    return json.dumps({"owner": owner, "reason": reason, "expires": expires})


def test_break_glass_needs_the_policy_and_a_reason_and_is_recorded(world: World) -> None:
    bad, name = world.unexplained(fresh()), fresh()
    good = world.another_version(name)

    def use(value: str, *, of: Any = bad) -> int:
        tag = {"key": "explain_step.break_glass", "value": value}
        return world.server.api(
            "POST", "model-versions/set-tag", name=of.name, version=of.version, **tag
        ).status_code

    assert use(glass()) == 403
    text = world.server.policy.read_text()
    try:
        world.server.policy.write_text(f"{text}break_glass: {{allowed: true, owners: [ann], max_hours: 2}}\n")
        wrong = [glass(reason=" "), glass("bob"), glass(hours=3), glass(hours=-1), "{}", "please"]
        assert [use(value) for value in wrong] == [403] * len(wrong)
        assert use(glass()) == 200
        allowed = world.server.alias(bad.name, bad.version)
        tag = {"key": "explain_step.break_glass", "value": glass()}
        world.server.api("POST", "model-versions/set-tag", name=name, version=good, **tag)
        also = world.server.alias(name, good)
    finally:
        world.server.policy.write_text(text)
    assert (allowed.status_code, also.status_code) == (200, 200)
    records = [json.loads(line) for line in world.server.audit.read_text().splitlines()]
    for model in (bad.name, name):
        found = [r for r in records if r.get("name") == model and r["action"] == "alias 'champion'"]
        assert found[-1]["break_glass"]["owner"] == "ann"
        assert found[-1]["outcome"] == "allow"
    assert world.server.alias(bad.name, bad.version).status_code == 403


def test_the_audit_names_a_use_of_break_glass_also_when_its_tag_is_gone(world: World) -> None:
    from explain_step import audit

    bad = world.unexplained(fresh())
    policy = world.server.policy
    text = policy.read_text()
    where = {"name": bad.name, "version": bad.version, "key": "explain_step.break_glass"}
    try:
        policy.write_text(f"{text}break_glass: {{allowed: true}}\n")
        assert world.server.api("POST", "model-versions/set-tag", **where, value=glass()).status_code == 200
        assert world.server.alias(bad.name, bad.version).status_code == 200
        assert world.server.api("DELETE", "model-versions/delete-tag", **where).status_code == 200
        found = audit(registered_models=bad.name, tracking_uri=world.server.url, policy=str(policy))
    finally:
        policy.write_text(text)
    alias = found[found["kind"].eq("alias")].iloc[0]
    assert alias["codes"] == "AUD004"
    assert "promoted by break-glass of ann" in alias["problem"]
    assert "(outage), which expires at" in alias["problem"]


def test_a_use_of_break_glass_does_not_travel_with_a_copy(world: World) -> None:
    bad, target = world.unexplained(fresh()), fresh()
    text = world.server.policy.read_text()
    try:
        world.server.policy.write_text(f"{text}break_glass: {{allowed: true}}\n")
        tag = {"key": "explain_step.break_glass", "value": glass()}
        world.server.api("POST", "model-versions/set-tag", name=bad.name, version=bad.version, **tag)
        copied = world.client.copy_model_version(f"models:/{bad.name}/{bad.version}", target)
        refused = world.server.alias(target, str(copied.version))
    finally:
        world.server.policy.write_text(text)
    assert "explain_step.break_glass" not in copied.tags
    assert refused.status_code == 403


def test_a_review_is_stored_as_not_authenticated_without_authentication(world: World) -> None:
    name = fresh()
    version = world.another_version(name)

    def review(who: str, *, key: str = "explain_step.review.ann", **more: Any) -> int:
        said = {"reviewer": who, "decision": "approve", "snapshot_id": world.good.snapshot_id}
        said |= {"manifest_sha256": "0" * 64, "at": datetime.now(UTC).isoformat(), **more}
        tag = {"key": key, "value": json.dumps(said)}
        return world.server.api(
            "POST", "model-versions/set-tag", name=name, version=version, **tag
        ).status_code

    assert review("ann", authenticated=True) == 403
    assert review("ann", decision="maybe") == 403
    assert review("ann") == 200
    assert review("bob") == 403
    assert review("bob", key="explain_step.review.\u00c1nn") == 403  # one row for databases that fold keys
    tags = world.client.get_model_version(name, version).tags
    assert json.loads(tags["explain_step.review.ann"])["authenticated"] is False


def test_the_commands_of_the_package_work_through_the_gate(world: World) -> None:
    from explain_step.promotion import promote
    from explain_step.tracking.reviews import review

    name = fresh()
    world.another_version(name)
    refused = world.unexplained(name)
    uri = world.server.url
    said = review(
        f"models:/{name}/1", decision="approve", note="looks right", reviewer="ann", tracking_uri=uri
    )
    assert said.snapshot_id == world.good.snapshot_id
    decision = promote(f"models:/{name}/1", "champion", tracking_uri=uri)
    assert decision.allowed
    assert world.aliases(name) == {"champion": "1"}
    tags = world.client.get_model_version(name, "1").tags
    assert "explanations/decisions/" in tags["explain_step.decision"]
    assert any(key.startswith("explain_step.review.ann") for key in tags)
    assert not promote(f"models:/{name}/{refused.version}", "champion", tracking_uri=uri).allowed
    assert world.aliases(name) == {"champion": "1"}


def test_fifty_clients_at_once(world: World) -> None:
    name = fresh()
    good, bad = world.another_version(name), world.unexplained(name).version

    def ask(number: int) -> int:
        return world.server.alias(name, good if number % 2 else bad).status_code

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(100)))
    assert answers == [200 if number % 2 else 403 for number in range(100)]
    assert world.aliases(name) == {"champion": good}


HALF = {
    "open artifacts": (["--registry-store-uri", "explain-gate+sqlite:///m.db"], "--artifacts-destination"),
    "open registry": (["--artifacts-destination", "explain-gate+file:///art"], "--registry-store-uri"),
    "artifacts only": (
        [
            *("--registry-store-uri", "explain-gate+sqlite:///m.db", "--artifacts-only"),
            *("--artifacts-destination", "explain-gate+file:///art"),
        ],
        "--artifacts-only",
    ),
    "workspaces": (
        [
            *("--registry-store-uri", "explain-gate+sqlite:///m.db", "--enable-workspaces"),
            *("--artifacts-destination", "explain-gate+file:///art"),
        ],
        "--enable-workspaces",
    ),
    "a folder that is no URI": (
        [
            *("--registry-store-uri", "explain-gate+sqlite:///m.db"),
            *("--artifacts-destination", "explain-gate+/srv/art"),
        ],
        "a directory is written explain-gate+file:///path",
    ),
    "a store that does not open": (
        [
            *("--registry-store-uri", "explain-gate+sqlite:///m.db"),
            *("--artifacts-destination", "explain-gate+sftp://nobody:pass-of-it@127.0.0.1:1/art"),
        ],
        "cannot be opened",
    ),
    "read replica": (
        [
            *("--registry-store-uri", "explain-gate+sqlite:///m.db"),
            *("--artifacts-destination", "explain-gate+file:///art"),
            *("--read-replica-backend-store-uri", "sqlite:///replica.db"),
        ],
        "--read-replica-backend-store-uri",
    ),
}


@pytest.mark.parametrize("case", HALF)
def test_half_a_gate_does_not_serve(case: str, tmp_path: Path, migrated: Path) -> None:
    options, remedy = HALF[case]
    backend = () if "--artifacts-only" in options else ("--backend-store-uri", "sqlite:///m.db")
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    for name in ("m.db", "replica.db"):
        shutil.copyfile(migrated, tmp_path / name)
    code, output = server_kit.refused_to_start(tmp_path, *backend, *options)
    assert code not in (0, -15)
    if case != "workspaces":  # MLflow itself says that the registry store has none
        assert "explain_step gate: this server does not start" in output
    assert remedy in output
    assert "pass-of-it" not in output


def test_a_policy_that_cannot_be_read_does_not_serve(tmp_path: Path, migrated: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\nprotectd: {}\n")
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    options = server_kit.command(tmp_path, 1)[server_kit.command(tmp_path, 1).index("--workers") :]
    code, output = server_kit.refused_to_start(tmp_path, *options)
    assert code not in (0, -15)
    assert "'protectd' is not known" in output
