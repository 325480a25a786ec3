"""Time-stamp tokens of an authority of our own, so that each part of one can be made wrong by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from explain_step.snapshot.timestamps import CONTENT_TYPE, MESSAGE_DIGEST, SIGNED_DATA, TST_INFO

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA256 = "2.16.840.1.101.3.4.2.1"
ECDSA = {"1.2.840.10045.4.3.2": hashes.SHA256(), "1.2.840.10045.4.3.3": hashes.SHA384()}
STAMPING = (ExtendedKeyUsageOID.TIME_STAMPING,)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def holder(
    name: str,
    by: Holder | None = None,
    *,
    authority: bool = False,
    purposes: Sequence[x509.ObjectIdentifier] = (),
    critical: bool = True,
    key_id: bool = True,
    start: datetime = MOMENT - timedelta(days=30),
    end: datetime = MOMENT + timedelta(days=30),
) -> Holder:
    """Return a certificate that ``by`` issued; one that issued itself without."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if key_id:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(own, critical=False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=critical)
    return Holder(certificate=builder.sign(key if by is None else by.key, hashes.SHA256()), key=key)


def der(tag: int, *parts: bytes) -> bytes:
    """Return a DER element."""
    content = b"".join(parts)
    size = len(content).to_bytes(4, "big").lstrip(b"\0") or b"\0"
    length = size if len(content) < 0x80 else bytes([0x80 | len(size)]) + size
    return bytes([tag]) + length + content


def oid(dotted: str) -> bytes:
    """Return an object identifier."""
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for number in (40 * first + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.insert(0, 0x80 | number & 0x7F)
        out += bytes(digits)
    return der(0x06, out)


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What a token says; every part can be another one than a true authority would write."""

    data: bytes
    signer: Holder
    others: Sequence[Holder] = ()
    times: Sequence[str] = (f"{MOMENT:%Y%m%d%H%M%S}Z",)
    content: str = TST_INFO
    said_content: Sequence[str] = (TST_INFO,)
    said_digest: bytes | None = None
    attributes: bool = True
    by_key_id: bool = False
    signature: str = "1.2.840.10045.4.3.2"
    signers: int = 1
    signed_by: Holder | None = None

    def token(self) -> bytes:
        """Return its bytes."""
        info = self._info()
        # those that do not sign come first: which one signed is for the signer's name to say
        known = [h.certificate.public_bytes(Encoding.DER) for h in (*self.others, self.signer)]
        signed = der(
            0x30,
            der(0x02, b"\x03"),
            der(0x31, der(0x30, oid(SHA256))),
            der(0x30, oid(self.content), der(0xA0, der(0x04, info))),
            der(0xA0, *known),
            der(0x31, *[self._signer(info)] * self.signers),
        )
        return der(0x30, oid(SIGNED_DATA), der(0xA0, signed))

    def _info(self) -> bytes:
        imprint = der(0x30, der(0x30, oid(SHA256)), der(0x04, hashlib.sha256(self.data).digest()))
        times = [der(0x18, time.encode()) for time in self.times]
        return der(0x30, der(0x02, b"\x01"), oid("1.2.3"), imprint, der(0x02, b"\x07"), *times)

    def _signer(self, info: bytes) -> bytes:
        digest = hashlib.sha256(info).digest() if self.said_digest is None else self.said_digest
        said = [
            *(der(0x30, oid(CONTENT_TYPE), der(0x31, oid(kind))) for kind in self.said_content),
            der(0x30, oid(MESSAGE_DIGEST), der(0x31, der(0x04, digest))),
        ]
        message = der(0x31, *said) if self.attributes else info
        signature = (self.signed_by or self.signer).key.sign(message, ec.ECDSA(ECDSA[self.signature]))
        return der(
            0x30,
            der(0x02, b"\x01"),
            self._name(),
            der(0x30, oid(SHA256)),
            *([der(0xA0, *said)] if self.attributes else []),
            der(0x30, oid(self.signature)),
            der(0x04, signature),
        )

    def _name(self) -> bytes:
        certificate = self.signer.certificate
        if self.by_key_id:
            found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
            return der(0x80, found.value.digest)
        number = certificate.serial_number
        return der(
            0x30, certificate.issuer.public_bytes(), der(0x02, number.to_bytes(number.bit_length() // 8 + 1))
        )
