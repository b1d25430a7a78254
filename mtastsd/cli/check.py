"""`mtastsd check`: a live reading of a domain. It needs no daemon and looks at no cache."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.text import Text

from mtastsd import names
from mtastsd.cli import checkjson, checktext, postconf
from mtastsd.cli.common import (
    EXIT_FINDING,
    EXIT_USAGE,
    config_option,
    json_option,
    load,
    print_json,
)
from mtastsd.clock import SystemClock
from mtastsd.config import Settings
from mtastsd.log import Log
from mtastsd.names import NotADomain
from mtastsd.net.dns import DnsResolver
from mtastsd.net.https import HttpsPolicyFetcher
from mtastsd.net.smtpprobe import ProbeSettings, SmtpProber
from mtastsd.postfix import nexthop
from mtastsd.postfix.nexthop import NextHop
from mtastsd.service.examine import Examination, Examiner
from mtastsd.service.notes import notes
from mtastsd.wiring import dns_settings, fetch_settings, rule_settings


@click.command()
@click.argument("domain")
@click.option("--no-probe", is_flag=True, help="Connect to no mail host and no certificate.")
@config_option
@json_option
def check(domain: str, no_probe: bool, config_path: Path | None, as_json: bool) -> None:
    """Read DOMAIN anew, from here: records, policy, certificates, each MX host, and the reply.

    DOMAIN is a next hop in any form that Postfix has: example.com, [host.example.com]:587. This is
    where to look when mail waits. Exit 1: something is broken, at the domain or here.
    """
    settings = load(config_path)
    hop = nexthop.parse(domain.encode("utf-8", "surrogateescape"))
    if isinstance(hop, NotADomain):
        click.echo(f"mtastsd: that is no next hop with a policy ({hop.why})", err=True)
        sys.exit(EXIT_USAGE)
    asking = Text(f"asking DNS, the policy host and the hosts of {hop.key}")
    with Console(stderr=True).status(asking):  # shown on a terminal only
        seen = uvloop.run(_examine(settings, hop, probe=not no_probe))
    found = notes(seen, settings.fetch.deadline)
    if as_json:
        print_json(checkjson.as_object(seen, found))
    else:
        checktext.show(seen, found, checktext.console())
    sys.exit(EXIT_FINDING if any(note.broken for note in found) else 0)


async def _examine(settings: Settings, hop: NextHop, *, probe: bool) -> Examination:
    clock = SystemClock()
    resolver = DnsResolver(dns_settings(settings), clock, _silent())
    fetch = fetch_settings(settings)
    prober = SmtpProber(
        ProbeSettings(
            helo=_our_name(),
            allow_private=fetch.allow_private_addresses,
            ca_file=fetch.ca_file,
        )
    )
    examiner = Examiner(
        rule_settings(settings),
        resolver=resolver,
        fetcher=HttpsPolicyFetcher(fetch, resolver, clock),
        prober=prober if probe else None,
        clock=clock,
    )
    try:
        return await examiner.examine(hop)
    finally:
        await resolver.close()


def _silent() -> Log:
    """What the resolver logs here the examination tells in its own words."""
    logger = logging.getLogger("mtastsd.check")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return Log(logger)


def _our_name() -> str:
    """Postfix's name for EHLO, else this host's if it is a name; "" for an address literal."""
    told = postconf.value("smtp_helo_name")
    name = names.parse(told if told else socket.gethostname())
    return "" if isinstance(name, NotADomain) else name
