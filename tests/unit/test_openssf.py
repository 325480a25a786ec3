"""Signatures in the format of OpenSSF model signing: the library's own command takes them, and they cover every file."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from snapshot_kit import copied

from explain_step.cli import invoke
from explain_step.errors import InvalidInput, MissingDependency
from explain_step.snapshot.openssf import check_folder, generate_pair, sign_folder
from explain_step.snapshot.signing import generate, sign_directory
from explain_step.tracking import verify


@pytest.fixture
def model(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    for name in ("MLmodel", "code/a.py", ".gitignore", ".github/x", "explanations/one/manifest.json"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    return place


@pytest.fixture
def key(tmp_path: Path) -> Path:
    pytest.importorskip("model_signing", reason="the extra is not installed")
    private, _ = generate_pair(tmp_path / "ec.pem")
    return private


def checked(folder: Path, bundle: Path, key: Path) -> Any:
    return check_folder(folder, bundle, public_key=f"{key}.pub", leave_out=("explanations",))


@pytest.fixture
def bundle(model: Path, key: Path, tmp_path: Path) -> Path:
    done = sign_folder(model, tmp_path / "model.sig", key=key, leave_out=("explanations",))
    assert done.files == 4
    return tmp_path / "model.sig"


def test_it_holds_elsewhere_and_whatever_lies_among_the_explanations(
    model: Path, bundle: Path, key: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "other name"))
    (copy / "explanations" / "later").write_text("a second explanation")
    (copy / "registered_model_meta").write_text("written by a download")
    assert checked(copy, bundle, key).valid
    shutil.rmtree(copy / "explanations")
    assert checked(copy, bundle, key).files == 4
    (model / "registered_model_meta").write_text("written by a download")  # before it is signed
    again = sign_folder(model, tmp_path / "again.sig", key=key, leave_out=("explanations",))
    assert again.files == 4


def test_the_command_of_the_library_takes_it(model: Path, bundle: Path, key: Path) -> None:
    public = ["--signature", str(bundle), "--public_key", f"{key}.pub", "--no-ignore-git-paths"]
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(model), *public]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (model / "MLmodel").write_text("changed")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: (m / "MLmodel").write_text("x"), "Hash mismatch for 'MLmodel'"),
        (lambda m: (m / "code/a.py").unlink(), "Missing files"),
        (lambda m: (m / "code/b.py").write_text("x"), "code/b.py"),
        (lambda m: (m / ".gitattributes").write_text("x"), ".gitattributes"),
        (lambda m: (m / "code/explanations").mkdir() or (m / "code/explanations/x").write_text("x"), "code/expl"),
        (lambda m: (m / "link").symlink_to(m / "MLmodel"), "regular files only"),
    ],
)  # fmt: skip
def test_each_change_of_the_model_is_named(
    model: Path, bundle: Path, key: Path, change: Callable[[Path], None], words: str
) -> None:
    change(model)
    found = checked(model, bundle, key)
    assert not found.valid
    assert words in found.reason


def _payload(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    whole = json.loads(bundle.read_text())
    body = json.loads(base64.b64decode(whole["dsseEnvelope"]["payload"]))
    change(body)
    whole["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(body).encode()).decode()
    bundle.write_text(json.dumps(whole))


def test_what_is_no_signature_of_this_key_is_a_reason_and_never_an_exception(
    model: Path, bundle: Path, key: Path, tmp_path: Path
) -> None:
    good = bundle.read_text()
    _, stranger = generate_pair(tmp_path / "stranger.pem")
    found = check_folder(model, bundle, public_key=stranger, leave_out=("explanations",))
    assert "Key mismatch" in found.reason
    for text in ("", "{}", "[]", "null", good[:-40], "[" * 60_000, '{"dsseEnvelope": {"payload": "e30="}}'):
        bundle.write_text(text)
        assert not checked(model, bundle, key).valid, text[:40]
    bundle.write_text(good)
    _payload(bundle, lambda body: body["predicate"]["resources"].pop())
    assert not checked(model, bundle, key).valid
    assert "cannot be read" in checked(model, tmp_path / "none.sig", key).reason


def test_a_signature_that_leaves_files_out_does_not_hold(model: Path, key: Path, tmp_path: Path) -> None:
    from model_signing import hashing, signing

    rules = hashing.Config().set_ignored_paths(paths=["explanations", "code"], ignore_git_paths=True)
    signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(rules)
    signer.sign(model, tmp_path / "thin.sig")
    found = checked(model, tmp_path / "thin.sig", key)
    assert not found.valid
    assert "leaves files out: .github/x, .gitignore, code/a.py" in found.reason


def test_places_and_keys_that_cannot_be_are_refused(model: Path, key: Path, tmp_path: Path) -> None:
    for place in (model / "model.sig", key):
        with pytest.raises(InvalidInput, match="a new file outside"):
            sign_folder(model, place, key=key)
    generate(tmp_path / "ed.pem")
    with pytest.raises(InvalidInput, match=r"elliptic-curve key .* keygen KEYFILE --openssf"):
        sign_folder(model, tmp_path / "x.sig", key=tmp_path / "ed.pem")
    with pytest.raises(InvalidInput, match="cannot be read"):
        check_folder(model, tmp_path / "x.sig", public_key=tmp_path / "none.pub")
    with pytest.raises(InvalidInput, match="PEM public key"):
        check_folder(model, tmp_path / "x.sig", public_key=key)
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    (tmp_path / "ed.pub").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InvalidInput, match="must be an elliptic-curve key"):
        check_folder(model, tmp_path / "x.sig", public_key=tmp_path / "ed.pub")
    with pytest.raises(InvalidInput, match="must be a directory"):
        sign_folder(model / "MLmodel", tmp_path / "x.sig", key=key)


def test_key_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    private, public = generate_pair(tmp_path / "ec.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    with pytest.raises(InvalidInput, match="never overwritten"):
        generate_pair(tmp_path / "ec.pem")
    private.unlink()
    with pytest.raises(InvalidInput, match="never overwritten"):
        generate_pair(tmp_path / "ec.pem")
    assert not private.exists()
    assert public.exists()


def test_a_snapshot_with_such_a_signature_beside_it_verifies(key: Path, tmp_path: Path, capsys: Any) -> None:
    shot = copied(tmp_path / "shots")
    to, public = str(tmp_path / "shot.sig"), f"{key}.pub"
    assert invoke(["sign", str(shot), "--openssf", str(shot / "x.sig"), "--key", str(key)]) == 2
    assert invoke(["sign", str(shot), "--openssf", to, "--key", str(key), "--json"]) == 0
    told = {"path": to, "files": len(list(shot.rglob("*.*"))), "dry_run": False}
    assert json.loads(capsys.readouterr().out) == told
    sign_directory(shot, generate(tmp_path / "ed.pem"))  # may come later
    assert invoke(["verify", str(shot), "--openssf", to, "--openssf-key", public]) == 0
    out = capsys.readouterr().out
    assert "level     L0" in out
    assert "openssf   it holds for" in out
    assert [f.code for f in verify(shot)] == ["VER000"]
    (shot / "shot.sig").write_bytes(Path(to).read_bytes())
    assert [f.code for f in verify(shot)] == ["VER006"]
    assert invoke(["verify", str(shot), "--openssf", to]) == 2
    assert invoke(["sign", str(shot), "--openssf", str(tmp_path / "y.sig")]) == 2


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = generate_pair(tmp_path / "ec.pem")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install model-signing pyopenssl \(extra 'openssf'\)"):
        sign_folder(tmp_path, tmp_path / "x.sig", key=private)
    with pytest.raises(MissingDependency, match="extra 'openssf'"):
        check_folder(tmp_path, tmp_path / "x.sig", public_key=public)
