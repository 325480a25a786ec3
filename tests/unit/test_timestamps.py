"""Time stamps by an authority of our own: each part of a token and of its certificates that is wrong by itself is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from stamp_kit import MOMENT, STAMPING, Holder, Stamp, holder

from explain_step.snapshot.timestamps import MAX_CERTIFICATES, TimestampFound, check_timestamp

DATA = b"the bytes of a manifest"
SECOND = timedelta(seconds=1)


@cache
def root() -> Holder:
    return holder("root", authority=True)


@cache
def stamper(**changes: Any) -> Holder:
    return holder("stamper", root(), **{"purposes": STAMPING, **changes})


def check(stamp: Stamp, *listed: Holder) -> TimestampFound:
    authorities = [h.certificate for h in listed or (root(),)]
    return check_timestamp(stamp.token(), DATA, authorities=authorities)


@pytest.mark.parametrize("by_key_id", [False, True])
def test_a_token_of_a_listed_authority_holds(by_key_id: bool) -> None:
    stamp = Stamp(data=DATA, signer=stamper(), others=(root(),), by_key_id=by_key_id)
    found = check(stamp)
    assert found.valid, found.reason
    assert (found.time, found.authority) == (MOMENT, "CN=stamper")
    assert check(
        replace(stamp, signature="1.2.840.10045.4.3.3")
    ).valid  # SHA-384 of the attributes, SHA-256 of the content
    assert check(stamp, stamper()).valid  # the certificate itself is listed
    assert check(stamp, holder("another", authority=True), root()).valid  # one of several is enough
    assert (
        "does not lead" in check(stamp, holder("root", authority=True)).reason
    )  # the same name, another key


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": b"other bytes"}, "another manifest"),
        ({"content": "1.2.840.113549.1.7.1"}, "it stamps nothing"),
        ({"said_content": ()}, "does not cover its content"),
        ({"said_content": ("1.2.840.113549.1.7.1",)}, "does not cover its content"),
        ({"said_digest": b"\0" * 32}, "does not cover its content"),
        ({"attributes": False}, "does not cover its content"),
        ({"signed_by": holder("somebody")}, "signature does not hold"),
        ({"signers": 0}, "one signer"),
        ({"signers": 2}, "one signer"),
        ({"times": ()}, "one time, in UTC"),
        ({"times": ("20260301120000",)}, "one time, in UTC"),
        ({"times": ("20260301120000+0200",)}, "one time, in UTC"),
        ({"times": ("20260301120000Z", "20250301120000Z")}, "one time, in UTC"),
        ({"others": (holder("another"),) * MAX_CERTIFICATES}, "one signer and its certificate"),
    ],
)
def test_a_part_of_a_token_that_is_wrong(changes: dict[str, Any], words: str) -> None:
    stamp = Stamp(**{"data": DATA, "signer": stamper(), **changes})
    found = check(stamp)
    assert not found.valid
    assert words in found.reason


def test_a_length_that_is_not_der_is_named() -> None:
    for data in (b"\x30\x80\x00\x00", b"\x30\x85\x00\x00\x00\x00\x00"):  # without end, with needless digits
        found = check_timestamp(data, DATA, authorities=[root().certificate])
        assert "a length is not DER" in found.reason


def test_the_signers_certificate_is_found_by_issuer_and_number_among_others() -> None:
    others = (stamper(critical=False), holder("stranger", authority=True), holder("old", key_id=False))
    assert check(Stamp(data=DATA, signer=stamper(), others=others)).valid
    assert check(Stamp(data=DATA, signer=stamper(), others=others, by_key_id=True)).valid


@pytest.mark.parametrize(
    "purposes", [(), (ExtendedKeyUsageOID.CODE_SIGNING,), (*STAMPING, ExtendedKeyUsageOID.CODE_SIGNING)]
)
def test_only_a_certificate_for_stamping_alone_stamps(purposes: Any) -> None:
    found = check(Stamp(data=DATA, signer=holder("server", root(), purposes=purposes)))
    assert not found.valid
    assert "not for time stamping alone" in found.reason
    assert not check(Stamp(data=DATA, signer=stamper(critical=False))).valid


@pytest.mark.parametrize(
    ("start", "end", "valid"),
    [
        (MOMENT, MOMENT, True),
        (MOMENT + SECOND, MOMENT + 2 * SECOND, False),
        (MOMENT - 2 * SECOND, MOMENT - SECOND, False),
    ],
)
def test_every_certificate_of_the_path_was_valid_at_that_time(start: Any, end: Any, valid: bool) -> None:
    leaf = stamper(start=start, end=end)
    found = check(Stamp(data=DATA, signer=leaf))
    assert (found.valid, "was not valid at that time" in found.reason) == (valid, not valid)
    between = holder("between", root(), authority=True, start=start, end=end)
    leaf = holder("stamper", between, purposes=STAMPING)
    found = check(Stamp(data=DATA, signer=leaf, others=(between,)))
    assert (found.valid, "does not lead to a listed authority" in found.reason) == (valid, not valid)


def test_what_is_no_authority_issues_no_stamper() -> None:
    customer = holder("customer", root())  # anybody's certificate of the same authority
    forged = holder("stamper", customer, purposes=STAMPING)
    found = check(Stamp(data=DATA, signer=forged, others=(customer,)))
    assert not found.valid
    assert "does not lead to a listed authority" in found.reason


@pytest.mark.parametrize(("between", "valid"), [(4, True), (5, False)])
def test_a_path_has_at_most_four_authorities_between(between: int, valid: bool) -> None:
    path = [root()]
    for i in range(between):
        path.append(holder(f"authority {i}", path[-1], authority=True))
    leaf = holder("stamper", path[-1], purposes=STAMPING)
    assert check(Stamp(data=DATA, signer=leaf, others=tuple(path[1:]))).valid is valid
    assert not check(Stamp(data=DATA, signer=leaf, others=tuple(path[1:-1]))).valid  # one is missing
