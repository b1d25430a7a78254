"""DNS messages: a question to octets, and the octets of a response to the values of `answers`.

No I/O. What a server sends is bounded before it is parsed, and every response that can't be read
is a `DnsError`, never an exception.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from mtastsd import names
from mtastsd.answers import AddressAnswer, Answer, DnsError, DnsWhy, Mx, NoData, Tlsa
from mtastsd.net import dnsrecords as records
from mtastsd.net.dnsrecords import HEADER, Malformed, Record, Sections

T = TypeVar("T")

MAX_UDP = 1232
"""Octets of a response that we take over UDP, told by EDNS: more is cut into IP fragments on some
path, and a forged second fragment is beyond what id and port protect. Larger answers come by TCP.
"""

MAX_CHAIN = 8
"""CNAMEs that are followed within a response; real chains have one to four."""

MAX_RRS = 256
"""Records in all sections of a response. TCP carries some 4,000, which would hold up the event
loop for long; no mail domain comes near this."""

_HEAD_START = struct.Struct("!HHH")
_QR, _OPCODE, _TC, _RD, _AD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0020
_NOERROR, _NXDOMAIN, _REFUSED = 0, 3, 5

# RFC 6840 §5.7: AD in a query asks for the AD bit of the answer, without the RRSIGs that DO brings.
_QUERY_FLAGS = _RD | _AD
_OPT = records.ROOT + struct.pack("!HHIH", records.OPT, MAX_UDP, 0, 0)

# What mail hosts are made of, and no escapes: an owner name that came as `a\046b` must not be asked
# for as two labels.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)

_RANK: Final[tuple[DnsWhy, ...]] = (
    "servfail",  # says something about the domain, what follows only about a server
    "malformed",
    "refused",
    "timeout",
    "network",
    "no-server",
    "name",
)


Value = Callable[[bytes, int, int], T]
"""A message and the bounds of one record's data in it, to a value. Raises Malformed."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A record type: its number, and how the data of one record becomes a value."""

    rdtype: int
    value: Value[T]


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the name in lower case without a final dot, and the question section."""

    name: str
    rdtype: int
    section: bytes


ROOT_SOA: Final = Question("", records.SOA, records.ROOT + struct.pack("!HH", records.SOA, 1))
"""What a probe asks: the root is signed, every resolver has its SOA at hand."""


def question(name: str, rdtype: int) -> Question | None:
    """The question for a name; None where the name can't be asked for.

    Labels of 1 to 63 and names of up to 253 octets (RFC 1035 §2.3.4), in ASCII letters, digits,
    hyphen and underscore.
    """
    if len(name) > names.MAX_NAME + 1 or not name.isascii():
        return None
    name = name.lower().removesuffix(".")
    if len(name) > names.MAX_NAME or not _NAME.fullmatch(name):
        return None
    labels = b"".join(bytes((len(label),)) + label for label in name.encode("ascii").split(b"."))
    return Question(name, rdtype, labels + b"\0" + struct.pack("!HH", rdtype, 1))


def query(asked: Question, ident: int) -> bytes:
    """The whole query: recursion and the AD bit desired, EDNS with our UDP size."""
    return HEADER.pack(ident, _QUERY_FLAGS, 1, 0, 0, 1) + asked.section + _OPT


def matches(asked: Question, ident: int, message: bytes) -> bool:
    """Whether a message is a response to this query (RFC 5452 §9.1): id and question, QR.

    The source is the connected socket's matter. Names compare without case (RFC 4343 §3).
    """
    size = len(asked.section)
    if len(message) < HEADER.size + size:
        return False
    got, flags, count = _HEAD_START.unpack_from(message)
    if got != ident or not flags & _QR or flags & _OPCODE or count != 1:
        return False
    echoed = message[HEADER.size : HEADER.size + size]
    return echoed[:-4].lower() == asked.section[:-4] and echoed[-4:] == asked.section[-4:]


def truncated(message: bytes) -> bool:
    """Whether a response that `matches` is to be asked for again over TCP."""
    return bool(message[2] & _TC >> 8)


def read(asked: Question, value: Value[T], message: bytes) -> Answer[T] | NoData | DnsError:
    """What a response that `matches` says. `secure` is its AD bit, whoever sent it."""
    _, flags, _, *counts = HEADER.unpack_from(message)
    if sum(counts) > MAX_RRS:
        return DnsError("malformed")
    try:
        sections = records.read(message, HEADER.size + len(asked.section))
        if sections.rcode not in (_NOERROR, _NXDOMAIN):
            return DnsError("refused" if sections.rcode == _REFUSED else "servfail")
        return _follow(asked, value, message, sections, bool(flags & _AD))
    except Malformed:
        return DnsError("malformed")


def _follow(
    asked: Question, value: Value[T], message: bytes, sections: Sections, secure: bool
) -> Answer[T] | NoData | DnsError:
    owner = asked.section[:-4]
    exists = sections.rcode != _NXDOMAIN
    ttls: list[int] = []
    while len(ttls) <= MAX_CHAIN:
        found = _rrset(sections.answer, owner, asked.rdtype)
        if found:
            if not exists:
                return DnsError("malformed")
            # An RRset has no record twice (RFC 2181 §5).
            data = {message[r.start : r.end]: value(message, r.start, r.end) for r in found}
            ttl = min([*map(records.ttl_of, found), *ttls])
            name = records.text_of(owner) if ttls else asked.name
            return Answer(tuple(data.values()), ttl, secure, name, bool(ttls))
        alias = _rrset(sections.answer, owner, records.CNAME)
        if not alias:
            return _nothing(message, sections.authority, exists, ttls, secure)
        ttls.append(records.ttl_of(alias[0]))
        owner = records.name_in(message, alias[0].start, alias[0].end)
    return DnsError("malformed")


def _nothing(
    message: bytes, authority: list[Record], exists: bool, ttls: list[int], secure: bool
) -> NoData | DnsError:
    soa = next((r for r in authority if r.rdtype == records.SOA), None)
    if soa is not None:
        minimum = records.minimum_in(message, soa.start, soa.end)
        return NoData(exists, min([records.ttl_of(soa), minimum, *ttls]), secure, bool(ttls))
    if exists and any(r.rdtype == records.NS for r in authority):
        # RFC 2308 §2.2: NS without SOA is a referral. The server doesn't resolve for us, and says
        # nothing of the name.
        return DnsError("refused")
    return NoData(exists, 0, secure, bool(ttls))


def _rrset(section: list[Record], owner: bytes, rdtype: int) -> list[Record]:
    return [
        record
        for record in section
        if record.rdtype == rdtype and record.owner == owner and record.rdclass == records.IN
    ]


def _txt(message: bytes, start: int, end: int) -> bytes:
    return b"".join(records.strings_in(message, start, end))


def _mx(message: bytes, start: int, end: int) -> Mx:
    exchange = records.name_in(message, start + 2, end)
    preference = int.from_bytes(message[start : start + 2], "big")
    if exchange == records.ROOT:
        return Mx(preference, None, null=True)
    host = names.parse(records.text_of(exchange))
    return Mx(preference, None if isinstance(host, names.NotADomain) else host)


def _a(message: bytes, start: int, end: int) -> str:
    if end - start != 4:
        raise Malformed
    return str(ipaddress.IPv4Address(message[start:end]))


def _aaaa(message: bytes, start: int, end: int) -> str:
    if end - start != 16:
        raise Malformed
    return str(ipaddress.IPv6Address(message[start:end]))


def _tlsa(message: bytes, start: int, end: int) -> Tlsa:
    if end - start < 3:
        raise Malformed
    usage, selector, matching = message[start : start + 3]
    return Tlsa(usage, selector, matching, message[start + 3 : end])


def unread(message: bytes, start: int, end: int) -> None:
    """The value of a record of which only the presence counts."""


TXT: Final = Kind(records.TXT, _txt)
MX: Final = Kind(records.MX, _mx)
A: Final = Kind(records.A, _a)
AAAA: Final = Kind(records.AAAA, _aaaa)
TLSA: Final = Kind(records.TLSA, _tlsa)
CNAME: Final = Kind(records.CNAME, unread)


def merged(four: AddressAnswer, six: AddressAnswer) -> AddressAnswer:
    """A and AAAA of one host as one answer.

    Records of either kind are an answer, and only answers that brought records weigh in its TTL
    and `secure`: Postfix too judges each address by its own RRset. An error beside no records is
    that error, for the records may be there.
    """
    answers = [a for a in (four, six) if isinstance(a, Answer)]
    if answers:
        return Answer(
            records=tuple(record for a in answers for record in a.records),
            ttl=min(a.ttl for a in answers),
            secure=all(a.secure for a in answers),
            name=answers[0].name,
            aliased=any(a.aliased for a in answers),
        )
    errors = [a for a in (four, six) if isinstance(a, DnsError)]
    if errors:
        return worst(errors)
    nothing = [a for a in (four, six) if isinstance(a, NoData)]
    return NoData(
        exists=any(n.exists for n in nothing),
        ttl=min(n.ttl for n in nothing),
        secure=all(n.secure for n in nothing),
        aliased=any(n.aliased for n in nothing),
    )


def worst(errors: list[DnsError]) -> DnsError:
    """Of several errors the one that says most; `no-server` for none."""
    return min(errors, key=lambda e: _RANK.index(e.why), default=DnsError("no-server"))
