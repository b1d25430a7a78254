"""DNS messages: a question to octets, and the octets of a response to the values of `answers`.

No I/O. What a server sends is bounded before it is parsed, and every response that can't be read
is a `DnsError`, never an exception. dnspython reads the message; the query, which is always the
same but for name and type, is put together here.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.MX import MX as MxRdata
from dns.rdtypes.ANY.TLSA import TLSA as TlsaRdata
from dns.rdtypes.ANY.TXT import TXT as TxtRdata
from dns.rdtypes.IN.A import A as ARdata
from dns.rdtypes.IN.AAAA import AAAA as AaaaRdata

from mtastsd import names
from mtastsd.answers import AddressAnswer, Answer, DnsError, DnsWhy, Mx, NoData, Tlsa

T = TypeVar("T")

MAX_UDP = 1232
"""Octets of a response that we take over UDP, told by EDNS: more is cut into IP fragments on some
path, and a forged second fragment is beyond what id and port protect. Larger answers come by TCP.
"""

MAX_CHAIN = 8
"""CNAMEs that are followed within a response; real chains have one to four."""

MAX_RRS = 256
"""Records in all sections of a response. TCP carries some 4,000, which would hold up the event
loop for 50 ms; no mail domain comes near this."""

_HEAD = struct.Struct("!HHHHHH")
_HEAD_START = struct.Struct("!HHH")
_OPCODE = 0x7800

# RFC 6840 §5.7: AD in a query asks for the AD bit of the answer, without the RRSIGs that DO brings.
_QUERY_FLAGS = int(dns.flags.RD | dns.flags.AD)
_OPT = b"\0" + struct.pack("!HHIH", RdataType.OPT, MAX_UDP, 0, 0)

# Owner, type, any UDP size, extended rcode and version 0, any flags, no options (RFC 6891 §6.1.2).
_EMPTY_OPT = re.compile(rb"\0\0\x29..\0\0..\0\0", re.DOTALL)

# What mail hosts are made of, and no escapes: an owner name that dnspython renders as `a\.b` must
# not come back as two labels.
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


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A record type: its number, and how the data of one record becomes a value."""

    rdtype: int
    value: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the name in lower case without a final dot, and the question section."""

    name: str
    rdtype: int
    section: bytes


ROOT_SOA: Final = Question("", RdataType.SOA, b"\0" + struct.pack("!HH", RdataType.SOA, 1))
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
    return _HEAD.pack(ident, _QUERY_FLAGS, 1, 0, 0, 1) + asked.section + _OPT


def matches(asked: Question, ident: int, message: bytes) -> bool:
    """Whether a message is a response to this query (RFC 5452 §9.1): id and question, QR.

    The source is the connected socket's matter. Names compare without case (RFC 4343 §3).
    """
    size = len(asked.section)
    if len(message) < _HEAD.size + size:
        return False
    got, flags, count = _HEAD_START.unpack_from(message)
    if got != ident or not flags & dns.flags.QR or flags & _OPCODE or count != 1:
        return False
    echoed = message[_HEAD.size : _HEAD.size + size]
    return echoed[:-4].lower() == asked.section[:-4] and echoed[-4:] == asked.section[-4:]


def truncated(message: bytes) -> bool:
    """Whether a response that `matches` is to be asked for again over TCP."""
    return bool(message[2] & 0x02)


def read(
    asked: Question, value: Callable[[Any], T], message: bytes
) -> Answer[T] | NoData | DnsError:
    """What a response that `matches` says. `secure` is its AD bit, whoever sent it."""
    _, flags, _, *counts = _HEAD.unpack_from(message)
    if sum(counts) > MAX_RRS:
        return DnsError("malformed")
    try:
        parsed = dns.message.from_wire(_without_opt(message, counts[-1]))
        rcode = parsed.rcode()
    except (dns.exception.DNSException, ValueError):
        return DnsError("malformed")
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return DnsError("refused" if rcode == dns.rcode.REFUSED else "servfail")
    return _follow(asked, value, parsed, bool(flags & dns.flags.AD))


def _without_opt(message: bytes, additional: int) -> bytes:
    """The message less an OPT record that says nothing: reading it takes a third of the time.

    Where the last octets only look like one, the cut leaves junk, and the message is malformed.
    """
    if additional == 1 and _EMPTY_OPT.fullmatch(message[-len(_OPT) :]):
        return message[: _HEAD.size - 2] + b"\0\0" + message[_HEAD.size : -len(_OPT)]
    return message


def _follow(
    asked: Question, value: Callable[[Any], T], message: dns.message.Message, secure: bool
) -> Answer[T] | NoData | DnsError:
    owner = message.question[0].name
    exists = message.rcode() != dns.rcode.NXDOMAIN
    ttls: list[int] = []
    while len(ttls) <= MAX_CHAIN:
        found = _rrset(message.answer, owner, asked.rdtype)
        if found is not None:
            if not exists:
                return DnsError("malformed")
            name = _text(owner) if ttls else asked.name
            records = tuple(value(rdata) for rdata in found)
            return Answer(records, min([found.ttl, *ttls]), secure, name, bool(ttls))
        alias = _rrset(message.answer, owner, RdataType.CNAME)
        if alias is None:
            return _nothing(message, exists, ttls, secure)
        ttls.append(alias.ttl)
        owner = alias[0].target
    return DnsError("malformed")


def _nothing(
    message: dns.message.Message, exists: bool, ttls: list[int], secure: bool
) -> NoData | DnsError:
    soa = next((r for r in message.authority if r.rdtype == RdataType.SOA), None)
    if soa is not None:
        ttl = min([soa.ttl, soa[0].minimum, *ttls])
        return NoData(exists, ttl, secure, bool(ttls))
    if exists and any(r.rdtype == RdataType.NS for r in message.authority):
        # RFC 2308 §2.2: NS without SOA is a referral. The server doesn't resolve for us, and says
        # nothing of the name.
        return DnsError("refused")
    return NoData(exists, 0, secure, bool(ttls))


def _rrset(
    section: list[dns.rrset.RRset], owner: dns.name.Name, rdtype: int
) -> dns.rrset.RRset | None:
    for rrset in section:
        if rrset.rdtype == rdtype and rrset.rdclass == dns.rdataclass.IN and rrset.name == owner:
            return rrset
    return None


def _text(name: dns.name.Name) -> str:
    """A name from a response in lower case, ASCII, with dnspython's escapes for odd octets."""
    return name.to_text(omit_final_dot=True).lower()


def _txt(rdata: TxtRdata) -> bytes:
    return b"".join(rdata.strings)


def _mx(rdata: MxRdata) -> Mx:
    if rdata.exchange == dns.name.root:
        return Mx(rdata.preference, None, null=True)
    host = names.parse(_text(rdata.exchange))
    return Mx(rdata.preference, None if isinstance(host, names.NotADomain) else host)


def _address(rdata: ARdata | AaaaRdata) -> str:
    return str(ipaddress.ip_address(rdata.address))


def _tlsa(rdata: TlsaRdata) -> Tlsa:
    return Tlsa(rdata.usage, rdata.selector, rdata.mtype, rdata.cert)


def unread(rdata: Rdata) -> None:
    """The value of a record of which only the presence counts."""


TXT: Final = Kind(RdataType.TXT, _txt)
MX: Final = Kind(RdataType.MX, _mx)
A: Final = Kind(RdataType.A, _address)
AAAA: Final = Kind(RdataType.AAAA, _address)
TLSA: Final = Kind(RdataType.TLSA, _tlsa)
CNAME: Final = Kind(RdataType.CNAME, unread)


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
