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

import numpy as np
import pytest
from snapshot_kit import copied, frame, parts, subject

from explain_step.canonical import canonical_json
from explain_step.errors import ExplainStepError, InvalidInput, SnapshotError
from explain_step.snapshot import ModelRef, read_directory, verify_directory, with_model, write
from explain_step.snapshot.signing import (
    AllowedKey,
    Signer,
    check_envelope,
    command_signer,
    generate,
    load_allowed_keys,
    load_signer,
    sign_directory,
    sign_manifest,
    signatures_of,
    trusted,
)
from explain_step.snapshot.statement import pre_authentication, statement

TODAY = date(2026, 6, 1)


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    return copied(tmp_path / "shots")


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


def test_what_has_no_manifest_is_neither_signed_nor_stated(
    shot: Path, signer: Signer, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SnapshotError, match=r"has no manifest\.json to sign"):
        sign_directory(tmp_path / "empty", signer)
    envelope = sign_directory(shot, signer).read_bytes()
    for other in (b"{}", b"[]", b""):
        with pytest.raises(SnapshotError):
            sign_manifest(other, signer)
        assert check_envelope(envelope, manifest=other).reason == "it was made for another manifest"


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
    for line in (f"{'a' * 63} ci", "a" * 64, f"{'a' * 64} ci revokd", f"{'a' * 64} ci expires=soon",
                 f"{'a' * 64} ci expires=20270101", f"{'a' * 64} ci expires=2027-W01-1", f"\ufeff{'a' * 64} ci",
                 f"{'a' * 64} ci expires=2026-01-01 expires=2030-01-01", f"{'A' * 64} ci",
                 f"{'a' * 64} revoked", f"{'a' * 64} Revoked", f"{'a' * 64} expires=2020-01-01"):  # fmt: skip
        place.write_text(line)
        with pytest.raises(InvalidInput, match="keys:1"):
            load_allowed_keys(place)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_allowed_keys(tmp_path / os.urandom(4).hex())
    for hidden in "\v\f\x1c\x85\u2028\u2029":  # an editor shows one line, a comment
        place.write_text(f"# ours{hidden}{'a' * 64} mallory\n", encoding="utf-8")
        assert load_allowed_keys(place) == (), hidden
    place.write_bytes(f"# ours\r\n{'a' * 64} ci\r\n".encode())
    assert [key.owner for key in load_allowed_keys(place)] == ["ci"]


def test_a_key_that_is_listed_twice_is_refused_and_withdrawn_once_is_withdrawn(
    shot: Path, signer: Signer, tmp_path: Path
) -> None:
    place = tmp_path / "keys"
    for lines in ((" ci revoked", " ci"), (" ci", " ci revoked"), (" ci", " ci")):
        place.write_text("".join(f"{signer.key_id}{line}\n" for line in lines))
        with pytest.raises(InvalidInput, match=r"keys:2: the key .* in an earlier line too"):
            load_allowed_keys(place)
    sign_directory(shot, signer)
    keys = [AllowedKey(key_id=signer.key_id, owner="ci", revoked=revoked) for revoked in (True, False)]
    for allowed in (keys, keys[::-1]):
        (verdict,) = trusted(signatures_of(shot), tuple(allowed), today=TODAY)
        assert not verdict["counts"]


def test_a_signature_has_one_sequence_of_bytes(shot: Path, signer: Signer) -> None:
    """What its key did not sign, and what decodes to the same, is no part of it."""
    place = sign_directory(shot, signer)
    raw = place.read_bytes()
    sig = json.loads(raw)["signatures"][0]["sig"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = f"{sig[:-3]}{letters[letters.index(sig[-3]) + 1]}=="
    assert base64.b64decode(other) == base64.b64decode(sig)
    for changed in (
        raw.replace(sig.encode(), other.encode()),
        *(raw + b"\n", b" " + raw, raw.replace(b'"sig"', b'"\\u0073ig"')),
        raw.replace(b'{"payload"', b'{"note":"approved","payload"'),
        raw.replace(b'"sig"', b'"note":"approved","sig"'),
    ):
        assert changed != raw
        place.write_bytes(changed)
        (finding,) = verify_directory(shot)
        assert (finding.code, finding.evidence["path"]) == ("VER010", f"signatures/{place.name}")
    rng, manifest = np.random.default_rng(3), (shot / "manifest.json").read_bytes()
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= int(rng.integers(1, 256))
        assert not check_envelope(bytes(changed), manifest=manifest).valid, at
    place.write_bytes(raw)
    assert [f.code for f in verify_directory(shot)] == ["VER000"]


def test_what_does_not_hold_is_named_after_its_file(shot: Path, signer: Signer) -> None:
    place = sign_directory(shot, signer)
    _edit(place, lambda e: e["signatures"][0].update(keyid="f" * 64))
    (finding,) = verify_directory(shot)
    assert finding.evidence["path"] == f"signatures/{place.name}"
    place.unlink()
    (shot / "signatures" / "note.txt").write_text("x")
    (finding,) = verify_directory(shot)
    assert finding.evidence["path"] == "signatures/note.txt"


def test_a_key_that_anybody_can_sign_with_signs_nothing(shot: Path) -> None:
    """Of small order: the neutral element as R and zero as s hold for every message."""
    neutral = bytes([1, *([0] * 31)])
    for sign in (0, 128):
        for point in ("01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32, "ee" + "ff" * 30 + "7f"):
            raw = bytearray.fromhex(point)
            raw[31] |= sign
            with pytest.raises(ExplainStepError, match="does not hold"):
                sign_manifest(
                    (shot / "manifest.json").read_bytes(),
                    Signer(public_key=bytes(raw), sign=lambda message: neutral + bytes(32)),
                )


def _url_safe(envelope: dict[str, Any]) -> None:
    raw = base64.b64decode(envelope["payload"]) + b" ?>"  # whose text has signs of one of the two alphabets
    envelope["payload"] = base64.urlsafe_b64encode(raw).decode()


ENVELOPES: dict[str, Callable[[str], bytes]] = {
    "truncated": lambda text: text[:-30].encode(),
    "something behind": lambda text: f"{text}{{}}".encode(),
    "a key twice": lambda text: f'{{"payload": "x", {text[1:]}'.encode(),
    "a byte-order mark": lambda text: f"\ufeff{text}".encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "an integer of 5,000 digits": lambda text: f'{{"x": {"9" * 5000}, {text[1:]}'.encode(),
    "nested 60,000 deep": lambda text: ("[" * 60_000 + text).encode(),
    "NaN": lambda text: f'{{"x": NaN, {text[1:]}'.encode(),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_is_strict_json(shot: Path, signer: Signer, name: str) -> None:
    place = sign_directory(shot, signer)
    place.write_bytes(ENVELOPES[name](place.read_text()))
    (finding,) = verify_directory(shot, allowed_keys=(AllowedKey(key_id=signer.key_id, owner="ci"),))
    assert (finding.code, finding.verdict) == ("VER010", "fail")


def test_one_alphabet_of_base64_and_no_second_spelling_of_a_signature(shot: Path, signer: Signer) -> None:
    order = 2**252 + 27742317777372353535851937790883648493

    def added(envelope: dict[str, Any]) -> None:
        raw = base64.b64decode(envelope["signatures"][0]["sig"])
        number = int.from_bytes(raw[32:], "little") + order
        envelope["signatures"][0]["sig"] = base64.b64encode(raw[:32] + number.to_bytes(32, "little")).decode()

    def unpadded(envelope: dict[str, Any]) -> None:
        envelope["signatures"][0]["sig"] = envelope["signatures"][0]["sig"].rstrip("=")

    for change in (_url_safe, unpadded, added):
        _edit(sign_directory(shot, signer), change)
        assert [f.code for f in verify_directory(shot)] == ["VER010"], change


def test_a_payload_that_says_two_things_counts_for_nothing(shot: Path, signer: Signer) -> None:
    """Signed by the key itself: one reader might take the first subject, another the last."""

    def twice(envelope: dict[str, Any]) -> None:
        raw = b'{"subject": [], ' + base64.b64decode(envelope["payload"])[1:]
        envelope["payload"] = base64.b64encode(raw).decode()
        envelope["signatures"][0]["sig"] = base64.b64encode(signer.sign(pre_authentication(raw))).decode()

    _edit(sign_directory(shot, signer), twice)
    assert [f.code for f in verify_directory(shot)] == ["VER010"]


LIES: dict[str, tuple[str, Any]] = {
    "the snapshot": ("buildDefinition.externalParameters.snapshot_id", "0" * 64),
    "the config": ("buildDefinition.externalParameters.config_digest", "0" * 64),
    "the status": ("buildDefinition.externalParameters.status", "waived"),
    "the one before": ("buildDefinition.externalParameters.previous", "0" * 64),
    "the name": ("buildDefinition.externalParameters.model.name", "another"),
    "the version": ("buildDefinition.externalParameters.model.version", "2"),
    "the run": ("buildDefinition.externalParameters.model.run_id", "f" * 32),
    "the logged model": ("buildDefinition.externalParameters.model.model_id", "m-another"),
    "the digest": ("buildDefinition.externalParameters.model.digest", "0" * 64),
    "the binding": ("buildDefinition.externalParameters.model.binding", "verified"),
    "an approval": ("buildDefinition.externalParameters.approved", True),
    "the inputs": ("buildDefinition.resolvedDependencies", []),
    "the tool": ("runDetails.builder.id", "urn:explain-step:another 9.9"),
    "the run of the tool": ("runDetails.metadata.invocationId", "0" * 64),
    "the time": ("runDetails.metadata.finishedOn", "2020-01-01T00:00:00+00:00"),
    "the form": ("buildDefinition.buildType", "urn:explain-step:snapshot:v2"),
    "nothing": ("buildDefinition.externalParameters", None),
}


def _told(body: dict[str, Any], where: str, value: Any) -> None:
    *parents, last = where.split(".")
    place = body["predicate"]
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        assert place.get(last) != value
        place[last] = value


@pytest.mark.parametrize("lie", LIES)
def test_a_listed_key_may_not_say_what_the_manifest_does_not_say(
    shot: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """The subject is the manifest's own digest, the key is listed: who reads the predicate alone would be misled."""
    where, value = LIES[lie]
    place = sign_directory(shot, signer)
    body = statement((shot / "manifest.json").read_bytes())
    _told(body, where, value)
    payload = canonical_json(body)
    named = {
        "keyid": signer.key_id,
        "sig": base64.b64encode(signer.sign(pre_authentication(payload))).decode(),
        "public_key": base64.b64encode(signer.public_key).decode(),
    }
    place.write_bytes(
        canonical_json(
            {
                "payloadType": "application/vnd.in-toto+json",
                "payload": base64.b64encode(payload).decode(),
                "signatures": [named],
            }
        )
    )
    allowed = (AllowedKey(key_id=signer.key_id, owner="ci"),)
    (finding,) = verify_directory(shot, allowed_keys=allowed, today=TODAY)
    assert (finding.code, finding.verdict) == ("VER010", "fail")
    assert f"what it says is not what the manifest says: predicate.{where}" in finding.message


def test_a_signature_is_a_small_file_in_a_true_folder(shot: Path, signer: Signer, tmp_path: Path) -> None:
    """`signatures_of` by itself: callers of it alone follow no link and read no endless file."""
    place = sign_directory(shot, signer)
    aside = tmp_path / "aside"
    shutil.move(place, aside)
    place.symlink_to(aside)
    (found,) = signatures_of(shot)
    assert (found.valid, "not named after a key" in found.reason) == (False, True)
    place.unlink()
    shutil.copy(aside, place)
    os.truncate(place, 2**20 + 1)
    (found,) = signatures_of(shot)
    assert (found.valid, found.reason) == (False, "the file is too large")
    shutil.copy(aside, place)
    shutil.move(place.parent, tmp_path / "folder")
    place.parent.symlink_to(tmp_path / "folder")
    assert signatures_of(shot) == ()


def test_a_key_counts_through_its_last_day(shot: Path, signer: Signer) -> None:
    sign_directory(shot, signer)
    allowed = (AllowedKey(key_id=signer.key_id, owner="ci", expires=TODAY),)
    for day, counts in ((TODAY, True), (date(2026, 6, 2), False)):
        (verdict,) = trusted(signatures_of(shot), allowed, today=day)
        assert verdict["counts"] is counts


def test_a_snapshot_that_is_completed_for_its_model_keeps_no_signature_of_before(
    shot: Path, signer: Signer, tmp_path: Path
) -> None:
    """It was signed while it waited in the spool; afterwards it has another manifest."""
    sign_directory(shot, signer)
    done = with_model(
        read_directory(shot),
        ModelRef(model_class="Repeater", model_id="m-1", digest="0" * 64),
        directory=tmp_path / "done",
        page=lambda identity: f"page of {identity}",
        card=lambda identity: f"card of {identity}",
    )
    assert [f.code for f in verify_directory(done.path)] == ["VER000"]
    assert done.model.model_id == "m-1"
