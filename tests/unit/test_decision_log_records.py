"""Records of the decision log: a stray one does not end it."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from explain_step.errors import SnapshotError
from explain_step.tracking.decision_log import (
    DECISIONS,
    MAX_RECORD_BYTES,
    append,
    decisions,
    order_problem,
    record_problem,
)
from explain_step.tracking.place import Place

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def place(folder: Path) -> Place:
    return Place(location=folder.as_uri(), repository=LocalArtifactRepository(str(folder)))


def test_a_record_of_the_year_9999_does_not_end_the_log(tmp_path: Path) -> None:
    log = place(tmp_path)
    append(log, {"event": "decision"}, now=NOW)
    stray = tmp_path / DECISIONS / "99991231T235959.999999Z-000000000000.json"
    stray.write_text("{}")
    second = append(log, {"event": "review"}, now=NOW - timedelta(hours=1))
    assert second.file > sorted(p.name for p in stray.parent.iterdir())[0]
    found = decisions(log)
    assert [entry.record.get("event") for entry in found.entries] == ["decision", "review", None]
    assert any(stray.name in broken for broken in found.breaks)


def test_a_deeply_nested_record_is_a_break_and_no_error(tmp_path: Path) -> None:
    log = place(tmp_path)
    append(log, {"event": "decision"}, now=NOW)
    (tmp_path / DECISIONS / f"20260602T000000.000000Z-{'0' * 12}.json").write_text("[" * 100_000)
    assert any("holds no JSON object" in broken for broken in decisions(log).breaks)


def test_what_the_step_writes_is_a_record(tmp_path: Path) -> None:
    entry = append(place(tmp_path), {"event": "decision"}, now=NOW)
    file = tmp_path / entry.path
    assert record_problem(entry.file, file, now=NOW) is None
    assert record_problem(entry.file, file, now=NOW - timedelta(days=2)) is not None
    digest = hashlib.sha256(b"{}").hexdigest()[:12]
    file.write_bytes(b"{}")
    assert "digest" in str(record_problem(entry.file, file, now=NOW))
    assert record_problem(f"20260601T000000.000000Z-{digest}.json", file, now=NOW) is None
    assert "named after" in str(record_problem("note.json", file, now=NOW))
    for body in (b"[]", b"{", b"{}" + b" " * MAX_RECORD_BYTES):
        file.write_bytes(body)
        digest = hashlib.sha256(body).hexdigest()[:12]
        assert record_problem(f"20260601T000000.000000Z-{digest}.json", file, now=NOW) is not None


def test_only_what_follows_the_newest_record_is_in_order(tmp_path: Path) -> None:
    log = place(tmp_path / "log")
    for event in ("decision", "review"):
        append(log, {"event": event}, now=NOW)
    first, newest = (tmp_path / "log" / entry.path for entry in decisions(log).entries)
    elsewhere = place(tmp_path / "copy")
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    third = append(elsewhere, {"event": "decision"}, now=NOW)
    file = tmp_path / "copy" / third.path
    assert order_problem(log, third.file, file, now=NOW) is None
    assert order_problem(log, f"2026{third.file[4:]}".replace("2026", "2025", 1), file, now=NOW) is not None
    assert order_problem(log, newest.name, newest, now=NOW) is not None  # it follows the one before
    for number in (None, "3", 3):  # who counts none, or in words, breaks no chain
        file.write_text(json.dumps({**third.record, "number": number}))
        assert order_problem(log, third.file, file, now=NOW) is None
    for change in (
        {"number": 4},
        {"previous": None},
        {"number": 99},
        {"previous": {"file": first.name, "sha256": "0" * 64}},
    ):
        file.write_text(json.dumps({**third.record, **change}))
        assert order_problem(log, third.file, file, now=NOW) is not None


def test_the_first_record_of_a_log_follows_none(tmp_path: Path) -> None:
    log, elsewhere = place(tmp_path / "log"), place(tmp_path / "elsewhere")
    first = append(elsewhere, {"event": "decision"}, now=NOW)
    file = tmp_path / "elsewhere" / first.path
    assert order_problem(log, first.file, file, now=NOW) is None
    file.write_text("[]")
    assert order_problem(log, first.file, file, now=NOW) is None  # what is no record is told as such
    file.write_text(json.dumps({"previous": {"file": first.file, "sha256": first.sha256}}))
    assert order_problem(log, first.file, file, now=NOW) is not None


@pytest.mark.parametrize("stored", ["nothing", "something else"])
def test_a_record_that_is_not_stored_as_it_was_sent_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    """Where nobody else has written, it is not tried again."""
    tried = []

    def put(self: Place, file: Path, folder: str) -> None:
        tried.append(file.name)
        if stored == "nothing":
            raise OSError("no space left")
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / file.name).write_text("{}")

    monkeypatch.setattr(Place, "put", put)
    with pytest.raises((OSError, SnapshotError), match=r"no space left|does not hold what was sent"):
        append(place(tmp_path), {"event": "decision"}, now=NOW)
    assert len(tried) == 1


def test_a_record_that_was_overtaken_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a gated server answers where somebody else was faster."""
    put, overtaken = Place.put, []

    def slow(self: Place, file: Path, folder: str) -> None:
        if not overtaken:
            overtaken.append(file.name)
            append(place(tmp_path), {"event": "faster"}, now=NOW)
            raise OSError("403")
        put(self, file, folder)

    monkeypatch.setattr(Place, "put", slow)
    append(place(tmp_path), {"event": "slower"}, now=NOW)
    found = decisions(place(tmp_path))
    assert [entry.record["event"] for entry in found.entries] == ["faster", "slower"]
    assert found.breaks == ()
