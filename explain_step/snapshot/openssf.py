"""Sign the files of a folder for the tools of OpenSSF model signing, and check such a signature.

The format (https://github.com/sigstore/model-transparency, predicate ``https://model_signing/signature/v1.0``) is an
in-toto statement with the SHA-256 of each file, in a Sigstore bundle of its own file: others verify it without this
package. It says nothing of an explanation: the binding of model and explanation is the model's digest in the manifest.

The library is the extra ``openssf``. Keys are elliptic-curve ones (P-256, P-384, P-521), not those of `signing`.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step.errors import InvalidInput, SnapshotError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

EXTRA = "openssf"
CURVES = ("secp256r1", "secp384r1", "secp521r1")
MAX_BUNDLE_BYTES = 16 * 2**20
NEVER_SIGNED = ("registered_model_meta",)
"""What MLflow's client adds to a download of a registered version: no part of the logged model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSSFFound:
    """What an OpenSSF signature says of a folder.

    Attributes
    ----------
    valid : bool
    reason : str
        Why not, or that it holds.
    files : int
        How many files the signature names, where it holds.
    """

    valid: bool
    reason: str
    files: int = 0


def generate_pair(path: str | Path) -> tuple[Path, Path]:
    """Make a P-256 key: a private file (PEM, readable by its owner alone) and, beside it, ``<path>.pub``.

    Raises
    ------
    InvalidInput
        One of the files is already there: a key is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    places = (Path(path), Path(f"{path}.pub"))
    for place in places:
        if place.exists():
            msg = f"Argument path must not exist, a key is never overwritten; {str(place)!r} does."
            raise InvalidInput(msg)
    key = generate_private_key(SECP256R1())
    private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    for place, data, mode in zip(places, (private, _public_pem(key)), (0o600, 0o644), strict=True):
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    return places


def sign_folder(
    folder: str | Path, to: str | Path, *, key: str | Path, leave_out: Collection[str] = ()
) -> OpenSSFFound:
    """Sign every file of a folder and write the bundle to a new file outside of it.

    Parameters
    ----------
    folder : path
    to : path
        A new file. Inside the folder it would be a file that the signature does not name.
    key : path
        Unencrypted PEM file of an elliptic-curve private key.
    leave_out : collection of str
        Direct children that are not signed; the bundle says so.

    Raises
    ------
    InvalidInput
        The key is of another kind, the place is taken or in the folder, or the folder holds a link or a special file.
    MissingDependency
        The library is not installed.
    """
    root, place = Path(folder), Path(to)
    _check_installed()
    private = _private(Path(key))
    names = _names(root, leave_out=leave_out)
    if place.exists() or place.resolve().is_relative_to(root.resolve()):
        msg = f"Argument to must be a new file outside the signed folder, got {str(place)!r}."
        raise InvalidInput(msg)
    from model_signing import hashing, signing

    left = [name for name in (*leave_out, *NEVER_SIGNED) if (root / name).exists() or name in leave_out]
    rules = hashing.Config().set_ignored_paths(paths=left, ignore_git_paths=False)
    signing.Config().use_elliptic_key_signer(private_key=Path(key)).set_hashing_config(rules).sign(
        root, place
    )
    found = _checked(root, place, public=_public_pem(private), leave_out=leave_out)
    if not found.valid or found.files != len(names):
        place.unlink()
        msg = f"The library did not sign every file of {str(root)!r}: {found.reason}."
        raise SnapshotError(msg)
    return found


def check_folder(
    folder: str | Path, bundle: str | Path, *, public_key: str | Path, leave_out: Collection[str] = ()
) -> OpenSSFFound:
    """Check an OpenSSF signature: made by this key, of these bytes, and of every file that is there.

    Parameters
    ----------
    folder : path
    bundle : path
        The file of `sign_folder`, or of ``model_signing sign key``.
    public_key : path
        PEM file.
    leave_out : collection of str
        Direct children that need no signature. Whatever else the signer left out is a fault: a signature that leaves
        files out says nothing of them.

    Raises
    ------
    InvalidInput
        The public key cannot be read.
    MissingDependency
        The library is not installed.
    """
    _check_installed()
    return _checked(Path(folder), Path(bundle), public=_public(Path(public_key)), leave_out=leave_out)


def _checked(root: Path, bundle: Path, *, public: bytes, leave_out: Collection[str]) -> OpenSSFFound:
    try:
        data = _small(bundle)
        names = _names(root, leave_out=leave_out)
        serialization = _predicate(data)["serialization"]
        method, algorithm = serialization["method"], serialization["hash_type"]
        if not json.loads(data)["verificationMaterial"]["publicKey"]["hint"]:
            raise KeyError("hint")
    except InvalidInput as error:
        return OpenSSFFound(valid=False, reason=str(error))
    except (ValueError, KeyError, TypeError, RecursionError):
        return OpenSSFFound(valid=False, reason="it is no bundle that a key signed")
    if method != "files":
        reason = "it was made of parts of files; check it with model_signing itself"
        return OpenSSFFound(valid=False, reason=reason)
    problem = _refused(root, data, public=public, algorithm=algorithm, leave_out=leave_out)
    if problem is not None:
        return OpenSSFFound(valid=False, reason=problem)
    signed = {str(entry["name"]) for entry in _predicate(data)["resources"]}
    unsigned = sorted(names - signed)
    if unsigned:
        return OpenSSFFound(valid=False, reason=f"it leaves files out: {', '.join(unsigned[:5])}")
    return OpenSSFFound(valid=True, reason=f"it holds for {len(signed)} files", files=len(signed))


def _refused(
    root: Path, data: bytes, *, public: bytes, algorithm: str, leave_out: Collection[str]
) -> str | None:
    """Ask the library about the bytes of a bundle that were read; it takes files only."""
    from model_signing import hashing, verifying

    with tempfile.TemporaryDirectory(prefix="explain_step_openssf_") as folder:
        key, bundle = Path(folder) / "key.pem", Path(folder) / "bundle.sig"
        key.write_bytes(public)
        bundle.write_bytes(data)
        try:
            rules = hashing.Config().use_file_serialization(hashing_algorithm=algorithm)
            rules.set_ignored_paths(paths=[*leave_out, *NEVER_SIGNED], ignore_git_paths=False)
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
            verifier.set_hashing_config(rules).verify(root, bundle)
        except Exception as error:  # noqa: BLE001 - a forger's bundle raises anything in the library
            said = " ".join(str(error).split())[:300]
            return said or f"the signature does not hold ({type(error).__name__})"
    return None


def _small(bundle: Path) -> bytes:
    try:
        size = bundle.stat().st_size
        if size > MAX_BUNDLE_BYTES:
            msg = f"the bundle {str(bundle)!r} has {size} bytes; at most {MAX_BUNDLE_BYTES} are read"
            raise InvalidInput(msg)
        return bundle.read_bytes()
    except OSError as error:
        msg = f"the bundle {str(bundle)!r} cannot be read: {error.strerror}"
        raise InvalidInput(msg) from error


def _predicate(data: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(data)["dsseEnvelope"]["payload"]))["predicate"]


def _names(root: Path, *, leave_out: Collection[str]) -> set[str]:
    """Return the relative paths of the files that a signature has to name."""
    if not root.is_dir():
        msg = f"Argument folder must be a directory, got {str(root)!r}."
        raise InvalidInput(msg)
    names = {path.relative_to(root).as_posix() for path in _regular(root, leave_out=leave_out)}
    return {name for name in names if name not in NEVER_SIGNED}


def _regular(folder: Path, *, leave_out: Collection[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if path.name in leave_out:
            continue
        if stat.S_ISDIR(mode):
            yield from _regular(path, leave_out=())
        elif stat.S_ISREG(mode):
            yield path
        else:
            msg = f"A signed folder must hold regular files only; {str(path)!r} is a link or a special file."
            raise InvalidInput(msg)


def _check_installed() -> None:
    require("model_signing", extra=EXTRA, package="model-signing pyopenssl")
    require("OpenSSL", extra=EXTRA, package="pyopenssl")


def _private(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_key_bytes(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = f"The key {str(path)!r} must be an unencrypted PEM private key; it cannot be read as one."
        raise InvalidInput(msg) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise InvalidInput(_other_kind(path))
    return key


def _public(path: Path) -> bytes:
    """Return a public key as PEM, so that the library reads what was checked."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    try:
        key = forms.load_pem_public_key(_key_bytes(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = f"The key {str(path)!r} must be a PEM public key; it cannot be read as one."
        raise InvalidInput(msg) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise InvalidInput(_other_kind(path))
    return key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)


def _public_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as forms

    return key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)


def _key_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"The key {str(path)!r} cannot be read: {error.strerror}."
        raise InvalidInput(msg) from error


def _other_kind(path: Path) -> str:
    return (
        f"The key {str(path)!r} must be an elliptic-curve key ({', '.join(CURVES)}) for OpenSSF model signing; make "
        "one with: explain-step keygen KEYFILE --openssf"
    )
