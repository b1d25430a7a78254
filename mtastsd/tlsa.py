"""RFC 7672 §3.1: does a certificate chain satisfy a host's TLSA records.

The peer's octets are matched as they came: the public key is cut out of the certificate, not
decoded and encoded again, since a digest is one of octets.

A trust anchor that is not in the chain as sent is not found, even where `2 0 0` or `2 1 0` has it
whole in DNS: RFC 7672 §3.1.2 has servers send it, and nobody publishes these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

from mtastsd.answers import Tlsa
from mtastsd.dane import usable
from mtastsd.names import Domain
from mtastsd.probing import ChainCertificate, covers

DANE_TA, DANE_EE = 2, 3

Result = Literal[
    "ee",  # DANE-EE(3) matches; name and expiry don't count (RFC 7672 §3.1.1)
    "ta",  # DANE-TA(2) matches, and name, dates and signatures hold
    "no-match",
    "host-mismatch",  # a trust anchor matches; the certificate is for other names
    "expired",  # a trust anchor matches; a certificate below it is over, or not yet good
]

_SEQUENCE, _VERSION = 0x30, 0xA0
_BEFORE_SPKI = 5
"""serialNumber, signature, issuer, validity, subject."""


def authenticate(
    records: Iterable[Tlsa],
    chain: Sequence[ChainCertificate],
    names: Sequence[str],
    references: Iterable[Domain],
    now: float,
) -> Result:
    """What usable records say of a chain. `references`: the names that DANE-TA lets the leaf be
    for, the next hop and the TLSA base domain (RFC 7672 §3.2.2)."""
    good = [record for record in records if usable(record)]
    if not chain:
        return "no-match"
    if any(matches(r, chain[0].der) for r in good if r.usage == DANE_EE):
        return "ee"
    anchors = [r for r in good if r.usage == DANE_TA]
    depth = next((i for i in _issuers(chain) if _any(anchors, chain[i].der)), None)
    if depth is None:
        return "no-match"
    if not any(covers(names, reference) for reference in references):
        return "host-mismatch"
    valid = all(c.not_before <= now < c.not_after for c in chain[: depth + 1])
    return "ta" if valid else "expired"


def _issuers(chain: Sequence[ChainCertificate]) -> Iterable[int]:
    """Places in the chain from which signatures lead down to the leaf; the leaf is no anchor."""
    for place, certificate in enumerate(chain[:-1], 1):
        if not certificate.issued_by_next:
            return
        yield place


def _any(records: Iterable[Tlsa], certificate: bytes) -> bool:
    return any(matches(record, certificate) for record in records)


def matches(record: Tlsa, certificate: bytes) -> bool:
    """Whether a record's data is that of a certificate (DER), RFC 6698 §2.1.2, §2.1.3."""
    selected = certificate if record.selector == 0 else public_key(certificate)
    if selected is None:
        return False
    match record.matching:
        case 0:
            return record.data == selected
        case 1:
            return record.data == hashlib.sha256(selected).digest()
        case 2:
            return record.data == hashlib.sha512(selected).digest()
        case _:
            return False


def public_key(certificate: bytes) -> bytes | None:
    """The SubjectPublicKeyInfo of a certificate, as it stands in it (RFC 5280 §4.1); None where
    the octets are no certificate."""
    body = _inside(certificate, 0)
    tbs = _inside(body, 0) if body is not None else None
    if tbs is None:
        return None
    at: int | None = 0
    if tbs[:1] == bytes((_VERSION,)):
        at = _end(tbs, 0)
    for _ in range(_BEFORE_SPKI):
        at = _end(tbs, at) if at is not None else None
    if at is None or tbs[at : at + 1] != bytes((_SEQUENCE,)):
        return None
    end = _end(tbs, at)
    return tbs[at:end] if end is not None else None


def _inside(data: bytes, at: int) -> bytes | None:
    """The contents of the SEQUENCE that begins there."""
    header = _header(data, at)
    if header is None or data[at] != _SEQUENCE:
        return None
    start, end = header
    return data[start:end]


def _end(data: bytes, at: int) -> int | None:
    header = _header(data, at)
    return header[1] if header is not None else None


def _header(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the contents of the element at `at` begin and end; None where they are not all there.

    A length of DER is definite; up to four octets of it are read.
    """
    if at + 2 > len(data):
        return None
    start, length = at + 2, data[at + 1]
    if length > 0x7F:
        size = length & 0x7F
        if not 1 <= size <= 4:
            return None
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    end = start + length
    return (start, end) if end <= len(data) else None
