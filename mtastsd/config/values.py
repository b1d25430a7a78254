"""What the value of a key may be: a `Kind` reads it, shows it again and tells its limits.

`Kind.parse` takes the value as TOML gives it and raises `BadValue`, whose text follows `key: ` in
the error that the administrator reads.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from mtastsd import addresses, names, units

T = TypeVar("T")

MAX_SHOWN = 60
"""Characters of a refused value that its error repeats."""

MAX_TEXT = 200
"""Characters of a text that ends up in a log line or in a report."""

MAX_PATH = 4095
"""Octets of a path: PATH_MAX of Linux without the final NUL."""

MAX_LOCAL_PART = 64
"""Octets of a mailbox's local part, RFC 5321 §4.5.3.1.1."""

MAX_DATABASE_URL = 2000
"""Characters of a database URL: host list, options and password, with room to spare."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DIGITS = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", re.ASCII)
_SELECTOR = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
# RFC 5321 §4.1.2 Dot-string; a quoted local part is no address that anybody puts into a report.
_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)

_FLAGS = {"true": True, "yes": True, "on": True, "1": True}
_FLAGS |= {"false": False, "no": False, "off": False, "0": False}


class BadValue(Exception):
    """Why a value is refused."""


def _itself(value: Any) -> Any:  # noqa: ANN401
    return value


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of value.

    `show` gives a TOML value that `parse` reads back, without secrets. `from_text` turns the text
    of an environment variable into what the file would hold; None where there is no twin.
    `limits`: the range as the manual writes it.
    """

    parse: Callable[[object], T]
    show: Callable[[T], object] = _itself
    from_text: Callable[[str], object] | None = _itself
    limits: str = ""


def printable(text: str) -> str:
    """A text without control characters."""
    return _CONTROL.sub("?", text)


def shown(value: object) -> str:
    """A refused value, cut and without control characters."""
    if isinstance(value, str):
        text = json.dumps(printable(value), ensure_ascii=False)
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a table"
    else:
        text = printable(str(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing where no known word is near."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _text(value: object, wants: str) -> str:
    if not isinstance(value, str):
        raise BadValue(f"must be {wants}, not {shown(value)}")
    if _CONTROL.search(value):
        raise BadValue("has a control character or is not UTF-8")
    return value


def _flag_from_text(text: str) -> object:
    return _FLAGS.get(text, text)


def _parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValue(f"must be true or false, not {shown(value)}")
    return value


FLAG: Kind[bool] = Kind(_parse_flag, from_text=_flag_from_text)


def choice(allowed: Sequence[T]) -> Kind[T]:
    """One of some words."""
    words = [json.dumps(word) for word in allowed]
    wants = f"{', '.join(words[:-1])} or {words[-1]}"

    def parse(value: object) -> T:
        for word in allowed:
            if value == word:
                return word
        near = nearest(value, [str(word) for word in allowed]) if isinstance(value, str) else ""
        raise BadValue(f"must be {wants}, not {shown(value)}{near}")

    return Kind(parse)


def _number_from_text(text: str) -> object:
    return int(text) if _DIGITS.fullmatch(text) else text


def count(low: int, high: int) -> Kind[int]:
    """A whole number within bounds."""
    limits = f"{low} to {high}"

    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadValue(f"must be a whole number from {limits}, not {shown(value)}")
        return value

    return Kind(parse, from_text=_number_from_text, limits=limits)


def span(low: str, high: str) -> Kind[float]:
    """A span of time within bounds, in seconds."""
    least, most = units.parse_span(low), units.parse_span(high)
    assert least is not None
    assert most is not None
    limits = f"{low} to {high}"

    def parse(value: object) -> float:
        seconds = units.parse_span(value) if isinstance(value, str) else None
        if seconds is None:
            raise BadValue(f'must be a time with a unit ("2s", "1h", "30d"), not {shown(value)}')
        if not least <= seconds <= most:
            raise BadValue(f"must be from {limits}, not {shown(value)}")
        return seconds

    return Kind(parse, units.render_span, limits=limits)


def size(low: str, high: str) -> Kind[int]:
    """A size within bounds, in octets; the file may give a bare number too."""
    least, most = units.parse_size(low), units.parse_size(high)
    assert least is not None
    assert most is not None
    limits = f"{low} to {high}"

    def parse(value: object) -> int:
        octets = units.parse_size(value) if isinstance(value, str) else value
        if not isinstance(octets, int) or isinstance(octets, bool):
            raise BadValue(f'must be a size in octets (65536, "64K", "10M"), not {shown(value)}')
        if not least <= octets <= most:
            raise BadValue(f"must be from {limits}, not {shown(value)}")
        return octets

    return Kind(parse, units.render_size, limits=limits)


def _parse_words(value: object) -> str:
    text = _text(value, "a text")
    if len(text) > MAX_TEXT:
        raise BadValue(f"must have at most {MAX_TEXT} characters")
    return text


WORDS: Kind[str] = Kind(_parse_words)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """What `kind` takes, or "" for None."""

    def parse(value: object) -> T | None:
        return None if value == "" else kind.parse(value)

    def show(value: T | None) -> object:
        return "" if value is None else kind.show(value)

    return Kind(parse, show, kind.from_text, kind.limits)


def or_empty(kind: Kind[str]) -> Kind[str]:
    """What `kind` takes, or "" for itself."""

    def parse(value: object) -> str:
        return "" if value == "" else kind.parse(value)

    return Kind(parse, kind.show, kind.from_text)


def list_of(kind: Kind[T], at_most: int) -> Kind[tuple[T, ...]]:
    """A list without repetitions. It has no environment twin."""

    def parse(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BadValue(f"must be a list, not {shown(value)}")
        if len(value) > at_most:
            raise BadValue(f"must have at most {at_most} items, not {len(value)}")
        items: list[T] = []
        for number, raw in enumerate(value, 1):
            try:
                item = kind.parse(raw)
            except BadValue as bad:
                raise BadValue(f"item {number}: {bad}") from None
            if item in items:
                raise BadValue(f"item {number}: is there twice: {shown(raw)}")
            items.append(item)
        return tuple(items)

    return Kind(parse, lambda items: [kind.show(item) for item in items], None)


def _parse_path(value: object) -> str:
    text = _text(value, "the absolute path of a file")
    if not text.startswith("/") or len(text.encode()) > MAX_PATH:
        raise BadValue(f"must be the absolute path of a file, not {shown(value)}")
    return text


PATH: Kind[str] = Kind(_parse_path)


def _parse_ca_file(value: object) -> str:
    path = _parse_path(value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise BadValue(f"has no certificates in PEM form: {shown(path)}") from None
    except OSError as error:
        raise BadValue(f"can't be read ({error.strerror}): {shown(path)}") from None
    return path


CA_FILE: Kind[str] = Kind(_parse_ca_file)
"""Certificates that can be read now: a fetcher would find out too late that they can't."""


def _parse_mode(value: object) -> int:
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise BadValue(f'must be an octal mode in quotes such as "0660", not {shown(value)}')
    return int(value, 8)


MODE: Kind[int] = Kind(_parse_mode, lambda mode: f"{mode:04o}")


def _parse_group(value: object) -> str:
    text = _text(value, "the name of a group")
    if not _GROUP.fullmatch(text):
        raise BadValue(f"must be the name of a group, not {shown(value)}")
    return text


GROUP: Kind[str] = Kind(_parse_group)


def _parse_address(value: object) -> addresses.Address:
    text = _text(value, 'an address such as "unix:/path" or "inet:127.0.0.1:8461"')
    address = addresses.parse(text)
    if isinstance(address, addresses.NotAnAddress):
        raise BadValue(f"{address.why}: {shown(text)}")
    return address


ADDRESS: Kind[addresses.Address] = Kind(_parse_address, str)


def _parse_unix_address(value: object) -> addresses.UnixAddress:
    address = _parse_address(value)
    if not isinstance(address, addresses.UnixAddress):
        raise BadValue(f'must be a unix socket ("unix:/path"), not {shown(value)}')
    return address


UNIX_ADDRESS: Kind[addresses.UnixAddress] = Kind(_parse_unix_address, str)


def _parse_nameserver(value: object) -> addresses.InetAddress:
    text = _text(value, 'an address such as "127.0.0.1:53"')
    address = addresses.parse_host_port(text, default_port=53, names_allowed=False)
    if isinstance(address, addresses.NotAnAddress):
        raise BadValue(f"{address.why}: {shown(text)}")
    return address


NAMESERVER: Kind[addresses.InetAddress] = Kind(_parse_nameserver, lambda a: a.host_port)


def _parse_ip(value: object) -> str:
    text = _text(value, "an IP address")
    host = addresses.parse_host(f"[{text}]" if ":" in text else text, names_allowed=False)
    if host is None:
        raise BadValue(f"must be an IP address, not {shown(value)}")
    return host


IP: Kind[str] = Kind(_parse_ip)


_NOT_A_DOMAIN: dict[names.Why, str] = {
    "parent": "a leading dot means all below a domain, and only an exact domain is taken here",
    "address": "an IP address is no domain",
    "single-label": "a domain has at least two labels",
    "overlong": "a domain has at most 253 octets",
}


def _domain(text: str, within: str = "") -> names.Domain:
    """The domain; `within` is the whole value for the error, where the domain is not all of it."""
    name = names.parse(text)
    if isinstance(name, names.NotADomain):
        why = _NOT_A_DOMAIN.get(name.why, "not a domain name")
        raise BadValue(f"{why}: {shown(within or text)}")
    return name


DOMAIN: Kind[str] = Kind(lambda value: _domain(_text(value, "a domain")))


def _parse_pattern(value: object) -> str:
    """RFC 8461 §4.1: a host, or `*.` and the domain that one label may stand before."""
    text = _text(value, "a host name or a pattern")
    if text.startswith("."):
        raise BadValue(f"must begin with *. where it stands for any host: {shown(text)}")
    wildcard = "*." if text.startswith("*.") else ""
    return wildcard + _domain(text.removeprefix("*."), text)


PATTERN: Kind[str] = Kind(_parse_pattern)


def _parse_mailbox(value: object) -> str:
    text = _text(value, "a mail address")
    local, at, domain = text.rpartition("@")
    if not at or len(local) > MAX_LOCAL_PART or not _LOCAL_PART.fullmatch(local):
        # RFC 8460 §4.4: an addr-spec, without a display name.
        raise BadValue(f'must be a bare mail address ("tlsrpt@example.com"), not {shown(text)}')
    return f"{local}@{_domain(domain, text)}"


MAILBOX: Kind[str] = Kind(_parse_mailbox)


def _parse_selector(value: object) -> str:
    text = _text(value, "a DKIM selector").lower()
    if not _SELECTOR.fullmatch(text):
        raise BadValue(f"must be a DKIM selector, not {shown(value)}")
    return text


SELECTOR: Kind[str] = Kind(_parse_selector)


def _parse_recipient(value: object) -> str:
    """A policy domain, or a rua as a TLS-RPT record writes it (RFC 8460 §3)."""
    text = _text(value, "a domain or a rua")
    scheme, colon, rest = text.partition(":")
    match scheme.lower() if colon else "":
        case "mailto":
            return f"mailto:{_parse_mailbox(rest)}"
        case "https" if rest.startswith("//") and rest.isascii() and " " not in rest:
            host, slash, path = rest[2:].partition("/")
            return f"https://{host.lower()}{slash}{path}"
        case "" if "@" in text:
            raise BadValue(f'must begin with "mailto:" where it is an address: {shown(text)}')
        case "":
            return _domain(text)
        case _:
            raise BadValue(f'must be a domain, "mailto:..." or "https://...", not {shown(text)}')


RECIPIENT: Kind[str] = Kind(_parse_recipient)


def _parse_date(value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise BadValue(f"must be a date without quotes such as 2026-12-31, not {shown(value)}")
    return value


DATE: Kind[date] = Kind(_parse_date)
