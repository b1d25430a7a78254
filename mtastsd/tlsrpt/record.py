"""RFC 8460 §3: the `_smtp._tls` TXT record, and where its reports go.

Where the text is open, this reading is taken:

- One record exactly; with several, or a broken one, the domain asks for no reports.
- Of a record each usable URI is used; an unusable one is kept with the reason and hurts no other.
- `rua` may stand more than once ("more than one rua"): all URIs count, in order, each once.
- `,` `!` `;` in a URI must be percent-encoded: a bare `!` spoils it (in DMARC a size followed, so
  `mailto:a@example.com!10m` is not known to mean the address before it).
- `mailto` names one address (RFC 6068 §2), percent-decoded, a dot-atom and a domain name. Header
  fields (`?subject=`) are ignored: they would be a stranger's text in our mail. Quoted local parts
  are refused, and with them an encoded comma, which might as well separate two addresses.
- `https` names a host by name: no user, no address literal. The fragment is dropped, the rest of
  the URL goes out as it came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from mtastsd import abnf, names
from mtastsd.names import Domain, NotADomain
from mtastsd.sts.failure import printable

VERSION = "v=TLSRPTv1"
"""tlsrpt-version = %s"v=TLSRPTv1": case counts."""

MAX_URIS = 16
"""URIs of a record that are looked at: each may become a report a day (RFC 8460 §7)."""

MAX_URI = 1024
"""Characters of a URI, as it came and in its canonical form."""

MAX_LOCAL = 64
"""Octets of a local part, RFC 5321 §4.5.3.1.1."""

MAX_TEXT = 512
"""Characters of a record that are kept to show it to people."""

HTTPS_PORT = 443

Why = Literal[
    "several",  # more than one record begins as a TLS-RPT record does
    "overlong",  # our own limit, `abnf.MAX_RECORD`
    "syntax",  # not fields between semicolons, or an extension that is none
    "no-rua",
]

UriWhy = Literal[
    "empty",
    "overlong",
    "unencoded",  # `!` or `;` or `,` that is not percent-encoded
    "syntax",  # no URI: not ASCII, a blank, a bad percent-encoding
    "scheme",  # none, or neither mailto nor https
    "address",  # mailto: not one plain address
    "userinfo",
    "host",
    "port",
    "too-many",  # stands for all URIs after `MAX_URIS`
]

# URI = scheme ":" hier-part [ "?" query ] [ "#" fragment ], RFC 3986 §A: its characters,
# less the three that RFC 8460 §3 wants encoded
_URI = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_UNENCODED = re.compile(r"[!,;]", re.ASCII)

# Dot-string = Atom *("." Atom), RFC 5321 §4.1.2
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*", re.ASCII)

# hier-part = "//" host [ ":" port ] path-abempty, then [ "?" query ]; brackets are for address
# literals only
_AUTHORITY = re.compile(r"//([^/?]*)(.*)", re.ASCII)
_HOST_PORT = re.compile(r"([^:\[\]]*)(?::([^:\[\]]*))?", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_BRACKET = re.compile(r"[\[\]]", re.ASCII)

# RFC 3986 §7.4: inet_aton takes `1.0x7f` for an address. (All-numeric labels `names` refuses.)
_NUMBER = re.compile(r"0x[0-9a-f]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mailto:
    """Reports go to `address`: a dot-atom, `@`, an A-label domain. Safe in a header or envelope."""

    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]

    @property
    def uri(self) -> str:
        """The URI in its canonical form; `destination` makes this value of it again."""
        local, _, domain = self.address.rpartition("@")
        return f"mailto:{quote(local, safe='')}@{domain}"


@dataclass(frozen=True, slots=True)
class Https:
    """Reports are posted to `url`, which names `host` and `port`; ASCII without blanks."""

    url: str
    host: Domain
    port: int = HTTPS_PORT

    @property
    def uri(self) -> str:
        """The URL, under the name that `Mailto` has for it."""
        return self.url


@dataclass(frozen=True, slots=True)
class Rejected:
    """A URI that is not used, and why. `uri` is for people: printable ASCII, cut off."""

    uri: str
    why: UriWhy


@dataclass(frozen=True, slots=True)
class Record:
    """A valid record. `destinations` in the record's order; empty where every URI was rejected.

    `text` is the whole of it for people: printable ASCII, cut to `MAX_TEXT`.
    """

    destinations: tuple[Mailto | Https, ...]
    rejected: tuple[Rejected, ...] = ()
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoRecord:
    """No record among them is a TLS-RPT record."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """There is more than one, or the only one is invalid: no reports are wanted.

    `text` is what was found, for people: printable ASCII, cut to `MAX_TEXT`.
    """

    why: Why
    text: str = field(default="", compare=False)


def section(why: str) -> str:
    """Where the rule stands that a `BadRecord.why` or `Rejected.why` names."""
    match why:
        case "address":
            return "RFC 6068 §2"
        case "userinfo" | "host" | "port":
            return "RFC 3986 §3.2"
        case "too-many":
            return "RFC 8460 §7"  # asks for limits
        case _:
            return "RFC 8460 §3"


def select(found: Sequence[bytes]) -> Record | NoRecord | BadRecord:
    """Pick the one record out of a TXT RRset; its strings are joined before."""
    ours = abnf.candidates(found, VERSION)
    if not ours:
        return NoRecord()
    text = printable(b" | ".join(ours).decode("latin-1"), MAX_TEXT)
    if len(ours) > 1:
        return BadRecord("several", text)
    if len(ours[0]) > abnf.MAX_RECORD:
        return BadRecord("overlong", text)
    fields = abnf.fields(ours[0])
    if fields is None or not all(f.name == "rua" or f.is_extension() for f in fields):
        return BadRecord("syntax", text)
    lists = [f.value for f in fields if f.name == "rua"]
    if not lists:
        return BadRecord("no-rua", text)
    # tlsrpt-rua = %s"rua=" tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri)
    uris = [uri.strip(abnf.WSP) for uris in lists for uri in uris.split(",")]
    destinations, rejected = _sort(uris)
    return Record(destinations, rejected, text)


def _sort(uris: Sequence[str]) -> tuple[tuple[Mailto | Https, ...], tuple[Rejected, ...]]:
    read = [destination(uri) for uri in uris[:MAX_URIS]]
    rejected = [item for item in read if isinstance(item, Rejected)]
    if len(uris) > MAX_URIS:
        rejected.append(Rejected(printable(uris[MAX_URIS]), "too-many"))
    once = dict.fromkeys(item for item in read if not isinstance(item, Rejected))
    return tuple(once), tuple(rejected)


def destination(uri: str) -> Mailto | Https | Rejected:
    """The destination that a URI names, or why it is none."""
    found = _destination(uri)
    return Rejected(printable(uri), found) if isinstance(found, str) else found


def _destination(uri: str) -> Mailto | Https | UriWhy:
    if not uri:
        return "empty"
    if len(uri) > MAX_URI:
        return "overlong"
    if _UNENCODED.search(uri):
        return "unencoded"
    if not _URI.fullmatch(uri):
        return "syntax"
    scheme, colon, rest = uri.partition("#")[0].partition(":")
    match scheme.lower() if colon else "":
        case "mailto":
            return _mailto(rest.partition("?")[0])
        case "https":
            return _https(rest)
        case _:
            return "scheme"


def _mailto(to: str) -> Mailto | UriWhy:
    # RFC 6068 §2: the octets that percent-encoding stands for are UTF-8.
    try:
        text = unquote_to_bytes(to).decode("utf-8")
    except UnicodeDecodeError:
        return "address"
    local, _, host = text.rpartition("@")
    domain = names.parse(host)
    if isinstance(domain, NotADomain) or len(local) > MAX_LOCAL:
        return "address"
    # Postfix refuses a recipient that begins with "-" (allow_min_user): it might be an option.
    if not _DOT_STRING.fullmatch(local) or local.startswith("-"):
        return "address"
    return Mailto(f"{local}@{domain}")


def _https(rest: str) -> Https | UriWhy:
    split = _AUTHORITY.fullmatch(rest)
    if split is None:
        return "host"
    authority, target = split.groups()
    if "@" in authority:
        return "userinfo"
    at = _HOST_PORT.fullmatch(authority)
    if at is None:
        return "host"
    host = names.parse(at[1])
    if isinstance(host, NotADomain) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        return "host"
    port = _port(at[2])
    if port is None:
        return "port"
    if _BRACKET.search(target):
        return "syntax"
    path = target if target.startswith("/") else f"/{target}"
    shown = "" if port == HTTPS_PORT else f":{port}"
    url = f"https://{host}{shown}{path}"
    return Https(url, host, port) if len(url) <= MAX_URI else "overlong"


def _port(text: str | None) -> int | None:
    """port = *DIGIT, RFC 3986 §3.2.3: without digits it is the scheme's own."""
    if not text:
        return HTTPS_PORT
    port = int(text) if _PORT.fullmatch(text) else 0
    return port if 0 < port < 65536 else None
