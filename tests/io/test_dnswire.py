"""Queries and responses as octets: what a response says, and that none raises."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from mtastsd.answers import AddressAnswer, Answer, DnsError, Mx, NoData, Tlsa
from mtastsd.names import Domain
from mtastsd.net import dnswire as wire

Record = tuple[str, str, str]  # name, type, data


def respond(
    name: str,
    kind: str,
    answer: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    *,
    rcode: str = "NOERROR",
    ad: bool = False,
    ttl: Sequence[int] = (),
    edns: bool = True,
) -> bytes:
    """A response, with the TTLs of the answer's RRsets in order."""
    query = dns.message.make_query(name, kind, use_edns=0 if edns else False)
    query.id = 4711
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(dns.rcode.from_text(rcode))
    if ad:
        reply.flags |= dns.flags.AD
    for records, section in ((answer, reply.answer), (authority, reply.authority)):
        for owner, rdtype, data in records:
            found = [r for r in section if r.name.to_text() == owner + "."]
            rrset = dns.rrset.from_text(owner + ".", 300, "IN", rdtype, data)
            if found and found[0].rdtype == rrset.rdtype:
                found[0].add(rrset[0])
            else:
                section.append(rrset)
    for rrset, seconds in zip(reply.answer, ttl, strict=False):
        rrset.ttl = seconds
    return reply.to_wire(max_size=65535)


def asked(name: str, kind: wire.Kind[Any]) -> wire.Question:
    found = wire.question(name, kind.rdtype)
    assert found is not None
    return found


D = Domain
SOA = ("example.com", "SOA", "ns.example.com. root.example.com. 1 2 3 4 60")
CHAIN = [(f"a{n}.example.com", "CNAME", f"a{n + 1}.example.com.") for n in range(20)]

# type, name, answer section, TTLs, what it says
VALUES: list[tuple[wire.Kind[Any], str, list[Record], list[int], Answer[Any]]] = [
    (
        wire.TXT,
        "_mta-sts.example.com",
        [("_mta-sts.example.com", "TXT", '"v=STSv1; " "id=1;"')],
        [60],
        Answer((b"v=STSv1; id=1;",), 60, False, "_mta-sts.example.com"),
    ),
    (
        wire.TXT,
        "example.com",
        [("example.com", "TXT", '"\\195\\164"'), ("example.com", "TXT", '""')],
        [60],
        Answer((b"\xc3\xa4", b""), 60, False, "example.com"),
    ),
    (
        wire.MX,
        "example.com",
        [
            ("example.com", "MX", "10 MX.example.com."),
            ("example.com", "MX", "20 localhost."),
            ("example.com", "MX", "30 a\\.b.example.com."),
            ("example.com", "MX", "40 192.0.2.1."),
            ("example.com", "MX", "50 bad!.example.com."),
        ],
        [1],
        Answer(
            (
                Mx(10, D("mx.example.com")),
                Mx(20, None),
                Mx(30, None),
                Mx(40, None),
                Mx(50, None),
            ),
            1,
            False,
            "example.com",
        ),
    ),
    (
        wire.MX,
        "example.com",
        [("example.com", "MX", "0 .")],
        [300],
        Answer((Mx(0, None, null=True),), 300, False, "example.com"),
    ),
    (
        wire.A,
        "mx.example.com",
        [("mx.example.com", "A", "192.0.2.1"), ("mx.example.com", "A", "192.0.2.2")],
        [300],
        Answer(("192.0.2.1", "192.0.2.2"), 300, False, "mx.example.com"),
    ),
    (
        wire.AAAA,
        "mx.example.com",
        [("mx.example.com", "AAAA", "2001:DB8:0:0:0:0:0:1")],
        [300],
        Answer(("2001:db8::1",), 300, False, "mx.example.com"),
    ),
    (
        wire.AAAA,
        "mx.example.com",
        [("mx.example.com", "AAAA", "::ffff:192.0.2.1")],
        [300],
        Answer((str(ipaddress.ip_address("::ffff:192.0.2.1")),), 300, False, "mx.example.com"),
    ),
    (
        wire.TLSA,
        "_25._tcp.mx.example.com",
        [("_25._tcp.mx.example.com", "TLSA", "3 1 1 " + "ab" * 32)],
        [300],
        Answer((Tlsa(3, 1, 1, b"\xab" * 32),), 300, False, "_25._tcp.mx.example.com"),
    ),
    (  # the lowest TTL is that of the chain's middle
        wire.A,
        "a18.example.com",
        [*CHAIN[18:], ("A20.example.com", "A", "192.0.2.1")],
        [300, 7, 200],
        Answer(("192.0.2.1",), 7, False, "a20.example.com", aliased=True),
    ),
    (  # the order of the records is the server's
        wire.A,
        "a18.example.com",
        [("a20.example.com", "A", "192.0.2.1"), CHAIN[19], CHAIN[18]],
        [5],
        Answer(("192.0.2.1",), 5, False, "a20.example.com", aliased=True),
    ),
    (  # the alias itself is asked for: not followed
        wire.CNAME,
        "a19.example.com",
        [CHAIN[19]],
        [9],
        Answer((None,), 9, False, "a19.example.com"),
    ),
    (  # records of other names and types beside it
        wire.A,
        "mx.example.com",
        [
            ("other.example.com", "A", "192.0.2.9"),
            ("mx.example.com", "TXT", '"x"'),
            ("mx.example.com", "A", "192.0.2.1"),
        ],
        [1, 1, 300],
        Answer(("192.0.2.1",), 300, False, "mx.example.com"),
    ),
]


@pytest.mark.parametrize("edns", [True, False])
@pytest.mark.parametrize(("kind", "name", "answer", "ttl", "says"), VALUES)
def test_answers(
    kind: wire.Kind[Any],
    name: str,
    answer: list[Record],
    ttl: list[int],
    says: Answer[Any],
    edns: bool,
) -> None:
    text = wire_text(kind)
    question = asked(name, kind)
    plain = respond(name, text, answer, ttl=ttl, edns=edns)
    assert wire.matches(question, 4711, plain)
    assert in_order(wire.read(question, kind.value, plain)) == in_order(says)
    signed = respond(name, text, answer, ttl=ttl, edns=edns, ad=True)
    found = wire.read(question, kind.value, signed)
    assert in_order(found) == in_order(replace(says, secure=True))


def in_order(answer: Answer[Any] | NoData | DnsError) -> object:
    """dnspython shuffles the records of an RRset when it writes them."""
    if not isinstance(answer, Answer):
        return answer
    return replace(answer, records=tuple(sorted(answer.records, key=repr)))


def wire_text(kind: wire.Kind[Any]) -> str:
    return dns.rdatatype.to_text(dns.rdatatype.RdataType(kind.rdtype))


NS = ("example.com", "NS", "ns.example.com.")

# answer, authority, rcode, what it says
NOTHING: list[tuple[list[Record], list[Record], str, NoData | DnsError]] = [
    ([], [SOA], "NOERROR", NoData(exists=True, ttl=60, secure=False)),
    ([], [SOA], "NXDOMAIN", NoData(exists=False, ttl=60, secure=False)),
    ([], [], "NOERROR", NoData(exists=True, ttl=0, secure=False)),
    ([], [], "NXDOMAIN", NoData(exists=False, ttl=0, secure=False)),
    ([], [NS, SOA], "NOERROR", NoData(exists=True, ttl=60, secure=False)),
    ([CHAIN[0]], [SOA], "NOERROR", NoData(exists=True, ttl=60, secure=False, aliased=True)),
    ([CHAIN[0]], [SOA], "NXDOMAIN", NoData(exists=False, ttl=60, secure=False, aliased=True)),
    # a referral is no answer
    ([], [NS], "NOERROR", DnsError("refused")),
    ([CHAIN[0]], [NS], "NOERROR", DnsError("refused")),
    # a name that doesn't exist has no records
    ([("a0.example.com", "A", "192.0.2.1")], [], "NXDOMAIN", DnsError("malformed")),
    ([], [], "SERVFAIL", DnsError("servfail")),
    ([], [], "REFUSED", DnsError("refused")),
    ([], [], "FORMERR", DnsError("servfail")),
    ([], [], "NOTIMP", DnsError("servfail")),
    ([], [], "NOTAUTH", DnsError("servfail")),
    ([], [], "BADVERS", DnsError("servfail")),  # has its upper bits in OPT
    ([("a0.example.com", "A", "192.0.2.1")], [], "SERVFAIL", DnsError("servfail")),
]


@pytest.mark.parametrize(("answer", "authority", "rcode", "says"), NOTHING)
def test_no_answers(
    answer: list[Record], authority: list[Record], rcode: str, says: NoData | DnsError
) -> None:
    message = respond("a0.example.com", "A", answer, authority, rcode=rcode)
    assert wire.read(asked("a0.example.com", wire.A), wire.A.value, message) == says


def test_a_secure_no_answer() -> None:
    message = respond("a0.example.com", "A", [], [SOA], ad=True)
    found = wire.read(asked("a0.example.com", wire.A), wire.A.value, message)
    assert found == NoData(exists=True, ttl=60, secure=True)


@pytest.mark.parametrize(("ttl", "minimum", "says"), [(30, 60, 30), (60, 30, 30), (0, 9, 0)])
def test_a_negative_ttl_is_the_lower_of_both(ttl: int, minimum: int, says: int) -> None:
    query = dns.message.make_query("example.com", "MX")
    reply = dns.message.make_response(query)
    soa = f"ns.example.com. root.example.com. 1 2 3 4 {minimum}"
    reply.authority.append(dns.rrset.from_text("example.com.", ttl, "IN", "SOA", soa))
    found = wire.read(asked("example.com", wire.MX), wire.MX.value, reply.to_wire())
    assert found == NoData(exists=True, ttl=says, secure=False)


@pytest.mark.parametrize(("links", "good"), [(1, True), (8, True), (9, False), (15, False)])
def test_chains_are_bounded(links: int, good: bool) -> None:
    answer = [*CHAIN[:links], (f"a{links}.example.com", "A", "192.0.2.1")]
    message = respond("a0.example.com", "A", answer)
    found = wire.read(asked("a0.example.com", wire.A), wire.A.value, message)
    if good:
        assert isinstance(found, Answer)
        assert found.name == f"a{links}.example.com"
    else:
        assert found == DnsError("malformed")


@pytest.mark.parametrize("target", ["a0", "b"])
def test_a_circle_ends(target: str) -> None:
    answer = [("a0.example.com", "CNAME", f"{target}.example.com.")]
    answer += [("b.example.com", "CNAME", "a0.example.com.")]
    message = respond("a0.example.com", "A", answer)
    question = asked("a0.example.com", wire.A)
    assert wire.read(question, wire.A.value, message) == DnsError("malformed")


@pytest.mark.parametrize(("count", "good"), [(wire.MAX_RRS - 1, True), (wire.MAX_RRS, False)])
def test_records_are_bounded(count: int, good: bool) -> None:
    answer = [("example.com", "A", f"192.0.{n // 200}.{n % 200}") for n in range(count)]
    message = respond("example.com", "A", answer)  # and OPT is one more
    found = wire.read(asked("example.com", wire.A), wire.A.value, message)
    if good:
        assert isinstance(found, Answer)
        assert len(found.records) == count
    else:
        assert found == DnsError("malformed")


def test_records_of_another_class_are_none() -> None:
    query = dns.message.make_query("example.com", "TXT")
    reply = dns.message.make_response(query)
    reply.answer.append(dns.rrset.from_text("example.com.", 300, "CH", "TXT", '"x"'))
    found = wire.read(asked("example.com", wire.TXT), wire.TXT.value, reply.to_wire())
    assert found == NoData(exists=True, ttl=0, secure=False)


def test_an_owner_with_a_dot_in_a_label_cannot_be_asked_for() -> None:
    """Else `evil\\.example.com`, a name below com, would be taken for one below example.com."""
    answer = [
        ("a.example.com", "CNAME", "evil\\.example.com."),
        ("evil\\.example.com", "A", "192.0.2.1"),
    ]
    message = respond("a.example.com", "A", answer)
    found = wire.read(asked("a.example.com", wire.A), wire.A.value, message)
    assert isinstance(found, Answer)
    assert wire.question(found.name, wire.A.rdtype) is None


# -- queries


def test_a_query_asks_for_recursion_and_ad_with_our_size() -> None:
    question = asked("_Mta-Sts.Example.COM.", wire.TXT)
    message = dns.message.from_wire(wire.query(question, 4711))
    assert message.id == 4711
    assert message.flags == dns.flags.RD | dns.flags.AD
    assert message.question[0].to_text() == "_mta-sts.example.com. IN TXT"
    assert (message.edns, message.payload, int(message.ednsflags)) == (0, wire.MAX_UDP, 0)
    assert question.name == "_mta-sts.example.com"


def test_the_probe_asks_for_the_root() -> None:
    message = dns.message.from_wire(wire.query(wire.ROOT_SOA, 1))
    assert message.question[0].to_text() == ". IN SOA"


LABEL = "a" * 63

BAD_NAMES = [
    "",
    ".",
    ".example.com",
    "example..com",
    "example.com..",
    "a b.example.com",
    "a\\.b.example.com",
    "ä.example.com",
    "\u212a.example.com",  # Kelvin sign: lower() would make a k of it
    "a\x00.example.com",
    "a\n.example.com",
    "*.example.com",
    f"{LABEL}a.example.com",
    ".".join([LABEL] * 4),  # 255
    f"{LABEL}.{LABEL}.{LABEL}.{'a' * 62}",  # 254
    "_25._tcp." + f"{LABEL}.{LABEL}.{LABEL}.{'a' * 61}",
    "x" * 100_000,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_asked_for(name: str) -> None:
    assert wire.question(name, 16) is None


def test_the_longest_name() -> None:
    name = f"{LABEL}.{LABEL}.{LABEL}.{'a' * 61}"
    assert len(name) == 253
    for text in (name, name + "."):
        question = wire.question(text, 16)
        assert question is not None
        assert dns.message.from_wire(wire.query(question, 1)).question[0].name.to_text() == (
            name + "."
        )


# -- A and AAAA together

FOUR = Answer(("192.0.2.1",), 60, True, "mx.example.com")
SIX = Answer(("2001:db8::1",), 30, True, "mx.example.com")
GONE = NoData(exists=False, ttl=20, secure=True)
NONE = NoData(exists=True, ttl=10, secure=False)
ERROR = DnsError("timeout")


def plain(answer: Answer[str], *, aliased: bool = False) -> Answer[str]:
    return Answer(answer.records, answer.ttl, False, answer.name, aliased)


BOTH = FOUR.records + SIX.records

MERGED: list[tuple[AddressAnswer, AddressAnswer, AddressAnswer]] = [
    (FOUR, SIX, Answer(BOTH, 30, True, "mx.example.com")),
    (plain(FOUR), SIX, Answer(BOTH, 30, False, "mx.example.com")),
    (FOUR, plain(SIX, aliased=True), Answer(BOTH, 30, False, "mx.example.com", aliased=True)),
    (FOUR, NONE, FOUR),
    (GONE, plain(SIX), plain(SIX)),
    (FOUR, ERROR, FOUR),
    (ERROR, SIX, SIX),
    (NONE, ERROR, ERROR),
    (ERROR, GONE, ERROR),
    (ERROR, DnsError("servfail"), DnsError("servfail")),
    (NONE, GONE, NoData(exists=True, ttl=10, secure=False)),
    (GONE, GONE, GONE),
]


@pytest.mark.parametrize(("four", "six", "both"), MERGED)
def test_addresses_of_both_kinds(
    four: AddressAnswer, six: AddressAnswer, both: AddressAnswer
) -> None:
    assert wire.merged(four, six) == both
