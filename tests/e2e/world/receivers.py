"""All that receives: `python -m tests.e2e.world.receivers PKI_FOLDER KEPT_FOLDER`.

One process, started inside the namespace, for the mail servers and the web server. It prints
`ready` when all of them listen.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
from pathlib import Path

from tests.e2e.world.dns import WEB, addresses
from tests.e2e.world.kept import Kept
from tests.e2e.world.scenarios import REPORTS_HOST, WORLD, Mx
from tests.e2e.world.smtpserver import LINE, SmtpServer
from tests.e2e.world.webserver import WebServer

BACKLOG = 64


async def main(pki: Path, kept: Kept) -> None:
    """Serve until killed."""

    @functools.cache
    def context(host: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(pki / f"{host}.pem")
        return made

    address = addresses(WORLD)
    servers: dict[str, Mx] = {mx.name: mx for s in WORLD for mx in s.mx if mx.smtp != "down"}
    for mx in servers.values():
        smtp = SmtpServer(mx.host, mx.smtp, functools.partial(context, mx.name), kept)
        await asyncio.start_server(
            smtp.serve, address[mx.name], mx.port, limit=LINE, backlog=BACKLOG
        )
    policy_hosts = [f"mta-sts.{s.domain}" for s in WORLD if s.mode]
    contexts = {host: context(host) for host in [*policy_hosts, REPORTS_HOST]}
    web = WebServer({s.domain: s for s in WORLD}, contexts, kept)
    await asyncio.start_server(web.serve, WEB, 443, ssl=web.context(), backlog=BACKLOG)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Kept(Path(sys.argv[2]))))
