"""Records of the decision log: a stray one does not end it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from explain_step.tracking.decision_log import DECISIONS, append, decisions, record_problem
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
