"""Verify: one code per way to be wrong, each with the path at fault."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from snapshot_kit import copied, parts

from explain_step.snapshot import verify_directory, write
from explain_step.snapshot.manifest import dump, seal


@pytest.fixture
def place(tmp_path) -> Path:
    return copied(tmp_path)


def _found(place: Path) -> list[tuple[str, str]]:
    findings = verify_directory(place)
    assert all(f.verdict == "fail" for f in findings)
    return [(f.code, f.evidence["path"]) for f in findings]


def _rewrite(place: Path, **changes) -> None:
    """Write a manifest with changed values that is sealed again: as someone who knows the format would."""
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_bytes(dump(seal({**manifest, **changes})))


def test_an_untouched_snapshot_passes_and_says_what_that_means(place) -> None:
    (finding,) = verify_directory(place)
    assert (finding.code, finding.verdict) == ("VER000", "pass")
    assert "self-consistent only (L0)" in finding.message
    copy = place.parent / "copy under another name"
    shutil.copytree(place, copy)
    assert [f.code for f in verify_directory(copy)] == ["VER000"]


def test_no_directory_and_no_manifest(place) -> None:
    assert _found(place / "none") == [("VER001", ".")]
    (place / "manifest.json").unlink()
    assert _found(place) == [("VER001", "manifest.json")]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_manifest_that_is_not_strict_json(place, text) -> None:
    (place / "manifest.json").write_bytes(text)
    assert _found(place)[0] in (("VER002", "manifest.json"), ("VER003", "manifest.json"))


def test_a_manifest_with_other_white_space(place) -> None:
    manifest = place / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert _found(place) == [("VER002", "manifest.json")]


def test_a_manifest_with_another_value_lacks_its_digest(place) -> None:
    manifest = place / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "degraded"', '"status": "complete"'))
    assert _found(place) == [("VER004", "manifest.json")]


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "/etc/passwd",
        "a/../../b",
        "tables/../manifest.json",
        "manifest.json",
        "a\\b",
        "C:x",
        "Tables/x",
        "a/b/c",
        "",
        ".",
        "a\0b",
        ".hidden",
        "tables/",
    ],
)
def test_unsafe_paths_in_a_manifest_are_refused(place, path) -> None:
    manifest = json.loads((place / "manifest.json").read_text())
    extra = {"path": path, "sha256": "0" * 64, "size": 0, "role": "x"}
    _rewrite(place, files=[*manifest["files"], extra])
    (finding,) = verify_directory(place)
    assert (finding.code, finding.verdict) == ("VER003", "fail")
    assert "unsafe path" in finding.message


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"schema_version": "1"},
        {"schema_version": True},
        {"files": [{}]},
        {"files": "x"},
        {"tables": {"x": {}}},
        {"tables": {"../x": {"kind": "k", "digest": "d", "meta": {}}}},
        {"scores": [{}]},
        {"scores": [{"name": 1}]},
        {"model": []},
        {"status": None},
    ],
)
def test_a_malformed_manifest_is_a_finding_not_an_exception(place, changes) -> None:
    _rewrite(place, **changes)
    assert _found(place) == [("VER003", "manifest.json")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 63}, "malformed"),
        ({"sha256": "A" * 64}, "malformed"),
        ({"size": -1}, "malformed"),
        ({"size": 1.0}, "must have path, sha256, size and role"),
        ({"size": True}, "must have path, sha256, size and role"),
        ({"role": None}, "must have path, sha256, size and role"),
    ],
)
def test_a_malformed_entry_of_a_file_is_named(place, change, words) -> None:
    first, *rest = json.loads((place / "manifest.json").read_text())["files"]
    _rewrite(place, files=[{**first, **change}, *rest])
    (finding,) = verify_directory(place)
    assert finding.code == "VER003"
    assert words in finding.message


def test_a_file_named_twice(place) -> None:
    manifest = json.loads((place / "manifest.json").read_text())
    _rewrite(place, files=[*manifest["files"], manifest["files"][0]])
    assert _found(place) == [("VER003", "manifest.json")]


def test_missing_extra_changed_and_resized_files_are_all_named(place) -> None:
    (place / "card.md").unlink()
    (place / "notes.txt").write_text("x")
    (place / "tables" / "extra.csv").write_text("x")
    (place / "empty").mkdir()
    report = place / "report.html"
    data = bytearray(report.read_bytes())
    data[5] ^= 1
    report.write_bytes(bytes(data))
    with (place / "summary.json").open("ab") as handle:
        handle.write(b" ")
    assert sorted(_found(place)) == [
        ("VER005", "card.md"),
        ("VER006", "empty"),
        ("VER006", "notes.txt"),
        ("VER006", "tables/extra.csv"),
        ("VER007", "report.html"),
        ("VER007", "summary.json"),
    ]


def test_links_and_special_files_are_refused_even_with_the_right_content(place, tmp_path) -> None:
    card = place / "card.md"
    outside = tmp_path / "outside"
    shutil.copyfile(card, outside)
    card.unlink()
    card.symlink_to(outside)
    os.mkfifo(place / "pipe")
    (place / "loop").symlink_to(place)
    assert sorted(_found(place)) == [("VER008", "card.md"), ("VER008", "loop"), ("VER008", "pipe")]


def test_a_manifest_that_is_a_link_is_refused(place, tmp_path) -> None:
    outside = tmp_path / "m.json"
    shutil.move(place / "manifest.json", outside)
    (place / "manifest.json").symlink_to(outside)
    assert _found(place) == [("VER008", "manifest.json")]


def test_a_directory_in_place_of_a_file(place) -> None:
    (place / "card.md").unlink()
    (place / "card.md").mkdir()
    assert ("VER006", "card.md") in _found(place)


def test_names_that_are_not_text_are_named(place) -> None:
    Path(os.fsdecode(os.fsencode(place) + b"/\xff.txt")).write_text("x")
    assert _found(place) == [("VER006", "\\xff.txt")]


@pytest.mark.parametrize("key", ["data", "config", "model"])
def test_an_id_that_the_content_does_not_give(place, key) -> None:
    manifest = json.loads((place / "manifest.json").read_text())
    changed = {**manifest[key], "digest": "1" * 64}
    _rewrite(place, **{key: changed})
    assert {code for code, _ in _found(place)} == {"VER009"}


def test_a_score_that_was_improved(place) -> None:
    manifest = json.loads((place / "manifest.json").read_text())
    _rewrite(place, scores=[{**manifest["scores"][0], "value": 0.9}])
    assert _found(place) == [("VER009", "manifest.json")]


def test_a_table_that_was_replaced_with_its_file_digest(place, tmp_path) -> None:
    from snapshot_kit import importance

    other = write(tmp_path / "other", parts=parts(table=importance().assign(rank=[2, 1]))).path
    shutil.copyfile(other / "tables/importance.parquet", place / "tables/importance.parquet")
    manifest = json.loads((place / "manifest.json").read_text())
    theirs = json.loads((other / "manifest.json").read_text())
    swapped = {e["path"]: e for e in theirs["files"]}["tables/importance.parquet"]
    files = [swapped if e["path"] == swapped["path"] else e for e in manifest["files"]]
    _rewrite(place, files=files)
    assert _found(place) == [("VER009", "tables/importance.parquet"), ("VER009", "manifest.json")]
