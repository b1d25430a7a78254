"""Certificates: a good authority, one that nobody trusts, and hosts with one fault each."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Cert = Literal["good", "expired", "wrongname", "untrusted", "selfsigned"]

OTHER_NAME = "mail.elsewhere.test"
"""What a `wrongname` certificate is for."""

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its key."""

    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate

    def digest(self) -> str:
        """SHA-256 of the public key: the data of a TLSA record `x 1 1`."""
        public = self.key.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()


class Pki:
    """Certificates as HOST.pem (key, certificate, issuer) in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.trusted = _authority("Test CA")
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self.trusted.cert.public_bytes(Encoding.PEM))
        self._untrusted = _authority("Untrusted Test CA")

    def issue(self, host: str, kind: Cert = "good") -> Signed:
        """Make the host's certificate and write it."""
        issuer = self._untrusted if kind == "untrusted" else self.trusted
        leaf = _leaf(OTHER_NAME if kind == "wrongname" else host, kind, issuer)
        chain = [leaf.cert] if kind == "selfsigned" else [leaf.cert, issuer.cert]
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem = key + b"".join(cert.public_bytes(Encoding.PEM) for cert in chain)
        (self.folder / f"{host}.pem").write_bytes(pem)
        return leaf


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now + days * DAY)
    )


def _authority(name: str) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = (
        _builder(name, _name(name), key, 3650)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    return Signed(key, builder.sign(key, hashes.SHA256()))


def _leaf(host: str, kind: Cert, issuer: Signed) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    own = kind == "selfsigned"
    issuer_name = _name(host) if own else issuer.cert.subject
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = (
        _builder(host, issuer_name, key, -2 if kind == "expired" else 365)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(server, critical=False)
        .add_extension(_key_identifier(key if own else issuer.key), critical=False)
    )
    return Signed(key, builder.sign(key if own else issuer.key, hashes.SHA256()))


def _key_identifier(issuer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    """Python from 3.13 on refuses a certificate without it."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
