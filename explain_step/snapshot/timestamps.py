"""RFC 3161 time-stamp tokens: who says since when a manifest has had these bytes. Checked offline.

A token is a CMS SignedData (RFC 5652) around a TSTInfo that names a digest and a time. What is checked: the digest is that
of the data; the signed attributes name the TSTInfo and are signed by the certificate in the token; that certificate is
for time stamping alone, was valid at that time, and is, or was issued through certificates in the token by, one that
the caller lists. Revocation is not looked at: it needs a network.

References: https://www.rfc-editor.org/rfc/rfc3161, https://www.rfc-editor.org/rfc/rfc5652
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_TOKEN_BYTES = 1 << 20
MAX_CERTIFICATES = 20
SIGNED_DATA = "1.2.840.113549.1.7.2"
TST_INFO = "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
HASHES = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
SIGNATURE_HASHES = {
    **{
        "1.2.840.113549.1.1.11": "sha256",
        "1.2.840.113549.1.1.12": "sha384",
        "1.2.840.113549.1.1.13": "sha512",
    },
    **{"1.2.840.10045.4.3.2": "sha256", "1.2.840.10045.4.3.3": "sha384", "1.2.840.10045.4.3.4": "sha512"},
}
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
INTEGER, OCTETS, OID, TIME, SEQUENCE, SET = 0x02, 0x04, 0x06, 0x18, 0x30, 0x31


@dataclass(frozen=True, kw_only=True, slots=True)
class TimestampFound:
    """A time-stamp token, and whether it holds for the data by an authority that the caller lists.

    Attributes
    ----------
    valid : bool
    reason : str
        Why not, or that it holds.
    time : datetime, optional
        UTC; what the authority says. Of no worth where the token is not valid.
    authority : str
        Subject of the certificate that signed.
    """

    valid: bool
    reason: str
    time: datetime | None = None
    authority: str = ""


class _Malformed(ValueError):
    """Bytes that are not the DER that they should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """One DER element: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    whole: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    info: bytes
    certificates: tuple[Certificate, ...]
    signer: tuple[_Item, ...]


def check_timestamp(token: bytes, data: bytes, *, authorities: Sequence[Certificate]) -> TimestampFound:
    """Check a time-stamp response or token about ``data``.

    Parameters
    ----------
    token : bytes
        DER: a TimeStampResp or the ContentInfo in it.
    data : bytes
        What was stamped: the bytes of ``manifest.json``.
    authorities : sequence of Certificate
        Trusted: the authority's own certificate, or one that issued it.
    """
    if len(token) > MAX_TOKEN_BYTES:
        return TimestampFound(valid=False, reason=f"it has more than {MAX_TOKEN_BYTES} bytes")
    try:
        return _check(_token(token), data, authorities=authorities)
    except Exception as error:  # noqa: BLE001 - bytes of a stranger raise anything in a parser
        said = f"{type(error).__name__}: {error}"[:120]
        return TimestampFound(valid=False, reason=f"it cannot be read as a time-stamp token ({said})")


def load_authorities(path: str | Path) -> tuple[Certificate, ...]:
    """Read PEM certificates of time-stamping authorities, or of those that issue them.

    Raises
    ------
    InvalidInput
        The file cannot be read, or holds no certificate.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return tuple(load_pem_x509_certificates(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        msg = f"The file of time-stamping authorities {str(path)!r} must hold PEM certificates: {error}."
        raise InvalidInput(msg) from error


def _check(token: _Token, data: bytes, *, authorities: Sequence[Certificate]) -> TimestampFound:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    moment, imprint = _info(token.info)
    certificate = _certificate(token)
    name = certificate.subject.rfc4514_string()
    reason = None
    try:
        if imprint != (imprint[0], hashlib.new(imprint[0], data).digest()):
            reason = "it was made for another manifest"
        elif not _holds(token, certificate):
            reason = "its signature does not cover its content"
        else:
            reason = _untrusted(certificate, token.certificates, authorities=authorities, moment=moment)
    except (InvalidSignature, UnsupportedAlgorithm):
        reason = "its signature does not hold"
    return TimestampFound(
        valid=reason is None,
        reason=reason or f"{name} says that it was there at {moment:%Y-%m-%d %H:%M:%S} UTC",
        time=moment,
        authority=name,
    )


def _token(data: bytes) -> _Token:
    """Unfold ContentInfo (or the response around it), SignedData and the one SignerInfo."""
    from cryptography.x509 import load_der_x509_certificate

    outer = _children(_only(data, SEQUENCE))
    if outer[0].tag == SEQUENCE:  # a response: status first
        outer = _children(outer[1].content)
    if _oid(outer[0]) != SIGNED_DATA:
        raise _Malformed("it is signed data of another kind")
    signed = _children(_only(outer[1].content, SEQUENCE))
    inside = _children(signed[2].content)
    if _oid(inside[0]) != TST_INFO:
        raise _Malformed("it stamps nothing")
    info = _only(inside[1].content, OCTETS)
    found = [item for entry in signed[3:] if entry.tag == 0xA0 for item in _children(entry.content)]
    signers = [item for entry in signed[3:] if entry.tag == SET for item in _children(entry.content)]
    if len(signers) != 1 or not 0 < len(found) <= MAX_CERTIFICATES:
        raise _Malformed("it must have one signer and its certificate; ask the authority for it (-cert)")
    certificates = tuple(load_der_x509_certificate(item.whole) for item in found if item.tag == SEQUENCE)
    return _Token(info=info, certificates=certificates, signer=tuple(_children(signers[0].content)))


def _info(data: bytes) -> tuple[datetime, tuple[str, bytes]]:
    """Return the time that a TSTInfo states, and algorithm and digest of what it was asked about."""
    fields = _children(_only(data, SEQUENCE))
    algorithm, digest = _children(fields[2].content)
    times = [field.content.decode("ascii") for field in fields[3:] if field.tag == TIME]
    if len(times) != 1 or not times[0].endswith("Z"):
        raise _Malformed("it must have one time, in UTC")
    moment = times[0]
    whole = datetime.strptime(moment[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return whole, (HASHES[_oid(_children(algorithm.content)[0])], digest.content)


def _certificate(token: _Token) -> Certificate:
    """Return the certificate that the signer names: by issuer and number, or by the id of its key."""
    from cryptography.x509 import ExtensionNotFound, SubjectKeyIdentifier

    name = token.signer[1]
    for certificate in token.certificates:
        if name.tag == SEQUENCE:
            issuer, number = _children(name.content)
            same = certificate.issuer.public_bytes() == issuer.whole
            if same and certificate.serial_number == int.from_bytes(number.content, "big", signed=True):
                return certificate
            continue
        try:
            found = certificate.extensions.get_extension_for_class(SubjectKeyIdentifier)
        except ExtensionNotFound:
            continue
        if found.value.digest == name.content:
            return certificate
    raise _Malformed("the certificate of its signer is not in it; ask the authority for it (-cert)")


def _holds(token: _Token, certificate: Certificate) -> bool:
    """Verify the signature over the signed attributes, and that these are about the TSTInfo; raises where it does not."""
    algorithm, attributes = HASHES[_oid(_children(token.signer[2].content)[0])], token.signer[3]
    if attributes.tag != 0xA0:
        return False
    values: dict[str, list[_Item]] = {}
    for attribute in _children(attributes.content):
        kind, value = _children(attribute.content)
        values.setdefault(_oid(kind), []).extend(_children(value.content))
    kinds, digests = values.get(CONTENT_TYPE, []), values.get(MESSAGE_DIGEST, [])
    if [_oid(kind) for kind in kinds] != [TST_INFO]:
        return False
    if [digest.content for digest in digests] != [hashlib.new(algorithm, token.info).digest()]:
        return False
    signed = bytes([SET]) + attributes.whole[1:]  # RFC 5652, 5.4: signed as a SET
    _verify(certificate, token.signer[5].content, signed, kind=_signature_hash(token, algorithm))
    return True


def _signature_hash(token: _Token, algorithm: str) -> str:
    kind = _oid(_children(token.signer[4].content)[0])
    return algorithm if kind == RSA_ENCRYPTION else SIGNATURE_HASHES[kind]


def _verify(certificate: Certificate, signature: bytes, message: bytes, *, kind: str) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    key = certificate.public_key()
    algorithm: Any = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[kind]
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, message, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(algorithm))
    else:
        raise UnsupportedAlgorithm("a time-stamping key must be RSA or of an elliptic curve")


def _untrusted(
    certificate: Certificate,
    others: Sequence[Certificate],
    *,
    authorities: Sequence[Certificate],
    moment: datetime,
) -> str | None:
    """Say why the certificate does not count; None where it does."""
    if not authorities:
        return "no time-stamping authority is listed"
    if not _for_stamping(certificate):
        return "its certificate is not for time stamping alone"
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        return "its certificate was not valid at that time"
    if not any(_leads_to(certificate, anchor, others, depth=4, moment=moment) for anchor in authorities):
        return f"{certificate.subject.rfc4514_string()} does not lead to a listed authority"
    return None


def _for_stamping(certificate: Certificate) -> bool:
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        found = certificate.extensions.get_extension_for_class(ExtendedKeyUsage)
    except (ExtensionNotFound, ValueError):
        return False
    return found.critical and list(found.value) == [ExtendedKeyUsageOID.TIME_STAMPING]


def _leads_to(
    certificate: Certificate,
    anchor: Certificate,
    others: Sequence[Certificate],
    *,
    depth: int,
    moment: datetime,
) -> bool:
    if certificate == anchor:
        return True
    if _issued(certificate, anchor, moment=moment):
        return True
    between = (c for c in others if depth > 0 and c != certificate and _issued(certificate, c, moment=moment))
    return any(_leads_to(c, anchor, others, depth=depth - 1, moment=moment) for c in between)


def _issued(certificate: Certificate, by: Certificate, *, moment: datetime) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    try:
        authority = by.extensions.get_extension_for_class(BasicConstraints).value.ca
        certificate.verify_directly_issued_by(by)
    except (ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    return authority and by.not_valid_before_utc <= moment <= by.not_valid_after_utc


def _items(data: bytes) -> Iterator[_Item]:
    """Yield the DER elements of ``data``; definite lengths only."""
    at = 0
    while at < len(data):
        start, tag, length = at, data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 0 < count <= 4:
                raise _Malformed("a length is not DER")
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if tag & 0x1F == 0x1F or at + length > len(data):
            raise _Malformed("an element is cut short")
        yield _Item(tag=tag, content=data[at : at + length], whole=data[start : at + length])
        at += length


def _children(data: bytes) -> list[_Item]:
    return list(_items(data))


def _only(data: bytes, tag: int) -> bytes:
    (item,) = _children(data)
    if item.tag != tag:
        raise _Malformed("an element is of another kind")
    return item.content


def _oid(item: _Item) -> str:
    if item.tag != OID or not item.content:
        raise _Malformed("an identifier is expected")
    numbers, value = [], 0
    for byte in item.content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
