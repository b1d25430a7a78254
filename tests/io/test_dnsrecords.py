"""The records of a message as octets, and dnspython as the witness of what they say."""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mtastsd import names
from mtastsd.answers import Answer, DnsError, Mx, NoData, Tlsa
from mtastsd.net import dnsrecords as records
from mtastsd.net import dnswire as wire
from mtastsd.net.dnsrecords import Malformed, Record
from tests.io.test_dnswire import CHAIN, NS, SOA, VALUES, asked, in_order, respond, wire_text

QUESTION = b"\x07example\x03com\0\0\x10\0\1"
NAME = QUESTION[:-4]
BODY = 12 + len(QUESTION)
FIXED = b"\0\x10\0\1\0\0\0\x09"  # TXT, IN, 9 s
LABEL = b"\x3f" + b"a" * 63


def message(*sections: list[bytes], flags: bytes = b"\x81\x80", tail: bytes = b"") -> bytes:
    """A message of these records in the answer, authority and additional sections."""
    counts = [len(section) for section in sections] + [0] * (3 - len(sections))
    head = b"\0\0" + flags + b"\0\1" + b"".join(n.to_bytes(2, "big") for n in counts)
    return head + QUESTION + b"".join(b"".join(section) for section in sections) + tail


def record(owner: bytes, data: bytes = b"\1x", *, fixed: bytes = FIXED) -> bytes:
    return owner + fixed + len(data).to_bytes(2, "big") + data


AT = BODY  # where the first record begins

NAMES: list[tuple[bytes, bytes | None]] = [
    (b"\0", b"\0"),
    (b"\1a\0", b"\1a\0"),
    (b"\1A\3cOm\0", b"\1a\3com\0"),
    (b"\2a.\0", b"\2a.\0"),
    (b"\2\xc4\xff\0", b"\2\xc4\xff\0"),  # lower() of octets knows ASCII alone
    (b"\xc0\x0c", NAME),
    (b"\1b\xc0\x0c", b"\1b" + NAME),
    (b"\1b\xc0\x14", b"\1b\3com\0"),  # into the middle of the name
    (b"\xc0\x0b", None),  # into the header: the octet there is no good label here
    (LABEL * 3 + b"\x3d" + b"b" * 61 + b"\0", LABEL * 3 + b"\x3d" + b"b" * 61 + b"\0"),
    (LABEL * 3 + b"\x3e" + b"b" * 62 + b"\0", None),  # 256 octets
    (LABEL * 3 + b"\x3d" + b"b" * 61 + b"\xc0\x0c", None),
    (b"\x40" + b"a" * 64 + b"\0", None),  # label types that don't exist, RFC 6891 §5
    (b"\x80\0", None),
    (bytes((0xC0, AT)), None),  # to itself
    (bytes((0xC0, AT + 2)), None),  # forward
    (b"\1b" + bytes((0xC0, AT)), None),  # in a circle
    (b"\xff\xff", None),
]


@pytest.mark.parametrize(("octets", "name"), NAMES)
def test_names(octets: bytes, name: bytes | None) -> None:
    whole = message([record(octets)])
    if octets == b"\xc0\x0b":
        whole = whole[:11] + b"\x41" + whole[12:]
    if name is None:
        with pytest.raises(Malformed):
            records.read(whole, BODY)
    else:
        assert records.read(whole, BODY).answer[0].owner == name


@pytest.mark.parametrize("octets", [octets for octets, name in NAMES if name])
def test_names_in_data(octets: bytes) -> None:
    """They fill the data, neither less nor more."""
    for extra in (b"", b"\0"):
        whole = message([record(b"\0", octets + extra)])
        (found,) = records.read(whole, BODY).answer
        if extra:
            with pytest.raises(Malformed):
                records.name_in(whole, found.start, found.end)
        else:
            assert records.name_in(whole, found.start, found.end) == dict(NAMES)[octets]
        with pytest.raises(Malformed):
            records.name_in(whole, found.start, found.end - 1 + 2 * len(extra))


def test_sections() -> None:
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    whole = message([record(b"\0"), record(b"\xc0\x0c")], [record(b"\1a\0", b"")], [opt])
    first, second, third = AT, AT + 13, AT + 27
    assert records.read(whole, BODY) == (
        0,
        [
            Record(b"\0", 16, 1, 9, first + 11, second),
            Record(NAME, 16, 1, 9, second + 12, third),
        ],
        [Record(b"\1a\0", 16, 1, 9, third + 13, third + 13)],
    )


BAD = [
    message([record(b"\0")], tail=b"\0"),
    message([record(b"\0")])[:-1],
    message([record(b"\0")])[: BODY + 5],
    message([record(b"\0")[:-3]]),
    message([record(b"\0", b"")[:-2] + b"\xff\xff"]),
    message([], [], [record(b"\1a\0", b"", fixed=b"\0\x29\x04\xd0\0\0\0\0")]),  # OPT has no owner
    message([b"\xc0"]),
    message([b"\1"]),
    message([b""]),
    b"\0" * 11,
]


@pytest.mark.parametrize("octets", BAD)
def test_what_does_not_add_up(octets: bytes) -> None:
    with pytest.raises(Malformed):
        records.read(octets, BODY)


@pytest.mark.parametrize(
    ("low", "high", "rcode"), [(3, 0, 3), (0, 1, 16), (7, 0xFF, 0xFF7), (5, 0, 5)]
)
def test_the_rcode_has_its_upper_bits_in_opt(low: int, high: int, rcode: int) -> None:
    opt = b"\0\0\x29\x04\xd0" + bytes((high,)) + b"\0\0\0\0\0"
    whole = message([], [], [opt], flags=bytes((0x81, 0x80 | low)))
    assert records.read(whole, BODY).rcode == rcode


STRINGS = [
    (b"\1x", [b"x"]),
    (b"\0", [b""]),
    (b"\2xy\0\1z", [b"xy", b"", b"z"]),
    (b"\xff" + b"a" * 255, [b"a" * 255]),
    (b"", None),
    (b"\1", None),
    (b"\3xy", None),
    (b"\1x\1", None),
]


@pytest.mark.parametrize(("data", "strings"), STRINGS)
def test_strings(data: bytes, strings: list[bytes] | None) -> None:
    octets = b"junk" + data + b"\5more "
    if strings is None:
        with pytest.raises(Malformed):
            records.strings_in(octets, 4, 4 + len(data))
    else:
        assert records.strings_in(octets, 4, 4 + len(data)) == strings


NUMBERS = bytes(16)

MINIMA = [
    (b"\0\0" + NUMBERS + b"\0\0\0\x3c", 60),
    (b"\1a\0\1b\0" + NUMBERS + b"\0\0\0\0", 0),
    (b"\0\0" + NUMBERS + b"\xff\xff\xff\xff", 2**31 - 1),
    (b"\0\0" + NUMBERS + b"\0\0\0\x3c\0", None),
    (b"\0\0" + NUMBERS + b"\0\0\0", None),
    (b"\0" + NUMBERS + b"\0\0\0", None),
    (b"", None),
    (b"\x05a", None),
]


@pytest.mark.parametrize(("data", "seconds"), MINIMA)
def test_minima(data: bytes, seconds: int | None) -> None:
    if seconds is None:
        with pytest.raises(Malformed):
            records.minimum_in(data, 0, len(data))
    else:
        assert records.minimum_in(data, 0, len(data)) == seconds


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(0, 0), (5, 5), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**32 - 1, 0)]
)
def test_a_ttl_has_31_bits(ttl: int, seconds: int) -> None:
    assert records.ttl_of(Record(b"\0", 16, 1, ttl, 0, 0)) == seconds


TEXTS = [
    (b"\0", ""),
    (b"\1a\0", "a"),
    (b"\4_tcp\2mx\0", "_tcp.mx"),
    (b"\3a.b\1c\0", "a\\046b.c"),
    (b"\4a\\.b\0", "a\\092\\046b"),
    (b"\2\xc4\0\0", "\\196\\000"),
    (b"\2a \0", "a\\032"),
    (b"\2a\n\0", "a\\010"),
]


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_texts(name: bytes, text: str) -> None:
    assert records.text_of(name) == text


# -- beside dnspython


SEEDS = [
    (kind, name, respond(name, wire_text(kind), answer, authority, ttl=ttl, edns=edns))
    for kind, name, answer, ttl, _ in VALUES
    for authority in ([SOA], [NS], [])
    for edns in (True, False)
]
SEEDS += [
    (wire.A, "a0.example.com", respond("a0.example.com", "A", CHAIN[:2], [SOA], rcode=rcode))
    for rcode in ("NOERROR", "NXDOMAIN", "BADVERS")
]


@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=3),
)
@example(seed=SEEDS[0], edits=[])
def test_what_dnspython_takes_says_the_same(
    seed: tuple[wire.Kind[Any], str, bytes], edits: list[tuple[int, bytes]]
) -> None:
    kind, name, good = seed
    question = asked(name, kind)
    body = bytearray(good[12 + len(question.section) :])
    for at, octets in edits:
        at %= len(body)
        body[at : at + len(octets)] = octets
    octets = good[:12] + question.section + bytes(body)
    try:
        parsed = dns.message.from_wire(octets)
    except (dns.exception.DNSException, ValueError):
        return
    # Of several CNAMEs at one name, which must not be, either takes one.
    aliases = [rr for rr in parsed.answer if rr.rdtype == RdataType.CNAME]
    assume(octets.count(b"\0\5\0\1") <= len(aliases))
    says = in_order(wire.read(question, kind.value, octets))
    assert says == in_order(_by_dnspython(question, parsed))


def _by_dnspython(
    question: wire.Question, parsed: dns.message.Message
) -> Answer[Any] | NoData | DnsError:
    """The same walk over dnspython's objects."""
    if parsed.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return DnsError("refused" if parsed.rcode() == dns.rcode.REFUSED else "servfail")
    exists = parsed.rcode() == dns.rcode.NOERROR
    secure = bool(parsed.flags & dns.flags.AD)
    owner, ttls = parsed.question[0].name, list[int]()
    for _ in range(wire.MAX_CHAIN + 1):
        found = _found(parsed.answer, owner, question.rdtype)
        if found is not None:
            if not exists:
                return DnsError("malformed")
            values = tuple(_value(rdata) for rdata in found)
            name = _text(owner) if ttls else question.name
            return Answer(values, min([found.ttl, *ttls]), secure, name, bool(ttls))
        alias = _found(parsed.answer, owner, RdataType.CNAME)
        if alias is None:
            break
        ttls.append(alias.ttl)
        owner = alias[0].target
    else:
        return DnsError("malformed")
    soa = next((rr for rr in parsed.authority if rr.rdtype == RdataType.SOA), None)
    if soa is not None:
        ttl = min([soa.ttl, soa[0].minimum, *ttls, 2**31 - 1])
        return NoData(exists, ttl, secure, bool(ttls))
    if exists and any(rr.rdtype == RdataType.NS for rr in parsed.authority):
        return DnsError("refused")
    return NoData(exists, 0, secure, bool(ttls))


def _found(
    section: list[dns.rrset.RRset], owner: dns.name.Name, rdtype: int
) -> dns.rrset.RRset | None:
    for rrset in section:
        if (rrset.name, rrset.rdtype) == (owner, rdtype) and rrset.rdclass == dns.rdataclass.IN:
            return rrset
    return None


def _text(name: dns.name.Name) -> str:
    labels = [label.lower() for label in name.labels]
    return records.text_of(b"".join(bytes((len(label),)) + label for label in labels))


def _value(rdata: Any) -> object:
    match rdata.rdtype:
        case RdataType.TXT:
            return b"".join(rdata.strings)
        case RdataType.MX if rdata.exchange == dns.name.root:
            return Mx(rdata.preference, None, null=True)
        case RdataType.MX:
            host = names.parse(_text(rdata.exchange))
            return Mx(rdata.preference, None if isinstance(host, names.NotADomain) else host)
        case RdataType.A | RdataType.AAAA:
            return str(ipaddress.ip_address(rdata.address))
        case RdataType.TLSA:
            return Tlsa(rdata.usage, rdata.selector, rdata.mtype, rdata.cert)
        case _:
            return None
