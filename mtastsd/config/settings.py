# ruff: noqa: RUF009  (`key` and the sections give immutable defaults)
"""The keys: each with its default, its kind and whether a change needs a restart.

This is the one list of them. The sample and the manual are held against it by a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from mtastsd.addresses import Address, InetAddress, UnixAddress
from mtastsd.config import values as kinds
from mtastsd.config.targets import STORE, SUBMIT, Store, Submit
from mtastsd.config.values import Kind, choice, count, list_of, optional, or_empty, size, span
from mtastsd.names import Domain
from mtastsd.sts.flow import Timing
from mtastsd.verdict import Action, Minimum, Override, Rules

T = TypeVar("T")

MAX_LISTENERS = 16
"""Sockets that look-ups come in by; a dozen chroots is the most that anybody has told of."""

MAX_NAMESERVERS = 8
"""Servers asked in turn; resolv.conf has at most three."""

MAX_PATTERNS = 100
"""Names in one list."""

Dnssec = Literal["auto", "on", "off"]
Testing = Literal["report", "enforce"]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "text", "json", "journal"]

DNSSEC: Sequence[Dnssec] = get_args(Dnssec)
TESTING: Sequence[Testing] = get_args(Testing)
MINIMUM: Sequence[Minimum] = get_args(Minimum)
ACTION: Sequence[Action] = get_args(Action)
LEVEL: Sequence[Level] = get_args(Level)
FORMAT: Sequence[Format] = get_args(Format)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. `default` is as the file would have it."""

    section: str
    name: str
    attribute: str
    default: object
    kind: Kind[Any]
    restart: bool

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment twin's name, whether the key has one or not."""
        return f"MTASTSD_{self.section}_{self.name}".upper()


def key(default: object, kind: Kind[T], *, restart: bool = False, name: str = "") -> T:
    """A field of a section; `name` where Python's word isn't the key."""
    about = {"default": default, "kind": kind, "restart": restart, "name": name}
    return field(default=kind.parse(default), metadata=about)


@dataclass(frozen=True, slots=True)
class Listen:
    """`[listen]`. Where the daemon is reached; None is off."""

    socketmap: tuple[Address, ...] = key(
        ["unix:/run/mtastsd/policy.sock", "inet:127.0.0.1:8461"],
        list_of(kinds.ADDRESS, MAX_LISTENERS),
        restart=True,
    )
    socketmap_mode: int = key("0666", kinds.MODE, restart=True)
    tlsrpt: UnixAddress | None = key(
        "unix:/run/mtastsd/tlsrpt.sock", optional(kinds.UNIX_ADDRESS), restart=True
    )
    tlsrpt_mode: int = key("0660", kinds.MODE, restart=True)
    tlsrpt_group: str = key("postfix", or_empty(kinds.GROUP), restart=True)
    http: Address | None = key("inet:127.0.0.1:8462", optional(kinds.ADDRESS), restart=True)
    # TCP has no peer credentials, and without them whoever reaches the port could flush policies.
    admin: UnixAddress = key("unix:/run/mtastsd/admin.sock", kinds.UNIX_ADDRESS, restart=True)


@dataclass(frozen=True, slots=True)
class Dns:
    """`[dns]`. No nameservers: those of resolv.conf."""

    nameservers: tuple[InetAddress, ...] = key([], list_of(kinds.NAMESERVER, MAX_NAMESERVERS))
    timeout: float = key("2s", span("100ms", "30s"))
    dnssec: Dnssec = key("auto", choice(DNSSEC))


@dataclass(frozen=True, slots=True)
class Fetch:
    """`[fetch]`. `deadline` is below a minute since Postfix gives a socketmap server 100 s."""

    timeout: float = key("60s", span("1s", "5m"))
    deadline: float = key("4s", span("100ms", "60s"))
    max_bytes: int = key(65536, size("1K", "1M"))
    allow_private_addresses: bool = key(False, kinds.FLAG)
    ca_file: str = key("", or_empty(kinds.CA_FILE))


@dataclass(frozen=True, slots=True)
class Cache:
    """`[cache]`. `memory` counts domains."""

    memory: int = key(100_000, count(100, 10_000_000), restart=True)
    recheck: float = key("1h", span("1s", "7d"))
    refresh: float = key("1d", span("1m", "7d"))
    refresh_if_used: float = key("30d", span("1h", "3650d"), restart=True)
    forget_unused: float = key("180d", span("1d", "3650d"), restart=True)


@dataclass(frozen=True, slots=True)
class PolicySection:
    """`[policy]`."""

    dane: bool = key(True, kinds.FLAG)
    testing: Testing = key("report", choice(TESTING))
    minimum: Minimum = key("", choice(MINIMUM))


@dataclass(frozen=True, slots=True)
class Collect:
    """`[collect]`. `probe_exempt` holds MX hosts and `*.` patterns."""

    datagrams: bool = key(True, kinds.FLAG, restart=True)
    journal: bool = key(False, kinds.FLAG, restart=True)
    logfile: str = key("", or_empty(kinds.PATH), restart=True)
    sending_ip: str = key("", or_empty(kinds.IP))
    probe: bool = key(True, kinds.FLAG)
    probe_exempt: tuple[str, ...] = key([], list_of(kinds.PATTERN, MAX_PATTERNS))


@dataclass(frozen=True, slots=True)
class Suppress:
    """One `[[report.suppress]]`: a policy domain or a rua that gets no report, until that day."""

    to: str
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """`[report]`."""

    enabled: bool = key(False, kinds.FLAG)
    organization: str = key("", kinds.WORDS)
    contact: str = key("", or_empty(kinds.MAILBOX))
    from_: str = key("", or_empty(kinds.MAILBOX), name="from")
    submit: Submit = key("smtp://127.0.0.1:25", SUBMIT)
    delay: float = key("4h", span("0s", "20h"))
    retry: float = key("24h", span("0s", "7d"))
    keep: float = key("30d", span("1d", "3650d"))
    max_per_destination: int = key(100, count(1, 10_000))
    max_bytes: int = key("10M", size("10K", "100M"))
    https_untrusted: bool = key(False, kinds.FLAG)
    dkim_domain: str = key("", or_empty(kinds.DOMAIN))
    dkim_selector: str = key("", or_empty(kinds.SELECTOR))
    dkim_key: str = key("", or_empty(kinds.PATH))
    suppress: tuple[Suppress, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreSection:
    """`[store]`."""

    url: Store = key("sqlite:////var/lib/mtastsd/mtastsd.db", STORE, restart=True)


@dataclass(frozen=True, slots=True)
class LogSection:
    """`[log]`."""

    level: Level = key("info", choice(LEVEL))
    format: Format = key("auto", choice(FORMAT), restart=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. Spans are seconds, sizes octets.

    `origins` says where each value came from, by `section.key`; what is not in it is a default.
    """

    listen: Listen = Listen()
    dns: Dns = Dns()
    fetch: Fetch = Fetch()
    cache: Cache = Cache()
    policy: PolicySection = PolicySection()
    override: tuple[Override, ...] = ()
    collect: Collect = Collect()
    report: Report = Report()
    store: StoreSection = StoreSection()
    log: LogSection = LogSection()
    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), compare=False, repr=False
    )

    def rules(self) -> Rules:
        """What `verdict.decide` takes."""
        return Rules(self.policy.dane, self.policy.testing, self.policy.minimum)

    def timing(self) -> Timing:
        """What `sts.flow` takes."""
        return Timing(self.cache.recheck, self.cache.refresh)

    def overrides(self) -> dict[Domain, Override]:
        """The overrides by domain, ended ones included: `verdict.decide` knows the time."""
        return {override.domain: override for override in self.override}

    def warnings(self, now: float) -> tuple[str, ...]:
        """What is allowed and yet wants a look; `now` in seconds since 1970."""
        today = datetime.fromtimestamp(now, UTC).date()
        ends = [
            (f"override.{i}", f"[[override]] {o.domain}", o.until)
            for i, o in enumerate(self.override)
        ]
        ends += [
            (f"report.suppress.{i}", f"[[report.suppress]] {s.to}", s.until)
            for i, s in enumerate(self.report.suppress)
        ]
        return tuple(
            f"{self.origins.get(path, path)}: {what}: ended with {until}"
            for path, what, until in ends
            if until is not None and until < today
        )


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {f.name: type(f.default) for f in fields(Settings) if f.name not in {"override", "origins"}}
)
"""The sections that are one table each, in the order of the sample."""


def keys_of(section: str) -> Iterator[Key]:
    """The keys of a section, in order, without its tables."""
    for f in fields(SECTIONS[section]):
        if f.metadata:
            m = f.metadata
            name = m["name"] or f.name
            yield Key(section, name, f.name, m["default"], m["kind"], m["restart"])


def all_keys() -> Iterator[Key]:
    """The keys of all sections."""
    for section in SECTIONS:
        yield from keys_of(section)


def value_of(settings: Settings, of: Key) -> Any:  # noqa: ANN401
    """A key's value."""
    return getattr(getattr(settings, of.section), of.attribute)


OVERRIDE: Mapping[str, Kind[Any]] = MappingProxyType(
    {
        "domain": kinds.DOMAIN,
        "action": choice(ACTION),
        "mx": list_of(kinds.PATTERN, MAX_PATTERNS),
        "until": kinds.DATE,
        "reason": kinds.WORDS,
    }
)
"""The keys of an `[[override]]`; domain and action must be there."""

SUPPRESS: Mapping[str, Kind[Any]] = MappingProxyType({"to": kinds.RECIPIENT, "until": kinds.DATE})
"""The keys of a `[[report.suppress]]`; to must be there."""
