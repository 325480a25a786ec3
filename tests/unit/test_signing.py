"""Signatures of snapshots: what holds, what does not, and what each attack on an envelope is called."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from snapshot_kit import frame, parts, subject

from explain_step.errors import ExplainStepError, InvalidInput
from explain_step.snapshot import verify_directory, write
from explain_step.snapshot.signing import (
    AllowedKey,
    Signer,
    command_signer,
    generate,
    load_allowed_keys,
    load_signer,
    sign_directory,
    signatures_of,
    trusted,
)

TODAY = date(2026, 6, 1)


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    return write(tmp_path / "shots", parts=parts()).path


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return generate(tmp_path / "key.pem")


def test_a_signature_holds_and_gives_level_two(shot: Path, signer: Signer) -> None:
    sign_directory(shot, signer)
    allowed = (AllowedKey(key_id=signer.key_id, owner="ci"),)
    (finding,) = verify_directory(shot, allowed_keys=allowed, today=TODAY)
    assert finding.verdict == "pass"
    assert finding.evidence["level"] == "L2"
    assert "signed by ci (L2)" in finding.message


def test_without_a_listed_key_the_level_stays_zero(shot: Path, signer: Signer) -> None:
    sign_directory(shot, signer)
    (finding,) = verify_directory(shot)
    assert (finding.verdict, finding.evidence["level"]) == ("pass", "L0")
    assert "not in the list of allowed keys" in finding.message


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({"revoked": True}, "withdrawn"),
        ({"expires": date(2026, 5, 31)}, "expired on 2026-05-31"),
    ],
)
def test_a_withdrawn_or_expired_key_does_not_count(
    shot: Path, signer: Signer, key: dict[str, Any], reason: str
) -> None:
    sign_directory(shot, signer)
    allowed = (AllowedKey(key_id=signer.key_id, owner="ci", **key),)
    (verdict,) = trusted(signatures_of(shot), allowed, today=TODAY)
    assert not verdict["counts"]
    assert reason in verdict["reason"]


def _edit(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    envelope = json.loads(place.read_bytes())
    change(envelope)
    place.write_text(json.dumps(envelope))


def _other_key(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["public_key"] = base64.b64encode(bytes(32)).decode()


def _flip(envelope: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[0] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()


def _other_payload(envelope: dict[str, Any]) -> None:
    body = json.loads(base64.b64decode(envelope["payload"]))
    body["predicate"]["buildDefinition"]["externalParameters"]["status"] = "complete!"
    envelope["payload"] = base64.b64encode(json.dumps(body).encode()).decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_key, "does not have the key id"),
        (_flip, "does not hold"),
        (_other_payload, "does not hold"),
        (lambda e: e.update(payloadType="text/plain"), "another kind"),
        (lambda e: e["signatures"].append(dict(e["signatures"][0])), "another kind"),
        (lambda e: e.pop("signatures"), "not a signed envelope"),
        (lambda e: e.update(payload="not base64 !"), "not a signed envelope"),
    ],
)
def test_a_changed_envelope_fails_and_is_named(
    shot: Path, signer: Signer, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    _edit(sign_directory(shot, signer), change)
    (finding,) = verify_directory(shot)
    assert (finding.code, finding.verdict) == ("VER010", "fail")
    assert reason in finding.message


def test_a_signature_of_another_snapshot_does_not_count(shot: Path, signer: Signer, tmp_path: Path) -> None:
    other = write(tmp_path / "other", parts=parts(subject=subject(frame(30, seed=7)))).path
    assert (other / "manifest.json").read_bytes() != (shot / "manifest.json").read_bytes()
    place = sign_directory(other, signer)
    (shot / "signatures").mkdir()
    shutil.copy(place, shot / "signatures" / place.name)
    (finding,) = verify_directory(shot)
    assert "made for another manifest" in finding.message


def test_a_signature_under_another_keys_name_does_not_count(shot: Path, signer: Signer) -> None:
    place = sign_directory(shot, signer)
    place.rename(place.with_name(f"{'0' * 64}.json"))
    (finding,) = verify_directory(shot)
    assert "named after another key" in finding.message


@pytest.mark.parametrize("name", ["note.txt", "x.json", f"{'g' * 64}.json"])
def test_other_files_beside_signatures_are_named(shot: Path, name: str) -> None:
    (shot / "signatures").mkdir()
    (shot / "signatures" / name).write_text("x")
    (finding,) = verify_directory(shot)
    assert (finding.code, finding.verdict) == ("VER010", "fail")
    assert name in finding.message


def test_no_folder_and_no_file_hides_behind_the_name_signatures(shot: Path) -> None:
    (shot / "signatures").write_text("a file")
    assert [f.code for f in verify_directory(shot)] == ["VER006"]
    (shot / "signatures").unlink()
    (shot / "signatures" / "deeper").mkdir(parents=True)
    (shot / "signatures" / "deeper" / "x").write_text("x")
    assert {f.code for f in verify_directory(shot)} == {"VER006"}
    shutil.rmtree(shot / "signatures")
    (shot / "signatures").symlink_to(shot / "tables")
    assert [f.code for f in verify_directory(shot)] == ["VER008"]


def test_a_flood_of_signatures_is_refused(shot: Path) -> None:
    (shot / "signatures").mkdir()
    for i in range(51):
        (shot / "signatures" / f"{i:064x}.json").write_text("{}")
    (finding,) = verify_directory(shot)
    assert "more than 50" in finding.message


def test_a_change_after_signing_is_found_whatever_the_signature_says(shot: Path, signer: Signer) -> None:
    sign_directory(shot, signer)
    (shot / "card.md").write_text("better")
    allowed = (AllowedKey(key_id=signer.key_id, owner="ci"),)
    assert {f.verdict for f in verify_directory(shot, allowed_keys=allowed)} == {"fail"}


def test_key_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "key.pem"
    made = generate(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert load_signer(place).key_id == made.key_id
    with pytest.raises(InvalidInput, match="never overwritten"):
        generate(place)


def test_a_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generate(tmp_path / "key.pem")
    monkeypatch.setenv("EXPLAIN_STEP_SIGNING_KEY", (tmp_path / "key.pem").read_text())
    assert load_signer().key_id == made.key_id
    monkeypatch.delenv("EXPLAIN_STEP_SIGNING_KEY")
    with pytest.raises(InvalidInput, match="EXPLAIN_STEP_SIGNING_KEY"):
        load_signer()


def test_what_is_not_an_ed25519_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidInput, match="Ed25519"):
        load_signer(pem)
    with pytest.raises(InvalidInput, match="cannot be read as one"):
        load_signer(b"-----BEGIN nonsense")


SIGN = """
import base64, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open(sys.argv[1], "rb").read(), password=None)
sys.stdout.write(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())
"""


def test_a_command_signs_without_showing_its_key(shot: Path, tmp_path: Path) -> None:
    made = generate(tmp_path / "key.pem")
    public = base64.b64encode(made.public_key).decode()
    command = [sys.executable, "-c", SIGN, str(tmp_path / "key.pem")]
    sign_directory(shot, command_signer(command, public_key=public))
    (found,) = signatures_of(shot)
    assert (found.valid, found.key_id) == (True, made.key_id)


def test_a_command_that_signs_with_another_key_is_refused(shot: Path, tmp_path: Path) -> None:
    generate(tmp_path / "key.pem")
    other = base64.b64encode(generate(tmp_path / "other.pem").public_key).decode()
    command = [sys.executable, "-c", SIGN, str(tmp_path / "key.pem")]
    with pytest.raises(ExplainStepError, match="does not hold"):
        sign_directory(shot, command_signer(command, public_key=other))
    assert not (shot / "signatures").exists()


def test_allowed_keys_are_read_strictly(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    place.write_text(f"# ours\n\n{'a' * 64} ci expires=2027-01-01\n{'b' * 64} old revoked\n")
    first, second = load_allowed_keys(place)
    assert (first.owner, first.expires, first.revoked) == ("ci", date(2027, 1, 1), False)
    assert second.revoked
    for line in (f"{'a' * 63} ci", "a" * 64, f"{'a' * 64} ci revokd", f"{'a' * 64} ci expires=soon"):
        place.write_text(line)
        with pytest.raises(InvalidInput, match="keys:1"):
            load_allowed_keys(place)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_allowed_keys(tmp_path / os.urandom(4).hex())
