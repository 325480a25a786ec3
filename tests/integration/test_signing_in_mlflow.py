"""A policy that asks for a signature: whose counts, whose does not, and where it is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_kit import POLICY, Logged, train
from tracking_kit import Store

import explain_step
from explain_step.gate import Policy
from explain_step.snapshot.signing import Signer, generate
from explain_step.tracking import sign

URI = "models:/mortgage/1"


@pytest.fixture
def logged(active_store: Store, tmp_path: Path) -> Logged:
    return train(active_store, tmp_path / "made", registered="mortgage")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return generate(tmp_path / "key.pem")


def asking_for(signer: Signer) -> Policy:
    require = {**POLICY["require"], "signature": {"required": True, "keys": [signer.key_id]}}
    return Policy.parse({**POLICY, "require": require})


def blocking(policy: Policy, store: Store) -> list[str]:
    return [f.code for f in explain_step.gate(URI, policy, tracking_uri=store.uri).blocking]


def test_a_signature_by_a_listed_key_is_asked_for_and_counts(
    active_store: Store, logged: Logged, signer: Signer, tmp_path: Path
) -> None:
    policy = asking_for(signer)
    assert blocking(policy, active_store) == ["GATE060"]
    sign(URI, generate(tmp_path / "stranger.pem"), tracking_uri=active_store.uri)
    assert blocking(policy, active_store) == ["GATE060"]
    signed = sign(URI, signer, tracking_uri=active_store.uri)
    assert blocking(policy, active_store) == []
    assert logged.snapshot is not None
    assert (logged.snapshot / "signatures" / f"{signer.key_id}.json").is_file()
    assert signed.snapshot_id == logged.snapshot.name


def test_a_signature_does_not_outlive_a_change(active_store: Store, logged: Logged, signer: Signer) -> None:
    sign(URI, signer, tracking_uri=active_store.uri)
    assert logged.snapshot is not None
    page = logged.snapshot / "card.md"
    page.write_bytes(page.read_bytes() + b" ")
    assert "GATE003" in blocking(asking_for(signer), active_store)


def test_a_signature_copied_from_another_snapshot_does_not_count(
    active_store: Store, logged: Logged, signer: Signer, tmp_path: Path
) -> None:
    other = train(active_store, tmp_path / "other", registered="other", C=0.5)
    sign("models:/other/1", signer, tracking_uri=active_store.uri)
    assert logged.snapshot is not None
    assert other.snapshot is not None
    (logged.snapshot / "signatures").mkdir()
    name = f"{signer.key_id}.json"
    (logged.snapshot / "signatures" / name).write_bytes((other.snapshot / "signatures" / name).read_bytes())
    assert set(blocking(asking_for(signer), active_store)) & {"GATE003", "GATE060"}
