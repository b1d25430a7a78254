"""The configuration's sections as the settings of adapters and services."""

from __future__ import annotations

from mtastsd.config import Settings
from mtastsd.net.dns import DnsSettings
from mtastsd.net.https import FetchSettings
from mtastsd.service import current


def rule_settings(settings: Settings) -> current.Settings:
    """The part that the rules take."""
    return current.Settings(settings.rules(), settings.timing(), settings.overrides())


def dns_settings(settings: Settings) -> DnsSettings:
    """`[dns]` for the resolver."""
    servers = tuple(address.host_port for address in settings.dns.nameservers)
    return DnsSettings(servers, settings.dns.timeout, settings.dns.dnssec)


def fetch_settings(settings: Settings) -> FetchSettings:
    """`[fetch]` for the fetcher."""
    fetch = settings.fetch
    return FetchSettings(
        fetch.timeout, fetch.max_bytes, fetch.allow_private_addresses, fetch.ca_file
    )
