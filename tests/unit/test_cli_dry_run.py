"""``--dry-run`` of every command that writes: it does the work, says what it found, and leaves everything as it was."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from snapshot_kit import copied
from tracking_kit import REQUIREMENTS, Store, fitted, log, rows

import explain_step
from explain_step.cli import cli, invoke

READING = frozenset({"show", "verify", "replay"})
LOCAL = frozenset({"export", "warm"})
"""They make a new file that the caller names, or a cache, and change nothing that is there."""
ELSEWHERE = frozenset({"audit", "gate", "promote", "resume", "review"})
"""Tried in test_audit.py, test_promotion.py and test_faults_server.py."""
HERE = frozenset({"keygen", "run", "sign"})


def everything(folder: Path) -> dict[str, str]:
    """Return what is under a folder: digests of files, and every row of a database."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".db":
            with closing(sqlite3.connect(file)) as database:
                found[file.name] = "\n".join(database.iterdump())
        elif file.is_file():
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            found[str(file)] = "folder"
    return found


def dry(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert invoke([*arguments, "--dry-run", "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_command_that_writes_has_it() -> None:
    with_it = {
        name for name, command in cli.commands.items() if "dry_run" in {p.name for p in command.params}
    }
    assert with_it == HERE | ELSEWHERE
    assert set(cli.commands) == with_it | READING | LOCAL


def test_of_a_model_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows(60)
    model, data = tmp_path / "model", tmp_path / "rows.parquet"
    mlflow.sklearn.save_model(fitted(), model, serialization_format="skops", pip_requirements=REQUIREMENTS)
    X.assign(label=y).to_parquet(data)
    monkeypatch.chdir(tmp_path)
    before = everything(tmp_path)
    found = dry(capsys, "run", str(model), str(data), "--target", "label", "--allow-pickle")
    assert (found["status"], found["path"], found["dry_run"]) == ("complete", None, True)
    assert everything(tmp_path) == before
    shown = dry(capsys, "run", str(model), str(data), "--allow-pickle")
    assert shown["status"] == "degraded"
    assert everything(tmp_path) == before


def test_of_a_model_in_mlflow_and_of_its_signature(
    active_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = rows(60)
    with mlflow.start_run():
        log(fitted(), registered="mortgage")
    data, store = tmp_path / "rows.parquet", tmp_path  # the database and the artifacts are there
    X.assign(label=y).to_parquet(data)
    before = everything(store)
    asked = (
        "run",
        "models:/mortgage/1",
        str(data),
        "--target",
        "label",
        "--output-dir",
        str(tmp_path / "kept"),
    )
    tried = dry(capsys, *asked)
    assert (tried["status"], tried["dry_run"], everything(store)) == ("complete", True, before)
    assert not (tmp_path / "kept").exists()
    explain_step.log_explanations("models:/mortgage/1", X, y)
    key = str(tmp_path / "key.pem")
    assert invoke(["keygen", key]) == 0
    before = everything(store)
    signed = dry(capsys, "sign", "models:/mortgage/1", "--key", key)
    assert (signed["dry_run"], everything(store)) == (True, before)
    assert invoke(["sign", "models:/mortgage/1", "--key", key]) == 0
    assert everything(store) != before


@pytest.mark.parametrize("run_id", ["0" * 32, "nope", ""])
def test_a_run_that_is_not_there_is_told_by_both(
    active_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_id: str
) -> None:
    X, y = rows(60)
    with mlflow.start_run():
        log(fitted(), registered="mortgage")
    data = tmp_path / "rows.parquet"
    X.assign(label=y).to_parquet(data)
    asked = ["run", "models:/mortgage/1", str(data), "--target", "label", "--run-id", run_id]
    for more in ([], ["--dry-run"]):
        assert invoke([*asked, *more]) == 2
        assert f"run_id {run_id!r} names no run" in capsys.readouterr().err


def test_of_keys_and_signatures_of_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot, key = copied(tmp_path / "shots"), tmp_path / "key.pem"
    assert dry(capsys, "keygen", str(key))["dry_run"]
    assert not key.exists()
    assert invoke(["keygen", str(key)]) == 0
    assert invoke(["keygen", str(key), "--dry-run"]) == 2
    before = everything(tmp_path)
    assert dry(capsys, "sign", str(shot), "--key", str(key))["snapshot_id"] == shot.name
    (shot / "card.md").write_text("changed")
    assert invoke(["sign", str(shot), "--key", str(key), "--dry-run"]) == 1
    assert {**everything(tmp_path), str(shot / "card.md"): before[str(shot / "card.md")]} == before


def test_of_an_openssf_signature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("model_signing", reason="the extra openssf is not installed")
    shot, key = copied(tmp_path / "shots"), str(tmp_path / "ec.pem")
    assert invoke(["keygen", key, "--openssf"]) == 0
    before = everything(tmp_path)
    found = dry(capsys, "sign", str(shot), "--openssf", str(tmp_path / "s.sig"), "--key", key)
    assert found["files"] > 10
    assert everything(tmp_path) == before
