"""What lands in MLflow, in which order, and what is never overwritten."""

from __future__ import annotations

import gc
import hashlib
import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from tracking_kit import Store, current_store, fitted, hand_made, log, rows, tree

import explain_step
from explain_step.errors import SnapshotError
from explain_step.tracking import fetch, resolve, upload
from explain_step.tracking.marks import key_part
from explain_step.tracking.place import Place

SENT = {
    "report.html",
    "card.md",
    "summary.json",
    "tables/importance.csv",
    "tables/importance.parquet",
    "tables/attributions.parquet",
    "figures/importance_one.png",
    *(
        f"provenance/{name}"
        for name in ("environment.json", "config.json", "data.json", "code.json", "log.jsonl")
    ),
    "manifest.json",
}
SHOWN = {name for name in SENT if not name.startswith("provenance/") and not name.endswith(".parquet")}


def model_tree(store: Store, model_id: str) -> Path:
    location = store.client.get_logged_model(model_id).artifact_location
    return Path(location.removeprefix("file://"))


def test_evidence_lies_under_the_model_and_a_browsable_copy_on_the_run(
    active_store: Store, tmp_path: Path
) -> None:
    shot = hand_made(tmp_path / "local")
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
        logged = upload(shot, resolve())
    root = model_tree(active_store, info.model_id)
    assert tree(root / "explanations" / shot.id) == tree(shot.path)
    assert set(tree(shot.path)) == SENT
    copy = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="explanations")
    assert set(tree(Path(copy))) == SHOWN
    assert (logged.id, logged.status, logged.path) == (shot.id, "complete", f"explanations/{shot.id}")
    assert logged.versions == (("mortgage", "1"),)
    assert logged.url is None  # there is no server that could show it


def test_a_step_at_the_same_time_does_not_leave_half_of_its_pages_on_the_run(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one puts its page there between our page and our manifest, and its manifest before ours."""
    shot, put = hand_made(tmp_path / "local"), Place.put
    others = iter([b"the page of another step"])

    def between(place: Place, file: Path, folder: str) -> None:
        if (file.name, folder) == ("manifest.json", "explanations"):
            page = Path(place.repository.artifact_dir) / "explanations" / "report.html"
            page.write_bytes(next(others, page.read_bytes()))
        put(place, file, folder)

    monkeypatch.setattr(Place, "put", between)
    with mlflow.start_run() as run:
        log(fitted())
        assert upload(shot, resolve()).status == "complete"
    page = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="explanations/report.html"
    )
    assert Path(page).read_bytes() == (shot.path / "report.html").read_bytes()


def test_a_store_that_was_moved_is_not_called_unexplained(active_store: Store, tmp_path: Path) -> None:
    shot = hand_made(tmp_path / "local")
    with mlflow.start_run():
        info = log(fitted(), registered="mortgage")
        upload(shot, resolve())
    model_tree(active_store, info.model_id).rename(tmp_path / "elsewhere")
    with pytest.raises(
        SnapshotError, match=r"said to be explained .* there is no snapshot at .* moved or is not mounted"
    ):
        fetch("models:/mortgage/1")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that temporary files of this test go to."""
    (tmp_path / "own").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    return tmp_path / "own"


def test_the_local_copy_lives_as_long_as_the_snapshot(active_store: Store, temporary: Path) -> None:
    X, y = rows(60)
    with mlflow.start_run():
        log(fitted())
        logged = explain_step.log_explanations(fitted(), X, y)
    assert logged.status in ("complete", "degraded")
    assert logged.snapshot is not None
    (folder,) = temporary.glob("explain_step_*")
    assert logged.snapshot.path.parent == folder
    assert (logged.snapshot.path / "report.html").is_file()
    del logged
    gc.collect()
    assert list(temporary.glob("explain_step_*")) == []


def test_the_local_copy_stays_where_nothing_else_has_the_snapshot(
    active_store: Store, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows(60)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(tmp_path / "file" / "spool"))
    monkeypatch.setattr(Place, "put", refuse)
    with mlflow.start_run():
        log(fitted())
        logged = explain_step.log_explanations(fitted(), X, y)
    assert (logged.status, logged.snapshot) == ("incomplete", None)
    assert "the spool could not be written" in logged.reason
    gc.collect()
    (kept,) = temporary.glob("explain_step_*/*/manifest.json")
    assert str(kept.parent) in logged.reason


def refuse(*given: Any, **also: Any) -> None:
    msg = "no space left"
    raise OSError(msg)


def test_status_tags_on_run_model_and_version(active_store: Store, tmp_path: Path) -> None:
    shot = hand_made(tmp_path)
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
        upload(shot, resolve())
    client = active_store.client
    expected = {
        "explain_step.status": "complete",
        "explain_step.reason": "every required section is present",
        "explain_step.snapshot_id": shot.id,
        "explain_step.manifest_sha256": hashlib.sha256(
            (shot.path / "manifest.json").read_bytes()
        ).hexdigest(),
        "explain_step.schema": "1",
        "explain_step.evidence": f"models:/{info.model_id}/explanations/{shot.id}",
    }
    for tags in (
        client.get_run(run.info.run_id).data.tags,
        client.get_logged_model(info.model_id).tags,
        client.get_model_version("mortgage", "1").tags,
    ):
        assert {k: v for k, v in tags.items() if k.startswith("explain_step.")} == expected


def test_metrics_go_in_one_batch_with_hostile_names_as_slugs(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[Any]] = []
    real = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, metrics: Any = (), **rest: Any) -> Any:
        batches.append(list(metrics))
        return real(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    with mlflow.start_run() as run:
        info = log(fitted())
        upload(hand_made(tmp_path), resolve())
    found = active_store.client.get_run(run.info.run_id).data.metrics
    hostile = key_part("../../x<y>")
    assert found == {
        "explain_step/importance/income": 0.4,
        "explain_step/importance/debt ratio": 0.3,
        f"explain_step/importance/{hostile}": 0.2,
        "explain_step/score/masking_r2": 0.9,
        "explain_step/score/gini.all": 0.5,
    }
    assert hostile.startswith("x_y-")
    assert [len(b) for b in batches if b] == [5]
    of_model = {m.key: m.value for m in active_store.client.get_logged_model(info.model_id).metrics}
    assert of_model == found


def test_the_same_snapshot_twice_changes_nothing(active_store: Store, tmp_path: Path) -> None:
    shot = hand_made(tmp_path)
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
        first = upload(shot, resolve())
        root = model_tree(active_store, info.model_id)
        before = {p: p.stat().st_mtime_ns for p in active_store.artifacts.rglob("*") if p.is_file()}
        second = upload(shot, resolve())
    assert {p: p.stat().st_mtime_ns for p in active_store.artifacts.rglob("*") if p.is_file()} == before
    assert first == second
    assert (root / "explanations" / shot.id / "manifest.json").is_file()
    history = active_store.client.get_metric_history(run.info.run_id, "explain_step/importance/income")
    assert len(history) == 1
    (used,) = active_store.client.get_run(run.info.run_id).inputs.dataset_inputs
    digest = json.loads((shot.path / "manifest.json").read_bytes())["data"]["digest"]
    assert (used.dataset.name, used.dataset.digest) == ("explained rows", digest[:36])
    assert json.loads(used.dataset.profile)["num_rows"] == 80


def test_the_same_content_at_another_time_keeps_what_is_stored(active_store: Store, tmp_path: Path) -> None:
    early = hand_made(tmp_path / "a")
    late = hand_made(tmp_path / "b", created="2026-02-02T00:00:00Z")
    assert early.id == late.id
    with mlflow.start_run():
        info = log(fitted())
        first = upload(early, resolve())
        second = upload(late, resolve())
    assert second.manifest_sha256 == first.manifest_sha256
    root = model_tree(active_store, info.model_id) / "explanations" / early.id
    assert tree(root) == tree(early.path)


@pytest.mark.parametrize("created", ["2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"])
def test_damaged_evidence_is_written_again(active_store: Store, tmp_path: Path, created: str) -> None:
    shot = hand_made(tmp_path / "a")
    again = hand_made(tmp_path / "b", created=created)
    with mlflow.start_run():
        info = log(fitted())
        upload(shot, resolve())
        stored = model_tree(active_store, info.model_id) / "explanations" / shot.id
        page = stored / "report.html"
        page.write_bytes(page.read_bytes().replace(b"one", b"two"))
        (stored / "extra.txt").write_text("x")
        upload(again, resolve())
    assert tree(stored) == tree(again.path)


def test_other_content_under_the_same_id_is_refused(active_store: Store, tmp_path: Path) -> None:
    shot = hand_made(tmp_path)
    with mlflow.start_run():
        info = log(fitted())
        upload(shot, resolve())
        stored = model_tree(active_store, info.model_id) / "explanations" / shot.id / "manifest.json"
        stored.write_text(json.dumps({"snapshot_id": "0" * 64}))
        with pytest.raises(SnapshotError, match="other content"):
            upload(shot, resolve())
        assert json.loads(stored.read_text()) == {"snapshot_id": "0" * 64}


def test_an_interrupted_upload_is_completed_and_its_leftovers_go(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot = hand_made(tmp_path / "local")
    sent: list[str] = []
    real = Place.put

    def breaks(self: Place, file: Path, folder: str) -> None:
        if len(sent) == 3:
            raise OSError(28, "No space left on device")
        sent.append(file.name)
        real(self, file, folder)

    with mlflow.start_run():
        info = log(fitted())
        root = model_tree(active_store, info.model_id) / "explanations" / shot.id
        with monkeypatch.context() as patch:
            patch.setattr(Place, "put", breaks)
            with pytest.raises(OSError, match="No space left"):
                upload(shot, resolve())
        assert len(tree(root)) == 3
        assert not (root / "manifest.json").exists()
        with pytest.raises(SnapshotError, match="explain-step run models:/m-"):
            fetch(f"models:/{info.model_id}", tracking_uri=active_store.uri)
        (root / "figures").mkdir(exist_ok=True)
        (root / "figures" / "of_an_earlier_attempt.png").write_text("x")
        upload(shot, resolve())
    assert tree(root) == tree(shot.path)


def test_the_manifest_is_the_last_file_of_the_evidence_and_of_the_copy(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, str]] = []
    real = Place.put

    def watched(self: Place, file: Path, folder: str) -> None:
        order.append((folder, file.name))
        real(self, file, folder)

    monkeypatch.setattr(Place, "put", watched)
    shot = hand_made(tmp_path)
    with mlflow.start_run():
        log(fitted())
        upload(shot, resolve())
    evidence = [name for folder, name in order if shot.id in folder]
    copy = [name for folder, name in order if shot.id not in folder]
    assert evidence[-1] == copy[-1] == "manifest.json"
    assert evidence.count("manifest.json") == copy.count("manifest.json") == 1


def test_a_newer_snapshot_replaces_the_copy_but_not_the_evidence(active_store: Store, tmp_path: Path) -> None:
    one, two = hand_made(tmp_path, content="one"), hand_made(tmp_path, content="two")
    with mlflow.start_run() as run:
        info = log(fitted())
        upload(one, resolve())
        upload(two, resolve())
    root = model_tree(active_store, info.model_id) / "explanations"
    assert tree(root / one.id) == tree(one.path)
    assert tree(root / two.id) == tree(two.path)
    copy = tree(
        Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="explanations"))
    )
    assert "figures/importance_two.png" in copy
    assert "figures/importance_one.png" not in copy
    assert fetch(run.info.run_id, tracking_uri=active_store.uri).name == two.id


def test_without_a_logged_model_the_run_keeps_the_evidence(store: Store, tmp_path: Path) -> None:
    shot = hand_made(tmp_path / "local")
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.set_terminated(run_id)  # a finished run takes late artifacts and tags, and stays finished
    logged = upload(shot, resolve(run_id=run_id, tracking_uri=store.uri))
    assert tree(fetch(f"runs:/{run_id}", tracking_uri=store.uri)) == tree(shot.path)
    top = {f.path for f in store.client.list_artifacts(run_id, "explanations")}
    assert {f"explanations/{shot.id}", "explanations/report.html"} <= top
    assert store.client.get_run(run_id).info.status == "FINISHED"
    assert (logged.model_id, logged.run_uri) == (None, f"runs:/{run_id}")


def test_notes_keep_what_was_there_and_are_replaced_not_repeated(active_store: Store, tmp_path: Path) -> None:
    client = active_store.client
    with mlflow.start_run(description="Trained by Ann.") as run:
        log(fitted(), registered="mortgage")
        client.update_model_version("mortgage", "1", "Approved data set.")
        upload(hand_made(tmp_path, content="one"), resolve())
        second = upload(hand_made(tmp_path, content="two"), resolve())
    texts = {
        "Trained by Ann.": client.get_run(run.info.run_id).data.tags["mlflow.note.content"],
        "Approved data set.": client.get_model_version("mortgage", "1").description,
    }
    for before, now in texts.items():
        assert now.startswith(before)
        assert now.count("**Explanation: complete**") == 1
        assert "`income`, `debt ratio`" in now
        assert str(second.id)[:12] in now


def test_a_snapshot_is_read_back_through_every_name(active_store: Store, tmp_path: Path) -> None:
    client, uri = active_store.client, active_store.uri
    shot = hand_made(tmp_path / "local")
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
        upload(shot, resolve())
    client.copy_model_version("models:/mortgage/1", "prod")
    client.set_registered_model_alias("prod", "champion", "1")
    client.delete_run(run.info.run_id)
    for source in (
        "models:/mortgage/1",
        "models:/prod/1",
        "models:/prod@champion",
        f"models:/{info.model_id}",
    ):
        assert tree(fetch(source, tracking_uri=uri)) == tree(shot.path)
    copied = fetch("models:/prod@champion", tracking_uri=uri, destination=tmp_path / "copy")
    assert copied.is_relative_to(tmp_path / "copy")
    assert tree(copied) == tree(shot.path)
    assert fetch(copied) == copied
    assert fetch(tmp_path / "local") == shot.path


def test_a_tag_is_only_a_hint(active_store: Store, tmp_path: Path) -> None:
    old = hand_made(tmp_path, content="old", created="2026-01-01T00:00:00Z")
    new = hand_made(tmp_path, content="new", created="2026-03-03T00:00:00Z")
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
        upload(new, resolve())
        upload(old, resolve())
    client = active_store.client
    assert fetch("models:/mortgage/1", tracking_uri=active_store.uri).name == old.id  # as tagged
    for tag in ("0" * 64, None):
        for forget in (
            lambda key: client.delete_model_version_tag("mortgage", "1", key),
            lambda key: client.delete_logged_model_tag(info.model_id, key),
            lambda key: client.delete_tag(run.info.run_id, key),
        ):
            forget("explain_step.snapshot_id")
        if tag:
            client.set_model_version_tag("mortgage", "1", "explain_step.snapshot_id", tag)
            client.set_logged_model_tags(info.model_id, {"explain_step.snapshot_id": tag})
            client.set_tag(run.info.run_id, "explain_step.snapshot_id", tag)
        assert fetch("models:/mortgage/1", tracking_uri=active_store.uri).name == new.id  # the newest there


def test_nothing_to_read_is_said_with_the_command(active_store: Store, tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        log(fitted(), registered="mortgage")
    with pytest.raises(SnapshotError, match="explain-step run models:/mortgage/1"):
        fetch("models:/mortgage/1", tracking_uri=active_store.uri)
    with pytest.raises(SnapshotError, match=r"status none.*explain-step run models:/m-"):
        fetch(run.info.run_id, tracking_uri=active_store.uri)
    with pytest.raises(SnapshotError, match="no directory"):
        fetch(tmp_path / "nowhere")


def test_a_long_reason_is_cut_and_a_long_note_steps_back(store: Store, tmp_path: Path) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    mine = "x" * 4990
    store.client.set_tag(run_id, "mlflow.note.content", mine)
    shot = hand_made(tmp_path, status="degraded")
    facts = json.loads((shot.path / "manifest.json").read_text())
    (shot.path / "manifest.json").write_text(json.dumps({**facts, "reason": "y " * 4000}))
    upload(shot, resolve(run_id=run_id, tracking_uri=store.uri))
    tags = store.client.get_run(run_id).data.tags
    assert tags["mlflow.note.content"] == mine
    assert len(tags["explain_step.reason"]) == 500
    assert tags["explain_step.status"] == "degraded"


@pytest.mark.slow
@pytest.mark.oldest
def test_behind_a_server_with_proxied_artifacts(
    server_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shot = hand_made(tmp_path / "local")
    name = f"mortgage {server_store.experiment_id}"
    with current_store(server_store.uri, server_store.experiment_id):
        with mlflow.start_run() as run:
            info = log(fitted(), registered=name)
        target = resolve(model_uri=f"models:/{name}/1")
    logged = upload(shot, target)
    assert logged.url is not None
    assert logged.url.endswith(f"/runs/{run.info.run_id}/artifacts/explanations/report.html")
    again = upload(shot, target)
    assert again == logged
    server_store.client.copy_model_version(f"models:/{name}/1", f"{name} copy")
    for source in (run.info.run_id, f"models:/{info.model_id}", f"models:/{name} copy/1"):
        assert tree(fetch(source, tracking_uri=server_store.uri)) == tree(shot.path)
    shown = {f.path for f in server_store.client.list_artifacts(run.info.run_id, "explanations")}
    assert "explanations/report.html" in shown
