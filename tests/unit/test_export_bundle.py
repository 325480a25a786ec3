"""A bundle is unpacked on any system: names that would be another file there are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from explain_step.errors import InvalidInput
from explain_step.snapshot.export import bundle, check_outside


def pack(to: Path, folder: Path, **texts: str) -> tuple[str, ...]:
    return bundle(to, texts={"README.md": "x", **texts}, folders={"model": folder}, leave_out={})


@pytest.mark.parametrize(
    "name",
    ["a\\..\\..\\b", "C:x", "line\nbreak", "\x1b[2J", "blank ", "dot.", "sub /x", "what?", "\x7f", "a|b"],
)
@pytest.mark.parametrize("to", ["out", "out.zip"])
def test_a_name_that_is_another_file_elsewhere_is_refused(tmp_path: Path, name: str, to: str) -> None:
    place = tmp_path / "model" / name
    place.parent.mkdir(parents=True)
    place.write_text("x")
    with pytest.raises(InvalidInput, match="file name"):
        pack(tmp_path / to, tmp_path / "model")
    assert not (tmp_path / to).exists()


@pytest.mark.parametrize(("one", "other"), [("a.txt", "A.txt"), ("\u00e9", "e\u0301"), ("\ufb00", "ff")])
def test_two_names_that_are_one_file_elsewhere_are_refused(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "model").mkdir()
    for name in (one, other):
        (tmp_path / "model" / name).write_text(name)
    with pytest.raises(InvalidInput, match="are one file on some systems"):
        pack(tmp_path / "out.zip", tmp_path / "model")


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//x", "./x", ""])
def test_no_text_leaves_the_bundle(tmp_path: Path, path: str) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidInput, match="file name"):
        bundle(tmp_path / "out.zip", texts={path: "x"}, folders={"model": tmp_path / "model"}, leave_out={})


def test_links_to_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("x")
    for name, target in (("file", tmp_path / "secret" / "x"), ("folder", tmp_path / "secret")):
        folder = tmp_path / f"model-{name}"
        folder.mkdir()
        (folder / name).symlink_to(target)
        with pytest.raises(InvalidInput, match="is a link"):
            pack(tmp_path / f"{name}.zip", folder)


def test_ordinary_names_are_packed_under_the_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    for name in ("MLmodel", "data/model.ubj", ".hidden", "ümlaut (1).json"):
        (folder / name).write_text("x")
    pack(tmp_path / "out.zip", folder)
    names = [
        "README.md",
        "SHA256SUMS",
        *(f"model/{p}" for p in (".hidden", "MLmodel", "data/model.ubj", "ümlaut (1).json")),
    ]
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == sorted(names)


@pytest.mark.parametrize("to", ["", "bundle", "tables/bundle.zip", "../snapshot/bundle"])
def test_a_place_inside_the_snapshot_is_refused(tmp_path: Path, to: str) -> None:
    folder = tmp_path / "snapshot"
    (folder / "tables").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    for start in (folder, tmp_path / "link"):
        with pytest.raises(InvalidInput, match="outside of the snapshot"):
            check_outside(start / to, folder)
    check_outside(tmp_path / "snapshot-2", folder)
