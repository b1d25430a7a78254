"""TLSA records against certificate chains: a table, and octets that are no certificate."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.answers import Tlsa
from mtastsd.names import Domain
from mtastsd.probing import ChainCertificate, covers
from mtastsd.tlsa import Result, authenticate, matches, public_key

HOST = Domain("mx.example.com")
DOMAIN = Domain("example.com")
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
AFTER = datetime(2026, 12, 31, tzinfo=UTC)
NOW = (BEFORE + timedelta(days=90)).timestamp()

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def certificate(key: Key) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.example.com")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, BEFORE, AFTER)
    return builder.sign(
        key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    )


LEAF = certificate(ec.generate_private_key(ec.SECP256R1()))
ISSUER = certificate(ec.generate_private_key(ec.SECP384R1()))
ROOT = certificate(rsa.generate_private_key(65537, 2048))
DER = {c: c.public_bytes(Encoding.DER) for c in (LEAF, ISSUER, ROOT)}


def spki(of: x509.Certificate) -> bytes:
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record(usage: int, selector: int, matching: int, of: x509.Certificate) -> Tlsa:
    data = DER[of] if selector == 0 else spki(of)
    if matching == 1:
        data = hashlib.sha256(data).digest()
    elif matching == 2:
        data = hashlib.sha512(data).digest()
    return Tlsa(usage, selector, matching, data)


def chain(*of: x509.Certificate, linked: bool = True, ends: float = 0.0) -> list[ChainCertificate]:
    start = BEFORE.timestamp()
    end = ends or AFTER.timestamp()
    last = len(of) - 1
    return [
        ChainCertificate(DER[c], start, end, linked and place < last) for place, c in enumerate(of)
    ]


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_selectors_and_matching_types(selector: int, matching: int) -> None:
    one = record(3, selector, matching, LEAF)
    assert matches(one, DER[LEAF])
    assert not matches(one, DER[ISSUER])


def test_a_matching_type_that_does_not_exist_matches_nothing() -> None:
    assert not matches(Tlsa(3, 0, 3, DER[LEAF]), DER[LEAF])


WHOLE = chain(LEAF, ISSUER, ROOT)
OVER = chain(LEAF, ISSUER, ROOT, ends=NOW - 1)
RIGHT, WRONG = ("mx.example.com",), ("mx.example.net",)

TABLE: list[tuple[str, list[Tlsa], list[ChainCertificate], tuple[str, ...], Result]] = [
    ("EE", [record(3, 1, 1, LEAF)], WHOLE, RIGHT, "ee"),
    ("EE, another name", [record(3, 1, 1, LEAF)], WHOLE, WRONG, "ee"),
    ("EE, expired", [record(3, 1, 1, LEAF)], OVER, RIGHT, "ee"),
    ("EE of the issuer", [record(3, 1, 1, ISSUER)], WHOLE, RIGHT, "no-match"),
    ("EE, one of several", [record(3, 1, 1, ROOT), record(3, 0, 2, LEAF)], WHOLE, WRONG, "ee"),
    ("TA, intermediate", [record(2, 1, 1, ISSUER)], WHOLE, RIGHT, "ta"),
    ("TA, root", [record(2, 0, 1, ROOT)], WHOLE, RIGHT, "ta"),
    ("TA, for the next hop", [record(2, 1, 1, ISSUER)], WHOLE, ("example.com",), "ta"),
    ("TA, another name", [record(2, 1, 1, ISSUER)], WHOLE, WRONG, "host-mismatch"),
    ("TA, no name", [record(2, 1, 1, ISSUER)], WHOLE, (), "host-mismatch"),
    ("TA, expired", [record(2, 1, 1, ISSUER)], OVER, RIGHT, "expired"),
    ("TA, not sent", [record(2, 1, 1, ROOT)], chain(LEAF, ISSUER), RIGHT, "no-match"),
    ("TA, sent but not the issuer", [record(2, 1, 1, ROOT)], chain(LEAF, ROOT, linked=False),
     RIGHT, "no-match"),
    ("TA of the leaf", [record(2, 1, 1, LEAF)], WHOLE, RIGHT, "no-match"),
    ("TA fails, EE holds", [record(2, 1, 1, ISSUER), record(3, 1, 1, LEAF)], OVER, WRONG, "ee"),
    ("PKIX-EE is unusable", [record(1, 1, 1, LEAF)], WHOLE, RIGHT, "no-match"),
    ("PKIX-TA is unusable", [record(0, 1, 1, ISSUER)], WHOLE, RIGHT, "no-match"),
    ("a digest that is cut", [Tlsa(3, 1, 1, record(3, 1, 1, LEAF).data[:31])], WHOLE, RIGHT,
     "no-match"),
    ("no chain", [record(3, 1, 1, LEAF)], [], (), "no-match"),
    ("no records", [], WHOLE, RIGHT, "no-match"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "sent", "names", "result"), [c[1:] for c in TABLE], ids=[c[0] for c in TABLE]
)
def test_authentication(
    records: list[Tlsa], sent: list[ChainCertificate], names: tuple[str, ...], result: Result
) -> None:
    assert authenticate(records, sent, names, [HOST, DOMAIN], NOW) == result


def test_an_anchor_is_judged_by_its_own_dates_too() -> None:
    leaf, issuer = chain(LEAF, ISSUER)
    over = ChainCertificate(issuer.der, issuer.not_before, NOW, issuer.issued_by_next)
    records = [record(2, 1, 1, ISSUER)]
    assert authenticate(records, [leaf, over], RIGHT, [HOST], NOW) == "expired"
    assert authenticate(records, [leaf, over], RIGHT, [HOST], NOW - 1) == "ta"
    assert authenticate(records, [leaf, over], RIGHT, [HOST], leaf.not_before - 1) == "expired"


# ---- the public key, cut out


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 4096),
    ],
    ids=["ec", "ed25519", "rsa"],
)
def test_the_public_key_is_the_one_in_the_certificate(key: Key) -> None:
    made = certificate(key)
    assert public_key(made.public_bytes(Encoding.DER)) == spki(made)


def test_a_certificate_without_a_version_has_a_key_too() -> None:
    """Version 1: the field is left out (RFC 5280 §4.1.2.1)."""
    old = bytes.fromhex("301a3018020101300030003000300030060500020101a00004000500")
    assert public_key(old) == bytes.fromhex("30060500020101a0")


@pytest.mark.parametrize("end", range(0, len(DER[LEAF]), 7))
def test_a_certificate_that_is_cut_has_none(end: int) -> None:
    assert public_key(DER[LEAF][:end]) is None


@given(st.binary(max_size=64))
def test_octets_that_are_no_certificate(data: bytes) -> None:
    found = public_key(data)
    assert found is None or found in data


@given(st.integers(0, 120), st.integers(0, 255))
def test_a_certificate_with_one_octet_changed(at: int, to: int) -> None:
    der = bytearray(DER[LEAF])
    der[at] = to
    found = public_key(bytes(der))
    assert found is None or found in bytes(der)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80" + b"\0" * 20,  # indefinite length: BER
        b"\x30\x85\0\0\0\0\x01\0",  # a length of five octets
        b"\x30\x84\xff\xff\xff\xff",
        b"\x31\x02\x30\x00",
        b"\x30\x02\x31\x00",
        b"\x30",
    ],
)
def test_lengths_and_tags_that_no_certificate_has(data: bytes) -> None:
    assert public_key(data) is None


# ---- names


@pytest.mark.parametrize(
    ("names", "host", "good"),
    [
        (["mx.example.com"], "mx.example.com", True),
        (["example.com", "mx.example.com"], "mx.example.com", True),
        (["*.example.com"], "mx.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "a.mx.example.com", False),
        (["m*.example.com"], "mx.example.com", False),
        (["*.com"], "example.com", False),
        (["*"], "mx.example.com", False),
        (["mx.example.com."], "mx.example.com", False),
        ([], "mx.example.com", False),
    ],
)
def test_names(names: list[str], host: str, good: bool) -> None:
    assert covers(names, Domain(host)) is good
