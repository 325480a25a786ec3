"""Sign a snapshot with Ed25519, and say which signatures hold.

A signature is a DSSE envelope (https://github.com/secure-systems-lab/dsse, protocol v1) around an in-toto
Statement v1 (https://in-toto.io/Statement/v1) whose subject is ``manifest.json`` and whose predicate has the
shape of SLSA provenance v1. The manifest names every other file with its SHA-256, so that one signature covers
the snapshot. It lies in ``signatures/<key id>.json`` inside the snapshot: the only folder that the manifest does
not name.

A signature proves that a holder of the key signed these bytes. It does not prove that the explanation is honest:
a training job that holds the key can sign anything. Use a key of the CI or a KMS, not of the trainer.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step.canonical import canonical_json
from explain_step.errors import ExplainStepError, InvalidInput, SnapshotError
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.manifest import MANIFEST, parse, read_bounded
from explain_step.snapshot.statement import PAYLOAD_TYPE, contradiction, pre_authentication, statement
from explain_step.types import SignatureFound

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURES = "signatures"
KEY_ENVIRONMENT = "EXPLAIN_STEP_SIGNING_KEY"
MAX_ENVELOPE_BYTES = 1 << 20
MAX_SIGNATURES = 50
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
"""Points of order 1, 2, 4 and 8 (without the sign): for such a key anybody can write signatures. RFC 8032 lets them pass."""
_IS_OPTION = re.compile(r"revoked$|expires=", re.I)
"""An owner that is none: a line that lacks its owner would withdraw nothing."""
_FILE = re.compile(r"[0-9a-f]{64}\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """A public key and a function that signs with its private half, wherever that is."""

    public_key: bytes
    sign: Callable[[bytes], bytes]

    @property
    def key_id(self) -> str:
        """SHA-256 of the raw public key: whoever lists the id has pinned the key."""
        return sha256_bytes(self.public_key)


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedKey:
    """A key that is trusted: its id, whose it is, until when, and whether it was withdrawn."""

    key_id: str
    owner: str
    expires: date | None = None
    revoked: bool = False


def generate(path: str | Path) -> Signer:
    """Make a private key file (PEM, PKCS#8, readable by its owner alone) and return its signer.

    Raises
    ------
    InvalidInput
        The file is already there: a key is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    except FileExistsError as error:
        msg = f"Argument path must not exist, a key is never overwritten; {str(path)!r} does."
        raise InvalidInput(msg) from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return _signer(key)


def load_signer(source: str | Path | bytes | None = None) -> Signer:
    """Return the signer of a PEM file, of PEM bytes, or of the environment variable EXPLAIN_STEP_SIGNING_KEY.

    Raises
    ------
    InvalidInput
        There is no key, or it is not an unencrypted Ed25519 private key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem, where = _pem(source)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = f"The signing key in {where} must be an unencrypted PEM private key; it cannot be read as one."
        raise InvalidInput(msg) from error
    if not isinstance(key, Ed25519PrivateKey):
        msg = (
            f"The signing key in {where} must be of type Ed25519; make one with: explain-step keygen KEYFILE"
        )
        raise InvalidInput(msg)
    return _signer(key)


def _pem(source: str | Path | bytes | None) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "the given bytes"
    if source is None:
        found = os.environ.get(KEY_ENVIRONMENT)
        if not found:
            msg = f"There is no signing key: pass a key file, or set {KEY_ENVIRONMENT} to the PEM text."
            raise InvalidInput(msg)
        return found.encode(), f"the environment variable {KEY_ENVIRONMENT}"
    try:
        return Path(source).read_bytes(), repr(str(source))
    except OSError as error:
        msg = f"The signing key {str(source)!r} cannot be read: {error.strerror}."
        raise InvalidInput(msg) from error


def _signer(key: Ed25519PrivateKey) -> Signer:
    return Signer(public_key=key.public_key().public_bytes_raw(), sign=key.sign)


def command_signer(command: list[str], *, public_key: str) -> Signer:
    """Return a signer that asks a command, for keys that never leave a KMS.

    Parameters
    ----------
    command : list of str
        Run without a shell. It gets the bytes to sign on standard input and prints the signature in base64.
    public_key : str
        The raw public key (32 bytes) in base64.
    """
    raw = _decoded(public_key)
    if raw is None or len(raw) != 32:
        msg = "Argument public_key must be 32 bytes in base64: the raw Ed25519 public key."
        raise InvalidInput(msg)

    def sign(message: bytes) -> bytes:
        try:
            done = subprocess.run(command, input=message, capture_output=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            msg = f"The signing command {command[0]!r} failed: {error}"
            raise ExplainStepError(msg) from error
        return _decoded(done.stdout.decode("ascii", "replace").strip()) or b""

    return Signer(public_key=raw, sign=sign)


def sign_directory(directory: str | Path, signer: Signer) -> Path:
    """Write ``signatures/<key id>.json`` into a snapshot directory and return its path.

    Raises
    ------
    SnapshotError
        There is no manifest that can be read. Whether the files match it is for `verify_directory` to say.
    ExplainStepError
        The signer gave something that is not a signature of its own key.
    """
    root = Path(directory)
    try:
        data = read_bounded(root / MANIFEST)
    except OSError as error:
        msg = f"{str(root)!r} has no {MANIFEST} to sign: {error.strerror}."
        raise SnapshotError(msg) from error
    envelope = sign_manifest(data, signer)
    place = root / SIGNATURES / f"{signer.key_id}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(envelope)
    return place


def sign_manifest(data: bytes, signer: Signer) -> bytes:
    """Return the envelope, as file bytes, that signs the bytes of a manifest."""
    payload = canonical_json(statement(data))
    signature = signer.sign(pre_authentication(payload))
    envelope = _envelope(payload, signature, signer.public_key)
    found = check_envelope(envelope, manifest=data)
    if not found.valid:
        msg = f"The signer did not give a signature that holds for key {signer.key_id[:12]}…: {found.reason}."
        raise ExplainStepError(msg)
    return envelope


def _envelope(payload: bytes, signature: bytes, public: bytes) -> bytes:
    """Return the one sequence of bytes of an envelope."""
    named = {
        "keyid": sha256_bytes(public),
        "sig": base64.b64encode(signature).decode(),
        "public_key": base64.b64encode(public).decode(),
    }
    body = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [named]}
    return canonical_json(body)


def signatures_of(directory: str | Path, *, manifest: bytes | None = None) -> tuple[SignatureFound, ...]:
    """Return every signature in a snapshot directory and whether it holds for its manifest.

    Nothing is said of trust: compare ``key_id`` with the keys you allow (`trusted`).

    Parameters
    ----------
    directory : path
    manifest : bytes, optional
        The manifest's bytes that are judged, where they were read before. Default: those that are there now.
    """
    root = Path(directory)
    folder = root / SIGNATURES
    if not folder.is_dir() or folder.is_symlink():
        return ()
    judged = read_bounded(root / MANIFEST) if manifest is None else manifest
    files = sorted(folder.iterdir())
    if len(files) > MAX_SIGNATURES:
        return (
            SignatureFound(
                key_id="*", valid=False, reason=f"there are more than {MAX_SIGNATURES} files", file=SIGNATURES
            ),
        )
    return tuple(_file(place, judged) for place in files)


def _file(place: Path, manifest: bytes) -> SignatureFound:
    """Judge one file; what does not hold is named after the file, not after what it says."""
    shown = os.fsencode(place.name).decode("utf-8", "backslashreplace")[:80]
    if not _FILE.fullmatch(place.name) or place.is_symlink() or not place.is_file():
        found = SignatureFound(key_id=shown, valid=False, reason=f"{shown!r} is not named after a key")
    elif place.stat().st_size > MAX_ENVELOPE_BYTES:
        found = SignatureFound(key_id=place.stem, valid=False, reason="the file is too large")
    else:
        found = check_envelope(place.read_bytes(), manifest=manifest)
        if found.valid and found.key_id != place.stem:
            found = replace(found, valid=False, reason="the file is named after another key")
        if not found.valid:
            found = replace(found, key_id=place.stem)
    return replace(found, file=f"{SIGNATURES}/{shown}")


def check_envelope(data: bytes, *, manifest: bytes) -> SignatureFound:
    """Check one envelope: its key is the named one, it signs its payload, and that is what this manifest states."""
    try:
        envelope = parse(data)
        entry = envelope["signatures"][0]
        key_id, payload = str(entry["keyid"]), _decoded(envelope["payload"])
        signature, public = _decoded(entry["sig"]), _decoded(entry["public_key"])
        kind, many = envelope["payloadType"], len(envelope["signatures"])
    except (SnapshotError, KeyError, IndexError, TypeError):
        return SignatureFound(key_id="unknown", valid=False, reason="it is not a signed envelope")
    if payload is None or signature is None or public is None or not _KEY_ID.fullmatch(key_id):
        return SignatureFound(key_id=key_id[:80], valid=False, reason="it is not a signed envelope")
    reason = None
    if kind != PAYLOAD_TYPE or many != 1:
        reason = "it is an envelope of another kind"
    elif sha256_bytes(public) != key_id:
        reason = "its key does not have the key id it names"
    elif not _holds(public, signature, pre_authentication(payload)):
        reason = "the signature does not hold"
    elif (wrong := contradiction(payload, manifest)) is not None:
        reason = wrong
    elif _envelope(payload, signature, public) != data:
        reason = "it holds, but in other bytes than those that were written"
    return SignatureFound(key_id=key_id, valid=reason is None, reason=reason or "it holds for this manifest")


def _holds(public: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(public) != 32 or public[:31] + bytes([public[31] & 127]) in _SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: Any) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return None


def load_allowed_keys(path: str | Path) -> tuple[AllowedKey, ...]:
    """Read a file of allowed keys: ``<key id> <owner> [expires=YYYY-MM-DD] [revoked]`` in each line.

    Empty lines and lines that start with ``#`` are skipped.

    Raises
    ------
    InvalidInput
        The file cannot be read, or a line is not of that form; the line is named.
    """
    try:
        # at line ends alone: after other breaks, which editors do not show, a comment would go on as a key
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The file of allowed keys {str(path)!r} cannot be read: {error}."
        raise InvalidInput(msg) from error
    words = [(number, line.split()) for number, line in enumerate(lines, start=1)]
    keys: dict[str, AllowedKey] = {}
    for number, line in words:
        if line and line[0][0] != "#":
            key = _allowed(line, f"{path}:{number}")
            if key.key_id in keys:
                msg = f"{path}:{number}: the key {key.key_id[:12]}… stands in an earlier line too; keep one of them."
                raise InvalidInput(msg)
            keys[key.key_id] = key
    return tuple(keys.values())


def _allowed(words: list[str], where: str) -> AllowedKey:
    options = dict.fromkeys(words[2:])
    expires = next((o.removeprefix("expires=") for o in options if o.startswith("expires=")), None)
    unknown = [o for o in options if o != "revoked" and not o.startswith("expires=")]
    try:
        twice = len([o for o in options if o.startswith("expires=")]) > 1
        owned = len(words) > 1 and not _IS_OPTION.match(words[1])
        if not owned or not _KEY_ID.fullmatch(words[0]) or unknown or twice:
            raise ValueError
        until = None if expires is None else datetime.strptime(expires, "%Y-%m-%d").date()
    except ValueError as error:
        msg = f"{where}: a line must be '<64 hex digits> <owner> [expires=YYYY-MM-DD] [revoked]'."
        raise InvalidInput(msg) from error
    return AllowedKey(key_id=words[0], owner=words[1], expires=until, revoked="revoked" in options)


def trusted(
    found: tuple[SignatureFound, ...], allowed: tuple[AllowedKey, ...], *, today: date
) -> tuple[Mapping[str, Any], ...]:
    """Return, for each signature, its key, its owner where the key is allowed, and whether it counts.

    A withdrawn or expired key counts for nothing: when a signature was made is only its maker's word.
    """
    keys = {
        key.key_id: key for key in sorted(allowed, key=lambda k: k.revoked)
    }  # withdrawn once is withdrawn
    return tuple(_trust(signature, keys.get(signature.key_id), today) for signature in found)


def _trust(signature: SignatureFound, key: AllowedKey | None, today: date) -> Mapping[str, Any]:
    reason = signature.reason
    counts = signature.valid
    if counts and key is None:
        counts, reason = False, "the key is not in the list of allowed keys"
    elif counts and key is not None and key.revoked:
        counts, reason = False, "the key was withdrawn"
    elif counts and key is not None and key.expires is not None and today > key.expires:
        counts, reason = False, f"the key expired on {key.expires.isoformat()}"
    owner = None if key is None else key.owner
    return {"key_id": signature.key_id, "owner": owner, "counts": counts, "reason": reason}
