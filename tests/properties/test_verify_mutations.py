"""Hundreds of changes to a snapshot, random ones and an attacker's: verify names each by its path."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshot_kit import frame, parts

import explain_step
from explain_step.errors import SnapshotError
from explain_step.hashes import sha256_bytes
from explain_step.snapshot import read_directory, verify_directory, write
from explain_step.snapshot.manifest import dump, seal
from explain_step.snapshot.signing import AllowedKey, generate, sign_directory

ROUNDS = 12
PER_ROUND = 30


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("snapshots"), parts=parts()).path


def _files(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())


def _flip(place: Path, name: str, rng: np.random.Generator) -> None:
    data = bytearray((place / name).read_bytes())
    data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
    (place / name).write_bytes(bytes(data))


def _insert(place: Path, name: str, rng: np.random.Generator) -> None:
    data = (place / name).read_bytes()
    at = int(rng.integers(len(data) + 1))
    (place / name).write_bytes(data[:at] + rng.bytes(1) + data[at:])


def _cut(place: Path, name: str, rng: np.random.Generator) -> None:
    data = (place / name).read_bytes()
    (place / name).write_bytes(data[: int(rng.integers(len(data)))])


def _delete(place: Path, name: str, rng: np.random.Generator) -> None:
    (place / name).unlink()


def _link(place: Path, name: str, rng: np.random.Generator) -> None:
    aside = place.parent / f"aside-{place.name}"
    shutil.copyfile(place / name, aside)
    (place / name).unlink()
    (place / name).symlink_to(aside)


def _hard_link(place: Path, name: str, rng: np.random.Generator) -> None:
    """Another file of the snapshot, or the same with one byte more, under this name by a hard link."""
    aside = place.parent / f"aside-{place.name}"
    aside.write_bytes((place / name).read_bytes() + b" ")
    (place / name).unlink()
    os.link(aside, place / name)


CHANGES = [_flip, _insert, _cut, _delete, _link, _hard_link]


def _check(place: Path, expected: set[str], what: str) -> None:
    findings = verify_directory(place)
    named = {f.evidence.get("path") for f in findings}
    assert all(f.verdict == "fail" for f in findings), what
    assert named == expected, what


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_change_to_any_file_is_named(original: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for i in range(PER_ROUND):
        place = tmp_path / str(i)
        shutil.copytree(original, place)
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        name = str(rng.choice(_files(place)))
        change(place, name, rng)
        _check(place, {name}, f"{change.__name__} {name}")
        if change is not _link and (name == "manifest.json" or name.endswith(".parquet")):
            with pytest.raises(SnapshotError, match=re.escape(Path(name).name)):
                read_directory(place)
        shutil.rmtree(place)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_swaps_additions_and_many_changes_are_all_named(original: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    for i in range(PER_ROUND // 3):
        place = tmp_path / str(i)
        shutil.copytree(original, place)
        payload = [name for name in _files(place) if name != "manifest.json"]
        first, second, third = (str(n) for n in rng.choice(payload, size=3, replace=False))
        (place / first).rename(place / "keep")
        (place / second).rename(place / first)
        (place / "keep").rename(place / second)
        CHANGES[int(rng.integers(len(CHANGES)))](place, third, rng)
        folder = str(rng.choice(["", "tables/", "figures/", "provenance/"]))
        (place / f"{folder}added-{i}.bin").write_bytes(rng.bytes(int(rng.integers(0, 9))))
        (place / "nested").mkdir()
        (place / "nested" / "deep").mkdir()
        _check(
            place,
            {first, second, third, f"{folder}added-{i}.bin", "nested", "nested/deep"},
            f"{first} {second}",
        )
        shutil.rmtree(place)


def test_every_byte_of_the_manifest_counts(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    manifest = place / "manifest.json"
    data = manifest.read_bytes()
    rng = np.random.default_rng(5)
    for at in rng.choice(len(data), size=400, replace=False):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 128))
        manifest.write_bytes(bytes(changed))
        findings = verify_directory(place)
        assert all(f.verdict == "fail" for f in findings), at
        assert "manifest.json" in {f.evidence.get("path") for f in findings}, at
    manifest.write_bytes(data)
    assert [f.code for f in verify_directory(place)] == ["VER000"]


def test_another_spelling_of_a_number_is_another_manifest(original: Path, tmp_path: Path) -> None:
    """RFC 8785 writes 1, 1.0 and 1e0 alike, and 0 and -0.0: the digest of the text does not."""
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    manifest = place / "manifest.json"
    text = manifest.read_text()
    spots = list(re.finditer(r"(?<=[\s\[])-?\d+(\.\d+)?(?=[,\n])", text))
    assert len(spots) > 25
    for spot in spots:
        number = spot[0]
        others = (
            [f"{number}.0", f"-{number}"] if "." not in number else [f"-{number}", number[: -len(spot[1])]]
        )
        if float(number) == 0:
            others.append("-0.0")
        for other in others:
            manifest.write_text(f"{text[: spot.start()]}{other}{text[spot.end() :]}")
            findings = verify_directory(place)
            assert {f.verdict for f in findings} == {"fail"}, (spot.start(), number, other)
            assert "manifest.json" in {f.evidence["path"] for f in findings}
            with pytest.raises(SnapshotError):
                read_directory(place)
    manifest.write_text(text)
    assert [f.code for f in verify_directory(place)] == ["VER000"]


def test_zero_and_minus_zero_are_two_manifests(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    for value, other in (("0.0", "-0.0"), ("0", "-0.0"), ("1", "1.0"), ("100", "100.0")):
        manifest = json.loads((original / "manifest.json").read_text())
        manifest["quantity"]["zero"] = json.loads(value)
        data = dump(seal(manifest))
        (place / "manifest.json").write_bytes(data)
        assert [f.code for f in verify_directory(place)] == ["VER000"]
        changed = data.replace(f'"zero": {value}'.encode(), f'"zero": {other}'.encode())
        assert changed != data
        (place / "manifest.json").write_bytes(changed)
        assert [f.code for f in verify_directory(place)] == ["VER004"], other


# --- a directory that changes while it is verified


def _meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Do something just before a step of the verification, once."""
    verify = import_module("explain_step.snapshot.verify")
    step, done = getattr(verify, name), []

    def between(*arguments: Any, **settings: Any) -> Any:
        if not done:
            done.append(True)
            act()
        return step(*arguments, **settings)

    monkeypatch.setattr(verify, name, between)


def test_a_manifest_that_is_exchanged_meanwhile_brings_no_signature_with_it(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = generate(tmp_path / "key.pem")
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    sign_directory(place, signer)
    signed = (place / "manifest.json").read_bytes()
    _resealed(place, lambda m: m.update(reason="better words"))
    _meanwhile(monkeypatch, "signatures_of", lambda: (place / "manifest.json").write_bytes(signed))
    allowed = (AllowedKey(key_id=signer.key_id, owner="ci"),)
    (finding,) = verify_directory(place, allowed_keys=allowed)
    assert (finding.code, "made for another manifest" in finding.message) == ("VER010", True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)
def test_files_that_become_something_else_meanwhile_are_named(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("card.md", "tables/importance.parquet")):
        for kind in ("pipe", "link"):
            place = tmp_path / f"{kind}-{number}"
            shutil.copytree(original, place)
            aside = tmp_path / f"aside-{kind}-{number}"

            def exchange(file: Path = place / name, kind: str = kind, aside: Path = aside) -> None:
                file.rename(aside)
                if kind == "pipe":
                    os.mkfifo(file)
                else:
                    file.symlink_to(aside)

            with monkeypatch.context() as patch:
                _meanwhile(patch, "_content", exchange)
                _check(place, {name}, f"{kind} {name}")


def test_a_table_that_is_exchanged_after_its_digest_is_named(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    table = place / "tables" / "importance.parquet"
    other = next(p for p in sorted((place / "tables").glob("*.parquet")) if p != table).read_bytes()
    _meanwhile(monkeypatch, "_identity", lambda: table.write_bytes(other))
    (finding,) = verify_directory(place)
    assert finding.evidence["path"] == "tables/importance.parquet"
    assert "changed while it was verified" in finding.message


# --- names and folders that are not those of the manifest

TWIN = unicodedata.normalize("NFD", "é")
ADDED = {
    "case": "Card.md",
    "capitals": "tables/IMPORTANCE.parquet",
    "trailing blank": "card.md ",
    "leading blank": " card.md",
    "trailing dot": "card.md.",
    "zero width": "card\u200b.md",
    "full width": "\uff43ard.md",
    "composed": "é.md",
    "decomposed": f"{TWIN}.md",
    "hidden": ".card.md",
    "another stream": "card.md:x",
    "line break": "card.md\n",
    "terminal": "\x1b[2Jcard.md",
    "back slash": "tables\\x.csv",
    "manifest in a folder": "tables/manifest.json",
    "signatures in capitals": "Signatures/x.json",
    "signatures with a blank": f"signatures /{'0' * 64}.json",
    "swap file": "manifest.json~",
}


@pytest.mark.parametrize("name", ADDED.values(), ids=list(ADDED))
def test_a_name_that_looks_like_another_is_named(original: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(b"x")
    parent = {Path(name).parent.as_posix()} - {".", "tables"}
    _check(place, {name} | parent, name)
    (place / name).unlink()
    for folder in parent:
        (place / folder).rmdir()
    assert [f.code for f in verify_directory(place)] == ["VER000"]


@pytest.mark.parametrize("name", ["card.md", "tables/importance.parquet", "manifest.json"])
@pytest.mark.parametrize("twin", [str.upper, str.title, lambda n: f"{n} ", lambda n: f"./{n}."])
def test_a_file_under_another_spelling_is_missing(
    original: Path, tmp_path: Path, name: str, twin: Callable[[str], str]
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    spelled = (place / name).parent / twin(Path(name).name)
    (place / name).rename(spelled)
    if name == "manifest.json":
        _check(place, {name}, name)
    else:
        _check(place, {name, spelled.relative_to(place).as_posix()}, name)


def test_empty_folders_are_named_at_any_depth(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    for folder in ("empty", "tables/empty", "figures/a/b", "Tables"):
        (place / folder).mkdir(parents=True)
    _check(place, {"empty", "tables/empty", "figures/a", "figures/a/b", "Tables"}, "folders")


def test_a_folder_in_place_of_a_file_and_a_link_in_place_of_a_folder(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    shutil.move(place / "provenance", tmp_path / "provenance")
    (place / "provenance").symlink_to(tmp_path / "provenance")
    files = {name for name in _files(original) if name.startswith("provenance/")}
    _check(place, {"provenance", *files}, "a link to the true folder")


def test_a_tower_of_folders_is_named_and_not_climbed(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    at = os.open(place, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)  # deeper than a path may be long
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    try:
        findings = verify_directory(place)
    finally:  # too deep for pytest, which removes old folders when a later session ends
        subprocess.run(["rm", "-rf", str(place / "d")], check=True)
    assert {f.code for f in findings} == {"VER006"}
    assert findings[0].evidence["path"] == "d"
    assert len(findings) < 20


def test_a_hard_link_with_the_same_bytes_is_the_same_file(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    aside = tmp_path / "aside"
    (place / "card.md").rename(aside)
    os.link(aside, place / "card.md")
    assert [f.code for f in verify_directory(place)] == ["VER000"]
    aside.write_bytes(b"later")
    _check(place, {"card.md"}, "changed through its other name")


# --- manifests that somebody wrote who knows the format


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _sealed_text(place: Path, old: str, new: str) -> None:
    text = (place / "manifest.json").read_text()
    assert old in text
    (place / "manifest.json").write_text(text.replace(old, new, 1))


TEXTS = {
    "a key twice": ('"status": "degraded"', '"status": "complete",\n  "status": "degraded"'),
    "a key twice, spelled by an escape": (
        '"status": "degraded"',
        '"statu\\u0073": "complete", "status": "degraded"',
    ),
    "NaN": ('"schema_version": 1', '"schema_version": 1, "x": NaN'),
    "minus infinity": ('"schema_version": 1', '"schema_version": 1, "x": -Infinity'),
    "a float beyond 64 bits": ('"schema_version": 1', '"schema_version": 1, "x": 1e999'),
    "an integer beyond 53 bits": ('"schema_version": 1', '"schema_version": 1, "x": 9007199254740993'),
    "an integer of 4,000 digits": ('"schema_version": 1', f'"schema_version": 1, "x": {"9" * 4000}'),
    "an integer of 5,000 digits": ('"schema_version": 1', f'"schema_version": 1, "x": {"9" * 5000}'),
    "version 1.0": ('"schema_version": 1', '"schema_version": 1.0'),
    "version 1e0": ('"schema_version": 1', '"schema_version": 1e0'),
    "half a surrogate": ('"schema_version": 1', '"schema_version": 1, "x": "\\ud800"'),
    "nested 100 deep": ('"schema_version": 1', f'"schema_version": 1, "x": {json.dumps(_nested(100))}'),
    "nested 900 deep": ('"schema_version": 1', f'"schema_version": 1, "x": {json.dumps(_nested(900))}'),
    "nested 60,000 deep": ('"schema_version": 1', f'"schema_version": 1, "x": {"[" * 60_000}{"]" * 60_000}'),
    "a comment": ('"schema_version": 1', '"schema_version": 1 /* x */'),
    "a byte-order mark": ("{", "\ufeff{"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_odd_json_is_named_and_read_by_nothing(original: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    _sealed_text(place, *TEXTS[name])
    _check(place, {"manifest.json"}, name)
    with pytest.raises(SnapshotError):
        read_directory(place)
    with pytest.raises(SnapshotError):
        explain_step.replay(place, data=frame(30))


def _resealed(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((place / "manifest.json").read_text())
    change(manifest)
    (place / "manifest.json").write_bytes(dump(seal(manifest)))


def _entry(path: str) -> Callable[[dict[str, Any]], None]:
    entry = {"path": path, "sha256": sha256_bytes(b"x"), "size": 1, "role": "x"}
    return lambda manifest: manifest["files"].append(entry)


FORGED = {
    "a path out of the folder": _entry("../outside"),
    "a path in other spelling": _entry("Card.md"),
    "a path with a blank": _entry("card.md "),
    "a path that is a device": _entry("/dev/zero"),
    "a path of the signatures": _entry(f"signatures/{'0' * 64}.json"),
    "a digest in capitals": lambda m: m["files"][0].update(sha256=m["files"][0]["sha256"].upper()),
    "a size that is true": lambda m: m["files"][0].update(size=True),
    "caveats of another kind": lambda m: m.update(caveats=["x"]),
    "scores of another kind": lambda m: m.update(scores=["ab"]),
    "options of another digest": lambda m: m.update(config_digest="0" * 64),
    "a score that is text": lambda m: m["scores"][0].update(value="abc"),
    "a table without a digest": lambda m: m["tables"]["importance"].pop("digest"),
    "no model": lambda m: m.update(model=None),
    "tables swapped": lambda m: m.update(
        tables={
            "importance": {**m["tables"]["importance"], "digest": m["tables"]["attributions"]["digest"]},
            "attributions": {**m["tables"]["attributions"], "digest": m["tables"]["importance"]["digest"]},
        }
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_sealed_forgery_is_a_finding_and_never_an_exception(
    original: Path, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    (tmp_path / "outside").write_bytes(b"x")
    _resealed(place, FORGED[name])
    findings = verify_directory(place)
    assert findings
    assert all(f.verdict == "fail" for f in findings), name
    with pytest.raises(SnapshotError):
        explain_step.replay(place, data=frame(30))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1"])
def test_a_sealed_table_that_is_none_is_named_and_not_read(
    original: Path, tmp_path: Path, data: bytes
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    path = "tables/importance.parquet"
    (place / path).write_bytes(data)
    entry = {"sha256": sha256_bytes(data), "size": len(data)}
    _resealed(place, lambda m: [f.update(entry) for f in m["files"] if f["path"] == path] and None)
    _check(place, {path}, "no table")
    with pytest.raises(SnapshotError, match=r"importance\.parquet"):
        read_directory(place)


def test_bytes_of_a_sealed_table_that_are_changed_raise_nothing_else(original: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    path = "tables/importance.parquet"
    true = (place / path).read_bytes()
    manifest = (place / "manifest.json").read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(60):
        data = bytearray(true)
        for at in rng.choice(len(data), size=3, replace=False):
            data[at] ^= int(rng.integers(1, 256))
        (place / path).write_bytes(bytes(data))
        (place / "manifest.json").write_bytes(manifest)
        entry = {"sha256": sha256_bytes(bytes(data)), "size": len(data)}
        _resealed(
            place, lambda m, entry=entry: [f.update(entry) for f in m["files"] if f["path"] == path] and None
        )
        findings = verify_directory(place)
        assert {f.code for f in findings} <= {"VER000", "VER009"}
        try:
            read_directory(place)
        except SnapshotError:
            assert findings[0].verdict == "fail"


def test_a_replay_takes_no_model_from_a_place_that_the_snapshot_names(original: Path, tmp_path: Path) -> None:
    place, trap = tmp_path / "copy", tmp_path / "evil"
    shutil.copytree(original, place)
    trap.mkdir()
    (trap / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: trap\n")
    for uri in (str(trap), trap.as_uri(), "evil", "https://example.org/model"):
        _resealed(place, lambda m, uri=uri: m["model"].update(uri=uri))
        found = explain_step.replay(place, data=frame(30))
        assert found.verdict == "not_replayable"
        assert "names no logged model" in found.reason


def test_files_without_end_and_without_bytes_are_named_at_once(original: Path, tmp_path: Path) -> None:
    """Sparse files of terabytes take no room on a disk; a pipe has no end."""
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    os.truncate(place / "card.md", 2 * 10**12)
    with (place / "more.bin").open("wb") as file:
        file.truncate(2 * 10**12)
    (place / "summary.json").unlink()
    os.mkfifo(place / "summary.json")
    _check(place, {"card.md", "more.bin", "summary.json"}, "sparse files and a pipe")
    os.truncate(place / "manifest.json", 2 * 10**12)
    _check(place, {"manifest.json"}, "a manifest of terabytes")
    with pytest.raises(SnapshotError, match="must have at most"):
        read_directory(place)


def test_a_root_that_is_a_link_is_the_directory_it_leads_to(original: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    assert [f.code for f in verify_directory(tmp_path / "link")] == ["VER000"]


@pytest.mark.parametrize(
    "path", ["a/../card.md", "./card.md", "tables//x", "tables/.", "..", "tables/../../x", "card.md\n"]
)
def test_a_path_has_one_spelling(original: Path, tmp_path: Path, path: str) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    _resealed(place, _entry(path))
    (finding,) = verify_directory(place)
    assert finding.code == "VER003"
    assert "unsafe path" in finding.message
