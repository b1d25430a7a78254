"""Where data goes: `store.url` and `report.submit`, as typed values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mtastsd import addresses
from mtastsd.config.values import MAX_DATABASE_URL, PATH, BadValue, Kind, nearest, shown

_SECRET_OPTION = re.compile(r"([?&](?:ssl)?password=)[^&]*")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """A database file at an absolute path."""

    path: str

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """A PostgreSQL database; `url` is libpq's connection URI and may hold a password."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        """The URL with `***` for passwords."""
        rest = self.url.removeprefix("postgresql://")
        # The last @: whoever forgets to encode one in a password shall not see half of it printed.
        user, at, host = rest.partition("?")[0].rpartition("@")
        if at and ":" in user:
            rest = rest.replace(f"{user}@{host}", f"{user.partition(':')[0]}:***@{host}", 1)
        return "postgresql://" + _SECRET_OPTION.sub(r"\1***", rest)


Store = SqliteStore | PostgresStore


def _parse_store(value: object) -> Store:
    # A URL is never repeated in an error: it may hold a password.
    if not isinstance(value, str) or _UNFIT.search(value) or len(value) > MAX_DATABASE_URL:
        raise BadValue('must be a URL such as "sqlite:////var/lib/mtastsd/mtastsd.db"')
    scheme, found, rest = value.partition("://")
    match scheme:
        case "sqlite" if found and rest.startswith("//"):
            return SqliteStore(PATH.parse(rest[1:]))
        case "sqlite":
            raise BadValue('needs an absolute path, so four slashes: "sqlite:////var/lib/..."')
        case "postgresql" if rest and " " not in rest:
            return PostgresStore(value)
        case "postgresql":
            raise BadValue('must be a URI of libpq, "postgresql://user@host/database"')
        case _:
            near = nearest(scheme, ("sqlite", "postgresql"))
            raise BadValue(f'must begin with "sqlite:////" or "postgresql://"{near}')


STORE: Kind[Store] = Kind(_parse_store, str)


@dataclass(frozen=True, slots=True)
class SmtpSubmit:
    """An SMTP server that takes the report mails."""

    server: addresses.InetAddress

    def __str__(self) -> str:
        return f"smtp://{self.server.host_port}"


@dataclass(frozen=True, slots=True)
class SendmailSubmit:
    """A program with sendmail's command line, started without a shell."""

    path: str

    def __str__(self) -> str:
        return f"sendmail:{self.path}"


Submit = SmtpSubmit | SendmailSubmit

SMTP_PORT = 25


def _parse_submit(value: object) -> Submit:
    scheme, _, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    match scheme:
        case "smtp" if rest.startswith("//"):
            text = rest[2:].removesuffix("/")
            server = addresses.parse_host_port(text, default_port=SMTP_PORT)
            if isinstance(server, addresses.NotAnAddress):
                raise BadValue(f"{server.why}: {shown(value)}")
            return SmtpSubmit(server)
        case "sendmail":
            return SendmailSubmit(PATH.parse(rest))
        case "lmtp":
            raise BadValue('must be "smtp://host:port" or "sendmail:/path": LMTP is not supported')
        case _:
            raise BadValue(f'must be "smtp://host:port" or "sendmail:/path", not {shown(value)}')


SUBMIT: Kind[Submit] = Kind(_parse_submit, str)
