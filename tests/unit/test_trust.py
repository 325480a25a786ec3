"""Levels of trust: which is reached, why not the next, and what a time stamp or a chain is worth."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from snapshot_kit import content, frame, parts, put, subject

from explain_step.cli import invoke
from explain_step.snapshot import verify_directory, write
from explain_step.snapshot.chain import Previous, chain
from explain_step.snapshot.manifest import dump, seal
from explain_step.snapshot.signing import AllowedKey, generate, sign_directory
from explain_step.snapshot.timestamps import check_timestamp, load_authorities
from explain_step.snapshot.trust import Noted
from explain_step.tracking import verify

STORED = Path(__file__).parents[1] / "snapshots" / "v1"
MANIFEST = (STORED / "loans" / "manifest.json").read_bytes()
AUTHORITIES = load_authorities(STORED / "authority.pem")
TOKENS = ["loans.tsr", "loans_rsa.tsr"]


@pytest.fixture
def loans(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED / "loans", tmp_path / "loans"))


def stamp(name: str = "loans.tsr", authorities: Any = AUTHORITIES) -> Any:
    return partial(check_timestamp, (STORED / name).read_bytes(), authorities=authorities)


# --- time stamps


@pytest.mark.parametrize("name", TOKENS)
def test_a_stored_time_stamp_holds(name: str) -> None:
    found = stamp(name)(MANIFEST)
    assert found.valid, found.reason
    assert found.time is not None
    assert f"{found.time:%Y-%m-%d %H:%M:%S} UTC" in found.reason
    assert "Test time stamps" in found.authority


def test_what_a_time_stamp_is_not() -> None:
    assert "another manifest" in stamp()(MANIFEST + b" ").reason
    assert "no time-stamping authority" in stamp(authorities=())(MANIFEST).reason
    stranger = load_authorities(STORED / "stranger.pem")
    assert "does not lead to a listed authority" in stamp(authorities=stranger)(MANIFEST).reason
    for data in (b"", b"0", b"\x30\x80", MANIFEST, b"\x30" * 5000, b"\x00" * (2 << 20)):
        found = check_timestamp(data, MANIFEST, authorities=AUTHORITIES)
        assert not found.valid


@pytest.mark.parametrize("name", TOKENS)
def test_no_changed_byte_of_a_token_changes_what_it_says(name: str) -> None:
    token = (STORED / name).read_bytes()
    true = stamp(name)(MANIFEST)
    refused = 0
    for at in range(len(token)):
        changed = bytearray(token)
        changed[at] ^= 1 << at % 8
        found = check_timestamp(bytes(changed), MANIFEST, authorities=AUTHORITIES)
        assert not found.valid or (found.time, found.authority) == (true.time, true.authority), at
        refused += not found.valid
    assert refused > 0.7 * len(token)  # the rest is packing, and certificates that are not needed


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    for place in (tmp_path / "a.pem", tmp_path / "none.pem"):
        with pytest.raises(Exception, match="must hold PEM certificates"):
            load_authorities(place)


# --- levels


def test_each_level_says_what_lacks_for_the_others(loans: Path, tmp_path: Path) -> None:
    signer = generate(tmp_path / "key.pem")
    keys = (AllowedKey(key_id=signer.key_id, owner="ci"),)
    noted = Noted(sha256=hashlib.sha256(MANIFEST).hexdigest(), where="version models:/loans/1")

    def level(**given: Any) -> tuple[str, dict[str, str]]:
        (finding,) = verify_directory(loans, **given)
        assert finding.verdict == "pass"
        return finding.evidence["level"], finding.evidence["lacking"]

    reached, lacking = level()
    assert (reached, set(lacking)) == ("L0", {"L1", "L2", "L3"})
    assert "no registry was asked" in lacking["L1"]
    assert "no signature" in lacking["L2"]
    assert level(noted=noted)[0] == "L1"
    unnoted = level(noted=Noted(sha256=None, where="run 7"))
    assert unnoted[0] == "L0"
    assert "run 7 notes no digest" in unnoted[1]["L1"]
    reached, lacking = level(timestamp=stamp())
    assert reached == "L0"
    assert "not signed by a listed key" in lacking["L3"]
    sign_directory(loans, signer)
    reached, lacking = level()
    assert reached == "L0"
    assert "--allowed-keys" in lacking["L2"]
    reached, lacking = level(allowed_keys=keys)
    assert (reached, set(lacking)) == ("L2", {"L1", "L3"})
    others = (AllowedKey(key_id="0" * 64, owner="risk"),)
    assert "--allowed-keys" not in level(allowed_keys=others)[1]["L2"]
    assert level(allowed_keys=keys, noted=noted)[0] == "L2"
    assert level(allowed_keys=keys, timestamp=stamp(), noted=noted) == ("L3", {})
    reached, lacking = level(allowed_keys=keys, timestamp=stamp(authorities=()))
    assert reached == "L2"
    assert "does not count" in lacking["L3"]


def test_a_registry_that_notes_another_manifest_is_a_finding(loans: Path) -> None:
    true = hashlib.sha256(MANIFEST).hexdigest()
    for other in ("0" * 64, f"{true[:-1]}{'0' if true[-1] != '0' else '1'}"):
        noted = Noted(sha256=other, where="version models:/loans/1")
        (finding,) = verify_directory(loans, noted=noted)
        assert (finding.code, finding.verdict) == ("VER011", "fail")
        assert "models:/loans/1" in finding.message


def test_nothing_at_level_zero_speaks_of_tampering(loans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["verify", str(loans)]) == 0
    out = capsys.readouterr().out
    assert "level     L0" in out
    assert "accidents show, a change of files and digests together does not" in out
    for line in ("not L1    no registry", "not L2    it has no signature", "not L3    no time stamp"):
        assert line in out
    for word in ("tamper", "authentic", "trusted"):
        assert word not in out.lower()


def test_the_command_reaches_level_three(
    loans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["keygen", str(tmp_path / "key.pem"), "--json"]) == 0
    key_id = json.loads(capsys.readouterr().out)["key_id"]
    assert invoke(["sign", str(loans), "--key", str(tmp_path / "key.pem")]) == 0
    (tmp_path / "keys").write_text(f"{key_id} ci\n")
    capsys.readouterr()
    stamped = ["--timestamp", str(STORED / "loans.tsr")]
    listed = ["--timestamp-authorities", str(STORED / "authority.pem")]
    assert invoke(["verify", str(loans), "--allowed-keys", str(tmp_path / "keys"), *stamped, *listed]) == 0
    out = capsys.readouterr().out
    assert "level     L3" in out
    assert "signed by ci and time-stamped" in out
    assert invoke(["verify", str(loans), *listed]) == 2


# --- the chain


def _previous(place: Path, *, whole: bool) -> Previous:
    digest = hashlib.sha256((place / "manifest.json").read_bytes()).hexdigest()
    return Previous(snapshot_id=place.name, manifest_sha256=digest if whole else None)


def linked(folder: Path, n: int, *, whole: bool = True) -> list[Path]:
    """Return n snapshots, each of which names the one before; every test gets a copy of its own."""
    names, files = _linked(n, whole)
    put(folder, files)
    return [folder / name for name in names]


@cache
def _linked(n: int, whole: bool) -> tuple[list[str], dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        return [place.name for place in _written(Path(folder), n, whole=whole)], content(Path(folder))


def _written(folder: Path, n: int, *, whole: bool) -> list[Path]:
    made: list[Path] = []
    for i in range(n):
        previous = _previous(made[-1], whole=whole) if made else None
        given = parts(
            subject=subject(frame(30, seed=i)),
            previous=previous,
            created_at=f"2026-01-0{i + 1}T00:00:00+00:00",
        )
        made.append(write(folder, parts=given).path)
    return made


def test_the_chain_is_followed_where_it_is_kept(tmp_path: Path) -> None:
    first, second, third = linked(tmp_path, 3)
    (finding,) = verify(third)
    assert finding.evidence["previous"] == {
        "snapshot_id": second.name,
        "followed": 2,
        "by_bytes": 2,
        "end": "the first",
        "forks": [],
    }
    shutil.rmtree(first)
    (finding,) = verify(third)
    assert finding.evidence["previous"]["followed"] == 1
    assert "is not kept here" in finding.evidence["previous"]["end"]


def rewrite(place: Path, **changes: Any) -> None:
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_bytes(dump(seal({**manifest, **changes})))


def made_for(place: Path, model_id: str) -> dict[str, Any]:
    model = json.loads((place / "manifest.json").read_text())["model"]
    return {**model, "model_id": model_id}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / "manifest.json").write_text("{}"), "cannot be read"),
        (lambda p: rewrite(p, created_at="2027-01-01T00:00:00+00:00"), "made after the one that follows"),
        (lambda p: rewrite(p, snapshot_id="0" * 64), "another snapshot"),
        (
            lambda p: rewrite(p, model=made_for(p, "m-" + "2" * 32)),
            "was made for another model (model_id m-22",
        ),
        (lambda p: rewrite(p, previous="../../x"), "names '../../x'"),
        (lambda p: rewrite(p, previous=7), "names '7'"),
        (
            lambda p: (p / "manifest.json").write_text(
                (p / "manifest.json").read_text().replace("degraded", "complete")
            ),
            "lacks its own digest",
        ),
    ],
)
def test_a_broken_chain_is_named(tmp_path: Path, change: Any, words: str) -> None:
    _, second, third = linked(tmp_path, 3, whole=False)
    rewrite(third, model=made_for(third, "m-" + "1" * 32))
    change(second)
    (finding,) = verify(third)
    assert (finding.code, finding.verdict) == ("VER014", "fail")
    assert words in finding.message
    assert second.name[:12] in finding.message


def test_a_snapshot_of_a_model_that_is_not_logged_may_follow_one_that_was(tmp_path: Path) -> None:
    _, second, third = linked(tmp_path, 3, whole=False)
    rewrite(second, model=made_for(second, "m-" + "1" * 32))
    (finding,) = verify(third)
    assert (finding.verdict, finding.evidence["previous"]["followed"]) == ("pass", 2)


@pytest.mark.parametrize(
    "words", [{"reason": "better words"}, {"caveats": []}, {"files": []}, {"purpose": "x"}]
)
def test_figures_and_words_of_an_earlier_snapshot_are_held_too(tmp_path: Path, words: dict[str, Any]) -> None:
    _, second, third = linked(tmp_path, 3)
    rewrite(second, **words)
    (finding,) = verify(third)
    assert finding.code == "VER014"
    assert "figures, words or other files changed" in finding.message or "cannot be read" in finding.message


def test_a_clock_that_was_put_back_breaks_no_chain_of_bytes(tmp_path: Path) -> None:
    """Two machines, or one before and after its clock was set: the later snapshot is dated earlier."""
    first, second = linked(tmp_path, 2)
    rewrite(second, created_at="2025-12-31T23:59:59+00:00")
    (finding,) = verify(second)
    assert (finding.verdict, finding.evidence["previous"]["by_bytes"]) == ("pass", 1)
    rewrite(first, created_at="2025-01-01T00:00:00+00:00")
    assert [f.code for f in verify(second)] == ["VER014"]


def test_a_chain_by_ids_alone_holds_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As snapshots were linked before the digest of the manifest was recorded."""
    first, second, third = linked(tmp_path, 3, whole=False)
    rewrite(first, reason="better words")
    (finding,) = verify(third)
    assert finding.evidence["previous"]["followed"] == 2
    assert finding.evidence["previous"]["by_bytes"] == 0
    for place in (first, second, third):  # an old manifest has no such key
        manifest = json.loads((place / "manifest.json").read_text())
        del manifest["previous_manifest_sha256"]
        (place / "manifest.json").write_bytes(dump(seal(manifest)))
    assert invoke(["verify", str(third)]) == 0
    assert "2 before it, the first (2 by content alone)" in capsys.readouterr().out


def test_two_snapshots_that_follow_the_same_one_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = linked(tmp_path, 3)
    given = parts(subject=subject(frame(30, seed=9)), previous=_previous(first, whole=True))
    other = write(tmp_path, parts=replace(given, created_at="2026-01-05T00:00:00+00:00")).path
    fork = {"snapshot_id": other.name, "previous": first.name}
    for place in (second, third):
        (finding,) = verify(place)  # told, and no fault of the bytes: two steps at once do that too
        assert finding.evidence["previous"]["forks"] == [fork]
    (finding,) = verify(other)
    assert finding.evidence["previous"]["forks"] == [{"snapshot_id": second.name, "previous": first.name}]
    (finding,) = verify(first)  # both come after it
    assert {f["snapshot_id"] for f in finding.evidence["previous"]["forks"]} == {second.name, other.name}
    assert invoke(["verify", str(third)]) == 0
    assert f"{other.name[:12]} follows {first.name[:12]} as well" in capsys.readouterr().out
    rewrite(other, model=made_for(other, "m-" + "2" * 32))
    (finding,) = verify(third)
    assert finding.evidence["previous"]["forks"] == []  # another model's history
    shutil.rmtree(other)
    shutil.rmtree(first)  # what is cut off can be followed too
    put(tmp_path, {f"{'e' * 64}/manifest.json": b"{}"})
    (finding,) = verify(third)
    assert finding.evidence["previous"]["forks"] == []


def test_a_neighbour_without_end_is_not_read_whole(tmp_path: Path) -> None:
    second, third = linked(tmp_path, 3)[1:]
    os.truncate(second / "manifest.json", 1 << 40)
    (finding,) = verify(third)
    assert finding.code == "VER014"
    assert "at most" in finding.message


def test_a_link_that_is_no_digest_fails(tmp_path: Path) -> None:
    _, second = linked(tmp_path, 2)
    for link in ("", "x", 7, [], {}, "0" * 64):
        rewrite(second, previous_manifest_sha256=link)
        assert [f.code for f in verify(second)] == ["VER014"], link


def test_the_link_stays_outside_the_id_and_nothing_follows_itself(tmp_path: Path) -> None:
    alone = write(tmp_path / "one", parts=parts())
    before = Previous(snapshot_id="a" * 64, manifest_sha256="b" * 64)
    again = write(tmp_path / "two", parts=parts(previous=before))
    assert again.id == alone.id
    assert again.manifest["previous_manifest_sha256"] == "b" * 64
    itself = Previous(snapshot_id=alone.id, manifest_sha256="b" * 64)
    manifest = write(tmp_path / "three", parts=parts(previous=itself)).manifest
    assert (manifest["previous"], manifest["previous_manifest_sha256"]) == (None, None)
    odd = Previous(snapshot_id="a" * 64, manifest_sha256="…")
    assert write(tmp_path / "four", parts=parts(previous=odd)).manifest["previous_manifest_sha256"] is None


def test_a_chain_is_followed_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explain_step.snapshot.chain.MOST", 1)
    (finding,) = verify(linked(tmp_path, 3)[-1])
    assert finding.verdict == "pass"
    told = finding.evidence["previous"]
    assert (told["followed"], told["end"]) == (1, "more than 1")


def test_a_chain_that_goes_in_a_circle_ends() -> None:
    one = {"snapshot_id": "a" * 64, "previous": "a" * 64}
    facts, (finding,) = chain(one, lambda identity: None)
    assert finding.code == "VER014"
    assert facts["end"] == "it is broken"
