"""What the package puts into the folder for temporary files is gone when the process, or what reads it, is."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from tracking_kit import Store, fitted, hand_made, log, rows

import explain_step
from explain_step import plots
from explain_step.errors import SnapshotError
from explain_step.tracking import resolve, upload
from explain_step.tracking.temporary import goes_with

READS = """
import sys, explain_step
from explain_step.tracking.place import Place
Place.local_root = lambda self: None  # as a remote store has none
shot = explain_step.read(sys.argv[1], tracking_uri=sys.argv[2])
print(len(list(shot.path.rglob("*"))), shot.path.parent.parent)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder for temporary files of the test's own, and leave figures out: they take most of the time."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(plots, "render", lambda *_, **__: ())
    monkeypatch.setenv("EXPLAIN_STEP_SPOOL", str(tmp_path / "spool"))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_snapshot_that_is_read_from_afar_goes_with_the_process(store: Store, tmp_path: Path) -> None:
    target = resolve(run_id=store.client.create_run(store.experiment_id).info.run_id, tracking_uri=store.uri)
    upload(hand_made(tmp_path / "local"), target)
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [sys.executable, "-c", READS, f"runs:/{target.run_id}", store.uri]
    env = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=280)
    count, inside = done.stdout.split()
    assert int(count) > 0
    assert Path(inside).is_relative_to(folder)
    assert names(folder) == []


def test_a_full_disk_keeps_no_half_of_a_snapshot_and_says_which(
    active_store: Store, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("explain_step.snapshot.writing._write_files", full)
    with pytest.raises(SnapshotError, match=f"{temporary}: No space left on device. Set TMPDIR"):
        explain_step.explain(fitted(), *rows(), task="binary")
    assert names(temporary) == []


@pytest.mark.parametrize(
    ("where", "spooled"),
    [("explain_step.snapshot.writing._write_files", 0), ("explain_step.tracking.place.Place.put", 1)],
)
def test_an_interrupt_leaves_nothing_but_the_spool(
    active_store: Store,
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    spooled: int,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    with mlflow.start_run():
        log(fitted())
        with pytest.raises(KeyboardInterrupt):
            explain_step.log_explanations(fitted(), *rows(), task="binary")
    gc.collect()
    assert names(temporary) == []
    assert len(list((tmp_path / "spool").glob("*"))) == spooled


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks, and this system has no fork")
def test_a_copy_of_the_process_removes_nothing_of_it(tmp_path: Path) -> None:
    """A server that loads a model and forks its workers: one of them ends, the others still read its files."""
    folder = tmp_path / "files"
    folder.mkdir()
    model = type("Model", (), {})()
    removal = goes_with(model, folder)
    child = os.fork()
    if child == 0:
        try:
            removal()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert folder.is_dir()
    del model
    assert not folder.exists()
