"""The configuration: files and environments, good and bad, with the exact words."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from mtastsd.addresses import InetAddress, UnixAddress
from mtastsd.config import (
    Changes,
    PostgresStore,
    SendmailSubmit,
    Settings,
    SmtpSubmit,
    SqliteStore,
    Suppress,
    changed,
    load,
)
from mtastsd.config.clashes import find
from mtastsd.config.reader import _Document, _Reader
from mtastsd.config.settings import (
    OVERRIDE,
    SUPPRESS,
    Key,
    all_keys,
    value_of,
)
from mtastsd.config.values import BadValue
from mtastsd.names import Domain
from mtastsd.sts.flow import Timing
from mtastsd.verdict import Override, Rules

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
KEYS = {key.path: key for key in all_keys()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mtastsd.toml"


def good(file: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    file.write_text(text, encoding="utf-8")
    loaded = load(file, environ or {})
    assert isinstance(loaded, Settings), [str(error) for error in loaded]
    return loaded


def errors(file: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The errors without the file's name; of the environment as they are."""
    file.write_text(text, encoding="utf-8")
    loaded = load(file, environ or {})
    assert isinstance(loaded, tuple)
    return [str(error).removeprefix(f"{file}:").strip() for error in loaded]


# ---- defaults


def test_without_file_and_environment_all_is_default() -> None:
    loaded = load(None, {})
    assert loaded == Settings()
    assert isinstance(loaded, Settings)
    assert not loaded.origins


def test_an_empty_file_is_all_default(file: Path) -> None:
    assert good(file, "") == Settings()


def test_defaults_do_not_clash() -> None:
    assert not list(find(Settings()))


def test_what_the_rules_take() -> None:
    override = Override(Domain("example.com"), "off")
    settings = replace(Settings(), override=(override,))
    assert settings.rules() == Rules(dane=True, testing="report", minimum="")
    assert settings.timing() == Timing(recheck=3600.0, refresh=86400.0)
    assert settings.overrides() == {"example.com": override}


# ---- values


@pytest.mark.parametrize(
    ("section", "line", "value"),
    [
        ("listen", "socketmap = []", ()),
        ("listen", 'socketmap = ["unix:/x"]', (UnixAddress("/x"),)),
        ("listen", 'socketmap_mode = "600"', 0o600),
        ("listen", 'tlsrpt = ""', None),
        ("listen", 'tlsrpt_mode = "0620"', 0o620),
        ("listen", 'tlsrpt_group = ""', ""),
        ("listen", 'tlsrpt_group = "1001"', "1001"),
        ("listen", 'http = ""', None),
        ("listen", 'http = "unix:/run/http.sock"', UnixAddress("/run/http.sock")),
        ("listen", 'http = "inet:[::]:80"', InetAddress("::", 80)),
        ("listen", 'admin = "unix:/a"', UnixAddress("/a")),
        (
            "dns",
            'nameservers = ["127.0.0.1", "::1", "[::1]:5353"]',
            (InetAddress("127.0.0.1", 53), InetAddress("::1", 53), InetAddress("::1", 5353)),
        ),
        ("dns", 'timeout = "100ms"', 0.1),
        ("dns", 'timeout = "30s"', 30.0),
        ("dns", 'dnssec = "off"', "off"),
        ("fetch", 'timeout = "5m"', 300.0),
        ("fetch", 'deadline = "59s"', 59.0),
        ("fetch", "max_bytes = 1024", 1024),
        ("fetch", 'max_bytes = "1M"', 1048576),
        ("fetch", "allow_private_addresses = true", True),
        ("cache", "memory = 100", 100),
        ("cache", "memory = 10_000_000", 10_000_000),
        ("cache", 'recheck = "1s"', 1.0),
        ("cache", 'forget_unused = "3650d"', 3650 * 86400.0),
        ("policy", "dane = false", False),
        ("policy", 'testing = "enforce"', "enforce"),
        ("policy", 'minimum = "secure"', "secure"),
        ("collect", 'logfile = "/var/log/mail.log"', "/var/log/mail.log"),
        ("collect", 'sending_ip = "2001:DB8:0::1"', "2001:db8::1"),
        ("collect", 'sending_ip = "192.0.2.1"', "192.0.2.1"),
        (
            "collect",
            'probe_exempt = ["MX.example.com.", "*.example.net", "*.b\u00fccher.example"]',
            ("mx.example.com", "*.example.net", "*.xn--bcher-kva.example"),
        ),
        ("report", 'organization = "B\u00fccher & S\u00f6hne"', "B\u00fccher & S\u00f6hne"),
        ("report", 'contact = "Tls.Rpt+x@Example.COM"', "Tls.Rpt+x@example.com"),
        ("report", 'from = "a@b\u00fccher.example"', "a@xn--bcher-kva.example"),
        ("report", 'submit = "smtp://mail"', SmtpSubmit(InetAddress("mail", 25))),
        ("report", 'submit = "smtp://[::1]:587/"', SmtpSubmit(InetAddress("::1", 587))),
        (
            "report",
            'submit = "sendmail:/usr/sbin/sendmail"',
            SendmailSubmit("/usr/sbin/sendmail"),
        ),
        ("report", 'delay = "0s"', 0.0),
        ("report", 'retry = "0s"', 0.0),
        ("report", "max_bytes = 10485760", 10485760),
        ("store", 'url = "sqlite:////a b.db"', SqliteStore("/a b.db")),
        ("store", 'url = "postgresql://u@h/d"', PostgresStore("postgresql://u@h/d")),
        ("log", 'level = "debug"', "debug"),
        ("log", 'format = "journal"', "journal"),
    ],
)
def test_good_value(file: Path, section: str, line: str, value: object) -> None:
    settings = good(file, f"[{section}]\n{line}\n")
    key = KEYS[f"{section}.{line.split()[0]}"]
    assert value_of(settings, key) == value
    assert key.kind.parse(key.kind.show(value)) == value
    assert settings.origins == {key.path: f"{file}:2"}


NO_MODE = 'must be an octal mode in quotes such as "0660", not'
NO_LEVEL = 'must be "debug", "info", "warning" or "error", not'
NO_TIME = 'must be a time with a unit ("2s", "1h", "30d"), not'
NO_SIZE = 'must be a size in octets (65536, "64K", "10M"), not'
NO_BOX = 'must be a bare mail address ("tlsrpt@example.com"), not'
NO_SUBMIT = 'must be "smtp://host:port" or "sendmail:/path"'
NO_STORE = 'must be a URL such as "sqlite:////var/lib/mtastsd/mtastsd.db"'
NO_SCHEME = 'must begin with "sqlite:////" or "postgresql://"'
NO_URI = 'must be a URI of libpq, "postgresql://user@host/database"'
LONG = "x" * 300


@pytest.mark.parametrize(
    ("section", "line", "what"),
    [
        ("listen", 'socketmap = "unix:/x"', 'must be a list, not "unix:/x"'),
        (
            "listen",
            "socketmap = [1]",
            'item 1: must be an address such as "unix:/path" or "inet:127.0.0.1:8461", not 1',
        ),
        (
            "listen",
            'socketmap = ["unix:/x", "/y"]',
            'item 2: must begin with "unix:" or "inet:": "/y"',
        ),
        ("listen", 'socketmap = ["unix:/x", "unix:/x"]', 'item 2: is there twice: "unix:/x"'),
        (
            "listen",
            f"socketmap = {[f'unix:/{i}' for i in range(17)]}",
            "must have at most 16 items, not 17",
        ),
        ("listen", "socketmap_mode = 0o666", f"{NO_MODE} 438"),
        ("listen", 'socketmap_mode = "0888"', f'{NO_MODE} "0888"'),
        ("listen", 'tlsrpt_mode = "4660"', f'{NO_MODE} "4660"'),
        (
            "listen",
            'tlsrpt = "inet:127.0.0.1:1"',
            'must be a unix socket ("unix:/path"), not "inet:127.0.0.1:1"',
        ),
        ("listen", 'tlsrpt_group = "a b"', 'must be the name of a group, not "a b"'),
        ("listen", "tlsrpt_group = 7", "must be the name of a group, not 7"),
        ("listen", 'http = "inet:127.0.0.1"', 'has no port: "inet:127.0.0.1"'),
        ("listen", 'admin = ""', 'must begin with "unix:" or "inet:": ""'),
        (
            "listen",
            'admin = "inet:127.0.0.1:1"',
            'must be a unix socket ("unix:/path"), not "inet:127.0.0.1:1"',
        ),
        (
            "listen",
            'admin = "unix:/run/mtastsd/policy.sock"',
            '"unix:/run/mtastsd/policy.sock" is taken by socketmap',
        ),
        (
            "listen",
            'http = "unix:/run/mtastsd/tlsrpt.sock"',
            '"unix:/run/mtastsd/tlsrpt.sock" is taken by tlsrpt',
        ),
        ("dns", 'nameservers = ["dns.example"]', 'item 1: has no IP address: "dns.example"'),
        ("dns", "nameservers = [[]]", 'item 1: must be an address such as "127.0.0.1:53", not []'),
        ("dns", "timeout = 2", f"{NO_TIME} 2"),
        ("dns", "timeout = true", f"{NO_TIME} true"),
        ("dns", "timeout = {}", f"{NO_TIME} a table"),
        ("dns", 'timeout = "2"', f'{NO_TIME} "2"'),
        ("dns", 'timeout = ""', f'{NO_TIME} ""'),
        ("dns", 'timeout = "99ms"', 'must be from 100ms to 30s, not "99ms"'),
        ("dns", 'timeout = "31s"', 'must be from 100ms to 30s, not "31s"'),
        ("dns", 'dnssec = "onn"', 'must be "auto", "on" or "off", not "onn" (did you mean "on"?)'),
        ("dns", "dnssec = true", 'must be "auto", "on" or "off", not true'),
        ("fetch", 'timeout = "6m"', 'must be from 1s to 5m, not "6m"'),
        ("fetch", 'deadline = "0s"', 'must be from 100ms to 60s, not "0s"'),
        (
            "fetch",
            'deadline = "60s"',
            "must be shorter than timeout, 1m: a look-up is answered while the fetch goes on",
        ),
        ("fetch", "max_bytes = 1023", "must be from 1K to 1M, not 1023"),
        ("fetch", 'max_bytes = "2M"', 'must be from 1K to 1M, not "2M"'),
        ("fetch", 'max_bytes = "64KB"', f'{NO_SIZE} "64KB"'),
        ("fetch", "max_bytes = 1e4", f"{NO_SIZE} 10000.0"),
        ("fetch", "max_bytes = true", f"{NO_SIZE} true"),
        ("fetch", "allow_private_addresses = 1", "must be true or false, not 1"),
        ("fetch", 'ca_file = "ca.pem"', 'must be the absolute path of a file, not "ca.pem"'),
        (
            "fetch",
            'ca_file = "/no/such/ca.pem"',
            'can\'t be read (No such file or directory): "/no/such/ca.pem"',
        ),
        ("fetch", 'ca_file = "/dev/null"', 'has no certificates in PEM form: "/dev/null"'),
        ("cache", "memory = 99", "must be a whole number from 100 to 10000000, not 99"),
        ("cache", "memory = 1e5", "must be a whole number from 100 to 10000000, not 100000.0"),
        ("cache", "memory = true", "must be a whole number from 100 to 10000000, not true"),
        ("cache", 'refresh = "8d"', 'must be from 1m to 7d, not "8d"'),
        ("cache", 'refresh = "30m"', "must not be shorter than recheck, 1h"),
        ("cache", 'refresh_if_used = "23h"', "must not be shorter than refresh, 1d"),
        ("cache", 'forget_unused = "29d"', "must not be shorter than refresh_if_used, 30d"),
        ("policy", 'dane = "yes"', 'must be true or false, not "yes"'),
        ("policy", 'testing = "none"', 'must be "report" or "enforce", not "none"'),
        ("policy", 'minimum = "dane"', 'must be "", "encrypt" or "secure", not "dane"'),
        ("collect", 'logfile = "mail.log"', 'must be the absolute path of a file, not "mail.log"'),
        (
            "collect",
            "logfile = '/a\\b'\nlogfile2 = 1",
            'unknown key (did you mean "logfile"?)',
        ),
        ("collect", 'logfile = "/a\\nb"', "has a control character or is not UTF-8"),
        ("collect", 'sending_ip = "relay.example"', 'must be an IP address, not "relay.example"'),
        ("collect", 'sending_ip = "[::1]"', 'must be an IP address, not "[::1]"'),
        (
            "collect",
            'probe_exempt = [".example.com"]',
            'item 1: must begin with *. where it stands for any host: ".example.com"',
        ),
        ("collect", 'probe_exempt = ["*.*.com"]', 'item 1: not a domain name: "*.*.com"'),
        (
            "collect",
            'probe_exempt = ["*.com"]',
            'item 1: a domain has at least two labels: "*.com"',
        ),
        ("report", f'organization = "{LONG}"', "must have at most 200 characters"),
        ("report", "organization = 1", "must be a text, not 1"),
        ("report", 'contact = "A <a@example.com>"', f'{NO_BOX} "A <a@example.com>"'),
        ("report", 'contact = "example.com"', f'{NO_BOX} "example.com"'),
        ("report", 'contact = "a..b@example.com"', f'{NO_BOX} "a..b@example.com"'),
        ("report", 'from = "a@localhost"', 'a domain has at least two labels: "a@localhost"'),
        ("report", 'from = "a@[192.0.2.1]"', 'not a domain name: "a@[192.0.2.1]"'),
        ("report", f'from = "{LONG[:65]}@b.example"', f'{NO_BOX} "{LONG[:56]}...'),
        ("report", 'submit = ""', f'{NO_SUBMIT}, not ""'),
        ("report", "submit = 25", f"{NO_SUBMIT}, not 25"),
        ("report", 'submit = "127.0.0.1:25"', f'{NO_SUBMIT}, not "127.0.0.1:25"'),
        ("report", 'submit = "lmtp://localhost"', f"{NO_SUBMIT}: LMTP is not supported"),
        (
            "report",
            'submit = "smtp://u:p@mail:25:1"',
            'has no host name or IP address: "smtp://u:p@mail:25:1"',
        ),
        ("report", 'submit = "smtp:mail"', f'{NO_SUBMIT}, not "smtp:mail"'),
        (
            "report",
            'submit = "sendmail:sendmail -t"',
            'must be the absolute path of a file, not "sendmail -t"',
        ),
        ("report", 'delay = "21h"', 'must be from 0s to 20h, not "21h"'),
        (
            "report",
            "max_per_destination = 0",
            "must be a whole number from 1 to 10000, not 0",
        ),
        ("report", 'dkim_selector = "a b"', 'must be a DKIM selector, not "a b"'),
        ("store", 'url = "/var/lib/x.db"', NO_SCHEME),
        ("store", 'url = ""', NO_SCHEME),
        ("store", "url = 1", NO_STORE),
        ("store", 'url = "postgresql://u:p w@h/d"', NO_URI),
        ("store", 'url = "postgresql://"', NO_URI),
        ("store", 'url = "sqlite:////a\\nb"', NO_STORE),
        ("store", 'url = "postgres://h/d"', f'{NO_SCHEME} (did you mean "postgresql"?)'),
        (
            "store",
            'url = "sqlite:///x.db"',
            'needs an absolute path, so four slashes: "sqlite:////var/lib/..."',
        ),
        ("log", 'level = "INFO"', f'{NO_LEVEL} "INFO"'),
        ("log", 'level = "warn"', f'{NO_LEVEL} "warn" (did you mean "warning"?)'),
    ],
)
def test_bad_value(file: Path, section: str, line: str, what: str) -> None:
    key = line.rpartition("\n")[2].split()[0]
    number = 2 + line.count("\n")
    (error,) = errors(file, f"[{section}]\n{line}\n")
    assert error == f"{number}: [{section}] {key}: {what}"


def test_a_ca_file_with_certificates_is_taken(file: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    assert good(file, f'[fetch]\nca_file = "{ca}"').fetch.ca_file == str(ca)


def test_a_database_password_is_never_printed(file: Path) -> None:
    settings = good(file, '[store]\nurl = "postgresql://me:s3cr3t@h/d?password=s3cr3t&x=1"')
    assert "s3cr3t" not in repr(settings)
    assert str(settings.store.url) == "postgresql://me:***@h/d?password=***&x=1"
    for url in ("mysql://me:s3cr3t@h/d", "postgresql://me:s3cr3t x@h/d"):
        assert "s3cr3t" not in errors(file, f'[store]\nurl = "{url}"')[0]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://me@h/d", "postgresql://me@h/d"),
        ("postgresql://me:a@b:c@h,i/d", "postgresql://me:***@h,i/d"),
        ("postgresql:///d?host=/run&sslpassword=x", "postgresql:///d?host=/run&sslpassword=***"),
    ],
)
def test_a_database_url_as_it_is_shown(url: str, shown: str) -> None:
    assert str(PostgresStore(url)) == shown


# ---- names


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[dns]\n\ntimout = 1", '3: [dns] timout: unknown key (did you mean "timeout"?)'),
        ("[dns]\ndeadline = 1", "2: [dns] deadline: unknown key (it belongs below [fetch])"),
        (
            "[cache]\ntimeout = 1",
            "2: [cache] timeout: unknown key (it belongs below [dns] or [fetch])",
        ),
        (
            "[dns]\nxyz = 1",
            "2: [dns] xyz: unknown key (known here: nameservers, timeout, dnssec)",
        ),
        ("dns.timout = 1", '1: [dns] timout: unknown key (did you mean "timeout"?)'),
        ("[dns.timeouts]\na = 1", '1: [dns] timeouts: unknown key (did you mean "timeout"?)'),
        ("[[report.supress]]\n", '1: [report] supress: unknown key (did you mean "suppress"?)'),
        ("\n[lisen]", '2: [lisen]: unknown section (did you mean "listen"?)'),
        ("[[overide]]\n", '1: [overide]: unknown section (did you mean "override"?)'),
        (
            "[zzz]",
            "1: [zzz]: unknown section (known: listen, dns, fetch, cache, policy, collect, report, "
            "store, log, override)",
        ),
        (
            'deadline = "4s"',
            "1: deadline: stands outside any section; it belongs below [fetch]",
        ),
        (
            "max_bytes = []",
            "1: max_bytes: stands outside any section; it belongs below [fetch] or [report]",
        ),
        ("xyz = 1", "1: xyz: stands outside any section"),
        ("dns = 1", "1: [dns]: must be a section: [dns]"),
        ("[[dns]]", "1: [dns]: must be a section: [dns]"),
        ("[override]", "1: [[override]]: must be written as [[override]]"),
        ("override = [1]", "1: [[override]]: must be written as [[override]]"),
        (
            "[report]\nsuppress = 1",
            "2: [[report.suppress]]: must be written as [[report.suppress]]",
        ),
        ('"\\u001B[0m" = 1', "1: ?[0m: stands outside any section"),
    ],
)
def test_bad_name(file: Path, text: str, error: str) -> None:
    assert errors(file, text) == [error]


def test_a_value_that_tomllib_takes_has_its_line_in_any_form(file: Path) -> None:
    text = '[listen]\nsocketmap = [\n  "unix:/a", # [dns]\n]\n[dns]\r\ntimeout = "x"\r\n'
    assert errors(file, text) == [f'6: [dns] timeout: {NO_TIME} "x"']


# ---- files

TWICE = "is not TOML: a key or section that stands further up already"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"[dns]\na == 1\n", "2: is not TOML: invalid value in column 4"),
        (
            b"[dns]\n\ntimeout\n",
            "3: is not TOML: expected '=' after a key in a key/value pair in column 8",
        ),
        (b"[dns]\na = 1\na = 2\n", f"3: {TWICE} in column 6"),
        (b"[dns]\n[dns]\n", f"2: {TWICE} in column 5"),
        (b"[dns]\n\xff = 1\n", "2: is not UTF-8"),
        (b"a = " + b"[" * 5000, "is nested too deep"),
        (b"#" * (4 * 1024 * 1024 + 1), "is over 4194304 octets long"),
    ],
)
def test_bad_file(file: Path, raw: bytes, error: str) -> None:
    file.write_bytes(raw)
    loaded = load(file, {})
    assert isinstance(loaded, tuple)
    assert [str(e).removeprefix(f"{file}:").strip() for e in loaded] == [error]


def test_an_unfinished_file_is_told_with_its_last_line(file: Path) -> None:
    (error,) = errors(file, "[dns]\nnameservers = [\n")
    assert error.startswith(("2: is not TOML: ", "3: is not TOML: "))


def test_a_number_beyond_all_bounds_is_told(file: Path) -> None:
    (error,) = errors(file, f"a = {'9' * 5000}")
    assert "is not TOML: " in error


def test_a_file_that_is_not_there(file: Path) -> None:
    loaded = load(file, {})
    assert isinstance(loaded, tuple)
    assert [str(error) for error in loaded] == [f"{file}: can't be read: No such file or directory"]


def test_all_errors_are_told_in_the_order_of_the_file(file: Path) -> None:
    text = """\
[report]
enabled = true
keep = "1d"
retry = "2d"
[lisen]
[dns]
timeout = 2
timout = 2
[[override]]
action = "of"
[fetch]
deadline = "20s"
timeout = "10s"
"""
    environ = {"MTASTSD_LOG_LEVEL": "loud", "MTASTSD_CACHE_REFRESH": "1m"}
    needed = "must be set where reports are enabled: RFC 8460 wants it in each of them"
    assert errors(file, text, environ) == [
        f"2: [report] organization: {needed}",
        f"2: [report] contact: {needed}",
        f"2: [report] from: {needed}",
        "3: [report] keep: must not be shorter than retry, 2d",
        '5: [lisen]: unknown section (did you mean "listen"?)',
        f"7: [dns] timeout: {NO_TIME} 2",
        '8: [dns] timout: unknown key (did you mean "timeout"?)',
        "9: [[override]] domain: must be set",
        '10: [[override]] action: must be "off", "may", "encrypt" or "secure", not "of"'
        ' (did you mean "off"?)',
        "12: [fetch] deadline: must be shorter than timeout, 10s: a look-up is answered while the"
        " fetch goes on",
        'environment MTASTSD_LOG_LEVEL: [log] level: must be "debug", "info", "warning" or "error",'
        ' not "loud"',
        "environment MTASTSD_CACHE_REFRESH: [cache] refresh: must not be shorter than recheck, 1h",
    ]


def test_a_bad_value_makes_no_clash_of_its_own(file: Path) -> None:
    assert len(errors(file, '[fetch]\ntimeout = "3"\ndeadline = "10s"')) == 1
    assert len(errors(file, '[fetch]\ntimeout = "3s"\ndeadline = "10"')) == 1
    assert len(errors(file, '[report]\ndkim_domain = 1\ndkim_key = "/k"\ndkim_selector = "s"')) == 1


# ---- overrides and suppressions


def test_overrides(file: Path) -> None:
    settings = good(
        file,
        """\
[[override]]
domain = "Example.COM."
action = "off"
[[override]]
domain = "b\u00fccher.example"
action = "secure"
mx = ["*.MX.example.", "b\u00fccher.example"]
until = 2026-12-31
reason = "ticket 4711"
[[override]]
domain = "a.example"
action = "secure"
""",
    )
    idn = Override(
        Domain("xn--bcher-kva.example"),
        "secure",
        ("*.mx.example", "xn--bcher-kva.example"),
        date(2026, 12, 31),
        "ticket 4711",
    )
    assert settings.override == (
        Override(Domain("example.com"), "off"),
        idn,
        Override(Domain("a.example"), "secure"),
    )
    assert settings.origins == {
        f"override.{i}": f"{file}:{n}" for i, n in ((0, 1), (1, 4), (2, 10))
    }
    assert settings.overrides()[Domain("xn--bcher-kva.example")] == idn


NO_DATE = "must be a date without quotes such as 2026-12-31, not"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("domain = 1", "3: [[override]] domain: must be a domain, not 1"),
        ('domain = ""', '3: [[override]] domain: not a domain name: ""'),
        ('domain = "com"', '3: [[override]] domain: a domain has at least two labels: "com"'),
        (
            'domain = ".example.com"',
            "3: [[override]] domain: a leading dot means all below a domain, and only an exact "
            'domain is taken here: ".example.com"',
        ),
        ('domain = "192.0.2.1"', '3: [[override]] domain: an IP address is no domain: "192.0.2.1"'),
        ('domain = "[a.example]"', '3: [[override]] domain: not a domain name: "[a.example]"'),
        (
            f'domain = "{LONG}.example"',
            f'3: [[override]] domain: a domain has at most 253 octets: "{LONG[:56]}...',
        ),
        ('until = "2026-12-31"', f'3: [[override]] until: {NO_DATE} "2026-12-31"'),
        (
            "until = 2026-12-31T00:00:00Z",
            f"3: [[override]] until: {NO_DATE} 2026-12-31 00:00:00+00:00",
        ),
        ('mx = ["a.example"]', '3: [[override]] mx: goes with action = "secure" only, not "off"'),
        ('mx = ["a"]', '3: [[override]] mx: item 1: a domain has at least two labels: "a"'),
        ('mx = "a.example"', '3: [[override]] mx: must be a list, not "a.example"'),
        ('reason = "a\\u0000b"', "3: [[override]] reason: has a control character or is not UTF-8"),
        ('untill = "x"', '3: [[override]] untill: unknown key (did you mean "until"?)'),
    ],
)
def test_bad_override(file: Path, line: str, error: str) -> None:
    rest = [] if line.startswith("domain") else ['domain = "example.com"']
    text = "\n".join(["[[override]]", 'action = "off"', line, *rest])
    assert errors(file, text) == [error]


def test_an_override_needs_domain_and_action(file: Path) -> None:
    assert errors(file, "\n[[override]]\n") == [
        "2: [[override]] domain: must be set",
        "2: [[override]] action: must be set",
    ]


def test_one_override_for_a_domain(file: Path) -> None:
    row = '[[override]]\ndomain = "{}"\naction = "may"\n'
    assert errors(file, row.format("example.com") + row.format("EXAMPLE.com.")) == [
        '5: [[override]] domain: "example.com" has an override further up already'
    ]


def test_what_has_ended_is_a_warning(file: Path) -> None:
    settings = good(
        file,
        """\
[[override]]
domain = "example.com"
action = "off"
until = 2026-02-28
[[override]]
domain = "example.net"
action = "off"
[[report.suppress]]
to = "example.org"
until = 2026-02-28
""",
    )
    last = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC).timestamp()
    assert settings.warnings(last) == ()
    assert settings.warnings(last + 1) == (
        f"{file}:1: [[override]] example.com: ended with 2026-02-28",
        f"{file}:8: [[report.suppress]] example.org: ended with 2026-02-28",
    )
    assert last < settings.override[0].ends_at() <= last + 1


@pytest.mark.parametrize(
    ("to", "means"),
    [
        ("Example.com", "example.com"),
        ("mailto:Rpt@Example.COM", "mailto:Rpt@example.com"),
        ("MAILTO:a@example.com", "mailto:a@example.com"),
        ("https://Rpt.Example.com/V1?d=X", "https://rpt.example.com/V1?d=X"),
        ("https://rpt.example.com", "https://rpt.example.com"),
    ],
)
def test_suppressed(file: Path, to: str, means: str) -> None:
    settings = good(file, f'[[report.suppress]]\nto = "{to}"\nuntil = 2026-12-31\n')
    assert settings.report.suppress == (Suppress(means, date(2026, 12, 31)),)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "1: [[report.suppress]] to: must be set"),
        ("to = 1", "2: [[report.suppress]] to: must be a domain or a rua, not 1"),
        (
            'to = "a@example.com"',
            '2: [[report.suppress]] to: must begin with "mailto:" where it is an address: '
            '"a@example.com"',
        ),
        ('to = "mailto:x"', f'2: [[report.suppress]] to: {NO_BOX} "x"'),
        (
            'to = "http://x.example/"',
            '2: [[report.suppress]] to: must be a domain, "mailto:..." or "https://...", '
            'not "http://x.example/"',
        ),
        (
            'to = "https:x"',
            '2: [[report.suppress]] to: must be a domain, "mailto:..." or "https://...", '
            'not "https:x"',
        ),
        (
            'to = "a.example"\n[[report.suppress]]\nto = "A.example"',
            '4: [[report.suppress]] to: "a.example" is suppressed further up already',
        ),
    ],
)
def test_bad_suppress(file: Path, line: str, error: str) -> None:
    assert errors(file, f"[[report.suppress]]\n{line}\n") == [error]


# ---- what does not go together

DKIM = 'dkim_selector = "s"\ndkim_key = "/k"\n'
IDENTITY = 'organization = "O"\ncontact = "c@example.com"\nfrom = "f@mail.example.com"\n'


@pytest.mark.parametrize(
    "text",
    [
        f"[report]\nenabled = true\n{IDENTITY}",
        f"[report]\nenabled = true\n{IDENTITY}[collect]\njournal = true\ndatagrams = false\n",
        f'[report]\nenabled = true\n{IDENTITY}[collect]\nlogfile = "/l"\n[listen]\ntlsrpt = ""\n',
        f'[report]\n{IDENTITY}dkim_domain = "example.com"\ndkim_selector = "s"\ndkim_key = "/k"\n',
        '[report]\ncontact = "a@sub.example.com"\nfrom = "a@example.com"\n',
        '[report]\norganization = "only this"\n',
    ],
)
def test_goes_together(file: Path, text: str) -> None:
    good(file, text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            f"[report]\nenabled = true\n{IDENTITY.replace('O', '')}",
            "3: [report] organization: must be set where reports are enabled: RFC 8460 wants it in"
            " each of them",
        ),
        (
            f'[report]\nenabled = true\n{IDENTITY}[listen]\ntlsrpt = ""\n',
            "2: [report] enabled: there would be nothing to report: [collect] needs datagrams (with"
            " [listen] tlsrpt), journal or logfile",
        ),
        (
            '[collect]\njournal = true\nlogfile = "/var/log/mail.log"\n',
            "3: [collect] logfile: can't go with journal = true: the same lines would be counted"
            " twice",
        ),
        (
            '[report]\ndkim_key = "/k"\ndkim_domain = "a.example"',
            "3: [report] dkim_selector: must be set where dkim_domain is",
        ),
        (
            f'[report]\n{IDENTITY}{DKIM}dkim_domain = "example.net"\n',
            "7: [report] dkim_domain: must be the domain of from, mail.example.com, or a parent of"
            " it, not example.net",
        ),
        (
            '[report]\ncontact = "a@example.com"\nfrom = "a@notexample.com"\n',
            "3: [report] from: must be an address in the domain of contact, example.com, not in"
            " notexample.com",
        ),
    ],
)
def test_does_not_go_together(file: Path, text: str, error: str) -> None:
    assert errors(file, text) == [error]


# ---- the environment


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("MTASTSD_STORE_URL", "sqlite:////x", "store.url", SqliteStore("/x")),
        ("MTASTSD_DNS_TIMEOUT", "3s", "dns.timeout", 3.0),
        ("MTASTSD_LISTEN_HTTP", "", "listen.http", None),
        ("MTASTSD_LISTEN_SOCKETMAP_MODE", "0600", "listen.socketmap_mode", 0o600),
        ("MTASTSD_CACHE_MEMORY", "500", "cache.memory", 500),
        ("MTASTSD_FETCH_MAX_BYTES", "32768", "fetch.max_bytes", 32768),
        ("MTASTSD_FETCH_MAX_BYTES", "32K", "fetch.max_bytes", 32768),
        ("MTASTSD_FETCH_ALLOW_PRIVATE_ADDRESSES", "true", "fetch.allow_private_addresses", True),
        ("MTASTSD_POLICY_DANE", "off", "policy.dane", False),
        ("MTASTSD_POLICY_DANE", "0", "policy.dane", False),
        ("MTASTSD_REPORT_FROM", "a@example.com", "report.from", "a@example.com"),
    ],
)
def test_a_twin_goes_before_the_file(
    file: Path, variable: str, text: str, path: str, value: object
) -> None:
    section, _, key = path.partition(".")
    for before in ("", f"[{section}]\n{key} = 1.5\n"):
        settings = good(file, before, {variable: text, "PATH": "/bin"})
        assert value_of(settings, KEYS[path]) == value
        assert settings.origins == {path: f"environment {variable}"}


@pytest.mark.parametrize(
    ("variable", "text", "what"),
    [
        ("MTASTSD_POLICY_DANE", "maybe", '[policy] dane: must be true or false, not "maybe"'),
        ("MTASTSD_POLICY_DANE", "", '[policy] dane: must be true or false, not ""'),
        (
            "MTASTSD_CACHE_MEMORY",
            "1_000",
            '[cache] memory: must be a whole number from 100 to 10000000, not "1_000"',
        ),
        (
            "MTASTSD_CACHE_MEMORY",
            "\uff11000",
            '[cache] memory: must be a whole number from 100 to 10000000, not "\uff11000"',
        ),
        ("MTASTSD_DNS_TIMEOUT", "2", f'[dns] timeout: {NO_TIME} "2"'),
        (
            "MTASTSD_COLLECT_LOGFILE",
            "/\udcff",
            "[collect] logfile: has a control character or is not UTF-8",
        ),
        ("MTASTSD_LISTEN_SOCKETMAP", "unix:/x", "a list can't be set in the environment"),
        ("MTASTSD_DNS_TIMOUT", "2s", 'unknown variable (did you mean "MTASTSD_DNS_TIMEOUT"?)'),
        ("MTASTSD_STROE_URL", "x", 'unknown variable (did you mean "MTASTSD_STORE_URL"?)'),
        ("MTASTSD_OVERRIDE_XXXXXXXXX_YYYYYYYYYYYYYYYYYYYY", "x", "unknown variable"),
    ],
)
def test_bad_variable(file: Path, variable: str, text: str, what: str) -> None:
    assert errors(file, "", {variable: text}) == [f"environment {variable}: {what}"]


def test_variables_of_others_are_let_be() -> None:
    others = [
        "MTASTSD_PORT",
        "MTASTSD_PORT_8461_TCP_ADDR",
        "MTASTSD_SERVICE_HOST",
        "MTASTSD_SERVICE_PORT_HTTP",
        "MTASTSD_CONFIG",
        "MTASTSD_VERSION",
        "mtastsd_dns_timeout",
        "DNS_TIMEOUT",
    ]
    assert load(None, dict.fromkeys(others, "tcp://10.0.0.1:80")) == Settings()


# ---- changes


def test_changes_are_told_apart(file: Path) -> None:
    old = good(file, '[dns]\ntimeout = "2000ms"\n')
    assert changed(Settings(), old) == Changes()  # it is written in another way, and the same
    new = good(
        file,
        """\
[listen]
http = ""
[fetch]
deadline = "3s"
[cache]
memory = 1000
recheck = "2h"
[policy]
minimum = "encrypt"
[[override]]
domain = "example.com"
action = "off"
[[report.suppress]]
to = "example.com"
[report]
keep = "60d"
[store]
url = "sqlite:////x"
[log]
level = "debug"
""",
    )
    live = (
        "fetch.deadline",
        "cache.recheck",
        "policy.minimum",
        "report.keep",
        "log.level",
        "override",
        "report.suppress",
    )
    restart = ("listen.http", "cache.memory", "store.url")
    assert changed(old, new) == changed(new, old) == Changes(live, restart)


# ---- whatever comes

TOML_VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.dates(),
        st.datetimes(),
        st.times(),
        st.sampled_from(["", "1s", "1d", "9999999d", "unix:/a", "inet:[::1]:1", "a.example", "/x"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(KEYS.values())), TOML_VALUES)
def test_any_value_is_taken_or_refused(key: Key, value: object) -> None:
    refused = ""
    try:
        parsed = key.kind.parse(value)
    except BadValue as bad:
        refused = str(bad)
    if refused:
        assert not CONTROL.search(refused)
        assert len(refused) < 300
    else:
        assert key.kind.parse(key.kind.show(parsed)) == parsed


@given(st.dictionaries(st.sampled_from([k.variable for k in KEYS.values()]), st.text(max_size=20)))
def test_any_environment_is_taken_or_refused(environ: dict[str, str]) -> None:
    loaded = load(None, environ)
    if not isinstance(loaded, Settings):
        assert all(str(error).startswith("environment MTASTSD_") for error in loaded)


@given(
    st.dictionaries(
        st.sampled_from([*{k.section for k in KEYS.values()}, "override", "x", "report.suppress"]),
        TOML_VALUES,
    )
)
def test_any_shape_is_taken_or_refused(tables: dict[str, object]) -> None:
    """Sections that are no sections; the reader sees what tomllib may give."""
    data = {**tables, "report": {"suppress": tables.pop("report.suppress", [])}}
    reader = _Reader(_Document("f", data, {}), {})
    reader.settings()
    assert not any(CONTROL.search(str(error)) for error in reader.errors)


def test_every_key_takes_its_default_and_shows_it() -> None:
    for key in KEYS.values():
        value = key.kind.parse(key.default)
        assert value_of(Settings(), key) == value
        assert key.kind.parse(key.kind.show(value)) == value


def test_rows_have_the_fields_of_their_types() -> None:
    assert [f.name for f in fields(Override)] == list(OVERRIDE)
    assert [f.name for f in fields(Suppress)] == list(SUPPRESS)


def test_a_file_with_every_key_loads(file: Path) -> None:
    sample = (Path(__file__).parents[2] / "packaging/mtastsd.toml").read_text(encoding="utf-8")
    assert set(good(file, sample).origins) == set(KEYS)
    assert tomllib.loads(sample)
