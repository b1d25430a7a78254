"""Signing: keys as files have them, signatures that dkimpy's verifier takes, records that fit."""

from __future__ import annotations

import base64
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.net import dkim
from mtastsd.net.dkim import BadKey, RecordWhy, Signer, Why

DOMAIN, SELECTOR = "reports.example.com", "tls"

RSA = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 2048)}

# RFC 8463 §A.2
SEED = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(SEED))

SHORT = b"""-----BEGIN PRIVATE KEY-----
MIIB4wIBADANBgkqhkiG9w0BAQEFAASCAc0wggHJAgEAAmEAsznqK+0gKT6GthFx
qXIgYiO2i2Sn1V/Wjcx0YDZOH+YR+ve1T/6Pm9oFmH5sItN9meFgg1E9u7Yv2hLg
o512WE/KAt587fi9PADV2jSX8DBuM+5CPXM4aUjRkkXSni7PAgMBAAECYCKh9lY2
pBhUNMPJ6yTLIObV79hPwv7AXj1YXMSauc4AL0lHxImIr0d2gc5N36d7Jl8mKvGB
lhXCFsSebJiNbZkC4Aymi7qZjeX4YiiJ0WwmuluW7Yay25ZzrU34ynFiAQIxAOdm
7W3Gh7Tfa9fvGntd7Mfj9ZsVmJP87dzMbc+qYa/a3txUmSSr//HIwqAeherTIQIx
AMZHJH7j/N9gS+C4h8ExV/K8gXQajVLsRmf45DjfZdZn3T5YoJLeI2q9Rg76VWOz
7wIwbkBLFYeGtvXQUyS38Fly7FY/efGTLcdPqWi5VT0vp/LXRhEEmkVc/90QZevF
EHohAjBdzPI7BWhv1IKRATtX7hwJPZyQbK9G93gnX9u3/BeVYvWLtSnh0S04Jeqq
00rqLAkCMCd9cGKof7lwI1Onjva6/i01r1vgWzyqW9L/4V9Y7cNZsT5S8NJ6I3J2
ZXJE0bF+KQ==
-----END PRIVATE KEY-----
"""
"""RSA with 768 bits, which libraries no longer make."""

HEADER = [
    b"From: TLS reports <tls@reports.example.com>",
    b"To: tls-reports@example.org",
    b"Subject: Report Domain: example.org Submitter: reports.example.com",
    b" Report-ID: <2026-01-01.1@reports.example.com>",
    b"Date: Fri, 02 Jan 2026 03:04:05 +0000",
    b"Message-ID: <2026-01-01.1@reports.example.com>",
    b"MIME-Version: 1.0",
    b'Content-Type: multipart/report; report-type="tlsrpt"; boundary="x"',
    b"TLS-Report-Domain: example.org",
    b"TLS-Report-Submitter: reports.example.com",
    b"TLS-Required: No",
    b"Auto-Submitted: auto-generated",
]
MESSAGE = b"\r\n".join([*HEADER, b"", b"--x", b"", b".a  report \t", b"--x--", b"", b""])


def pem(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def write(path: Path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def signer(folder: Path, data: bytes) -> Signer:
    found = dkim.load(write(folder / "dkim.key", data), DOMAIN, SELECTOR)
    assert isinstance(found, Signer)
    return found


def verified(message: bytes, record: str, *, tlsrpt: bool | str = True) -> bool:
    """What dkimpy's verifier says, with this record in DNS and no other."""

    def txt(name: bytes, timeout: int) -> bytes | None:
        return record.encode() if name == b"tls._domainkey.reports.example.com." else None

    verdict = dkimpy.verify(message, dnsfunc=txt, tlsrpt=tlsrpt)
    assert isinstance(verdict, bool)
    return verdict


GOOD = {
    "rsa-pkcs8": pem(RSA[2048]),
    "rsa-pkcs1": pem(RSA[2048], PrivateFormat.TraditionalOpenSSL),
    "rsa-crlf": pem(RSA[2048]).replace(b"\n", b"\r\n"),
    "rsa-1024": pem(RSA[1024]),
    "ed25519-pkcs8": pem(ED25519),
    "ed25519-dknewkey": SEED,
    "ed25519-line": SEED + b"\n",
}


@pytest.fixture(params=GOOD)
def good(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    return signer(tmp_path, GOOD[request.param])


# ---- signatures


def test_a_signature_verifies(good: Signer) -> None:
    signed = good.sign(MESSAGE)
    assert signed.endswith(MESSAGE)
    assert verified(signed, good.record)
    assert verified(signed, good.record, tlsrpt="strict")
    assert verified(signed, good.record.replace(" s=tlsrpt;", ""), tlsrpt=False)


def fields(signed: bytes) -> dict[str, str]:
    """The tags of the signature."""
    header = signed.removesuffix(MESSAGE).decode("ascii")
    name, _, value = header.partition(":")
    assert name == "DKIM-Signature"
    assert header.endswith("\r\n")
    assert all(len(line) < 79 for line in header.split("\r\n"))
    tags = re.sub(r"\s", "", value).split(";")
    return {tag.partition("=")[0]: tag.partition("=")[2] for tag in tags}


def test_what_is_signed(good: Signer) -> None:
    tags = fields(good.sign(MESSAGE))
    assert tags["h"].split(":") == [*dkim.SIGNED, "from"]
    assert tags["c"] == "relaxed/relaxed"
    assert tags["a"] == f"{good.kind}-sha256"
    assert (tags["d"], tags["s"]) == (DOMAIN, SELECTOR)
    assert not {"l", "x"} & tags.keys()


def test_absent_fields_are_not_named(tmp_path: Path) -> None:
    message = b"from: a@reports.example.com\r\nSubject: x\r\nX-Other: y\r\n\r\nbody\r\n"
    signed = signer(tmp_path, SEED).sign(message)
    assert re.search(rb"h=from : subject : from;", signed)
    assert verified(signed, f"k=ed25519; p={PUBLIC}")


@pytest.mark.parametrize("key", ["rsa-pkcs8", "ed25519-pkcs8"])
@pytest.mark.parametrize("line", [i for i, field in enumerate(HEADER) if field[:1] != b" "])
def test_each_of_them_is_held(key: str, line: int, tmp_path: Path) -> None:
    by = signer(tmp_path, GOOD[key])
    changed = HEADER.copy()
    changed[line] += b"x"
    assert not verified(
        by.sign(MESSAGE).replace(b"\r\n".join(HEADER), b"\r\n".join(changed)), by.record
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"a  report", b"another report"),
        (b"--x--\r\n", b"--x--\r\nmore\r\n"),  # l= would let it pass
        (b"\r\nTo:", b"\r\nFrom: b@example.net\r\nTo:"),
        (b"d=reports.example.com", b"d=example.com"),
    ],
)
def test_changes_are_noticed(old: bytes, new: bytes, good: Signer) -> None:
    signed = good.sign(MESSAGE)
    assert old in signed
    assert not verified(signed.replace(old, new, 1), good.record)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"a  report \t\r\n", b"a report\r\n"),
        (b"\r\n Report-ID:", b" Report-ID:"),
        (b"TLS-Required: No", b"tls-required:  No "),
        (b"--x--\r\n", b"--x--\r\n\r\n\r\n"),
        (b"DKIM-Signature:", b"Received: by mx\r\nDKIM-Signature:"),
    ],
)
def test_what_mail_servers_do_is_not(old: bytes, new: bytes, good: Signer) -> None:
    signed = good.sign(MESSAGE)
    assert old in signed
    assert verified(signed.replace(old, new, 1), good.record)


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("example.com", "a"),
        ("a" * 55 + ".example.com", "s"),
        ("a" * 27 + "." + "b" * 27 + ".example.com", "s" * 62 + ".2026"),
    ],
)
@pytest.mark.parametrize("key", ["rsa-pkcs8", "ed25519-pkcs8"])
def test_names_up_to_the_limit(key: str, domain: str, selector: str, tmp_path: Path) -> None:
    by = dkim.load(write(tmp_path / "key", GOOD[key]), domain, selector)
    assert isinstance(by, Signer)
    asked: list[str] = []

    def txt(name: bytes, timeout: int) -> bytes:
        asked.append(name.decode())
        return by.record.encode()

    assert dkimpy.verify(by.sign(MESSAGE), dnsfunc=txt, tlsrpt=True)
    assert asked == [by.record_name + "."]


@given(st.binary(max_size=300), st.text("abcdefgh.-", min_size=0, max_size=40))
def test_any_body_verifies(body: bytes, subject: str) -> None:
    """What the reports' own composer never makes: octets of all kinds, bare CR and LF."""
    by = Signer(DOMAIN, SELECTOR, "ed25519", 256, PUBLIC, SEED)
    message = b"From: a@b.example\r\nSubject: " + subject.encode() + b"\r\n\r\n" + body
    assert verified(by.sign(message), by.record)


def test_signing_in_another_process(good: Signer) -> None:
    again: Signer = pickle.loads(pickle.dumps(good))
    assert again == good
    assert verified(again.sign(MESSAGE), good.record)


def test_the_secret_does_not_show(good: Signer) -> None:
    assert good.secret.decode() not in repr(good)
    assert "secret" not in repr(good)


# ---- key files


def test_facts_of_a_key(tmp_path: Path) -> None:
    by = signer(tmp_path, SEED)
    assert (by.kind, by.bits, by.public, by.warnings) == ("ed25519", 256, PUBLIC, ())
    assert by.record == f"v=DKIM1; k=ed25519; s=tlsrpt; p={PUBLIC}"
    assert by.record_name == "tls._domainkey.reports.example.com"
    by = signer(tmp_path, GOOD["rsa-pkcs8"])
    assert (by.kind, by.bits, by.warnings) == ("rsa", 2048, ())
    der = RSA[2048].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert by.record == f"v=DKIM1; k=rsa; s=tlsrpt; p={base64.b64encode(der).decode()}"
    by = signer(tmp_path, GOOD["rsa-1024"])
    assert (by.bits, by.warnings) == (
        1024,
        ("RSA with 1024 bits is weak: make one with 2048 or more",),
    )


BAD: dict[str, tuple[bytes, Why]] = {
    "empty": (b"", "no-key"),
    "text": (b"v=DKIM1; k=rsa; p=MIIB", "no-key"),
    "short-seed": (base64.b64encode(bytes(31)), "no-key"),
    "long-seed": (base64.b64encode(bytes(64)), "no-key"),
    "two-lines": (SEED[:20] + b"\n" + SEED[20:], "no-key"),
    "huge": (SEED + b"\n" * dkim.MAX_FILE, "no-key"),
    "half": (pem(RSA[1024])[:400], "no-key"),
    "garbled": (pem(RSA[1024]).replace(b"MII", b"III"), "no-key"),
    "public": (
        RSA[1024].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "no-key",
    ),
    "passphrase": (pem(ED25519, encryption=BestAvailableEncryption(b"x")), "encrypted"),
    "curve": (pem(ec.generate_private_key(ec.SECP256R1())), "unsupported"),
    "short": (SHORT, "size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_keys(name: str, tmp_path: Path) -> None:
    data, why = BAD[name]
    found = dkim.load(write(tmp_path / "key", data), DOMAIN, SELECTOR)
    assert isinstance(found, BadKey)
    assert found.why == why
    assert str(found) == f"{why}: {found.detail}"
    assert SEED.decode()[:20] not in str(found)


def test_too_long_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dkim, "MAX_BITS", 2047)  # a really long one takes seconds to make
    found = dkim.load(write(tmp_path / "key", pem(RSA[2048])), DOMAIN, SELECTOR)
    assert found == BadKey("size", "RSA with 2048 bits, not 1024 to 2047")


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o400, None),
        (0o600, None),
        (0o440, None),
        (0o640, None),
        (0o644, "exposed"),
        (0o604, "exposed"),
        (0o602, "exposed"),
        (0o601, "exposed"),
    ],
)
def test_modes(mode: int, why: Why | None, tmp_path: Path) -> None:
    found = dkim.load(write(tmp_path / "key", SEED, mode), DOMAIN, SELECTOR)
    assert (found.why if isinstance(found, BadKey) else None) == why
    if why:
        assert f"{mode:04o}" in str(found)


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def loop(path: Path) -> None:
    path.symlink_to(path)


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [nothing, Path.mkdir, fifo, loop])
def test_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "key"
    make(path)
    found = dkim.load(str(path), DOMAIN, SELECTOR)
    assert isinstance(found, BadKey)
    assert found.why == "unreadable"
    assert str(path) in found.detail


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("a" * 56 + ".example.com", "s"),
        ("example.com", "s" * 68),
        ("", "s"),
        ("example.com", ""),
        ("example.com", "s; d=example.net"),
        ("example..com", "s"),
        ("exämple.com", "s"),
    ],
)
def test_bad_names(domain: str, selector: str, tmp_path: Path) -> None:
    found = dkim.load(write(tmp_path / "key", SEED), domain, selector)
    assert isinstance(found, BadKey)
    assert found.why == "name"


# ---- records


OTHER = base64.b64encode(bytes(32)).decode()

RECORDS: list[tuple[list[str], RecordWhy | None]] = [
    ([f"v=DKIM1; k=ed25519; s=tlsrpt; p={PUBLIC}"], None),
    ([f"v=DKIM1; k=ed25519; p={PUBLIC}"], None),
    ([f"k=ed25519;p={PUBLIC};"], None),
    ([f" v = DKIM1 ;\tk = ed25519 ; p = {PUBLIC[:9]} {PUBLIC[9:]} ; "], None),
    ([f"v=DKIM1; k=ed25519; s=*; p={PUBLIC}"], None),
    ([f"v=DKIM1; k=ed25519; s=email : tlsrpt; p={PUBLIC}"], None),
    ([f"v=DKIM1; k=ed25519; h=sha1:sha256; t=y; n=note; p={PUBLIC}"], None),
    ([], "missing"),
    ([f"k=ed25519; p={PUBLIC}"] * 2, "several"),
    (["v=spf1 -all"], "syntax"),
    ([""], "syntax"),
    ([f"v=DKIM2; k=ed25519; p={PUBLIC}"], "syntax"),
    ([f"k=ed25519; v=DKIM1; p={PUBLIC}"], "syntax"),
    ([f"v=DKIM1; k=ed25519; k=ed25519; p={PUBLIC}"], "syntax"),
    ([f"v=DKIM1; k=ed25519;; p={PUBLIC}"], "syntax"),
    ([f"v=DKIM1; k=ed25519; p={PUBLIC}\n"], "syntax"),
    ([f"v=DKIM1; k=ed25519; n=ä; p={PUBLIC}"], "syntax"),
    ([f"v=DKIM1; k=ed25519; p={PUBLIC};" + " " * dkim.MAX_RECORD], "syntax"),
    (["v=DKIM1; k=ed25519; p="], "revoked"),
    ([f"v=DKIM1; p={PUBLIC}"], "type"),
    ([f"v=DKIM1; k=rsa; p={PUBLIC}"], "type"),
    ([f"v=DKIM1; k=ed25519; h=sha1; p={PUBLIC}"], "hash"),
    ([f"v=DKIM1; k=ed25519; s=email; p={PUBLIC}"], "service"),
    ([f"v=DKIM1; k=ed25519; p={OTHER}"], "key"),
]


@pytest.mark.parametrize(("records", "why"), RECORDS)
def test_judge(records: list[str], why: RecordWhy | None) -> None:
    by = Signer(DOMAIN, SELECTOR, "ed25519", 256, PUBLIC, SEED)
    assert by.judge([record.encode() for record in records]) == why


def test_its_own_record_fits(good: Signer) -> None:
    assert good.judge([good.record.encode()]) is None


def test_both_forms_of_an_rsa_key_fit(tmp_path: Path) -> None:
    by = signer(tmp_path, GOOD["rsa-pkcs8"])
    for size, why in ((2048, None), (1024, "key")):
        for form in (PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo):
            der = RSA[size].public_key().public_bytes(Encoding.DER, form)
            record = b"p=" + base64.b64encode(der)
            assert by.judge([record]) == why
            assert verified(by.sign(MESSAGE), record.decode()) is (why is None)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=1))
def test_any_record_is_judged(records: list[bytes]) -> None:
    by = Signer(DOMAIN, SELECTOR, "ed25519", 256, PUBLIC, SEED)
    assert by.judge(records) is not None
