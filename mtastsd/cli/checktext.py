"""`mtastsd check` for people: one line that says it all, then what it rests on.

All of it fits 80 columns but the replies, which stand as Postfix gets them, to be copied.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtastsd import dane, tlsa
from mtastsd.answers import Answer, DnsError, MxAnswer, NoData, Tlsa
from mtastsd.cli.common import span
from mtastsd.dane import Finding, HostState
from mtastsd.names import Domain
from mtastsd.outlook import Outlook
from mtastsd.probing import Probe, Stage, covers
from mtastsd.service.conclusion import conclusion
from mtastsd.service.examine import Examination, MxHost, StsSide, TlsRptSide
from mtastsd.service.notes import Note, day, leaf_end
from mtastsd.sts import policy as policies
from mtastsd.sts import record as sts_records
from mtastsd.sts.failure import printable
from mtastsd.tlsrpt import record as tlsrpt_records
from mtastsd.tlsrpt.probe import verify_word

NARROW, WIDE = 80, 120
"""Columns of a pipe, and of the widest terminal that is made use of."""

LABEL = 13
"""Columns of the left side."""

MAX_SHOWN = 6
"""Names, addresses or records of one host that are shown."""

MAX_LINES = 40
"""Lines of a policy that are shown."""

MAX_DIGITS = 16
"""Hexadecimal digits of TLSA data that are shown."""

Row = tuple[str, str, str]
"""Label, text, style."""

GOOD, BAD, DIM = "green", "red", "yellow"


def console() -> Console:
    """Colour and the terminal's width on a terminal; neither in a pipe."""
    if not sys.stdout.isatty():
        return Console(width=NARROW, highlight=False, color_system=None)
    found = Console(highlight=False)
    found.width = min(found.width, WIDE)
    return found


def show(seen: Examination, notes: Sequence[Note], to: Console) -> None:
    """Print it all."""
    if to.is_terminal:
        _show(seen, notes, to)
        return
    with to.capture() as captured:
        _show(seen, notes, to)
    for line in captured.get().removesuffix("\n").split("\n"):
        click.echo(line.rstrip(" "))  # the tables are padded


def _show(seen: Examination, notes: Sequence[Note], to: Console) -> None:
    broken = [note for note in notes if note.broken]
    to.print(Text(printable(conclusion(seen), 1000), style=f"bold {BAD if broken else GOOD}"))
    _section(to, "MTA-STS", _sts(seen.sts))
    _section(to, "DANE", _dane(seen))
    if not seen.mx_hosts:
        _section(to, "MX", [("records", _mx_answer(seen.mx), "")])
    for host in seen.mx_hosts:
        _section(to, _host_title(host, seen), _host(host, seen))
    _section(to, "TLS-RPT", _tls_rpt(seen.tls_rpt))
    _replies(to, seen)
    _notes(to, "Findings", broken)
    _notes(to, "Worth knowing", [note for note in notes if not note.broken])


def _section(to: Console, title: str, rows: Iterator[Row] | Sequence[Row]) -> None:
    to.print()
    to.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=2)
    table.add_column(width=LABEL, no_wrap=True)
    table.add_column(overflow="fold")
    for label, text, style in rows:
        table.add_row("", Text(label), Text(text, style=style))
    to.print(table)


# ---- MTA-STS


def _sts(side: StsSide) -> Iterator[Row]:
    match side.reading.record, side.selected:
        case DnsError(why=why), _:
            yield "record", f"not known: DNS gives no answer ({why})", BAD
        case _, sts_records.Record() as record:
            yield "record", record.text, ""
        case _, sts_records.BadRecord() as bad:
            yield "record", bad.text, ""
            yield "", f"refused: {bad.why} ({sts_records.SECTION})", BAD
        case _:
            yield "record", "none", ""
    policy = side.policy
    if policy is not None:
        yield "policy", f"mode {policy.mode}, kept for {span(policy.max_age)}", ""
        yield from (("", printable(line), "") for line in policy.lines[:MAX_LINES])
        if len(policy.lines) > MAX_LINES:
            yield "", f"and {len(policy.lines) - MAX_LINES} lines more", ""
    elif side.failure is not None and side.reading.fetch is not None:
        reason = "the file is refused" if side.problems else str(side.failure)
        yield "policy", f"none: {reason}", BAD
        yield "", f"a report calls it {side.failure.result_type}", ""
    yield from _rejected(side.problems)
    if side.certificate is not None:
        yield "certificate", *_certificate(side.certificate, side.certificate.host)


def _rejected(problems: Sequence[policies.PolicyError]) -> Iterator[Row]:
    for problem in problems:
        where = f"line {problem.line}" if problem.line is not None else "the file"
        yield "refused", f"{where}: {problem.why} ({policies.section(problem.why)})", BAD
        if problem.text:
            yield "", f"  {problem.text}", ""


def _certificate(probe: Probe, name: str) -> tuple[str, str]:
    """One line on a certificate: whether the chain holds, whether the name does, until when."""
    tls = probe.tls
    if tls is None:
        return f"not seen: {probe.detail or probe.trouble}", DIM
    chain = verify_word(tls.verify_code) if tls.verify_code else "trusted"
    good = not tls.verify_code and _named(tls.names, name)
    end = leaf_end(probe)
    parts = [chain, "" if _named(tls.names, name) else "another name"]
    parts += [f"until {day(end)}" if end is not None else ""]
    parts += [f"by {tls.issuer}" if tls.issuer else ""]
    return ", ".join(part for part in parts if part), "" if good else BAD


def _named(names: Sequence[str], name: str) -> bool:
    return covers(names, Domain(name))


# ---- DANE

_FINDINGS = {
    Finding.ALL: "all MX hosts have usable TLSA records",
    Finding.SOME: "some MX hosts have usable TLSA records",
    Finding.UNUSABLE: "there are TLSA records, but none that can be used",
    Finding.UNSIGNED: "MX records are unsigned; a host has TLSA records",
    Finding.UNSIGNED_UNREAD: "MX records are unsigned; the hosts were not asked for",
    Finding.NONE: "no TLSA records",
    Finding.NULL_MX: "takes no mail",
    Finding.NULL_MX_UNSIGNED: "takes no mail, says an unsigned answer",
    Finding.ERROR: "DNS errors: nothing is known",
}


def _dane(seen: Examination) -> Iterator[Row]:
    if not seen.settings.rules.dane:
        yield "off", "by [policy] dane = false", DIM
    if not seen.validates:
        yield "resolver", "none validates", BAD
        return
    yield "MX records", _signed(seen.mx), ""
    yield "finding", f"{seen.finding.value}: {_FINDINGS[seen.finding]}", ""


def _signed(answer: MxAnswer | None) -> str:
    match answer:
        case None:
            return "not asked for: the host is named in the configuration"
        case DnsError(why=why):
            return f"DNS gives no answer ({why})"
        case Answer(secure=secure) | NoData(secure=secure):
            return "signed" if secure else "unsigned"


# ---- MX hosts


def _mx_answer(answer: MxAnswer | None) -> str:
    match answer:
        case DnsError(why=why):
            return f"DNS gives no answer ({why})"
        case Answer(records=records) if any(record.null for record in records):
            return "null MX: takes no mail (RFC 7505)"
        case NoData(exists=False):
            return "none: the name does not exist"
        case _:
            return "none that names a host"


_PASSES = {True: "passes", False: "would be refused", None: "can't be judged"}


def _host_title(host: MxHost, seen: Examination) -> str:
    if host.preference is not None:
        kind = f"MX {host.preference}"
    else:
        kind = "Host" if seen.hop.bracketed else "MX (implicit)"
    if not seen.probed and host.outlook.why == "not-probed":
        return f"{kind} {host.host}"
    return f"{kind} {host.host}: {_PASSES[host.outlook.passes]} ({host.outlook.why})"


def _host(host: MxHost, seen: Examination) -> Iterator[Row]:
    if seen.sts.policy is not None and seen.sts.policy.mode != "none":
        listed = host.pattern is not None
        yield (
            "listed as",
            host.pattern or "nothing: no mx line of the policy lists it",
            ("" if listed else BAD),
        )
    if host.enforced is not None and host.enforced.why != "not-probed":
        style = "" if host.enforced.passes else BAD
        yield "if enforced", f"{_PASSES[host.enforced.passes]} ({host.enforced.why})", style
    yield "address", _addresses(host, seen), ""
    if seen.validates:
        yield from _tlsa(host, seen)
    for probe, outlook in host.seen:
        yield from _probe(probe, outlook, host)


def _addresses(host: MxHost, seen: Examination) -> str:
    match host.addresses:
        case DnsError(why=why):
            return f"DNS gives no answer ({why})"
        case NoData():
            return "none"
        case Answer(records=records):
            state = host.reading.state
            signed = state not in (HostState.INSECURE, HostState.ERROR, HostState.UNREACHABLE)
            known = f", {'signed' if signed else 'unsigned'}" if seen.validates else ""
            return _some(records) + known


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MAX_SHOWN} more" if len(texts) > MAX_SHOWN else ""
    return ", ".join(texts[:MAX_SHOWN]) + more


def _tlsa(host: MxHost, seen: Examination) -> Iterator[Row]:
    reading = host.reading
    match reading.state:
        case HostState.INSECURE:
            yield "TLSA", "not asked for: the address is unsigned (RFC 7672 §2.2.2)", ""
        case HostState.NO_TLSA:
            yield "TLSA", "none", ""
        case HostState.ERROR:
            yield "TLSA", f"DNS gives no answer ({reading.why})", BAD
        case HostState.UNREACHABLE:
            pass
        case HostState.USABLE | HostState.UNUSABLE:
            chain = host.seen[0][0].tls if host.seen else None
            ders = [c.der for c in chain.chain] if chain is not None else []
            for record in reading.tlsa[:MAX_SHOWN]:
                yield "TLSA", *_record(record, ders)
            if reading.base != host.host:
                yield "", f"at _{seen.hop.port}._tcp.{reading.base}", ""


def _record(record: Tlsa, chain: Sequence[bytes]) -> tuple[str, str]:
    data = record.data.hex()
    shown = data if len(data) <= MAX_DIGITS else f"{data[:MAX_DIGITS]}..."
    text = f"{record.usage} {record.selector} {record.matching} {shown}"
    if not dane.usable(record):
        return f"{text}: can't be used (RFC 7672 §3.1)", BAD
    if not chain:
        return text, ""
    searched = chain[:1] if record.usage == tlsa.DANE_EE else chain[1:]
    if any(tlsa.matches(record, der) for der in searched):
        return f"{text}: matches", GOOD
    return f"{text}: matches nothing", DIM


_STAGES = {
    Stage.CONNECT: "connecting",
    Stage.BANNER: "greeting",
    Stage.EHLO: "EHLO",
    Stage.STARTTLS: "STARTTLS",
    Stage.HANDSHAKE: "TLS handshake",
    Stage.SECOND_EHLO: "EHLO within TLS",
}


_TROUBLES = {
    "timeout": "no answer in time",
    "closed": "the connection was closed",
    "no-starttls": "STARTTLS is not offered",
}


def _probe(probe: Probe, outlook: Outlook, host: MxHost) -> Iterator[Row]:
    style = {True: GOOD, False: BAD, None: DIM}[outlook.passes]
    yield "probed at", probe.address, ""
    if probe.helo:
        yield "  EHLO", probe.helo, ""
    if probe.stage is not Stage.DONE and (probe.tls is None or not probe.tls.verify_code):
        said = _TROUBLES.get(probe.trouble or "", probe.detail)
        yield "  ended at", f"{_STAGES[probe.stage]}: {said or probe.trouble}", style
    tls = probe.tls
    if tls is None:
        return
    if tls.version:
        yield "  TLS", f"{tls.version}, {tls.cipher}", ""
    certificate, wrong = _certificate(probe, host.host)
    # With DANE-EE neither chain nor name counts.
    yield "  certificate", certificate, wrong if outlook.passes is False else ""
    yield "  names", _some(tls.names) or ("none" if tls.chain else "not shown"), ""


# ---- TLS-RPT, reply, notes


def _tls_rpt(side: TlsRptSide) -> Iterator[Row]:
    match side.record, side.selected:
        case DnsError(why=why), _:
            yield "record", f"not known: DNS gives no answer ({why})", BAD
        case _, tlsrpt_records.Record() as record:
            yield "record", record.text, ""
            for destination in record.destinations:
                yield "rua", destination.uri, ""
            for rejected in record.rejected:
                section = tlsrpt_records.section(rejected.why)
                yield "refused", f"{rejected.uri or '(empty)'}: {rejected.why} ({section})", BAD
        case _, tlsrpt_records.BadRecord() as bad:
            yield "record", bad.text, ""
            yield "", f"refused: {bad.why} ({tlsrpt_records.section(bad.why)})", BAD
        case _:
            yield "record", "none: no reports are asked for", ""


def _replies(to: Console, seen: Examination) -> None:
    verdict = seen.verdict
    _section(to, "Reply", [("verdict", f"{verdict.what.value or 'none'} ({verdict.why})", "")])
    for name, text in seen.replies.items():
        to.print(Text(f"   {name}:"))
        to.print(Text(f"     {_clean(text)}"), soft_wrap=True)


def _clean(text: str) -> str:
    """A reply for a terminal; policy lines in it may hold what is no ASCII."""
    return printable(text, len(text)).rstrip(" ")


def _notes(to: Console, title: str, notes: Sequence[Note]) -> None:
    if not notes:
        return
    to.print()
    to.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=3, justify="right")
    table.add_column(overflow="fold")
    for number, note in enumerate(notes, 1):
        section = f" ({note.section})" if note.section else ""
        table.add_row(Text(f"{number}."), Text(f"{note.where}: {note.text}{section}"))
        if note.todo:
            table.add_row("", Text(f"-> {note.todo}"))
    to.print(table)
