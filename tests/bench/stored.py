"""A store that is full before the daemon starts: our own schema, filled in SQL."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from mtastsd.log import Log
from mtastsd.store.sqlite import SqliteStore
from tests.bench.world import POLICY_ZONE

LIFE = 604800

_FILL = f"""
    INSERT INTO policy_domain
        (domain, record, record_id, checked_at, recheck_at, fetched_at, expires_at,
         failed_id, retry_at, used_at, body)
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count),
         d(domain) AS (SELECT 'd' || i || '.{POLICY_ZONE}' FROM n)
    SELECT domain, 'present', '20260101T000000', :now, :now + {LIFE}, :now, :now + {LIFE},
           '', 0, :now,
           CAST('version: STSv1' || char(13, 10) || 'mode: enforce' || char(13, 10)
                || 'mx: mx1.' || domain || char(13, 10) || 'mx: mx2.' || domain || char(13, 10)
                || 'max_age: {LIFE}' || char(13, 10) AS BLOB)
      FROM d"""

_FIND = """
    INSERT INTO next_hop (domain, hop, finding, read_at, expires_at, recheck_at, failing, used_at)
    SELECT domain, domain, 'unsigned-unread', :now, :now + 86400, :now + 86400, 0, :now
      FROM policy_domain"""


def fill(path: Path, count: int) -> None:
    """A store with the policies of `dN.policy.test` for all N below `count`, just fetched, and
    what DANE said of them, so that no look-up has a question left to ask."""
    asyncio.run(_make(path))
    connection = sqlite3.connect(path)
    values = {"count": count, "now": time.time()}
    with connection:
        connection.execute(_FILL, values)
        connection.execute(_FIND, values)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def _make(path: Path) -> None:
    store = await SqliteStore.open(path, time.time, Log())
    await store.close()
