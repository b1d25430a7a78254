"""One live reading of a domain, in a world of tables: what is asked, found and said."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest

from mtastsd.answers import Answer, DnsError, Mx, NoData
from mtastsd.dane import Finding
from mtastsd.names import Domain
from mtastsd.outlook import Outlook
from mtastsd.probing import Stage
from mtastsd.service.conclusion import conclusion
from mtastsd.service.current import Settings
from mtastsd.service.examine import MAX_PROBED_HOSTS, Examination
from mtastsd.service.notes import Note, notes
from mtastsd.sts.failure import Failure
from mtastsd.verdict import Override, Rules, What
from tests.fakeworld import (
    GOOD,
    NONE,
    START,
    TESTING,
    UNUSABLE,
    settle,
)
from tests.probes import DAY, EXPIRED, MATCHING, MISMATCH, MX, D, World, ended, seen

PLAIN = ended(Stage.EHLO, "no-starttls")


def words(found: Examination, *, broken: bool = True) -> list[str]:
    return [note.word for note in notes(found, 4.0) if note.broken is broken]


def note(found: Examination, word: str) -> Note:
    return next(note for note in notes(found, 4.0) if note.word == word)


# ---- MTA-STS


async def test_a_good_domain() -> None:
    world = World()
    world.policy()
    found = await world.examine()
    assert conclusion(found) == (
        "mail to example.com needs verified TLS (MTA-STS enforce): its MX host passes"
    )
    assert notes(found, 4.0) == ()
    assert found.verdict.what is What.SECURE
    assert found.mx_hosts[0].pattern == MX
    assert found.mx_hosts[0].outlook == Outlook(True, "verified")
    assert found.replies["postfix"] == "OK secure match=mx.example.com servername=hostname"
    assert found.replies["postfix-tlsrpt"].startswith(
        "OK secure match=mx.example.com servername=hostname policy_type=sts"
    )
    assert sorted(world.probes.asked) == [
        (f"mta-sts.{D}", "192.0.2.1", 443),
        (MX, "192.0.2.1", 25),
    ]


@pytest.mark.parametrize(
    ("at_host", "why", "text"),
    [
        (EXPIRED, "expired", "its certificate ended on 2026-09-20"),
        (seen(MX, verify=10), "expired", "a certificate of its chain has ended"),
        (seen(MX, verify=9), "not-yet-valid", "its certificate is not valid yet"),
        (seen("mx.example.net", "a.example"), "host-mismatch",
         "its certificate is for mx.example.net, a.example"),
        (seen(*[f"h{n}.example.net" for n in range(9)]), "host-mismatch",
         "its certificate is for h0.example.net, h1.example.net, h2.example.net and 6 more"),
        (seen(), "host-mismatch", "its certificate is for no name at all"),
        (seen(MX, verify=18), "untrusted", "its certificate leads to no trusted authority "
         "(X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT); issued by Test CA"),
        (PLAIN, "no-starttls",
         "it offers no STARTTLS, or somebody in between takes the offer away"),
        (ended(Stage.STARTTLS, "starttls-refused", "454 4.7.0 no", 454), "starttls-refused",
         "it offers STARTTLS and then refuses it (454 4.7.0 no)"),
        (ended(Stage.HANDSHAKE, "tls", "protocol-version"), "handshake",
         "the TLS handshake fails (protocol-version)"),
    ],
)  # fmt: skip
async def test_a_receiver_that_breaks_its_policy(
    at_host: dict[str, Any], why: str, text: str
) -> None:
    world = World()
    world.policy()
    world.probes.hosts[MX] = at_host
    found = await world.examine()
    assert conclusion(found) == (
        "mail to example.com needs verified TLS (MTA-STS enforce): its MX host would be refused,"
        " so it waits"
    )
    assert words(found) == [f"mx-{why}"]
    told = note(found, f"mx-{why}")
    assert (told.where, told.text) == (MX, text)
    action = "may" if why in ("no-starttls", "starttls-refused", "handshake") else "encrypt"
    assert f'[[override]] domain = "example.com" action = "{action}"' in told.todo


async def test_a_host_that_no_pattern_lists() -> None:
    world = World()
    world.policy(GOOD.replace(b"mx.example.com", b"mail.example.net"))
    found = await world.examine()
    assert found.mx_hosts[0].pattern is None
    assert words(found) == ["mx-not-listed"]
    assert note(found, "mx-not-listed").section == "RFC 8461 §4.1"


async def test_one_of_two_hosts_is_good() -> None:
    world = World()
    world.policy(GOOD.replace(b"mx.example.com", b"*.example.com"))
    world.zone.mail(D, MX, "b.example.com")
    world.zone.host("b.example.com")
    world.probes.hosts["b.example.com"] = seen("*.example.com")
    world.probes.hosts[MX] = EXPIRED
    found = await world.examine()
    assert conclusion(found).endswith(": 1 of 2 MX hosts would be refused")
    assert [h.preference for h in found.mx_hosts] == [10, 20]
    assert note(found, "mx-expired").todo == (
        "only its owner can mend it; mail goes to the hosts that pass"
    )


async def test_testing_mode_says_what_enforcement_would_do() -> None:
    world = World()
    world.policy(TESTING)
    world.probes.hosts[MX] = EXPIRED
    found = await world.examine()
    assert conclusion(found) == (
        "mail to example.com needs no TLS (MTA-STS testing): its MX host passes;"
        " if it were enforced, its MX host would be refused"
    )
    assert found.mx_hosts[0].outlook == Outlook(True, "opportunistic")
    assert words(found) == ["mx-expired"]
    assert found.replies["postfix"] == "NOTFOUND "


async def test_testing_mode_that_is_enforced_here() -> None:
    world = World(settings=Settings(Rules(testing="enforce")))
    world.policy(TESTING)
    found = await world.examine()
    assert "MTA-STS testing, enforced here" in conclusion(found)
    assert found.mx_hosts[0].enforced is None


async def test_mode_none_asks_for_nothing() -> None:
    world = World()
    world.policy(NONE)
    found = await world.examine()
    assert (
        conclusion(found) == "mail to example.com needs no TLS (MTA-STS none): its MX host passes"
    )
    assert words(found) == []


async def test_every_fault_of_a_policy_is_found() -> None:
    world = World()
    world.policy(b"version: STSv1\nmode: enfroce\nmx: *.com\n")
    found = await world.examine()
    assert [(p.why, p.line) for p in found.sts.problems] == [
        ("bad-mode", 2), ("mx-wildcard", 3), ("missing-max-age", None),
    ]  # fmt: skip
    assert note(found, "sts-policy").text == "the policy is invalid: bad-mode in line 2, and 2 more"
    assert conclusion(found).startswith(
        "mail to example.com needs no TLS (MTA-STS record, but no policy to be had)"
    )


@pytest.mark.parametrize(
    ("failure", "looked", "text"),
    [
        (Failure("dns", "nxdomain"), False, "the policy host has no address (nxdomain)"),
        (Failure("connect", "connection-refused at 192.0.2.1"), False,
         "the policy host can't be connected to (connection-refused at 192.0.2.1)"),
        (Failure("timeout", "response"), False, "the policy host is too slow (response)"),
        (Failure("status", "404"), True,
         "the policy host answers with a status that is not 200 (404)"),
        (Failure("tls", "hostname-mismatch at 192.0.2.1"), True,
         "the policy host's certificate is not good (hostname-mismatch at 192.0.2.1);"
         " it is for mta-sts.example.com"),
    ],
)  # fmt: skip
async def test_a_policy_that_can_not_be_had(failure: Failure, looked: bool, text: str) -> None:
    world = World()
    world.policy(failure)
    found = await world.examine()
    assert words(found) == ["sts-fetch"]
    assert note(found, "sts-fetch").text == text
    assert (found.sts.certificate is not None) is looked


async def test_a_policy_host_whose_tls_fails() -> None:
    world = World()
    world.policy(Failure("tls", "protocol-version at 192.0.2.1"))
    world.probes.hosts[f"mta-sts.{D}"] = ended(Stage.HANDSHAKE, "tls", "protocol-version")
    found = await world.examine()
    assert note(found, "sts-fetch").text.startswith("TLS with the policy host fails (protocol")


async def test_a_slow_policy_host_and_a_short_life_are_worth_knowing() -> None:
    world = World()
    world.policy(GOOD.replace(b"604800", b"3600"))
    world.policies.slow = asyncio.Event()
    task = asyncio.create_task(world.examine())
    await settle()
    await world.clock.advance(7)
    world.policies.slow.set()
    found = await task
    assert words(found) == []
    assert words(found, broken=False) == ["sts-slow", "sts-short-life"]
    assert "it took 7 s, longer than a look-up waits (4 s)" in note(found, "sts-slow").text


async def test_a_policy_that_is_not_kept_still_decides_this_reading() -> None:
    world = World()
    world.policy(GOOD.replace(b"604800", b"0"))
    found = await world.examine()
    assert found.verdict.what is What.SECURE


@pytest.mark.parametrize(
    ("records", "word", "text"),
    [
        ((b"v=STSv1; id=1;", b"v=STSv1; id=2;"), "sts-record", "several MTA-STS records"),
        ((b"v=STSv1;",), "sts-record", "has no id"),
        ((b"v=STSv1; id=a-b;",), "sts-record", "not 1 to 32 letters and digits"),
        ((b"v=STSv1; id=1; x",), "sts-record", "no list of fields"),
        ((b"v=STSv1; id=1; x=" + b"a" * 5000,), "sts-record", "too long"),
    ],
)
async def test_records_that_are_refused(records: tuple[bytes, ...], word: str, text: str) -> None:
    world = World()
    world.zone.txts[f"_mta-sts.{D}"] = Answer(records, 300, False, D)
    found = await world.examine()
    assert words(found) == [word]
    assert text in note(found, word).text
    assert "MTA-STS record that doesn't count" in conclusion(found)


# ---- certificates that end


async def test_certificates_that_end_soon_are_worth_knowing() -> None:
    world = World()
    world.policy()
    world.probes.hosts[MX] = seen(MX, ends=START + 10 * DAY)
    world.probes.hosts[f"mta-sts.{D}"] = seen(f"mta-sts.{D}", ends=START + 13 * DAY)
    found = await world.examine()
    assert words(found) == []
    told = [note for note in notes(found, 4.0) if note.word == "certificate-ends"]
    assert [note.where for note in told] == [MX, f"mta-sts.{D}"]


# ---- DANE


async def test_dane() -> None:
    world = World()
    world.dane()
    found = await world.examine()
    assert conclusion(found) == "mail to example.com needs verified TLS (DANE): its MX host passes"
    assert found.finding is Finding.ALL
    assert found.replies == {"postfix": "OK dane-only", "postfix-tlsrpt": "OK dane-only"}
    assert words(found) == []


async def test_dane_takes_any_name_and_date() -> None:
    world = World()
    world.dane()
    world.probes.hosts[MX] = seen("mx.example.net", verify=18, ends=START - DAY)
    assert words(await world.examine()) == []


async def test_a_certificate_that_matches_no_record() -> None:
    world = World()
    world.dane(MISMATCH)
    found = await world.examine()
    assert words(found) == ["mx-tlsa-mismatch"]
    assert conclusion(found).endswith("its MX host would be refused, so it waits")


async def test_the_name_under_which_tlsa_stands_is_asked_for() -> None:
    world = World()
    world.dane()
    world.zone.hosts[MX] = Answer(("192.0.2.1",), 300, True, "real.example.com", aliased=True)
    world.zone.tlsas["_25._tcp.real.example.com"] = Answer((MATCHING,), 300, True, D)
    world.probes.hosts["real.example.com"] = seen("real.example.com")
    found = await world.examine()
    assert ("real.example.com", "192.0.2.1", 25) in world.probes.asked
    assert found.mx_hosts[0].outlook == Outlook(True, "dane")


async def test_records_that_nobody_can_use_are_a_finding_though_mail_passes() -> None:
    world = World()
    world.dane(UNUSABLE)
    found = await world.examine()
    assert found.mx_hosts[0].outlook == Outlook(True, "encrypted")
    assert words(found) == ["tlsa-unusable"]


async def test_unsigned_mx_records_are_worth_knowing() -> None:
    world = World()
    world.dane()
    world.zone.mail(D, MX, secure=False)
    found = await world.examine()
    assert found.finding is Finding.UNSIGNED
    assert words(found, broken=False) == ["mx-unsigned"]
    assert "is verified by DANE where a host can be" in conclusion(found)


async def test_tlsa_that_can_not_be_looked_up() -> None:
    world = World()
    world.dane()
    world.zone.tlsas[f"_25._tcp.{MX}"] = DnsError("servfail")
    found = await world.examine()
    assert words(found) == ["dns-error", "mx-tlsa-error"]
    assert note(found, "dns-error").where == f"_25._tcp.{MX} TLSA"


async def test_no_validating_resolver_is_a_finding_here() -> None:
    world = World()
    world.dane()
    world.zone.validating = False
    found = await world.examine()
    assert words(found) == ["no-validating-resolver"]
    assert found.finding is Finding.NONE
    assert found.replies["postfix"] == "NOTFOUND "


async def test_where_dane_is_off_nobody_misses_a_resolver() -> None:
    world = World(settings=Settings(Rules(dane=False)))
    world.dane(MISMATCH)
    world.zone.validating = False
    found = await world.examine()
    assert words(found) == []
    assert found.verdict.what is What.NOTHING


async def test_minimum() -> None:
    world = World(settings=Settings(Rules(minimum="encrypt")))
    world.dane(UNUSABLE)
    found = await world.examine()
    assert found.replies["postfix"] == "OK encrypt"
    assert words(found, broken=False) == ["minimum"]


# ---- no policy at all


async def test_without_a_policy_a_bad_certificate_is_only_worth_knowing() -> None:
    world = World()
    world.probes.hosts[MX] = EXPIRED
    found = await world.examine()
    assert conclusion(found) == "mail to example.com needs no TLS (no policy): its MX host passes"
    assert (words(found), words(found, broken=False)) == ([], ["mx-weak"])


async def test_without_probes_nothing_is_connected_to() -> None:
    world = World()
    world.policy()
    found = await world.examine(probe=False)
    assert world.probes.asked == []
    assert found.sts.certificate is None
    assert words(found) == []
    assert conclusion(found).endswith("the hosts were not looked at")


async def test_a_host_that_is_not_listed_needs_no_look() -> None:
    world = World()
    world.policy(GOOD.replace(b"mx.example.com", b"mail.example.net"))
    assert words(await world.examine(probe=False)) == ["mx-not-listed"]


# ---- names and hosts


async def test_a_domain_that_does_not_exist() -> None:
    world = World()
    world.zone.mxs[D] = NoData(False, 60, False)
    found = await world.examine()
    assert conclusion(found) == "mail to example.com goes nowhere: the name does not exist"
    assert words(found) == ["no-domain"]


async def test_null_mx() -> None:
    world = World()
    world.zone.mxs[D] = Answer((Mx(0, None, null=True),), 300, True, D)
    found = await world.examine()
    assert conclusion(found) == "example.com takes no mail (null MX, RFC 7505)"
    assert words(found) == []


async def test_mx_records_that_name_no_host() -> None:
    world = World()
    world.zone.mxs[D] = Answer((Mx(10, None),), 300, False, D)
    found = await world.examine()
    assert conclusion(found) == "mail to example.com goes nowhere: no MX record names a host"
    assert words(found) == ["no-mx-host"]


async def test_dns_that_says_nothing() -> None:
    world = World()
    world.zone.mxs[D] = DnsError("timeout")
    world.zone.broken(D)
    world.zone.txts[f"_smtp._tls.{D}"] = DnsError("refused")
    found = await world.examine()
    assert conclusion(found) == (
        "mail to example.com: where it goes is not known, DNS gives no answer (timeout)"
    )
    told = [note for note in notes(found, 4.0) if note.word == "dns-error"]
    assert [note.where for note in told] == [
        f"{D} MX", f"_mta-sts.{D} TXT", f"_smtp._tls.{D} TXT",
    ]  # fmt: skip
    assert "`dig example.com MX`" in told[0].todo


async def test_a_domain_that_is_its_own_mx() -> None:
    world = World()
    world.policy(GOOD.replace(b"mx.example.com", b"example.com"))
    world.zone.mxs[D] = NoData(True, 60, False)
    world.zone.host(D)
    world.probes.hosts[D] = seen(D)
    found = await world.examine()
    assert [(h.host, h.preference) for h in found.mx_hosts] == [(D, None)]
    assert words(found) == []


async def test_a_host_without_an_address() -> None:
    world = World()
    world.zone.hosts[MX] = NoData(False, 60, False)
    found = await world.examine()
    assert words(found) == ["mx-no-address"]
    assert note(found, "mx-no-address").todo == "only its owner can mend it"


async def test_a_host_whose_address_can_not_be_looked_up() -> None:
    world = World()
    world.zone.hosts[MX] = DnsError("timeout")
    assert words(await world.examine()) == ["dns-error"]


async def test_a_relay_host() -> None:
    """No MX is asked for; that it is a policy domain too surprises people."""
    world = World()
    world.policy()
    world.zone.host(D)
    world.probes.hosts[D] = seen(D)
    found = await world.examine("[example.com]:587")
    assert f"MX {D}" not in world.zone.asked
    assert (D, "192.0.2.1", 587) in world.probes.asked
    assert words(found) == ["mx-not-listed"]
    assert note(found, "mx-not-listed").todo.startswith("a relay host is a policy domain too")
    assert conclusion(found).startswith("mail to [example.com]:587 needs verified TLS")


async def test_a_port_that_nobody_can_be_reached_on() -> None:
    world = World()
    world.policy()
    world.probes.hosts.pop(MX)
    found = await world.examine()
    assert words(found) == ["port-blocked"]
    assert conclusion(found).endswith("its MX host could not be judged")


async def test_a_host_that_does_not_want_us() -> None:
    world = World()
    world.policy()
    world.probes.hosts[MX] = ended(Stage.BANNER, "reply", "554 go away", 554)
    found = await world.examine()
    assert words(found, broken=False) == ["mx-refused"]
    assert note(found, "mx-refused").text == "it doesn't want to talk to us (554 go away)"


async def test_one_address_of_each_family_is_probed_and_one_that_works_will_do() -> None:
    world = World()
    world.policy()
    four, six = ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")
    world.zone.hosts[MX] = Answer((*four, *six), 300, False, MX)
    world.probes.hosts[MX, "2001:db8::1"] = ended(Stage.CONNECT, "connect", "network-unreachable")
    found = await world.examine()
    at = [address for host, address, _ in world.probes.asked if host == MX]
    assert at == ["2001:db8::1", "192.0.2.1"]
    assert found.mx_hosts[0].outlook == Outlook(True, "verified")
    assert words(found) == []
    # The address that can't be reached doesn't hide what the other one shows.
    world.probes.hosts[MX] = EXPIRED
    assert note(await world.examine(), "mx-expired").text == "its certificate ended on 2026-09-20"


async def test_a_farm_is_not_knocked_at_as_a_whole() -> None:
    world = World()
    hosts = [f"mx{n}.example.com" for n in range(MAX_PROBED_HOSTS + 3)]
    world.zone.mail(D, *hosts)
    for host in hosts:
        world.zone.host(host)
        world.probes.hosts[host] = seen(host)
    found = await world.examine()
    assert len(found.mx_hosts) == len(hosts)
    assert len(world.probes.asked) == MAX_PROBED_HOSTS
    assert [h.outlook.why for h in found.mx_hosts][-3:] == ["not-probed"] * 3
    assert "3 of 11 MX hosts could not be judged" in conclusion(found)


# ---- overrides


@pytest.mark.parametrize(
    ("until", "what", "word"),
    [
        (None, What.ENCRYPT, "override"),
        (date(2099, 1, 1), What.ENCRYPT, "override"),
        (date(2020, 1, 1), What.SECURE, "override-ended"),
    ],
)
async def test_an_override_is_told(until: date | None, what: What, word: str) -> None:
    rule = Override(Domain(D), "encrypt", until=until, reason="ticket 4711")
    world = World(settings=Settings(overrides={Domain(D): rule}))
    world.policy()
    world.probes.hosts[MX] = seen(MX)
    found = await world.examine()
    assert found.verdict.what is what
    assert words(found, broken=False) == [word]
    assert "encrypt (ticket 4711)" in note(found, word).text


# ---- TLS-RPT


async def test_the_tls_rpt_record() -> None:
    world = World()
    record = b"v=TLSRPTv1; rua=mailto:a@example.com,ftp://example.com/"
    world.zone.txts[f"_smtp._tls.{D}"] = Answer((record,), 300, False, D)
    found = await world.examine()
    assert words(found) == ["tls-rpt-uri"]
    assert note(found, "tls-rpt-uri").text == ("no reports can go to ftp://example.com/ (scheme)")


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ((b"v=TLSRPTv1; rua=mailto:a@example.com",) * 2, "several"),
        ((b"v=TLSRPTv1;",), "no rua"),
        ((b"v=TLSRPTv1; rua",), "no list of fields"),
    ],
)
async def test_a_tls_rpt_record_that_is_refused(records: tuple[bytes, ...], text: str) -> None:
    world = World()
    world.zone.txts[f"_smtp._tls.{D}"] = Answer(records, 300, False, D)
    found = await world.examine()
    assert words(found) == ["tls-rpt-record"]
    assert text in note(found, "tls-rpt-record").text


async def test_notes_are_printable_and_what_is_wrong_stands_first() -> None:
    world = World()
    world.policy(b"version: STSv1\nmode: \x1b[31mred\n")
    world.probes.hosts[MX] = ended(Stage.BANNER, "reply", "554 ?", 554)
    found = notes(await world.examine(), 4.0)
    assert [note.broken for note in found] == [True, False]
    for note in found:
        assert all(" " <= c <= "~" for c in note.text + note.todo + note.where)
