"""The commands ``keygen``, ``sign`` and ``verify --allowed-keys``."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from snapshot_kit import copied

from explain_step.cli import invoke


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    return copied(tmp_path / "shots")


def said(capsys: pytest.CaptureFixture[str], arguments: list[str], *, code: int = 0) -> dict[str, Any]:
    assert invoke([*arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_key_signs_and_verify_names_its_owner(
    shot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = said(capsys, ["keygen", str(tmp_path / "key.pem")])
    assert len(base64.b64decode(made["public_key"])) == 32
    signed = said(capsys, ["sign", str(shot), "--key", str(tmp_path / "key.pem")])
    assert signed["key_id"] == made["key_id"]
    allowed = tmp_path / "keys"
    allowed.write_text(f"{made['key_id']} reviewer\n")
    plain = said(capsys, ["verify", str(shot)])
    listed = said(capsys, ["verify", str(shot), "--allowed-keys", str(allowed)])
    assert [r["findings"][0]["evidence"]["level"] for r in (plain, listed)] == ["L0", "L2"]


def test_without_a_signature_by_a_listed_key_the_answer_is_no(
    shot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever lists keys asks for a signature: one that is taken away must not pass for one."""
    made = said(capsys, ["keygen", str(tmp_path / "key.pem")])
    keys, stamp = tmp_path / "keys", tmp_path / "x.tsr"
    stamp.write_bytes(b"no time stamp")
    asked = ["verify", str(shot), "--allowed-keys", str(keys)]
    for signed in (False, True):
        for line in ("# nobody", f"{'0' * 64} other", f"{made['key_id']} ci revoked", f"{made['key_id']} ci"):
            keys.write_text(f"{line}\n")
            counts = signed and line.endswith(" ci")
            (finding,) = said(capsys, asked, code=0 if counts else 1)["findings"]
            assert finding["code"] == ("VER000" if counts else "VER016"), (signed, line)
            assert finding["evidence"]["level"] == ("L2" if counts else "L0")
        said(capsys, ["verify", str(shot)])  # who asks for nothing is told the level
        assert invoke(["sign", str(shot), "--key", str(tmp_path / "key.pem")]) == 0
        capsys.readouterr()
    (finding,) = said(capsys, [*asked, "--timestamp", str(stamp)], code=1)["findings"]
    assert "L3 was asked for: the time stamp does not count" in finding["message"]
    assert invoke(["verify", str(shot), "--timestamp", str(stamp)]) == 1
    assert "level     L0" in capsys.readouterr().out


def test_what_does_not_verify_is_not_signed(
    shot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(["keygen", str(tmp_path / "key.pem")])
    capsys.readouterr()
    (shot / "card.md").write_text("changed")
    assert invoke(["sign", str(shot), "--key", str(tmp_path / "key.pem")]) == 1
    assert "card.md" in capsys.readouterr().err
    assert not (shot / "signatures").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--key-command", "x"], "--public-key"),
        (["--public-key", "x"], "--key-command"),
        (["--key-command", "x", "--public-key", "AA=="], "32 bytes"),
        (["--key", "/no/such/key"], "cannot be read"),
    ],
)
def test_wrong_usage_is_told(
    shot: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["sign", str(shot), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_key_file_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "key.pem"
    place.write_text("mine")
    assert invoke(["keygen", str(place)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert place.read_text() == "mine"
