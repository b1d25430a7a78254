"""`mtastsd check`: whole outputs, exit codes, and the JSON object."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mtastsd.answers import Answer, DnsError, Mx, NoData
from mtastsd.cli import check as command
from mtastsd.cli import postconf
from mtastsd.cli.main import main
from mtastsd.net.smtpprobe import ProbeSettings
from mtastsd.probing import Stage
from mtastsd.sts.failure import Failure
from tests.fakeworld import GOOD, UNUSABLE, Zone
from tests.probes import EXPIRED, MATCHING, MISMATCH, MX, D, Probes, World, ended, seen


class Closing(Zone):
    """A resolver as the command gets it: with an end."""

    closed = False

    async def close(self) -> None:
        self.closed = True


class Cli:
    """The command in a world of tables."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.world = World(zone=Closing())
        self.probe_settings = ProbeSettings()
        patch.setattr(command, "DnsResolver", lambda *_: self.world.zone)
        patch.setattr(command, "HttpsPolicyFetcher", lambda *_: self.world.policies)
        patch.setattr(command, "SmtpProber", self._prober)
        patch.setattr(command, "SystemClock", lambda: self.world.clock)
        patch.setattr(postconf, "value", lambda name: {"smtp_helo_name": "us.example.net"}[name])

    def _prober(self, settings: ProbeSettings) -> Probes:
        self.probe_settings = settings
        return self.world.probes

    def __call__(self, *arguments: str) -> Result:
        found = CliRunner().invoke(main, ["check", *arguments])
        assert not isinstance(found.exception, Exception) or isinstance(found.exception, SystemExit)
        return found


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.setattr("mtastsd.config.reader.DEFAULT_PATH", tmp_path / "none.toml")
    return Cli(monkeypatch)


GOOD_OUTPUT = """\
mail to example.com needs verified TLS (MTA-STS enforce): its MX host passes

MTA-STS
   record        v=STSv1; id=1;
   policy        mode enforce, kept for 7d
                 version: STSv1
                 mode: enforce
                 mx: mx.example.com
                 max_age: 604800
   certificate   trusted, until 2026-12-20, by Test CA

DANE
   MX records    unsigned
   finding       none: no TLSA records

MX 10 mx.example.com: passes (verified)
   listed as     mx.example.com
   address       192.0.2.1, unsigned
   TLSA          not asked for: the address is unsigned (RFC 7672 §2.2.2)
   probed at     192.0.2.1
     EHLO        mx.example.com
     TLS         TLSv1.3, TLS_AES_256_GCM_SHA384
     certificate trusted, until 2026-12-20, by Test CA
     names       mx.example.com

TLS-RPT
   record        v=TLSRPTv1; rua=mailto:a@example.com
   rua           mailto:a@example.com

Reply
   verdict       secure (sts-enforce)
   postfix:
     OK secure match=mx.example.com servername=hostname
   postfix-tlsrpt:
     OK secure match=mx.example.com servername=hostname policy_type=sts \
policy_domain=example.com mx_host_pattern=mx.example.com { policy_string = version: STSv1 } \
{ policy_string = mode: enforce } { policy_string = mx: mx.example.com } \
{ policy_string = max_age: 604800 }
"""


def test_a_good_domain(cli: Cli) -> None:
    cli.world.policy()
    cli.world.zone.txts[f"_smtp._tls.{D}"] = Answer(
        (b"v=TLSRPTv1; rua=mailto:a@example.com",), 300, False, D
    )
    found = cli("Example.COM.")
    assert found.stdout == GOOD_OUTPUT
    assert found.stderr == ""
    assert found.exit_code == 0
    assert cli.probe_settings.helo == "us.example.net"
    assert isinstance(cli.world.zone, Closing)
    assert cli.world.zone.closed


BROKEN_OUTPUT = """\
mail to example.com needs verified TLS (MTA-STS enforce): 1 of 2 MX hosts would
be refused

MTA-STS
   record        v=STSv1; id=1;
   policy        mode enforce, kept for 7d
                 version: STSv1
                 mode: enforce
                 mx: mx.example.com
                 max_age: 604800
   certificate   trusted, until 2026-12-20, by Test CA

DANE
   MX records    unsigned
   finding       none: no TLSA records

MX 10 b.example.com: would be refused (not-listed)
   listed as     nothing: no mx line of the policy lists it
   address       192.0.2.1, unsigned
   TLSA          not asked for: the address is unsigned (RFC 7672 §2.2.2)
   probed at     192.0.2.1
     EHLO        b.example.com
     ended at    STARTTLS: 454 4.7.0 not now

MX 20 mx.example.com: passes (verified)
   listed as     mx.example.com
   address       192.0.2.1, unsigned
   TLSA          not asked for: the address is unsigned (RFC 7672 §2.2.2)
   probed at     192.0.2.1
     EHLO        mx.example.com
     TLS         TLSv1.3, TLS_AES_256_GCM_SHA384
     certificate trusted, until 2026-12-20, by Test CA
     names       mx.example.com

TLS-RPT
   record        none: no reports are asked for

Reply
   verdict       secure (sts-enforce)
   postfix:
     OK secure match=mx.example.com servername=hostname
   postfix-tlsrpt:
     OK secure match=mx.example.com servername=hostname policy_type=sts \
policy_domain=example.com mx_host_pattern=mx.example.com { policy_string = version: STSv1 } \
{ policy_string = mode: enforce } { policy_string = mx: mx.example.com } \
{ policy_string = max_age: 604800 }

Findings
 1. b.example.com: no mx line of the policy lists it (RFC 8461 §4.1)
    -> only its owner can mend it; mail goes to the hosts that pass
"""


def test_a_domain_that_breaks_its_policy(cli: Cli) -> None:
    cli.world.policy()
    cli.world.zone.mail(D, "b.example.com", MX)
    cli.world.zone.host("b.example.com")
    cli.world.probes.hosts["b.example.com"] = ended(
        Stage.STARTTLS, "starttls-refused", "454 4.7.0 not now", 454
    )
    found = cli(D)
    assert found.stdout == BROKEN_OUTPUT
    assert found.exit_code == 1


DANE_OUTPUT = """\
mail to example.com needs verified TLS (DANE): its MX host would be refused, so
it waits

MTA-STS
   record        none

DANE
   MX records    signed
   finding       all: all MX hosts have usable TLSA records

MX 10 mx.example.com: would be refused (tlsa-mismatch)
   address       192.0.2.1, signed
   TLSA          3 0 1 0101010101010101...: matches nothing
   probed at     192.0.2.1
     EHLO        mx.example.com
     TLS         TLSv1.3, TLS_AES_256_GCM_SHA384
     certificate trusted, until 2026-12-20, by Test CA
     names       mx.example.com

TLS-RPT
   record        none: no reports are asked for

Reply
   verdict       dane-only (dane)
   postfix:
     OK dane-only
   postfix-tlsrpt:
     OK dane-only

Findings
 1. mx.example.com: its certificate matches none of its TLSA records (RFC 7672
    §3.1)
    -> only its owner can mend it; until then mail goes out unverified with
    [[override]] domain = "example.com" action = "encrypt"
"""


def test_a_dane_domain_whose_record_is_stale(cli: Cli) -> None:
    cli.world.dane(MISMATCH)
    found = cli(D)
    assert found.stdout == DANE_OUTPUT
    assert found.exit_code == 1


def test_a_dane_domain(cli: Cli) -> None:
    cli.world.dane(MATCHING)
    found = cli(D)
    assert f"   TLSA          3 0 1 {MATCHING.data.hex()[:16]}...: matches\n" in found.stdout
    assert "Findings" not in found.stdout
    assert found.exit_code == 0


def test_every_rejected_line_stands_with_its_section(cli: Cli) -> None:
    cli.world.policy(b"version: STSv1\nmode: enfroce\nmx: *.com\nmx: \x1b[2J\nmax_age: 1\n")
    found = cli(D)
    assert (
        """\
   policy        none: the file is refused
                 a report calls it sts-policy-invalid
   refused       line 2: bad-mode (RFC 8461 §3.2)
                   mode: enfroce
   refused       line 3: mx-wildcard (RFC 8461 §4.1)
                   mx: *.com
   refused       line 4: control (RFC 8461 §3.2)
                   mx: ?[2J
"""
        in found.stdout
    )
    assert found.exit_code == 1


def test_a_policy_that_can_not_be_had(cli: Cli) -> None:
    cli.world.policy(Failure("status", "404"))
    found = cli(D)
    assert (
        """\
   policy        none: status: 404
                 a report calls it sts-policy-fetch-error
   certificate   trusted, until"""
        in found.stdout
    )
    assert (
        "-> only its owner can mend it; until then there is no policy, unless the" in found.stdout
    )


@pytest.mark.parametrize(
    ("label", "records", "shown"),
    [
        ("_mta-sts", (b"v=STSv1; id=1;", b"v=STSv1; id=2;"),
         "   record        v=STSv1; id=1; | v=STSv1; id=2;\n"
         "                 refused: several (RFC 8461 §3.1)\n"),
        ("_smtp._tls", (b"v=TLSRPTv1;",),
         "   record        v=TLSRPTv1;\n                 refused: no-rua (RFC 8460 §3)\n"),
        ("_smtp._tls", (b"v=TLSRPTv1; rua=mailto:a@example.com,https://10.0.0.1/",),
         "   rua           mailto:a@example.com\n"
         "   refused       https://10.0.0.1/: host (RFC 3986 §3.2)\n"),
    ],
)  # fmt: skip
def test_records_that_are_refused(
    cli: Cli, label: str, records: tuple[bytes, ...], shown: str
) -> None:
    cli.world.zone.txts[f"{label}.{D}"] = Answer(records, 300, False, D)
    found = cli(D)
    assert shown in found.stdout
    assert found.exit_code == 1


def test_dns_that_says_nothing(cli: Cli) -> None:
    for label in ("_mta-sts", "_smtp._tls"):
        cli.world.zone.txts[f"{label}.{D}"] = DnsError("timeout")
    cli.world.zone.mxs[D] = DnsError("servfail")
    found = cli(D)
    assert found.stdout.count("   record        not known: DNS gives no answer (timeout)\n") == 2
    assert "\nMX\n   records       DNS gives no answer (servfail)\n" in found.stdout
    assert "   MX records    DNS gives no answer (servfail)\n" in found.stdout


@pytest.mark.parametrize(
    ("mx", "shown", "code"),
    [
        (Answer((Mx(0, None, null=True),), 300, True, D), "null MX: takes no mail (RFC 7505)", 0),
        (Answer((Mx(0, None),), 300, True, D), "none that names a host", 1),
        (NoData(False, 60, False), "none: the name does not exist", 1),
    ],
)
def test_domains_without_mx_hosts(cli: Cli, mx: Any, shown: str, code: int) -> None:
    cli.world.zone.mxs[D] = mx
    found = cli(D)
    assert f"\nMX\n   records       {shown}\n" in found.stdout
    assert found.exit_code == code


def test_addresses_and_tlsa_in_every_state(cli: Cli) -> None:
    zone = cli.world.zone
    hosts = ["gone", "lost", "odd", "bare", "alias"]
    zone.mail(D, *(f"{host}.{D}" for host in hosts), secure=True)
    zone.hosts[f"lost.{D}"] = DnsError("timeout")
    zone.host(f"odd.{D}", secure=True, tlsa=UNUSABLE)
    zone.host(f"bare.{D}", secure=True)
    zone.hosts[f"alias.{D}"] = Answer(
        tuple(f"192.0.2.{n}" for n in range(1, 9)), 300, True, "real.example.net", aliased=True
    )
    name = "_25._tcp.real.example.net"
    zone.tlsas[name] = Answer((MATCHING,), 300, True, name)
    found = cli(D, "--no-probe").stdout
    assert f"MX 10 gone.{D}: would be refused (no-address)\n   address       none\n" in found
    assert "   address       DNS gives no answer (timeout)\n" in found
    assert "   TLSA          DNS gives no answer (timeout)\n" in found
    assert "1 1 1 0101010101010101...: can't be used (RFC 7672 §3.1)\n" in found
    assert "   address       192.0.2.1, signed\n   TLSA          none\n" in found
    assert "192.0.2.5, 192.0.2.6 and 2 more, signed" in " ".join(found.split())
    assert f"                 at {name}\n" in found


def test_where_no_resolver_validates(cli: Cli) -> None:
    cli.world.zone.validating = False
    found = cli(D)
    assert "\nDANE\n   resolver      none validates\n\n" in found.stdout
    assert "   address       192.0.2.1\n   probed" in found.stdout
    assert found.exit_code == 1


def test_where_dane_is_off(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "mtastsd.toml"
    config.write_text("[policy]\ndane = false\n")
    found = cli(D, "--config", str(config))
    assert "\nDANE\n   off           by [policy] dane = false\n" in found.stdout
    assert found.exit_code == 0


def test_a_relay_host(cli: Cli) -> None:
    cli.world.zone.host(D)
    found = cli("[example.com]:587")
    assert found.stdout.startswith("mail to [example.com]:587 needs no TLS (no policy): ")
    assert "\nHost example.com: can't be judged (unreachable)\n" in found.stdout
    assert (
        "   MX records    not asked for: the host is named in the configuration\n" in found.stdout
    )
    assert "     ended at    connecting: no answer in time\n" in found.stdout


def test_a_certificate_that_was_refused_and_not_shown(cli: Cli) -> None:
    cli.world.policy()
    refused = seen(verify=18, stage=Stage.HANDSHAKE, trouble="tls", detail="self-signed")
    cli.world.probes.hosts[MX] = refused | {"tls": type(refused["tls"])(18)}
    found = cli(D)
    assert "     certificate X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, another name\n" in found.stdout
    assert "     names       not shown\n" in found.stdout


def test_a_testing_policy(cli: Cli) -> None:
    cli.world.policy(GOOD.replace(b"enforce", b"testing"))
    cli.world.probes.hosts[MX] = EXPIRED
    found = cli(D)
    assert "   if enforced   would be refused (expired)\n" in found.stdout
    assert found.exit_code == 1


def test_what_is_only_worth_knowing_is_no_finding(cli: Cli) -> None:
    cli.world.probes.hosts[MX] = EXPIRED
    found = cli(D)
    assert "\nWorth knowing\n 1. mx.example.com: a certificate that" in found.stdout
    assert found.exit_code == 0


def test_a_policy_of_many_lines_is_cut(cli: Cli) -> None:
    extra = b"".join(b"x%d: y\n" % n for n in range(60))
    cli.world.policy(GOOD + extra)
    assert "                 and 24 lines more\n" in cli(D).stdout


# ---- nothing remote reaches the terminal as it came


def test_all_remote_text_is_printable(cli: Cli) -> None:
    world = cli.world
    world.policy(GOOD + "x: caf\xe9 \u202etxt\n".encode())
    world.zone.txts[f"_smtp._tls.{D}"] = Answer((b"v=TLSRPTv1; rua=\x1b]0;x\x07",), 300, False, D)
    found = cli(D)
    assert re.fullmatch(r"[ -~§\n]+", found.stdout)
    as_json = cli(D, "--json")
    assert re.fullmatch(r"[ -~\n]+", as_json.stdout)


def test_lines_fit_80_columns_but_the_replies(cli: Cli) -> None:
    world = cli.world
    long = "a" * 60 + ".example.com"
    world.policy(GOOD.replace(b"mx.example.com", b"mx.example.com\r\nmx: *." + long.encode()))
    world.zone.mail(D, f"{'b' * 60}.{long}", secure=True)
    world.zone.host(f"{'b' * 60}.{long}")
    world.probes.hosts[f"{'b' * 60}.{long}"] = seen(*[f"{n}.{long}" for n in range(20)])
    lines = cli(D).stdout.split("\n")
    assert [line for line in lines if len(line) > 80 and "OK secure" not in line] == []
    assert not any(line.endswith(" ") for line in lines)


# ---- JSON


def test_json(cli: Cli) -> None:
    cli.world.policy()
    cli.world.probes.hosts[MX] = EXPIRED
    found = cli(D, "--json")
    assert found.exit_code == 1
    said = json.loads(found.stdout)
    assert said["domain"] == D
    assert said["mta_sts"]["record"] == "v=STSv1; id=1;"
    assert said["mta_sts"]["policy"]["mode"] == "enforce"
    assert said["mta_sts"]["error"] is None
    assert said["dane"] == {
        "enabled": True, "validating_resolver": True, "finding": "none", "mx_signed": False,
        "error": None,
    }  # fmt: skip
    assert said["tls_rpt"] == {"record": None, "rua": [], "rejected": [], "error": None}
    assert (said["verdict"], said["why"]) == ("secure", "sts-enforce")
    assert said["reply"] == "OK secure match=mx.example.com servername=hostname"
    assert said["replies"]["postfix-tlsrpt"].startswith(said["reply"] + " policy_type=sts")
    assert [note["word"] for note in said["findings"]] == ["mx-expired"]
    assert said["hints"] == []
    (host,) = said["mx"]
    assert (host["host"], host["preference"], host["pattern"]) == (MX, 10, MX)
    assert host["outlook"] == {
        "passes": False, "why": "expired", "reason": "X509_V_ERR_CERT_HAS_EXPIRED",
    }  # fmt: skip
    (probe,) = host["probes"]
    assert probe["result_type"] == "certificate-expired"
    assert probe["certificate"]["verify"] == "X509_V_ERR_CERT_HAS_EXPIRED"
    assert probe["certificate"]["not_after"] == "2026-09-20T14:13:20Z"
    assert probe["sending_ip"] == "192.0.2.99"


def test_json_of_what_is_refused(cli: Cli) -> None:
    world = cli.world
    world.policy(b"version: STSv1\nmode: x\n")
    world.zone.txts[f"_smtp._tls.{D}"] = Answer((b"v=TLSRPTv1;",), 300, False, D)
    said = json.loads(cli(D, "--json").stdout)
    assert said["mta_sts"]["error"] == "syntax: bad-mode mode: x (line 2)"
    assert said["mta_sts"]["result_type"] == "sts-policy-invalid"
    assert said["mta_sts"]["rejected"][0] == {
        "why": "bad-mode", "line": 2, "text": "mode: x", "section": "RFC 8461 §3.2",
    }  # fmt: skip
    assert said["tls_rpt"]["error"] == "record: no-rua"
    assert said["verdict"] == "notfound"
    assert said["reply"] == "NOTFOUND "


def test_json_of_dns_errors(cli: Cli) -> None:
    world = cli.world
    world.zone.broken(D)
    world.zone.txts[f"_smtp._tls.{D}"] = DnsError("timeout")
    world.zone.mxs[D] = DnsError("timeout")
    said = json.loads(cli(D, "--json").stdout)
    assert said["mta_sts"]["error"] == "dns: TXT servfail"
    assert said["mta_sts"]["record"] is None
    assert said["tls_rpt"]["error"] == said["dane"]["error"] == "dns: timeout"
    assert said["mx"] == []


def test_json_of_dane(cli: Cli) -> None:
    cli.world.dane()
    said = json.loads(cli(D, "--json").stdout)
    assert said["dane"]["finding"] == "all"
    assert said["mx"][0]["tlsa"] == {
        "state": "usable",
        "base": MX,
        "records": [
            {
                "usage": 3, "selector": 0, "matching": 1,
                "data": MATCHING.data.hex(), "usable": True,
            }
        ],
        "error": None,
    }  # fmt: skip


# ---- what is not there to check


@pytest.mark.parametrize(
    ("key", "why"),
    [("", "empty"), ("192.0.2.1", "address"), ("com", "single-label"), (".example.com", "parent")],
)
def test_what_is_no_next_hop(cli: Cli, key: str, why: str) -> None:
    found = cli(key)
    assert found.exit_code == 2
    assert found.stderr == f"mtastsd: that is no next hop with a policy ({why})\n"
    assert found.stdout == ""


def test_our_name_is_that_of_postfix_or_this_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postconf, "value", lambda _: "")
    monkeypatch.setattr("socket.gethostname", lambda: "mail.example.net")
    assert command._our_name() == "mail.example.net"
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    assert command._our_name() == ""
    monkeypatch.setattr(postconf, "value", lambda _: "relay.example.net")
    assert command._our_name() == "relay.example.net"


def test_the_log_of_the_resolver_is_not_heard(cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    command._silent().warning("dnssec-missing", servers="127.0.0.1:53")
    assert capfd.readouterr() == ("", "")
