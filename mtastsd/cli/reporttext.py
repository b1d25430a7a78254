"""A TLS report, ours or anybody's, for people."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtastsd.tlsrpt.report import FailureDetail, PolicyResult, Report

WIDE = 200
"""Columns of a table that no terminal shows."""

MAX_ROWS = 50
"""Failures shown, the most frequent first; `--json` has all."""


def console() -> Console:
    """As wide as it takes when it goes to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def show(report: Report, to: Console) -> None:
    """One report: who, when, and each policy with its totals and failures."""
    period = f"{report.date_range.start_datetime} to {report.date_range.end_datetime}"
    to.print(Text(f"{report.organization_name} ({report.contact_info or 'no contact'})"))
    to.print(Text(f"{period}, report {report.report_id}"))
    for result in report.policies:
        to.print()
        to.print(Text(_policy(result)))
        for line in result.policy.policy_string:
            to.print(Text(f"    {line}"))
        if result.failure_details:
            to.print(failures(result.failure_details))


def _policy(result: PolicyResult) -> str:
    policy, summary = result.policy, result.summary
    hosts = f", MX {' '.join(policy.mx_host)}" if policy.mx_host else ""
    return (
        f"{policy.policy_type} {policy.policy_domain}{hosts}: "
        f"{summary.total_successful_session_count} succeeded, "
        f"{summary.total_failure_session_count} failed"
    )


def failures(details: Iterable[FailureDetail]) -> Table:
    """Failures, the most frequent first."""
    table = Table("sessions", "failure", "MX host", "MX address", "from", "reason", box=None)
    ranked = sorted(details, key=lambda d: -d.failed_session_count)
    for detail in ranked[:MAX_ROWS]:
        table.add_row(
            str(detail.failed_session_count),
            Text(detail.result_type),
            Text(detail.receiving_mx_hostname or "-"),
            Text(detail.receiving_ip or "-"),
            Text(detail.sending_mta_ip or "-"),
            Text(detail.failure_reason_code or "-"),
        )
    if len(ranked) > MAX_ROWS:
        table.add_row("", f"and {len(ranked) - MAX_ROWS} more")
    return table


def totals(reports: Iterable[tuple[str, Report]], to: Console) -> None:
    """Many reports: a line each reporter and domain, then what failed, over all of them."""
    table = Table("from", "policy domain", "policy", "succeeded", "failed", "reports", box=None)
    sums: dict[tuple[str, str, str], list[int]] = {}
    kinds: Counter[tuple[str, str, str]] = Counter()
    for _, report in reports:
        for result in report.policies:
            policy = result.policy
            key = (report.organization_name, policy.policy_domain, policy.policy_type)
            row = sums.setdefault(key, [0, 0, 0])
            row[0] += result.summary.total_successful_session_count
            row[1] += result.summary.total_failure_session_count
            row[2] += 1
            for detail in result.failure_details:
                kind = (policy.policy_domain, detail.result_type, detail.receiving_mx_hostname)
                kinds[kind] += detail.failed_session_count
    for key, row in sorted(sums.items()):
        table.add_row(*map(Text, key), *map(str, row))
    to.print(table)
    if kinds:
        found = Table("sessions", "policy domain", "failure", "MX host", box=None)
        for kind, count in kinds.most_common(MAX_ROWS):
            found.add_row(str(count), Text(kind[0]), Text(kind[1]), Text(kind[2] or "-"))
        to.print()
        to.print(found)
