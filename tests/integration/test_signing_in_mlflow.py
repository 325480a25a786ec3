"""A policy that asks for a signature: whose counts, whose does not, and where it is stored."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import mlflow
import pytest
from audit_kit import POLICY, Logged, train
from tracking_kit import Store, fitted, log, rows

import explain_step
from explain_step.errors import SnapshotError
from explain_step.gate import Policy
from explain_step.snapshot.manifest import dump, seal
from explain_step.snapshot.openssf import check_folder, generate_pair
from explain_step.snapshot.signing import AllowedKey, Signer, generate
from explain_step.tracking import resolve, sign, sign_openssf, verify

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


# --- verify at the source


def test_the_registry_lifts_a_snapshot_to_level_one(
    active_store: Store, logged: Logged, signer: Signer
) -> None:
    (finding,) = explain_step.verify(URI, tracking_uri=active_store.uri)
    assert (finding.code, finding.evidence["level"]) == ("VER000", "L1")
    assert set(finding.evidence["lacking"]) == {"L2", "L3"}
    sign(URI, signer, tracking_uri=active_store.uri)
    keys = (AllowedKey(key_id=signer.key_id, owner="ci"),)
    (finding,) = verify(URI, allowed_keys=keys, tracking_uri=active_store.uri)
    assert finding.evidence["level"] == "L2"
    assert set(finding.evidence["lacking"]) == {"L3"}


def test_a_manifest_that_the_registry_does_not_note_fails(active_store: Store, logged: Logged) -> None:
    active_store.client.set_model_version_tag("mortgage", "1", "explain_step.manifest_sha256", "0" * 64)
    (finding,) = explain_step.verify(URI, tracking_uri=active_store.uri)
    assert (finding.code, finding.verdict) == ("VER011", "fail")


def test_a_snapshot_that_was_moved_to_another_version_fails(
    active_store: Store, logged: Logged, tmp_path: Path
) -> None:
    other = train(active_store, tmp_path / "other", registered="other", C=0.5)
    assert logged.snapshot is not None
    assert other.snapshot is not None
    moved = other.snapshot.parent / logged.snapshot.name
    shutil.copytree(logged.snapshot, moved)
    shutil.rmtree(other.snapshot)
    found = {f.code for f in explain_step.verify("models:/other/1", tracking_uri=active_store.uri)}
    assert found >= {"VER012", "VER013"}
    assert [f.code for f in explain_step.verify(moved)] == ["VER000"]  # whose it is, a directory cannot tell


def test_a_page_of_the_run_that_was_exchanged_is_named(active_store: Store, logged: Logged) -> None:
    """It is the page that people read, and no seal of a server covers it: the next explanation writes it again."""
    run = mlflow.get_run(logged.run_id).info.artifact_uri
    folder = Path(run.removeprefix("file://")) / "explanations"
    page, note = folder / "report.html", folder / "manifest.json"
    page.write_text(f"{page.read_text()}<!-- and more -->")
    (found,) = explain_step.verify(URI, tracking_uri=active_store.uri)
    assert (found.code, found.evidence["shown"]) == ("VER017", ["explanations/report.html"])
    said = {"note": "read", "tracking_uri": active_store.uri}
    with pytest.raises(SnapshotError, match=r"not approved: VER017 .*Remove these"):
        explain_step.review(URI, decision="approve", **said)
    assert explain_step.review(URI, decision="reject", **said).decision == "reject"
    note.write_text("{}")
    (told,) = explain_step.verify(URI, tracking_uri=active_store.uri)
    assert (told.code, "another snapshot" in told.evidence["shown"]) == ("VER000", True)
    page.unlink()
    (silent,) = explain_step.verify(URI, tracking_uri=active_store.uri)
    assert "shown" not in silent.evidence


def test_changed_model_files_and_links_in_the_store_are_named(
    active_store: Store, logged: Logged, tmp_path: Path
) -> None:
    assert logged.snapshot is not None
    model = logged.snapshot.parents[1] / "MLmodel"
    text = model.read_text()
    model.write_text(text + "# changed\n")
    assert [f.code for f in explain_step.verify(URI, tracking_uri=active_store.uri)] == ["VER013"]
    model.write_text(text)
    shutil.move(logged.snapshot / "card.md", tmp_path / "card.md")
    (logged.snapshot / "card.md").symlink_to(tmp_path / "card.md")
    assert [f.code for f in explain_step.verify(URI, tracking_uri=active_store.uri)] == ["VER008"]


def test_the_model_is_signed_for_openssf_tools(active_store: Store, logged: Logged, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra is not installed")
    key, public = generate_pair(tmp_path / "ec.pem")
    bundle = tmp_path / "model.sig"
    sign_openssf(URI, bundle, key=key, tracking_uri=active_store.uri)
    assert logged.snapshot is not None

    def found() -> list[str]:
        check = partial(check_folder, bundle=bundle, public_key=public)
        return [f.code for f in verify(URI, openssf=check, tracking_uri=active_store.uri)]

    assert found() == ["VER000"]
    sign(URI, generate(tmp_path / "key.pem"), tracking_uri=active_store.uri)
    assert found() == ["VER000"]
    model = logged.snapshot.parents[1] / "MLmodel"
    model.write_text(model.read_text() + "# changed\n")
    assert found() == ["VER013", "VER015"]
    with pytest.raises(SnapshotError, match="VER013"):
        sign_openssf(URI, tmp_path / "again.sig", key=key, tracking_uri=active_store.uri)


def test_each_explanation_of_a_model_holds_the_manifest_of_the_one_before(
    active_store: Store, tmp_path: Path
) -> None:
    X, y = rows(12)
    with mlflow.start_run() as run:
        log(fitted(), registered="mortgage")
        shots = [
            explain_step.log_explanations(fitted(), X, y, max_rows=n, top_features=1, on_error="raise")
            for n in (8, 10, 10)
        ]
        target = resolve(run_id=run.info.run_id)
    assert shots[1].id == shots[2].id != shots[0].id
    (finding,) = verify(URI, tracking_uri=active_store.uri)
    assert finding.evidence["previous"] == {
        "snapshot_id": shots[0].id,
        "followed": 1,
        "by_bytes": 1,
        "end": "the first",
        "forks": [],
    }
    place = Path(str(target.model_location).removeprefix("file://")) / "explanations"
    card = place / shots[0].id / "card.md"
    card.write_text("better words")
    manifest = json.loads((place / shots[0].id / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == "card.md":
            entry.update(size=card.stat().st_size, sha256=hashlib.sha256(card.read_bytes()).hexdigest())
    (place / shots[0].id / "manifest.json").write_bytes(dump(seal(manifest)))
    assert [f.code for f in explain_step.verify(place / shots[0].id)] == ["VER000"]
    (finding,) = verify(URI, tracking_uri=active_store.uri)
    assert finding.code == "VER014"
    assert "figures, words or other files changed" in finding.message
    shutil.rmtree(place / shots[1].id)  # lost, and made again: it does not follow itself
    with mlflow.start_run(run_id=run.info.run_id):
        explain_step.log_explanations(fitted(), X, y, max_rows=10, top_features=1, on_error="raise")
    (finding,) = verify(URI, tracking_uri=active_store.uri)
    assert finding.evidence["previous"]["snapshot_id"] is None
