"""Which main.cf lines for which Postfix and which sockets."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.addresses import InetAddress, UnixAddress
from mtastsd.config import Listen
from mtastsd.postfix import reply
from mtastsd.postfix.maincf import CA_FILES, Installed, Recipe, Site, map_name, recipe, tables
from mtastsd.verdict import Minimum

UNIX = UnixAddress("/run/mtastsd/policy.sock")
INSIDE = UnixAddress("/var/spool/postfix/mtastsd/policy.sock")
TCP = InetAddress("127.0.0.1", 8461)
BOTH = (UNIX, TCP)
INET_MAP = "socketmap:inet:127.0.0.1:8461:postfix-tlsrpt"
UNIX_MAP = "socketmap:unix:/run/mtastsd/policy.sock:postfix-tlsrpt"
CONTRIB = Path(__file__).parents[2] / "contrib/postfix"


def installed(version: str = "3.10.13", chroot: str = "y", **values: str) -> Installed:
    return Installed({"mail_version": version, "queue_directory": "/var/spool/postfix", **values},
                     chroot)  # fmt: skip


def maps(postfix: Installed, site: Site = Site(BOTH)) -> str:  # noqa: B008
    return recipe(postfix, site).settings["smtp_tls_policy_maps"]


@pytest.mark.parametrize(
    ("version", "map_"),
    [
        ("3.4.0", "postfix"),
        ("3.7.11", "postfix"),
        ("3.9.9", "postfix"),
        ("3.10.0", "postfix-tlsrpt"),
        ("3.10.13", "postfix-tlsrpt"),
        ("3.12-20260821", "postfix-tlsrpt"),
        ("4.0.0", "postfix-tlsrpt"),
        ("", "postfix"),
        ("unknown", "postfix"),
        ("3.1000000000000", "postfix"),
    ],
)
def test_the_map_is_one_that_this_postfix_understands(version: str, map_: str) -> None:
    assert map_name(installed(version)) == map_
    assert maps(installed(version)).endswith(f":{map_}")


@pytest.mark.parametrize(("file", "version"), [("3.10", "3.10.0"), ("3.4", "3.4.0")])
def test_the_samples_have_the_same_lines(file: str, version: str) -> None:
    text = (CONTRIB / f"main.cf.{file}").read_text()
    shown = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert recipe(installed(version), Site(Listen().socketmap)).lines() == shown


@pytest.mark.parametrize(
    ("chroot", "level", "where"),
    [
        ("y", "3.6", "inet"),
        ("n", "", "unix"),
        ("-", "3.6", "unix"),
        ("-", "1", "unix"),
        ("-", "0", "inet"),
        ("-", "", "inet"),
        ("", "3.6", "inet"),
    ],
)
def test_a_chroot_sees_tcp_only(chroot: str, level: str, where: str) -> None:
    assert maps(installed(chroot=chroot, compatibility_level=level)).startswith(
        f"socketmap:{where}"
    )


@pytest.mark.parametrize(
    ("site", "chroot", "where", "warned"),
    [
        (Site((UNIX,)), "n", "unix:/run/mtastsd/policy.sock", False),
        (Site((UNIX,)), "y", "unix:/run/mtastsd/policy.sock", True),
        (Site((TCP,)), "n", "inet:127.0.0.1:8461", False),
        (Site((TCP,)), "y", "inet:127.0.0.1:8461", False),
        (Site((INSIDE,)), "y", "unix:mtastsd/policy.sock", False),
        (Site((UNIX, INSIDE)), "y", "unix:mtastsd/policy.sock", False),
        (Site((INSIDE, TCP)), "y", "inet:127.0.0.1:8461", False),
        (Site(BOTH, mode=0o660), "n", "inet:127.0.0.1:8461", False),
        (Site((UNIX,), mode=0o660), "n", "unix:/run/mtastsd/policy.sock", True),
        (Site((InetAddress("0.0.0.0", 99),)), "y", "inet:127.0.0.1:99", False),
        (Site((InetAddress("::", 99),)), "y", "inet:[::1]:99", False),
        (Site((InetAddress("::1", 8461),)), "n", "inet:[::1]:8461", False),
        (Site(()), "n", "inet:127.0.0.1:8461", True),
    ],
)
def test_where_it_is_asked(site: Site, chroot: str, where: str, warned: bool) -> None:
    made = recipe(installed(chroot=chroot), site)
    assert made.settings["smtp_tls_policy_maps"] == f"socketmap:{where}:postfix-tlsrpt"
    assert bool(made.warnings) is warned


@pytest.mark.parametrize(
    ("there", "then"),
    [
        ("", INET_MAP),
        ("hash:/etc/postfix/tls_policy", f"hash:/etc/postfix/tls_policy, {INET_MAP}"),
        ("hash:/a hash:/b", f"hash:/a, hash:/b, {INET_MAP}"),
        (INET_MAP, INET_MAP),
        # ours under another name, at another socket, twice, by way of proxymap: once, in its place
        ("socketmap:inet:127.0.0.1:8461:QUERY", INET_MAP),
        ("socketmap:inet:localhost:8461:postfix, hash:/b", f"{INET_MAP}, hash:/b"),
        ("socketmap:unix:/run/mtastsd/policy.sock:postfix", INET_MAP),
        (f"{UNIX_MAP} proxy:{UNIX_MAP},hash:/b", f"{INET_MAP}, hash:/b"),
        ("inline:{ {a.test = may}, b.test=none }",
         f"inline:{{ {{a.test = may}}, b.test=none }}, {INET_MAP}"),
        ("${x?{hash:/a}:{hash:/b}}", f"${{x?{{hash:/a}}:{{hash:/b}}}}, {INET_MAP}"),
    ],
)  # fmt: skip
def test_maps_that_are_there_are_kept(there: str, then: str) -> None:
    made = recipe(installed(smtp_tls_policy_maps=there), Site(BOTH))
    assert made.settings["smtp_tls_policy_maps"] == then
    assert made.warnings == ()


def test_a_socket_below_the_queue_folder_is_known_by_its_relative_path() -> None:
    there = "socketmap:unix:mtastsd/policy.sock:QUERY"
    assert maps(installed(smtp_tls_policy_maps=there), Site((INSIDE,))) == (
        "socketmap:unix:mtastsd/policy.sock:postfix-tlsrpt"
    )


def test_another_policy_server_in_front_is_told() -> None:
    there = "socketmap:inet:127.0.0.1:8642:QUERY"
    made = recipe(installed(smtp_tls_policy_maps=there), Site(BOTH))
    assert made.settings["smtp_tls_policy_maps"] == f"{there}, {INET_MAP}"
    assert made.warnings == (
        f"{there} answers before mtastsd does; take it out when mtastsd is to decide",
    )


@pytest.mark.parametrize(
    ("level", "dane", "then"),
    [
        ("", True, "dane"),
        ("none", True, "dane"),
        ("may", True, "dane"),
        ("dane", True, "dane"),
        ("encrypt", True, "encrypt"),
        ("secure", True, "secure"),
        ("dane-only", True, "dane-only"),
        ("$other", True, "$other"),
        ("", False, "may"),
        ("may", False, "may"),
        ("dane", False, "dane"),
        ("encrypt", False, "encrypt"),
    ],
)
def test_a_stricter_level_is_kept(level: str, dane: bool, then: str) -> None:
    made = recipe(installed(smtp_tls_security_level=level), Site(BOTH, dane=dane))
    assert made.settings["smtp_tls_security_level"] == then
    assert ("smtp_dns_support_level" in made.settings) is dane


@pytest.mark.parametrize(
    ("level", "minimum", "told"),
    [
        ("encrypt", "", 'minimum = "encrypt"'),
        ("encrypt", "encrypt", ""),
        ("encrypt", "secure", ""),
        ("secure", "", 'minimum = "secure"'),
        ("secure", "encrypt", 'minimum = "secure"'),
        ("verify", "secure", ""),
        ("dane-only", "", 'minimum = "secure"'),
        ("dane", "", ""),
        ("may", "", ""),
    ],
)
def test_a_stricter_level_needs_a_minimum(level: str, minimum: Minimum, told: str) -> None:
    made = recipe(installed(smtp_tls_security_level=level), Site(BOTH, minimum=minimum))
    assert bool(made.warnings) is bool(told)
    assert told in " ".join(made.warnings)


@pytest.mark.parametrize(
    ("values", "ca_file", "then", "told"),
    [
        ({}, CA_FILES[0], CA_FILES[0], ""),
        ({}, CA_FILES[1], CA_FILES[1], ""),
        ({}, "", None, "no list of authorities"),
        ({"smtp_tls_CAfile": "/etc/own.pem"}, CA_FILES[0], "/etc/own.pem", ""),
        ({"smtp_tls_CApath": "/etc/ssl/certs"}, CA_FILES[0], None, "inside the chroot"),
        ({"smtp_tls_CApath": "/x", "smtp_tls_CAfile": "/y"}, "", "/y", ""),
    ],
)
def test_whom_to_trust(values: dict[str, str], ca_file: str, then: str | None, told: str) -> None:
    made = recipe(installed(**values), Site(BOTH, ca_file=ca_file))
    assert made.settings.get("smtp_tls_CAfile") == then
    assert bool(made.warnings) is bool(told)
    assert told in " ".join(made.warnings)


def test_a_folder_of_authorities_will_do_without_a_chroot() -> None:
    made = recipe(installed(chroot="n", smtp_tls_CApath="/etc/ssl/certs"), Site(BOTH))
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("there", "then"), [("", "1"), ("0", "1"), ("1", "1"), ("2", "2"), ("x", "1"), ("²", "1")]
)
def test_the_log_level_is_raised_and_never_lowered(there: str, then: str) -> None:
    made = recipe(installed(smtp_tls_loglevel=there), Site(BOTH))
    assert made.settings["smtp_tls_loglevel"] == then


@pytest.mark.parametrize(
    ("values", "version", "told"),
    [
        ({"smtp_host_lookup": "native"}, "3.10.0", "smtp_host_lookup = native has no dns"),
        ({"smtp_host_lookup": "native, dns"}, "3.10.0", ""),
        ({"smtp_host_lookup": "dns"}, "3.10.0", ""),
        ({"relayhost": "[relay.example.com]:587"}, "3.10.0", "is a policy domain too"),
        ({}, "3.3.9", "Postfix 3.3 does not know servername="),
        ({}, "3.4.0", ""),
    ],
)
def test_clashes(values: dict[str, str], version: str, told: str) -> None:
    made = recipe(installed(version, **values), Site(BOTH))
    assert bool(made.warnings) is bool(told)
    assert told in " ".join(made.warnings)


def test_host_look_ups_don_t_matter_without_dane() -> None:
    made = recipe(installed(smtp_host_lookup="native"), Site(BOTH, dane=False))
    assert made.warnings == ()


# ---- properties

words = st.text("abc:/{},= ", max_size=30)


@given(words)
def test_tables_lose_nothing(text: str) -> None:
    said = [word for word in re.split(r"[, ]+", text) if word]
    assert re.sub(r"[, ]", "", "".join(tables(text))) == "".join(said)


@given(words)
def test_lines_are_stable(there: str) -> None:
    """Once set they ask for no further change."""

    def again(made: Recipe) -> Recipe:
        return recipe(installed(**made.settings), Site(BOTH))

    once = again(recipe(installed(smtp_tls_policy_maps=there), Site(BOTH)))
    assert again(once).settings == once.settings
    found = once.settings["smtp_tls_policy_maps"]
    assert reply.style(found.rpartition(":")[2]) is reply.Style.TLSRPT


REPORTING = replace(
    Site(listeners=(InetAddress("127.0.0.1", 8461),)),
    reporter="tlsrpt@relay.example",
    tlsrpt="/run/mtastsd/tlsrpt.sock",
)


@pytest.mark.parametrize(
    ("postfix", "site", "expected"),
    [
        (installed("3.10.4", "n"), REPORTING, "/run/mtastsd/tlsrpt.sock"),
        (installed("3.12", "n"), REPORTING, "/run/mtastsd/tlsrpt.sock"),
        (
            installed("3.10.4"),
            replace(REPORTING, tlsrpt="/var/spool/postfix/mtastsd/tlsrpt.sock"),
            "mtastsd/tlsrpt.sock",
        ),
        (installed("3.10.4", "n"), replace(REPORTING, tlsrpt=""), None),
        (installed("3.10.4", "n"), replace(REPORTING, reporter=""), None),
        (installed("3.9.1", "n"), REPORTING, None),
    ],
)
def test_datagrams_where_reports_are_on_and_postfix_can(
    postfix: Installed, site: Site, expected: str | None
) -> None:
    settings = recipe(postfix, site).settings
    assert settings.get("smtp_tlsrpt_socket_name") == expected
    assert ("smtp_tlsrpt_enable" in settings) == (expected is not None)


def test_a_chrooted_smtp_can_t_see_the_datagram_socket() -> None:
    assert any("tlsrpt.sock" in w for w in recipe(installed("3.10.4"), REPORTING).warnings)
    assert not any("tlsrpt" in w for w in recipe(installed("3.10.4", "n"), REPORTING).warnings)


def test_an_old_postfix_needs_its_log_read_and_a_transport_for_reports() -> None:
    told = " ".join(recipe(installed("3.7.11", "n"), REPORTING).warnings)
    assert "journal = true" in told
    assert "inline:{tlsrpt@relay.example=tlsreports:}" in told
    reading = " ".join(
        recipe(installed("3.7.11", "n"), replace(REPORTING, reads_log=True)).warnings
    )
    assert "journal = true" not in reading
