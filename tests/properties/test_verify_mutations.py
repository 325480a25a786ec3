"""Hundreds of random changes to a snapshot: verify names each by its path."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from snapshot_kit import parts

from explain_step.errors import SnapshotError
from explain_step.snapshot import read_directory, verify_directory, write

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


CHANGES = [_flip, _insert, _cut, _delete, _link]


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
