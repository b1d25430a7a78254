"""Every metric in one place: its name, its help, its labels. Built once, handed down.

Services count through this object; the hot path counts in plain integers, which are read when
somebody scrapes (`Metrics.collect_with`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0, 60.0)
"""Buckets in seconds, from a DNS answer nearby to the longest fetch."""

LookupCount = tuple[str, str, int]
"""Outcome, source, how many."""


class Metrics:
    """The daemon's metrics, in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        self.discovery_seconds = Histogram(
            "mtastsd_discovery_seconds",
            "Time for a look-up that had to ask DNS, a policy host or the store",
            buckets=SECONDS,
            registry=r,
        )
        self.fetches = Counter(
            "mtastsd_policy_fetches",
            "Policy fetches by outcome: ok, or the kind of failure",
            ["outcome"],
            registry=r,
        )
        self.fetch_seconds = Histogram(
            "mtastsd_policy_fetch_seconds", "Time of a policy fetch", buckets=SECONDS, registry=r
        )
        self.records = Counter(
            "mtastsd_records",
            "Readings of _mta-sts TXT records: present, absent, invalid or unknown (DNS error)",
            ["state"],
            registry=r,
        )
        self.findings = Counter(
            "mtastsd_dane_findings", "DANE readings by finding", ["finding"], registry=r
        )
        self.weakened = Counter(
            "mtastsd_weakened",
            "Domains whose protection went away: policy-none, policy-expired, dane-lost",
            ["how"],
            registry=r,
        )
        self.deadlines = Counter(
            "mtastsd_deadline_answers",
            "Look-ups answered at their deadline with what was known by then",
            registry=r,
        )
        self.busy = Counter(
            "mtastsd_busy_answers",
            "Look-ups answered without discovery because too many were under way",
            registry=r,
        )
        self.store_errors = Counter(
            "mtastsd_store_errors", "Store operations that failed", ["operation"], registry=r
        )
        self.unsaved = Gauge(
            "mtastsd_store_unsaved",
            "Policies and findings that wait for the store to take them",
            registry=r,
        )
        self.known = Gauge("mtastsd_memory_entries", "What is kept in memory", ["what"], registry=r)
        self.flights = Gauge("mtastsd_flights", "Discoveries under way", ["kind"], registry=r)
        self.refreshes = Counter(
            "mtastsd_refreshes", "Daily refreshes of policies by outcome", ["outcome"], registry=r
        )
        self.expiry = Gauge(
            "mtastsd_policy_expiry_seconds",
            "Seconds until the policy that expires next does, among those being refreshed",
            registry=r,
        )
        self.connections = Gauge(
            "mtastsd_socketmap_connections", "Open socketmap connections", registry=r
        )
        self.refused = Counter(
            "mtastsd_socketmap_refused",
            "Socketmap connections ended by us: limit, idle or netstring",
            ["why"],
            registry=r,
        )
        self.datagrams = Counter(
            "mtastsd_datagrams", "Datagrams received from libtlsrpt", registry=r
        )
        self.datagrams_lost = Counter(
            "mtastsd_datagrams_lost",
            "Datagrams that were received and tell nothing, by reason",
            ["why"],
            registry=r,
        )
        self.log_lines = Counter("mtastsd_log_lines", "Lines of the mail log read", registry=r)
        self.log_skipped = Counter(
            "mtastsd_log_lines_skipped",
            "Lines of the mail log that tell nothing though they should, by reason",
            ["why"],
            registry=r,
        )
        self.log_lag = Gauge(
            "mtastsd_log_lag_seconds",
            "Age of the mail log line read last, at the time of reading",
            registry=r,
        )
        self.sessions = Counter(
            "mtastsd_sessions",
            "Delivery results by source (datagram, log) and what Postfix made of them",
            ["source", "outcome"],
            registry=r,
        )
        self.sessions_dropped = Counter(
            "mtastsd_sessions_dropped",
            "Delivery results dropped because too much waits for the store",
            registry=r,
        )
        self.probes = Counter(
            "mtastsd_probes", "Probes of MX hosts of testing-mode domains", ["outcome"], registry=r
        )
        self.tally_pending = Gauge(
            "mtastsd_tally_pending", "Domains whose results wait to be written", registry=r
        )
        self.deliveries = Gauge(
            "mtastsd_report_deliveries",
            "Report deliveries kept in the store, by state",
            ["state"],
            registry=r,
        )
        self.deliveries_failed = Gauge(
            "mtastsd_report_deliveries_failed",
            "Report deliveries kept in the store that were given up, by what was said last",
            ["reason"],
            registry=r,
        )
        self.days_closed = Gauge(
            "mtastsd_report_domains",
            "Domains and days closed and kept in the store, by what became of them",
            ["why"],
            registry=r,
        )
        self.oldest_waiting = Gauge(
            "mtastsd_report_oldest_waiting_seconds",
            "Age of the oldest report that still waits to be delivered, 0 for none",
            registry=r,
        )
        self.validating = Gauge(
            "mtastsd_dns_validating", "1 if a resolver that validates is at hand", registry=r
        )

    def collect_with(self, read: Callable[[], Iterable[LookupCount]]) -> None:
        """Export look-up counts that somebody keeps as plain integers."""
        self.registry.register(_Lookups(read))

    def text(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _Lookups:
    def __init__(self, read: Callable[[], Iterable[LookupCount]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "mtastsd_lookups",
            "Look-ups by outcome (the level answered, or notfound) and by source",
            labels=["outcome", "source"],
        )
        for outcome, source, count in self._read():
            family.add_metric([outcome, source], count)
        yield family
