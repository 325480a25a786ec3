"""Entries of the spool that somebody changed: each is refused or passed over by name, and none keeps the others waiting."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from sklearn.linear_model import LogisticRegression
from tracking_kit import Store, fitted, log, pickle_free, rows

import explain_step
from explain_step.tracking import delivery, spool, verify

QUICK: dict[str, Any] = {"task": "binary", "max_rows": 40, "top_features": 1}


@pytest.fixture
def folder(active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool with one entry, left behind by a full disk."""
    place = tmp_path / "spool"
    monkeypatch.setenv(spool.VARIABLE, str(place))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "upload", full)
        with mlflow.start_run():
            log(fitted())
            logged = explain_step.log_explanations(fitted(), *rows(), **QUICK)
    assert logged.status == "incomplete"
    return place


def only(folder: Path) -> Path:
    (place,) = folder.iterdir()
    return place


def facts(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads((place / spool.ENTRY).read_bytes())
    change(found)
    (place / spool.ENTRY).write_text(json.dumps(found))


def _pipe(place: Path) -> None:
    (place / spool.ENTRY).unlink()
    os.mkfifo(place / spool.ENTRY)


def _linked(place: Path) -> None:
    aside = place.parent.parent / "aside"
    shutil.move(place, aside)
    place.symlink_to(aside)


def _endless(place: Path) -> None:
    os.truncate(place / spool.ENTRY, 10**11)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "nested deep": lambda p: (p / spool.ENTRY).write_text("[" * 100_000),
    "cut off": lambda p: (p / spool.ENTRY).write_text("{"),
    "endless": _endless,
    "a linked entry": _linked,
    "a path as id": lambda p: facts(p, lambda f: f.update(snapshot_id="../../x")),
    "an absolute id": lambda p: facts(p, lambda f: f.update(snapshot_id="/etc")),
    "another form": lambda p: facts(p, lambda f: f.update(form=2)),
    "whole in words": lambda p: facts(p, lambda f: f.update(whole="no")),
    "a list of wishes": lambda p: facts(p, lambda f: f.update(asked=[])),
    "a wish too many": lambda p: facts(p, lambda f: f["asked"].update(shell="rm")),
}
if hasattr(os, "mkfifo"):
    HOSTILE["a pipe"] = _pipe


@pickle_free
@pytest.mark.timeout(120)
def test_what_is_no_entry_is_named_and_the_next_one_is_stored(
    folder: Path, active_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    true = only(folder)
    for name in HOSTILE:
        shutil.copytree(true, folder / name)
    for name, change in HOSTILE.items():
        change(folder / name)
        if (folder.parent / "aside").exists():
            shutil.move(folder.parent / "aside", folder.parent / "outside")
            (folder / name).unlink()
            (folder / name).symlink_to(folder.parent / "outside")
    with caplog.at_level(logging.WARNING, logger="explain_step"):
        (found,) = explain_step.resume()
    assert (found.outcome, found.path) == ("stored", true)
    assert not true.exists()
    for name in HOSTILE:
        assert str(folder / name) in caplog.text, name
    assert (folder.parent / "outside" / spool.ENTRY).exists()
    assert explain_step.resume() == ()


@pickle_free
def test_an_entry_that_points_at_another_model_is_refused(folder: Path, active_store: Store) -> None:
    """Its snapshot verifies, and says for which model it was made: it is not tied to another one."""
    with mlflow.start_run() as run:
        other = log(LogisticRegression(C=0.01).fit(*rows()), registered="mortgage")
    facts(only(folder), lambda f: f["asked"].update(run_id=run.info.run_id, model_uri=other.model_uri))
    (found,) = explain_step.resume()
    assert found.outcome == "refused"
    assert "its snapshot was made for" in found.message
    assert only(folder).is_dir()
    assert "explain_step.snapshot_id" not in active_store.client.get_run(run.info.run_id).data.tags
    with pytest.raises(explain_step.SnapshotError):
        verify("models:/mortgage/1", tracking_uri=active_store.uri)


@pickle_free
@pytest.mark.parametrize("what", ["a byte", "a link", "a file more"])
def test_a_spooled_snapshot_that_was_changed_is_not_sent(folder: Path, what: str) -> None:
    place = only(folder)
    shot = next(p for p in place.iterdir() if p.is_dir())
    if what == "a byte":
        (shot / "card.md").write_text("better")
    elif what == "a link":
        shutil.move(shot / "card.md", place / "aside")
        (shot / "card.md").symlink_to(place / "aside")
    else:
        (shot / "more.txt").write_text("x")
    (found,) = explain_step.resume()
    assert (found.outcome, "does not verify" in found.message) == ("refused", True)
    assert place.is_dir()


def test_the_spool_is_readable_by_its_owner_alone(folder: Path) -> None:
    assert [p.stat().st_mode & 0o777 for p in (folder, only(folder))] == [0o700, 0o700]
