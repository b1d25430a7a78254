"""The world itself: what the other tests rest on."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.world.dns import RESOLVER
from tests.e2e.world.postfix import Postfix
from tests.e2e.world.scenarios import REPORTS_DOMAIN, REPORTS_HOST
from tests.e2e.world.waiting import until
from tests.e2e.world.world import World

pytestmark = pytest.mark.e2e

ASK = """
import sys, dns.flags, dns.message, dns.query, dns.rcode
name, kind, server = sys.argv[1:]
answer = dns.query.udp(dns.message.make_query(name, kind, want_dnssec=True), server, timeout=10)
print(dns.rcode.to_text(answer.rcode()), "AD" if answer.flags & dns.flags.AD else "-")
"""

POST = """
import sys, urllib.request
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], b"a report")) as response:
    print(response.status)
"""


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        (".", "NS", "NOERROR AD"),
        ("good.dane.test", "MX", "NOERROR AD"),
        ("_25._tcp.mx.good.dane.test", "TLSA", "NOERROR AD"),
        ("_25._tcp.mx.none.dane.test", "TLSA", "NXDOMAIN AD"),
        ("_25._tcp.a.tlsafail-one.dane.test", "TLSA", "SERVFAIL -"),
        ("good.sts.test", "MX", "NOERROR -"),
        ("nobody.sts.test", "MX", "NXDOMAIN -"),
    ],
)
def test_the_resolver_validates(world: World, name: str, kind: str, answer: str) -> None:
    said = world.namespace.run(sys.executable, "-c", ASK, name, kind, RESOLVER)
    assert said.strip() == answer


def test_report_mail_is_kept(world: World, postfixes: dict[str, Postfix]) -> None:
    postfix, to = postfixes["3.10"], f"tlsrpt@{REPORTS_DOMAIN}"
    postfix.send([to], "a report")
    assert postfix.wait([to], seconds=30)[to].status == "sent"

    def kept() -> bool:
        # Report mails of other tests go to the same mailbox.
        return b"a report\r\n" in [world.kept.body(m)[-10:] for m in world.kept.mails(to=to)]

    until("the mail", kept, seconds=30, log=postfix.log)


def test_report_posts_are_kept(world: World) -> None:
    trust = f"SSL_CERT_FILE={world.pki.ca_file}"
    url = f"https://{REPORTS_HOST}/v1/tlsrpt"
    assert world.namespace.run("env", trust, sys.executable, "-c", POST, url) == "201\n"
    posts = [(post.path, world.kept.body(post)) for post in world.kept.posts()]
    assert ("/v1/tlsrpt", b"a report") in posts
