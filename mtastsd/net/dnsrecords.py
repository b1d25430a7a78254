"""The records of a DNS message, RFC 1035 §4.1: octets to owners, types and places of data.

No I/O. A library's message object with a value for every record and every label of it costs ten
times as much as this, and a discovery reads three or four messages. Nothing here trusts a length
or a pointer; whatever doesn't add up is `Malformed`.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

A, NS, CNAME, SOA, MX, TXT, AAAA, OPT, TLSA = 1, 2, 5, 6, 15, 16, 28, 41, 52
IN = 1

HEADER: Final = struct.Struct("!HHHHHH")
_FIXED: Final = struct.Struct("!HHIH")
_MAX_LABEL, _MAX_NAME = 63, 255
_POINTER = 0xC0
_RCODE = 0x000F
_MAX_TTL = 2**31 - 1

ROOT: Final = b"\0"

_PLAIN = re.compile(rb"[a-z0-9_-]+")
_ODD = re.compile(r"[^a-z0-9_-]", re.ASCII)


class Malformed(Exception):
    """The octets are no DNS message."""


class Record(NamedTuple):
    """One record. Its data are the octets of the message from `start` to before `end`."""

    owner: bytes
    rdtype: int
    rdclass: int
    ttl: int
    start: int
    end: int


class Sections(NamedTuple):
    """A message that was read to its end. `rcode` has its upper bits from OPT."""

    rcode: int
    answer: list[Record]
    authority: list[Record]


def read(message: bytes, body: int) -> Sections:
    """The records of a message whose one question ends before `body`. Raises Malformed."""
    try:
        _, flags, _, *counts = HEADER.unpack_from(message)
        answer, at = _records(message, body, counts[0])
        authority, at = _records(message, at, counts[1])
        additional, at = _records(message, at, counts[2])
    except (IndexError, struct.error) as error:
        raise Malformed from error
    if at != len(message):
        raise Malformed
    rcode = flags & _RCODE
    for record in additional:
        if record.rdtype == OPT:
            if record.owner != ROOT:
                raise Malformed
            rcode |= record.ttl >> 24 << 4  # RFC 6891 §6.1.3
    return Sections(rcode, answer, authority)


def _records(message: bytes, at: int, count: int) -> tuple[list[Record], int]:
    found = []
    for _ in range(count):
        owner, at = _name(message, at)
        rdtype, rdclass, ttl, size = _FIXED.unpack_from(message, at)
        start = at + _FIXED.size
        at = start + size
        if at > len(message):
            raise Malformed
        found.append(Record(owner, rdtype, rdclass, ttl, start, at))
    return found, at


def _name(message: bytes, at: int) -> tuple[bytes, int]:
    """A name as a question has it, without pointers and in lower case, and where it ends.

    Each pointer must lead further to the front than the one before, so there is an end to them.
    """
    labels, size, end, front = [], 1, 0, at
    while length := message[at]:
        if length >= _POINTER:
            target = (length & 0x3F) << 8 | message[at + 1]
            end = end or at + 2
            if target >= front:
                raise Malformed
            at = front = target
            continue
        size += length + 1
        if length > _MAX_LABEL or size > _MAX_NAME:
            raise Malformed
        labels.append(message[at : at + 1 + length])
        at += 1 + length
    # The octets of length are below those of letters.
    return b"".join(labels).lower() + ROOT, end or at + 1


def ttl_of(record: Record) -> int:
    """Seconds; RFC 2181 §8: with the highest bit set it counts as none."""
    return record.ttl if record.ttl <= _MAX_TTL else 0


def name_in(message: bytes, start: int, end: int) -> bytes:
    """The name that fills the data from `start` to `end`. Raises Malformed."""
    try:
        name, behind = _name(message, start)
    except IndexError as error:
        raise Malformed from error
    if behind != end:
        raise Malformed
    return name


def strings_in(message: bytes, start: int, end: int) -> list[bytes]:
    """The character-strings that fill the data, one at least. Raises Malformed."""
    found, at = [], start
    while at < end:
        behind = at + 1 + message[at]
        found.append(message[at + 1 : behind])
        at = behind
    if at != end or not found:
        raise Malformed
    return found


def minimum_in(message: bytes, start: int, end: int) -> int:
    """The negative TTL of an SOA record's data, RFC 2308 §4. Raises Malformed."""
    try:
        _, at = _name(message, start)
        _, at = _name(message, at)
    except IndexError as error:
        raise Malformed from error
    if at + 20 != end:
        raise Malformed
    return min(int.from_bytes(message[end - 4 : end], "big"), _MAX_TTL)


def text_of(name: bytes) -> str:
    """A name in ASCII without a final dot. An octet that no host name has becomes `\\DDD`, so that
    a dot within a label doesn't come back as one between two."""
    labels, at = [], 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    return ".".join(
        label.decode("ascii") if _PLAIN.fullmatch(label) else _escaped(label) for label in labels
    )


def _escaped(label: bytes) -> str:
    return _ODD.sub(lambda odd: f"\\{ord(odd[0]):03d}", label.decode("latin-1"))
