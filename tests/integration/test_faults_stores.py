"""Artifact stores and databases that fail or are used by several at once."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
import snapshot_kit
from s3_stub import Bucket, bucket
from tracking_kit import Store, fitted, hand_made, log, tree

import explain_step
from explain_step import resuming
from explain_step.snapshot import Snapshot, verify_directory, write
from explain_step.tracking import Target, asked_for, fetch, resolve, upload, within
from explain_step.tracking.delivery import deliver
from explain_step.tracking.place import Place
from explain_step.tracking.spool import entries


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


def send(shot: Any, target: Target, *, uri: str) -> Any:
    asked = asked_for(run_id=target.run_id, tracking_uri=uri)
    with within():
        return deliver(shot, target, asked=asked, whole=True, on_error="mark")


def status(store: Store, run_id: str | None) -> tuple[str, str]:
    tags = store.client.get_run(str(run_id)).data.tags
    return tags["explain_step.status"], tags["explain_step.reason"]


def manifests(root: Path) -> list[Path]:
    return sorted(p.parent for p in root.rglob("explanations/*/manifest.json"))


# --- S3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    with bucket() as place:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", place.url)
        yield place


@pytest.mark.parametrize("fault", [503, 500, 403])
def test_an_s3_store_that_fails(store: Store, s3: Bucket, spool: Path, tmp_path: Path, fault: int) -> None:
    experiment = store.client.create_experiment("s3", artifact_location="s3://evidence/root")
    target = resolve(run_id=store.client.create_run(experiment).info.run_id, tracking_uri=store.uri)
    shot = hand_made(tmp_path / "local")
    s3.fault = fault
    logged = send(shot, target, uri=store.uri)
    assert (logged.status, logged.id) == ("incomplete", shot.id)
    assert status(store, target.run_id)[0] == "incomplete"
    assert "explain-step resume" in status(store, target.run_id)[1]
    assert s3.objects == {}
    s3.fault = None
    assert [r.outcome for r in explain_step.resume()] == ["stored"]
    assert explain_step.resume() == ()
    assert status(store, target.run_id)[0] == "complete"
    stored = fetch(f"runs:/{target.run_id}", tracking_uri=store.uri)
    assert [f.verdict for f in verify_directory(stored)] == ["pass"]


# --- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(store: Store, small_disk: Path, spool: Path, tmp_path: Path) -> None:
    experiment = store.client.create_experiment("full", artifact_location=small_disk.as_uri())
    target = resolve(run_id=store.client.create_run(experiment).info.run_id, tracking_uri=store.uri)
    shot = large(tmp_path / "local")
    logged = send(shot, target, uri=store.uri)
    assert logged.status == "incomplete"
    assert "No space left" in logged.reason
    assert manifests(small_disk) == []
    assert status(store, target.run_id)[0] == "incomplete"
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert [r.outcome for r in explain_step.resume()] == ["stored"]
    assert [[f.verdict for f in verify_directory(p)] for p in manifests(small_disk)] == [["pass"]]
    assert tree(manifests(small_disk)[0]) == tree(shot.path)


def large(folder: Path) -> Snapshot:
    return write(folder, parts=snapshot_kit.parts(page=lambda _: "<!doctype html>" + "x" * 100_000))


def test_a_spool_that_cannot_be_written_costs_nothing_while_the_server_answers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(tmp_path / "file" / "spool"))
    target = resolve(run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri)
    assert send(hand_made(tmp_path / "local"), target, uri=store.uri).status == "complete"
    assert "cannot be written" in caplog.text
    (tmp_path / "file").unlink()
    assert status(store, target.run_id)[0] == "complete"


def test_a_spooled_snapshot_that_was_changed_is_refused(store: Store, spool: Path, tmp_path: Path) -> None:
    target = resolve(run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri)
    Path(str(target.run_location).removeprefix("file://")).mkdir(parents=True)
    blocked = Path(str(target.run_location).removeprefix("file://")) / "explanations"
    blocked.write_text("in the way")
    logged = send(hand_made(tmp_path / "local"), target, uri=store.uri)
    blocked.unlink()
    page = logged.spool / "report.html"
    page.write_text(page.read_text() + " ")
    found = explain_step.resume()
    assert [r.outcome for r in found] == ["refused"]
    assert "VER007" in found[0].message
    assert manifests(store.artifacts) == []
    assert len(entries(spool)) == 1


@pytest.mark.parametrize(
    ("when", "outcomes", "said"),
    [
        ("_wrong", ["stored", "stored"], "another resume"),
        ("_complete", ["waiting", "stored"], "complete, under"),
    ],
)
def test_two_resumes_at_once_store_it_and_refuse_nothing(
    store: Store,
    spool: Path,
    tmp_path: Path,
    when: str,
    outcomes: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one comes when this one has seen the entry and does not send it yet, or while it sends it."""
    target = resolve(run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri)
    blocked = Path(str(target.run_location).removeprefix("file://")) / "explanations"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    assert send(hand_made(tmp_path / "local"), target, uri=store.uri).status == "incomplete"
    blocked.unlink()
    act, other = getattr(resuming, when), []

    def second(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(resuming, when, act)
        other.extend(explain_step.resume())
        return act(*given, **named)

    monkeypatch.setattr(resuming, when, second)
    found = explain_step.resume()
    assert [r.outcome for r in other + list(found)] == outcomes
    assert said in found[0].message
    assert explain_step.resume() == ()
    (stored,) = manifests(store.artifacts)
    assert [f.verdict for f in verify_directory(stored)] == ["pass"]


def test_a_later_explanation_keeps_its_tags(store: Store, spool: Path, tmp_path: Path) -> None:
    target = resolve(run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri)
    root = Path(str(target.run_location).removeprefix("file://"))
    root.mkdir(parents=True)
    (root / "explanations").write_text("in the way")
    old = hand_made(tmp_path, content="old", created="2026-01-01T00:00:00Z")
    assert send(old, target, uri=store.uri).status == "incomplete"
    (root / "explanations").unlink()
    new = hand_made(tmp_path, content="new", created="2026-03-03T00:00:00Z")
    assert send(new, target, uri=store.uri).status == "complete"
    state = store.client.get_run(target.run_id).data
    found = explain_step.resume()
    assert [r.outcome for r in found] == ["stored"]
    assert "the tags stay" in found[0].message
    assert store.client.get_run(target.run_id).data.tags == state.tags
    assert {p.name for p in manifests(store.artifacts)} == {old.id, new.id}


def test_a_password_is_not_kept_in_the_spool(spool: Path, tmp_path: Path) -> None:
    asked = asked_for(run_id="0" * 32, tracking_uri="http://me:hunter2@127.0.0.1:9")
    with within(5):
        logged = deliver(hand_made(tmp_path / "local"), None, asked=asked, whole=False, on_error="mark")
    assert logged.status == "incomplete"
    assert not [p for p in spool.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
    (found,) = explain_step.resume()
    assert (found.outcome, found.message.endswith("pass the tracking URI")) == ("refused", True)
    assert [p.stat().st_mode & 0o077 for p in spool.iterdir()] == [0]


# --- several at once


def variant(folder: Path, text: str) -> Snapshot:
    """Write the same content, so the same id, with other bytes in page and manifest."""
    given = snapshot_kit.parts(
        page=lambda _: f"<!doctype html><title>{text}</title>",
        created_at=f"2026-01-0{len(text)}T00:00:00Z",
        events=({"event": text},),
    )
    return write(folder / text, parts=given)


def test_a_resume_leaves_what_a_step_is_sending(
    store: Store, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run at any time, from cron: also between the first byte that a step sends and the last."""
    target = resolve(run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri)
    seen: list[resuming.Resumed] = []

    def sent(*given: Any, **named: Any) -> Any:
        seen.extend(explain_step.resume())
        return upload(*given, **named)

    monkeypatch.setattr("explain_step.tracking.delivery.upload", sent)
    logged = send(hand_made(tmp_path / "local"), target, uri=store.uri)
    assert [r.outcome for r in seen] == ["waiting"]
    assert status(store, logged.run_id)[0] == logged.status != "incomplete"
    assert entries(spool) == ()


@pytest.mark.parametrize("pause_after", range(0, 14, 2))
def test_two_steps_on_one_version_end_with_one_whole_snapshot(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause_after: int
) -> None:
    """The first stops between two files until the second is through."""
    first, second = variant(tmp_path, "a"), variant(tmp_path, "bb")
    assert first.id == second.id
    with mlflow.start_run():
        info = log(fitted(), registered="mortgage")
        target = resolve()
    waiting, go, puts = threading.Event(), threading.Event(), []
    real = Place.put

    def put(self: Place, file: Path, folder: str) -> None:
        if first.path in file.parents:
            puts.append(file)
            if len(puts) == pause_after + 1:
                waiting.set()
                assert go.wait(60)
        real(self, file, folder)

    monkeypatch.setattr(Place, "put", put)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(upload, first, target)
        assert waiting.wait(60)
        fast = upload(second, target)
        go.set()
        done = slow.result(60)
    assert done.id == fast.id == first.id
    location = active_store.client.get_logged_model(info.model_id).artifact_location
    (place,) = manifests(Path(location.removeprefix("file://")))
    assert [f.verdict for f in verify_directory(place)] == ["pass"]
    assert tree(place) in (tree(first.path), tree(second.path))


def test_many_steps_at_once_lose_nothing(store: Store, spool: Path, tmp_path: Path) -> None:
    """Eight runs on one SQLite file, each with an own snapshot, and two of them explained twice at once."""
    runs = [store.client.create_run(store.experiment_id).info.run_id for _ in range(8)]
    jobs = [(run, hand_made(tmp_path, content=str(i))) for i, run in enumerate(runs)]
    jobs += [(run, hand_made(tmp_path / "again", content=str(i))) for i, run in enumerate(runs[:2])]

    def job(run_id: str, shot: Any) -> str:
        return str(send(shot, resolve(run_id=run_id, tracking_uri=store.uri), uri=store.uri).status)

    with ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(lambda given: job(*given), jobs)) == ["complete"] * len(jobs)
    assert entries(spool) == ()
    for run_id, shot in jobs:
        data = store.client.get_run(run_id).data
        assert data.tags["explain_step.snapshot_id"] == shot.id
        assert len([k for k in data.metrics if k.startswith("explain_step/")]) == 5
    places = manifests(store.artifacts)
    assert len(places) == 8
    assert {f.verdict for p in places for f in verify_directory(p)} == {"pass"}
    assert all(json.loads((p / "manifest.json").read_text())["snapshot_id"] == p.name for p in places)
