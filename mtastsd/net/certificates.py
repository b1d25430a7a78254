"""The certificates of an established TLS session, as values. The peer's word in every respect:
what can't be read is left out, and nothing here raises for what a peer sent."""

from __future__ import annotations

import re
import ssl
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from mtastsd.probing import ChainCertificate, Tls
from mtastsd.sts.failure import printable

MAX_CHAIN = 10
"""Certificates of a chain that are looked at; OpenSSL's own limit for verification is 100, what
servers send is two to four."""

MAX_NAMES = 2000
"""DNS-IDs of a certificate; shared hosts have some hundred."""

MAX_ISSUER = 200
"""Characters of the issuer's name."""

_NAME = re.compile(r"[!-~]{1,255}", re.ASCII)

T = TypeVar("T")


def tls_seen(tls: ssl.SSLObject) -> Tls:
    """A session whose handshake was not refused."""
    sent, whole = _sent(tls)
    ders = sent[:MAX_CHAIN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography tells of each oddity that it lets pass
        read = [_attempt(partial(x509.load_der_x509_certificate, der)) for der in ders]
        links = [_issued(a, b) for a, b in pairwise(read)] + [False]
        chain = tuple(
            _certificate(der, certificate, linked)
            for der, certificate, linked in zip(ders, read, links, strict=False)
        )
        leaf = read[0] if read else None
        names = _names(leaf) if leaf is not None else ()
        issuer = _attempt(partial(_issuer, leaf)) if leaf is not None else None
    cipher = tls.cipher()
    return Tls(
        0,
        tls.version() or "",
        cipher[0] if cipher is not None else "",
        chain,
        names,
        printable(issuer or "", MAX_ISSUER),
        whole,
    )


def _sent(tls: ssl.SSLObject) -> tuple[list[bytes], bool]:
    """The chain as the peer sent it, DER, leaf first, and whether it is the whole of it."""
    public = getattr(tls, "get_unverified_chain", None)  # Python 3.13
    if public is not None:
        return list(public()), True
    private = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)  # 3.10 to 3.12
    if private is not None:
        return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in private() or ()], True
    leaf = tls.getpeercert(binary_form=True)
    return ([leaf] if leaf else []), False


def _attempt(parse: Callable[[], T]) -> T | None:
    """What a parser makes of a certificate; None where it can't."""
    try:
        return parse()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def _certificate(
    der: bytes, certificate: x509.Certificate | None, issued_by_next: bool
) -> ChainCertificate:
    if certificate is None:
        return ChainCertificate(der)
    return ChainCertificate(
        der,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        issued_by_next,
    )


def _issued(certificate: x509.Certificate | None, by: x509.Certificate | None) -> bool:
    if certificate is None or by is None:
        return False
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS-IDs that are ASCII, lower case; U-labels have no place there (RFC 5280 §7.2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = extension.value.get_values_for_type(x509.DNSName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ()
    return tuple(name.lower() for name in found[:MAX_NAMES] if _NAME.fullmatch(name))


def _issuer(certificate: x509.Certificate) -> str:
    """The authority for people: organization and common name."""
    oids = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
    found = [a.value for oid in oids for a in certificate.issuer.get_attributes_for_oid(oid)]
    return ", ".join(v if isinstance(v, str) else v.decode("latin-1") for v in found)
