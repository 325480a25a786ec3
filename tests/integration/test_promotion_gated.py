"""Promotion by the client against a real server that has a gate of its own."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from snapshot_kit import parts
from tracking_kit import current_store, fitted, log

import explain_step
from explain_step.hashes import sha256_bytes
from explain_step.snapshot import ModelRef, write
from explain_step.snapshot.signing import generate, sign_manifest
from explain_step.tracking import model_digest, resolve, sign, upload
from explain_step.tracking.decision_log import decisions_of
from explain_step.tracking.evidence import gather
from explain_step.tracking.registry import server_refusal

if TYPE_CHECKING:
    from gate_kit import World

pytestmark = pytest.mark.slow


def fresh() -> str:
    return f"m-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def explained(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a registered model whose version 1 is explained."""
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    name = fresh()
    assert world.another_version(name) == "1"
    return name


def promote(world: World, uri: str, **given: Any) -> Any:
    return explain_step.promote(uri, "champion", tracking_uri=world.server.url, **given)


def test_a_promotion_and_a_review_pass_a_server_that_agrees(world: World, explained: str) -> None:
    uri = f"models:/{explained}/1"
    # attacks on the same model may have left files there
    strangers = decisions_of(uri, tracking_uri=world.server.url).breaks
    assert promote(world, uri).allowed
    assert world.aliases(explained) == {"champion": "1"}
    explain_step.review(uri, decision="approve", note="read", reviewer="ann", tracking_uri=world.server.url)
    (review,) = gather(explained, "1", client=world.client).reviews
    assert (review.reviewer, review.authenticated) == ("ann", False)
    log = decisions_of(uri, tracking_uri=world.server.url)
    assert set(log.breaks) <= set(strangers)
    assert [e.record["event"] for e in log.entries][-2:] == ["decision", "review"]


def test_no_record_joins_the_log_but_after_the_newest_one(world: World, explained: str) -> None:
    """A record that is dated back, or counts itself further, would break the chain, and nothing is ever taken out."""
    uri = f"models:/{explained}/1"
    assert promote(world, uri).allowed
    log = decisions_of(uri, tracking_uri=world.server.url)
    last = log.entries[-1]
    follows = {"previous": {"file": last.file, "sha256": last.sha256}, "number": len(log.entries) + 1}
    young = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for time, change in (
        ("20200101T000000.000000Z", {}),
        (young, {"previous": None}),
        (young, {"previous": {"file": last.file, "sha256": "0" * 64}}),
        (young, {"number": 10**6}),
    ):
        body = json.dumps({**follows, **change}).encode()
        name = f"{time}-{sha256_bytes(body)[:12]}.json"
        answer = world.server.put(f"{world.good.path}/explanations/decisions/{name}", body)
        assert answer.status_code == 403
        assert "does not follow the newest record" in answer.text
    assert decisions_of(uri, tracking_uri=world.server.url) == log


def test_what_the_server_refuses_is_told_in_its_words(world: World, explained: str) -> None:
    uri, text = f"models:/{explained}/1", world.server.policy.read_text()
    try:
        world.server.policy.write_text(f"{text}require: {{min_rows: 100000}}\n")
        decision = promote(world, uri)
    finally:
        world.server.policy.write_text(text)
    assert decision.outcome == "refuse"
    assert decision.findings[0].code == "PROMOTE001"
    assert f"the server refused to move the alias: {uri} may not get" in decision.summary
    assert world.aliases(explained) == {}
    record = decisions_of(uri, tracking_uri=world.server.url).entries[-1].record
    assert (record["event"], record["outcome"]) == ("refused_by_server", "refuse")


def test_the_reason_is_found_in_the_error_of_a_copy(world: World) -> None:
    bad = world.unexplained(fresh())
    with pytest.raises(MlflowException) as caught:
        world.client.copy_model_version(f"models:/{bad.name}/{bad.version}", f"prod.{fresh()}")
    reason = server_refusal(caught.value)
    assert reason is not None
    assert "is not explained" in reason
    assert "backend may not" not in reason


def test_break_glass_needs_both_policies(world: World) -> None:
    bad = world.unexplained(fresh())
    uri, text = f"models:/{bad.name}/{bad.version}", world.server.policy.read_text()
    policy = {"version": 1, "break_glass": {"allowed": True}}
    use = {"owner": "ann", "reason": "outage", "expires": datetime.now(UTC) + timedelta(hours=2)}
    assert not promote(world, uri, policy=policy, break_glass=use).allowed
    assert world.aliases(bad.name) == {}
    try:
        world.server.policy.write_text(f"{text}break_glass: {{allowed: true}}\n")
        assert promote(world, uri, policy=policy, break_glass=use).allowed
    finally:
        world.server.policy.write_text(text)
    assert world.aliases(bad.name) == {"champion": bad.version}
    tags = world.client.get_model_version(bad.name, bad.version).tags
    assert "explain_step.break_glass" not in tags
    assert "explain_step.decision" in tags


SIGNATURE = "  signature: {required: true, keys: [%s]}\n"
LENIENT = "version: 1\nprotected: {aliases: [champion]}\nrequire:\n  sections: [importance]\n"


def test_a_hand_made_explanation_is_stopped_by_a_policy_that_asks_for_a_signature(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may train may forge an explanation whose seal, digests and binding all hold; only a key tells."""
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.chdir(tmp_path)
    server, name = world.server, fresh()
    uri, ours, text = f"models:/{name}/1", generate(tmp_path / "ours.pem"), server.policy.read_text()
    with current_store(server.url, world.experiment_id):
        with mlflow.start_run() as run:
            log(fitted(C=0.3), registered=name)
        target = resolve(run_id=run.info.run_id)
        ids = {"run_id": target.run_id, "model_id": target.model_id, "digest": model_digest(target)}
        ref = ModelRef(model_class="Repeater", uri=target.model_uri, binding="verified", **ids)
        forged = write(tmp_path / "forged", parts=parts(model=ref))
        upload(forged, target)
    location = world.client.get_logged_model(target.model_id).artifact_location
    folder = f"{location.removeprefix('mlflow-artifacts:/')}/explanations/{forged.id}/signatures"
    try:
        server.policy.write_text(LENIENT)
        assert server.alias(name, "1", "Champion").status_code == 200  # what a signature is for
        server.policy.write_text(LENIENT + SIGNATURE % ours.key_id)
        assert "is not signed" in server.alias(name, "1").text
        sign(uri, generate(tmp_path / "theirs.pem"), tracking_uri=server.url)
        refused = server.alias(name, "1")
        assert (refused.status_code, "GATE060" in refused.text) == (403, True)
        of_another = sign_manifest((world.good.evidence / "manifest.json").read_bytes(), ours)
        for content in (of_another, b"{}", of_another.replace(b"keyid", b"keyID")):
            assert server.put(f"{folder}/{ours.key_id}.json", content).status_code == 403
        assert server.alias(name, "1").status_code == 403
        sign(uri, ours, tracking_uri=server.url)
        assert server.alias(name, "1").status_code == 200
    finally:
        server.policy.write_text(text)
