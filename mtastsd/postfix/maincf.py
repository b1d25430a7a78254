"""The main.cf settings that make Postfix ask us: from what its postconf(1) says and from our own
configuration, to lines. What a site has set on purpose and does no harm is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mtastsd.addresses import Address, InetAddress, UnixAddress
from mtastsd.verdict import Minimum

ASKED = (
    "mail_version",
    "compatibility_level",
    "queue_directory",
    "relayhost",
    "smtp_dns_support_level",
    "smtp_host_lookup",
    "smtp_tls_CAfile",
    "smtp_tls_CApath",
    "smtp_tls_loglevel",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtp_tlsrpt_enable",
    "smtp_tlsrpt_socket_name",
)
"""The parameters that the lines depend on."""

OLDEST = (3, 4)
"""Older ones don't know `servername=`, and defer the mail for every policy that enforces."""

TLSRPT_SINCE = (3, 10)
"""Older ones don't know the attributes of the map `postfix-tlsrpt`, and defer likewise."""

CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Gentoo, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora and its kin
    "/etc/ssl/ca-bundle.pem",  # SUSE
)
"""Where systems keep the list of all authorities."""

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?![0-9])")
_NUMBER = re.compile(r"[0-9]{1,3}", re.ASCII)
_SOCKETMAP = re.compile(r"(?:proxy:)?socketmap:(.+):[^:]*")
_BLANKS = ", \t\r\n"
_OTHERS = 0o006

_NEED: Mapping[str, Minimum] = {
    "encrypt": "encrypt",
    "dane-only": "secure",
    "fingerprint": "secure",
    "verify": "secure",
    "secure": "secure",
}
"""Levels above `dane`, and the `policy.minimum` under which the map never answers less."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A Postfix: its parameters of `ASKED` that it knows, and smtp(8)'s chroot field in master.cf
    (`y`, `n`, `-`, "" for not known)."""

    values: Mapping[str, str]
    chroot: str = ""

    def value(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def version(self) -> tuple[int, int] | None:
        found = _VERSION.match(self.value("mail_version"))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def chrooted(self) -> bool:
        """Whether smtp(8) sees its queue folder only. What is not known counts as yes: the lines
        for a chroot are right without one too."""
        if self.chroot == "-":  # the default, which compatibility level 1 turned round
            level = _NUMBER.match(self.value("compatibility_level"))
            return level is None or int(level[0]) < 1
        return self.chroot != "n"


@dataclass(frozen=True, slots=True)
class Site:
    """Our side: `listen.socketmap` and its mode, `policy.dane`, `policy.minimum`, and the system's
    list of authorities ("" where there is none).

    Where reports are on, `reporter` is `report.from`, and `tlsrpt` the datagram socket ("" for
    off); `reads_log` says that the mail log is read.
    """

    listeners: Sequence[Address]
    mode: int = 0o666
    dane: bool = True
    minimum: Minimum = ""
    ca_file: str = CA_FILES[0]
    reporter: str = ""
    tlsrpt: str = ""
    reads_log: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings in order, by name, and what a person should know about them."""

    settings: Mapping[str, str]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """As they stand in main.cf and as `postconf -e` takes them."""
        return [f"{name} = {value}" for name, value in self.settings.items()]


def recipe(postfix: Installed, site: Site) -> Recipe:
    """What this Postfix's main.cf should have."""
    where, trouble = _where(postfix, site)
    level = _level(postfix, site)
    settings = {
        "smtp_tls_policy_maps": _maps(postfix, site, f"socketmap:{where}:{map_name(postfix)}"),
        "smtp_tls_security_level": level,
    }
    if site.dane:
        settings["smtp_dns_support_level"] = "dnssec"
    if ca_file := _ca_file(postfix, site):
        settings["smtp_tls_CAfile"] = ca_file
    settings["smtp_tls_loglevel"] = _loglevel(postfix)
    settings |= _tlsrpt(postfix, site)
    warnings = (*trouble, *_warnings(postfix, site, level), *_report_warnings(postfix, site))
    return Recipe(settings, warnings)


def map_name(postfix: Installed) -> str:
    """The map that a Postfix may be given; what is not known gets the one that all understand."""
    version = postfix.version
    return "postfix-tlsrpt" if version is not None and version >= TLSRPT_SINCE else "postfix"


def _where(postfix: Installed, site: Site) -> tuple[str, tuple[str, ...]]:
    """The address for `socketmap:`, and what is wrong with it."""
    inets = [a for a in site.listeners if isinstance(a, InetAddress)]
    units = [a for a in site.listeners if isinstance(a, UnixAddress)]
    inside = [p for a in units if (p := _inside(postfix, a)) is not None]
    tcp = (
        str(InetAddress(_LOOPBACK.get(inets[0].host, inets[0].host), inets[0].port))
        if inets
        else ""
    )
    open_to_all = site.mode & _OTHERS == _OTHERS
    if not postfix.chrooted and units and (open_to_all or not inets):
        trouble = () if open_to_all else ("listen.socketmap_mode lets only some users connect, and"
                                          " the user postfix must be one of them",)  # fmt: skip
        return str(units[0]), trouble
    if tcp:
        return tcp, ()
    if inside:
        return f"unix:{inside[0]}", ()
    if units:
        return str(units[0]), (
            'smtp(8) is chrooted and can\'t see this socket; add "inet:127.0.0.1:8461" to'
            " listen.socketmap",
        )
    return "inet:127.0.0.1:8461", ("listen.socketmap is empty: nothing answers look-ups",)


def _inside(postfix: Installed, address: UnixAddress) -> str | None:
    """A socket's path below the queue folder, which Postfix takes with and without a chroot."""
    queue = postfix.value("queue_directory").rstrip("/")
    if not queue or not address.path.startswith(f"{queue}/"):
        return None
    return address.path.removeprefix(f"{queue}/")


# ---- smtp_tls_policy_maps


def _maps(postfix: Installed, site: Site, ours: str) -> str:
    """The tables there are, in their order, ours in its place or last: a site's own rules come
    first."""
    found: list[str] = []
    for table in tables(postfix.value("smtp_tls_policy_maps")):
        table = ours if _is_ours(postfix, site, table) else table
        if table not in found:
            found.append(table)
    return ", ".join(found if ours in found else [*found, ours])


def tables(text: str) -> list[str]:
    """A list of Postfix's tables, which blanks and commas part outside of braces; with braces that
    don't close it is parted everywhere."""
    found, depth, word = [], 0, ""
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth <= 0 and character in _BLANKS:
            found.append(word)
            word = ""
        else:
            word += character
    found = [*found, word] if depth <= 0 else re.split(f"[{_BLANKS}]", text)
    return [word for word in found if word]


def _is_ours(postfix: Installed, site: Site, table: str) -> bool:
    match = _SOCKETMAP.fullmatch(table)
    if match is None:
        return False
    known = {str(a) for a in site.listeners}
    known |= {f"unix:{p}" for a in site.listeners if isinstance(a, UnixAddress)
              and (p := _inside(postfix, a)) is not None}  # fmt: skip
    known |= {str(InetAddress(_LOOPBACK.get(a.host, a.host), a.port)) for a in site.listeners
              if isinstance(a, InetAddress)}  # fmt: skip
    return match[1].replace("inet:localhost:", "inet:127.0.0.1:") in known


# ---- the other settings


def _level(postfix: Installed, site: Site) -> str:
    level = postfix.value("smtp_tls_security_level")
    if level in ("", "none", "may") or (site.dane and level == "dane"):
        return "dane" if site.dane else "may"
    return level


def _ca_file(postfix: Installed, site: Site) -> str:
    """Whom to trust: kept where set; "" where a folder of authorities is."""
    told = postfix.value("smtp_tls_CAfile")
    return told or ("" if postfix.value("smtp_tls_CApath") else site.ca_file)


def _loglevel(postfix: Installed) -> str:
    told = postfix.value("smtp_tls_loglevel")
    return told if _NUMBER.fullmatch(told) and int(told) > 0 else "1"


def _warnings(postfix: Installed, site: Site, level: str) -> Iterator[str]:
    version = postfix.version
    if version is not None and version < OLDEST:
        yield (
            f"Postfix {version[0]}.{version[1]} does not know servername= and defers the mail for"
            " every policy that enforces: 3.4 or later is needed"
        )
    for table in tables(postfix.value("smtp_tls_policy_maps")):
        if _SOCKETMAP.fullmatch(table) and not _is_ours(postfix, site, table):
            yield f"{table} answers before mtastsd does; take it out when mtastsd is to decide"
    need = _NEED.get(level)
    if need is not None and not _covered(site.minimum, need):
        yield (
            f"smtp_tls_security_level = {level} is above dane and stays, but an answer of the map"
            f' goes before it; to never get less, set minimum = "{need}" in [policy] of'
            " mtastsd.toml"
        )
    if site.dane:
        yield from _dane_warnings(postfix)
    if not _ca_file(postfix, site):
        if not postfix.value("smtp_tls_CApath"):
            yield (
                "no list of authorities was found on this machine, and without one no policy can"
                " be met: set smtp_tls_CAfile"
            )
        elif postfix.chrooted:
            yield "smtp_tls_CApath is read inside the chroot: smtp_tls_CAfile is not"
    if relayhost := postfix.value("relayhost"):
        yield (
            f"relayhost = {relayhost} is a policy domain too: `mtastsd check` shows whether its"
            " policy lets mail through"
        )


def _covered(minimum: Minimum, need: Minimum) -> bool:
    return minimum in ("secure", need)


def _dane_warnings(postfix: Installed) -> Iterator[str]:
    lookup = postfix.value("smtp_host_lookup")
    if lookup and "dns" not in tables(lookup):
        yield f"smtp_host_lookup = {lookup} has no dns in it: DANE defers all its mail"


# ---- reports


def _tells(postfix: Installed) -> bool:
    """Whether this Postfix can send datagrams at all."""
    version = postfix.version
    return version is not None and version >= TLSRPT_SINCE


def _tlsrpt(postfix: Installed, site: Site) -> dict[str, str]:
    """That Postfix tells of each TLS session, where reports are on and it can."""
    if not (site.reporter and site.tlsrpt and _tells(postfix)):
        return {}
    inside = _inside(postfix, UnixAddress(site.tlsrpt))
    return {"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": inside or site.tlsrpt}


def _report_warnings(postfix: Installed, site: Site) -> Iterator[str]:
    if not site.reporter:
        return
    if _tells(postfix):
        if site.tlsrpt and postfix.chrooted and not _inside(postfix, UnixAddress(site.tlsrpt)):
            queue = postfix.value("queue_directory") or "/var/spool/postfix"
            yield (
                f"smtp(8) is chrooted and can't see {site.tlsrpt}: put listen.tlsrpt below"
                f" {queue}/, in a folder that mtastsd may write to"
            )
        return
    if not site.reads_log:
        yield (
            "this Postfix sends no datagrams: reports need its log, so set journal = true or"
            " logfile in [collect] of mtastsd.toml"
        )
    # RFC 8460 §3: a report must arrive although the receiver's TLS is what it complains of.
    # Postfix 3.10 and later obey `TLS-Required: No` in it.
    yield (
        "report mail must not be held up by the policy that it reports on: add a transport with"
        " postconf -M 'tlsreports/unix=tlsreports unix - - y - - smtp"
        " -o smtp_tls_security_level=may -o smtp_tls_policy_maps=' and set"
        f" sender_dependent_default_transport_maps = inline:{{{site.reporter}=tlsreports:}}"
    )
