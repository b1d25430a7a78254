"""The recipient domains, one fault each, and what a correct daemon leads to.

`sts.test` is an unsigned zone, `dane.test` stands in a signed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tests.e2e.world.pki import OTHER_NAME, Cert

Want = Literal["verified", "sent", "refused"]
"""Sent to a host that was authenticated; sent without that; not sent."""

Smtp = Literal["starttls", "plain", "tls454", "close", "garbage", "rcpt550", "rcpt451", "down"]
"""How a mail server behaves; `close` and `garbage` come instead of the TLS handshake."""

TlsaKind = Literal["good", "mismatch", "ta", "unusable", "bogus"]
"""`bogus`: the right record under a broken signature, so that its look-up fails."""

PolicyAnswer = Literal[
    "ok", "404", "500", "redirect", "syntax", "empty", "big", "slow", "html", "lf", "nomx",
    "hugemaxage", "longmaxage", "extra",
]  # fmt: skip
"""How a policy host answers; webserver.py does it."""

Mode = Literal["enforce", "testing", "none"]

REPORTS_DOMAIN = "reports.test"
REPORTS_HOST = "post.reports.test"
TLSRPT_MAIL = f"v=TLSRPTv1; rua=mailto:tlsrpt@{REPORTS_DOMAIN}"
TLSRPT_HTTPS = f"v=TLSRPTv1; rua=https://{REPORTS_HOST}/v1/tlsrpt"
STS_RECORD = "v=STSv1; id=20260101T000000;"


@dataclass(frozen=True, slots=True)
class Mx:
    """A mail server. `alias_of`: `host` is a CNAME of that name, which is what is certified."""

    host: str
    preference: int = 10
    smtp: Smtp = "starttls"
    cert: Cert = "good"
    tlsa: TlsaKind | None = None
    port: int = 25
    alias_of: str = ""

    @property
    def name(self) -> str:
        """The name that has the address, the TLSA record and the certificate."""
        return self.alias_of or self.host


@dataclass(frozen=True, slots=True)
class PolicyHost:
    """mta-sts.DOMAIN. `address`: that of the web server, one where nobody listens, or none."""

    answer: PolicyAnswer = "ok"
    cert: Cert = "good"
    address: Literal["web", "dead", "none"] = "web"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One recipient domain.

    `domain` is the policy domain, an A-label; `written` how the sender writes it. `nexthop`: a
    smart host for it, which the transport map names; then it has no MX records. `want_plain`:
    where the plain map of old Postfix leads elsewhere. `broken`: the first try at least
    fails whatever the policy.
    """

    domain: str
    want: Want
    mx: tuple[Mx, ...]
    mode: Mode | None = "enforce"
    patterns: tuple[str, ...] = ()
    txt: tuple[str, ...] = (STS_RECORD,)
    policy: PolicyHost = PolicyHost()
    tlsrpt: tuple[str, ...] = (TLSRPT_MAIL,)
    written: str = ""
    nexthop: str = ""
    implicit_mx: bool = False
    want_plain: Want | None = None
    broken: bool = False

    @property
    def recipient_domain(self) -> str:
        return self.written or self.domain

    @property
    def records(self) -> tuple[str, ...]:
        """The TXT records at _mta-sts.DOMAIN."""
        return self.txt if self.mode else ()

    def policy_text(self) -> str:
        """The policy file of a host without fault."""
        patterns = self.patterns or tuple(mx.host for mx in self.mx)
        lines = ["version: STSv1", f"mode: {self.mode}", *(f"mx: {p}" for p in patterns)]
        return "\r\n".join([*lines, "max_age: 86400", ""])


def sts(
    name: str, want: Want, *mx: Mx, smtp: Smtp = "starttls", cert: Cert = "good", **more: Any
) -> Scenario:
    """A domain in the unsigned zone, with one mail server unless `mx` says more."""
    domain = f"{name}.sts.test"
    return Scenario(domain, want, mx or (Mx(f"mx.{domain}", smtp=smtp, cert=cert),), **more)


def dane(
    name: str,
    want: Want,
    *mx: Mx,
    smtp: Smtp = "starttls",
    cert: Cert = "good",
    tlsa: TlsaKind | None = None,
    mode: Mode | None = None,
    **more: Any,
) -> Scenario:
    """A domain in the signed zone, with one mail server unless `mx` says more, and no policy."""
    domain = f"{name}.dane.test"
    hosts = mx or (Mx(f"mx.{domain}", smtp=smtp, cert=cert, tlsa=tlsa),)
    return Scenario(domain, want, hosts, mode, **more)


RECEIVERS = (
    sts("good", "verified"),
    sts("wild", "verified", patterns=("*.wild.sts.test",)),
    sts("upper", "verified", written="Upper.STS.test"),
    sts("xn--bcher-kva", "verified", written="bücher.sts.test"),
    sts("xn--grn-ioa", "refused", written="grün.sts.test", cert="expired"),
    sts("implicit", "verified", Mx("implicit.sts.test"), implicit_mx=True),
    sts("expired", "refused", cert="expired"),
    sts("wrongname", "refused", cert="wrongname"),
    sts("untrusted", "refused", cert="untrusted"),
    sts("selfsigned", "refused", cert="selfsigned"),
    sts("nostarttls", "refused", smtp="plain"),
    sts("tls454", "refused", smtp="tls454"),
    sts("close", "refused", smtp="close", broken=True),
    sts("garbage", "refused", smtp="garbage", broken=True),
    sts("mxnotlisted", "refused", patterns=("mail.elsewhere.test",)),
    sts("deepwild", "refused", Mx("mx.a.deepwild.sts.test"), patterns=("*.deepwild.sts.test",),
        want_plain="verified"),
    sts("fallback", "verified", Mx("a.fallback.sts.test", 10, cert="expired"),
        Mx("b.fallback.sts.test", 20)),
    sts("allbad", "refused", Mx("a.allbad.sts.test", 10, cert="expired"),
        Mx("b.allbad.sts.test", 20, cert="wrongname")),
    sts("rcpt550", "refused", smtp="rcpt550", broken=True),
    sts("rcpt451", "refused", smtp="rcpt451", broken=True),
    sts("mxdown", "refused", smtp="down", broken=True),
)  # fmt: skip
"""The mail server is at fault, or none, under a policy that enforces."""

# A name that the policy lists, on the certificate of a host that it does not list: Postfix before
# 3.10.5 compares the certificate alone.
BORROWED = (
    sts("borrowed", "refused", cert="wrongname", patterns=(OTHER_NAME,), want_plain="verified"),
)

MODES = (
    sts("testing", "sent", mode="testing"),
    sts("testing-expired", "sent", mode="testing", cert="expired"),
    sts("testing-nostarttls", "sent", mode="testing", smtp="plain"),
    sts("mode-none", "sent", mode="none"),
    sts("plain", "sent", mode=None),
    sts("plain-expired", "sent", mode=None, cert="expired"),
    sts("plain-nostarttls", "sent", mode=None, smtp="plain"),
)

POLICY_HOSTS = (
    sts("polexpired", "sent", policy=PolicyHost(cert="expired")),
    sts("polwrongname", "sent", policy=PolicyHost(cert="wrongname")),
    sts("poluntrusted", "sent", policy=PolicyHost(cert="untrusted")),
    sts("polselfsigned", "sent", policy=PolicyHost(cert="selfsigned")),
    sts("pol404", "sent", policy=PolicyHost("404")),
    sts("pol500", "sent", policy=PolicyHost("500")),
    sts("polredirect", "sent", policy=PolicyHost("redirect")),
    sts("polsyntax", "sent", policy=PolicyHost("syntax")),
    sts("polempty", "sent", policy=PolicyHost("empty")),
    sts("polbig", "sent", policy=PolicyHost("big")),
    sts("polslow", "sent", policy=PolicyHost("slow")),
    sts("polrefused", "sent", policy=PolicyHost(address="dead")),
    sts("polnohost", "sent", policy=PolicyHost(address="none")),
    sts("polhtml", "sent", policy=PolicyHost("html")),
    sts("polnomx", "sent", policy=PolicyHost("nomx")),
    sts("pollf", "verified", policy=PolicyHost("lf")),
    sts("polextra", "verified", policy=PolicyHost("extra")),
    sts("polmaxagebig", "verified", policy=PolicyHost("hugemaxage")),
    sts("polmaxagelong", "sent", policy=PolicyHost("longmaxage")),
)
"""The policy host is at fault, the mail server is good."""

RECORDS = (
    sts("txtnone", "sent", txt=()),
    sts("txtdup", "sent", txt=("v=STSv1; id=1;", "v=STSv1; id=2;")),
    sts("txtnoid", "sent", txt=("v=STSv1;",)),
    sts("txtspf", "verified", txt=("v=spf1 -all", STS_RECORD)),
    sts("norpt", "verified", tlsrpt=()),
    sts("rpthttps", "verified", tlsrpt=(TLSRPT_HTTPS,)),
    sts("rptboth", "verified", tlsrpt=(
        f"v=TLSRPTv1; rua=mailto:tlsrpt@{REPORTS_DOMAIN},https://{REPORTS_HOST}/v1/tlsrpt",)),
)  # fmt: skip
"""TXT records, good and bad."""

SMART_HOSTS = (
    sts("hub", "verified", Mx("hub.sts.test", port=587), nexthop="[hub.sts.test]:587"),
    sts("badhub", "refused", Mx("badhub.sts.test", port=587, cert="expired"),
        nexthop="[badhub.sts.test]:587"),
    dane("hub", "verified", Mx("hub.dane.test", port=587, cert="selfsigned", tlsa="good"),
         nexthop="[hub.dane.test]:587"),
    dane("badhub", "refused", Mx("badhub.dane.test", port=587, tlsa="mismatch"),
         nexthop="[badhub.dane.test]:587"),
)  # fmt: skip
"""Next hops with brackets and port: no MX, the host is the policy domain."""

DANE = (
    dane("good", "verified", tlsa="good"),
    dane("mismatch", "refused", tlsa="mismatch"),
    dane("ta", "verified", tlsa="ta"),
    dane("expired", "verified", tlsa="good", cert="expired"),
    dane("wrongname", "verified", tlsa="good", cert="wrongname"),
    dane("tawrongname", "refused", tlsa="ta", cert="wrongname"),
    dane("nostarttls", "refused", tlsa="good", smtp="plain"),
    dane("none", "sent"),
    dane("both", "verified", tlsa="good", mode="enforce"),
    dane("implicit", "verified", Mx("implicit.dane.test", cert="selfsigned", tlsa="good"),
         implicit_mx=True),
    dane("alias", "verified", Mx("mx.alias.dane.test", cert="selfsigned", tlsa="good",
        alias_of="real.alias.dane.test")),
    dane("insecuremx", "sent", Mx("mx.insecuremx.sts.test", tlsa="mismatch")),
    dane("unusable", "sent", tlsa="unusable"),
    dane("unusable-plain", "refused", tlsa="unusable", smtp="plain"),
)  # fmt: skip

ATTACKS = (
    # DANE fails, MTA-STS would pass: it never overrides DANE.
    dane("both-mismatch", "refused", tlsa="mismatch", mode="enforce"),
    # A forged MX in a zone that the attacker signs himself must not turn STS into DANE.
    sts("forgedmx", "refused", Mx("mx.forger.dane.test", cert="selfsigned", tlsa="good"),
        patterns=("mx.forgedmx.sts.test",)),
    # Records that nobody can use don't end enforcement.
    dane("unusable-sts", "refused", tlsa="unusable", cert="selfsigned", mode="enforce"),
    # One host's TLSA look-up is made to fail: the other is still the one to use.
    dane("tlsafail-one", "verified", Mx("a.tlsafail-one.dane.test", 10, tlsa="bogus"),
        Mx("b.tlsafail-one.dane.test", 20, tlsa="good")),
    dane("tlsafail-first", "refused", Mx("a.tlsafail-first.dane.test", 10, tlsa="bogus"),
        Mx("b.tlsafail-first.dane.test", 20, tlsa="mismatch")),
    # Both are made to fail: nothing is sent, unless MTA-STS vouches for the host.
    dane("tlsafail-all", "refused", Mx("a.tlsafail-all.dane.test", 10, tlsa="bogus"),
        Mx("b.tlsafail-all.dane.test", 20, tlsa="bogus")),
    dane("tlsafail-sts", "verified", Mx("a.tlsafail-sts.dane.test", 10, tlsa="bogus"),
        Mx("b.tlsafail-sts.dane.test", 20, tlsa="bogus"),
         mode="enforce"),
    dane("tlsafail-down", "refused", Mx("a.tlsafail-down.dane.test", 10, tlsa="bogus"),
        Mx("b.tlsafail-down.dane.test", 20, smtp="down")),
    dane("tlsafail-badsts", "refused", tlsa="bogus", cert="expired", mode="enforce"),
    # Some hosts have records: with MTA-STS the others are left out, without it they are not.
    dane("partial", "sent", Mx("a.partial.dane.test", 10, cert="selfsigned"),
        Mx("b.partial.dane.test", 20, tlsa="good")),
    dane("partial-sts", "verified", Mx("a.partial-sts.dane.test", 10),
        Mx("b.partial-sts.dane.test", 20, cert="selfsigned",
        tlsa="good"), mode="enforce"),
    dane("partial-badsts", "refused", Mx("a.partial-badsts.dane.test", 10),
        Mx("b.partial-badsts.dane.test", 20, tlsa="mismatch"),
         mode="enforce"),
)  # fmt: skip
"""What somebody on the way would forge or break, and what must come of it."""

SCENARIOS: tuple[Scenario, ...] = (
    *RECEIVERS, *BORROWED, *MODES, *POLICY_HOSTS, *RECORDS, *SMART_HOSTS, *DANE, *ATTACKS,
)  # fmt: skip

REPORTS = Scenario(REPORTS_DOMAIN, "sent", (Mx(f"mx.{REPORTS_DOMAIN}"),), mode=None, txt=())
"""Where reports are mailed to, and it wants some of its own: without care that never ends. Its web
server REPORTS_HOST takes posts."""

WORLD: tuple[Scenario, ...] = (*SCENARIOS, REPORTS)
