"""What each key allows and all of them together do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from mtastsd.config.settings import Cache, Listen, Report, Settings
from mtastsd.units import render_span


@dataclass(frozen=True, slots=True)
class Clash:
    """A key (`section.key`) that does not go with others, and in which way."""

    key: str
    others: tuple[str, ...]
    what: str


def find(settings: Settings) -> Iterator[Clash]:
    """All clashes."""
    yield from _addresses(settings.listen)
    fetch = settings.fetch
    if fetch.deadline >= fetch.timeout:
        yield Clash(
            "fetch.deadline",
            ("fetch.timeout",),
            f"must be shorter than timeout, {render_span(fetch.timeout)}: a look-up is answered "
            "while the fetch goes on",
        )
    yield from _cache(settings.cache)
    if settings.collect.journal and settings.collect.logfile:
        yield Clash(
            "collect.logfile",
            ("collect.journal",),
            "can't go with journal = true: the same lines would be counted twice",
        )
    yield from _dkim(settings.report)
    yield from _senders(settings.report)
    if settings.report.enabled:
        yield from _reporting(settings)


def _addresses(listen: Listen) -> Iterator[Clash]:
    taken = {str(address): "socketmap" for address in listen.socketmap}
    for name, address in (
        ("tlsrpt", listen.tlsrpt),
        ("http", listen.http),
        ("admin", listen.admin),
    ):
        first = taken.setdefault(str(address), name) if address is not None else name
        if first != name:
            what = f'"{address}" is taken by {first}'
            yield Clash(f"listen.{name}", (f"listen.{first}",), what)


def _cache(cache: Cache) -> Iterator[Clash]:
    spans = {
        "recheck": cache.recheck,
        "refresh": cache.refresh,
        "refresh_if_used": cache.refresh_if_used,
        "forget_unused": cache.forget_unused,
    }
    names = list(spans)
    for shorter, longer in pairwise(names):
        if spans[shorter] > spans[longer]:
            what = f"must not be shorter than {shorter}, {render_span(spans[shorter])}"
            yield Clash(f"cache.{longer}", (f"cache.{shorter}",), what)


def _dkim(report: Report) -> Iterator[Clash]:
    values = {
        "dkim_domain": report.dkim_domain,
        "dkim_selector": report.dkim_selector,
        "dkim_key": report.dkim_key,
    }
    there = [name for name, value in values.items() if value]
    for name, value in values.items():
        if there and not value:
            others = tuple(f"report.{other}" for other in there)
            yield Clash(f"report.{name}", others, f"must be set where {there[0]} is")


def _senders(report: Report) -> Iterator[Clash]:
    """RFC 8460 §5.3: the submitter is the domain of contact, and what signs must be in it."""
    sender, contact = _domain_of(report.from_), _domain_of(report.contact)
    if sender and contact and not (_within(sender, contact) or _within(contact, sender)):
        what = f"must be an address in the domain of contact, {contact}, not in {sender}"
        yield Clash("report.from", ("report.contact",), what)
    if sender and report.dkim_domain and not _within(sender, report.dkim_domain):
        what = f"must be the domain of from, {sender}, or a parent of it, not {report.dkim_domain}"
        yield Clash("report.dkim_domain", ("report.from",), what)


def _domain_of(mailbox: str) -> str:
    return mailbox.rpartition("@")[2]


def _within(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


def _reporting(settings: Settings) -> Iterator[Clash]:
    report, collect = settings.report, settings.collect
    identity = {
        "organization": report.organization,
        "contact": report.contact,
        "from": report.from_,
    }
    for name, value in identity.items():
        if not value:
            what = "must be set where reports are enabled: RFC 8460 wants it in each of them"
            yield Clash(f"report.{name}", ("report.enabled",), what)
    if report.keep < report.retry:
        what = f"must not be shorter than retry, {render_span(report.retry)}"
        yield Clash("report.keep", ("report.retry",), what)
    datagrams = collect.datagrams and settings.listen.tlsrpt is not None
    if not (datagrams or collect.journal or collect.logfile):
        yield Clash(
            "report.enabled",
            ("collect.datagrams", "listen.tlsrpt", "collect.journal", "collect.logfile"),
            "there would be nothing to report: [collect] needs datagrams (with [listen] tlsrpt), "
            "journal or logfile",
        )
