"""`mtastsd check --json`: an examination as one object of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mtastsd import dane
from mtastsd.answers import Answer, DnsError, NoData, TxtAnswer
from mtastsd.dane import HostState
from mtastsd.outlook import Outlook
from mtastsd.probing import ChainCertificate, Probe, covers
from mtastsd.service.conclusion import conclusion
from mtastsd.service.examine import Examination, MxHost, StsSide, TlsRptSide
from mtastsd.service.notes import Note
from mtastsd.sts import policy as policies
from mtastsd.sts import record as sts_records
from mtastsd.tlsrpt import record as tlsrpt_records
from mtastsd.tlsrpt.probe import Failed, judge, verify_word

Row = dict[str, object]


def as_object(seen: Examination, notes: Sequence[Note]) -> Row:
    """The whole examination. Keys stay; texts of people's own making may change."""
    return {
        "domain": seen.hop.domain,
        "hop": seen.hop.key,
        "conclusion": conclusion(seen),
        "mta_sts": _sts(seen.sts),
        "dane": _dane(seen),
        "mx": [_mx(host, seen) for host in seen.mx_hosts],
        "tls_rpt": _tls_rpt(seen.tls_rpt),
        "verdict": seen.verdict.what.value or "notfound",
        "why": seen.verdict.why,
        "reply": seen.replies["postfix"],
        "replies": dict(seen.replies),
        "findings": [_note(note) for note in notes if note.broken],
        "hints": [_note(note) for note in notes if not note.broken],
    }


def _note(note: Note) -> Row:
    return {
        "word": note.word,
        "where": note.where,
        "text": note.text,
        "todo": note.todo,
        "section": note.section or None,
    }


def dns_trouble(answer: TxtAnswer) -> str | None:
    """Why there is no record at all, None where there is."""
    match answer:
        case DnsError(why=why):
            return f"dns: {why}"
        case _:
            return None


def _sts(side: StsSide) -> Row:
    policy = side.policy
    bad = isinstance(side.selected, sts_records.BadRecord)
    return {
        "record": None if isinstance(side.selected, sts_records.NoRecord | None)
        else side.selected.text,
        "record_valid": isinstance(side.selected, sts_records.Record),
        "id": side.selected.id if isinstance(side.selected, sts_records.Record) else None,
        "policy": None
        if policy is None
        else {
            "mode": policy.mode,
            "max_age": policy.max_age,
            "mx": list(policy.mx),
            "lines": list(policy.lines),
        },
        "error": str(side.failure) if side.failure is not None else None,
        "result_type": side.failure.result_type if side.failure is not None else None,
        "rejected": [
            {"why": p.why, "line": p.line, "text": p.text, "section": policies.section(p.why)}
            for p in side.problems
        ],
        "section": sts_records.SECTION if bad else None,
        "certificate": _certificate(side.certificate),
        "seconds": round(side.seconds, 3),
    }  # fmt: skip


def _dane(seen: Examination) -> Row:
    return {
        "enabled": seen.settings.rules.dane,
        "validating_resolver": seen.validates,
        "finding": seen.finding.value,
        "mx_signed": seen.mx.secure if isinstance(seen.mx, Answer | NoData) else None,
        "error": f"dns: {seen.mx.why}" if isinstance(seen.mx, DnsError) else None,
    }


def _tls_rpt(side: TlsRptSide) -> Row:
    selected = side.selected
    error = dns_trouble(side.record)
    rua: list[str] = []
    rejected: list[Row] = []
    record = None
    match selected:
        case tlsrpt_records.Record():
            record = selected.text
            rua = [destination.uri for destination in selected.destinations]
            rejected = [
                {"uri": r.uri, "why": r.why, "section": tlsrpt_records.section(r.why)}
                for r in selected.rejected
            ]
        case tlsrpt_records.BadRecord():
            record, error = selected.text, f"record: {selected.why}"
    return {"record": record, "rua": rua, "rejected": rejected, "error": error}


def _mx(host: MxHost, seen: Examination) -> Row:
    addresses = host.addresses.records if isinstance(host.addresses, Answer) else ()
    signed = host.reading.state in (HostState.USABLE, HostState.UNUSABLE, HostState.NO_TLSA)
    return {
        "host": host.host,
        "preference": host.preference,
        "addresses": list(addresses),
        "addresses_signed": signed if seen.validates else None,
        "error": f"dns: {host.addresses.why}" if isinstance(host.addresses, DnsError) else None,
        "pattern": host.pattern,
        "tlsa": {
            "state": host.reading.state.value,
            "base": host.reading.base or None,
            "records": [
                {
                    "usage": r.usage,
                    "selector": r.selector,
                    "matching": r.matching,
                    "data": r.data.hex(),
                    "usable": dane.usable(r),
                }
                for r in host.reading.tlsa
            ],
            "error": host.reading.why or None,
        },
        "probes": [_probe(probe, outlook, host) for probe, outlook in host.seen],
        "outlook": _outlook(host.outlook),
        "enforced": _outlook(host.enforced) if host.enforced is not None else None,
    }


def _outlook(outlook: Outlook) -> Row:
    return {"passes": outlook.passes, "why": outlook.why, "reason": outlook.reason or None}


def _probe(probe: Probe, outlook: Outlook, host: MxHost) -> Row:
    judged = judge(probe, host.host)
    return {
        "address": probe.address,
        "stage": probe.stage.name.lower(),
        "trouble": probe.trouble,
        "detail": probe.detail or None,
        "code": probe.code or None,
        "helo": probe.helo or None,
        "sending_ip": probe.sending_ip or None,
        "tls": probe.tls.version if probe.tls is not None else None,
        "cipher": probe.tls.cipher if probe.tls is not None else None,
        "certificate": _certificate(probe),
        "name_matches": covers(probe.tls.names, host.host) if probe.tls is not None else None,
        "result_type": judged.result.value if isinstance(judged, Failed) else None,
        "outlook": _outlook(outlook),
    }


def _certificate(probe: Probe | None) -> Row | None:
    if probe is None or probe.tls is None:
        return None
    tls = probe.tls
    leaf = tls.chain[0] if tls.chain else None
    return {
        "verify": verify_word(tls.verify_code) if tls.verify_code else "ok",
        "names": list(tls.names),
        "issuer": tls.issuer or None,
        **_dates(leaf),
    }


def _dates(leaf: ChainCertificate | None) -> Row:
    if leaf is None or not leaf.not_after:
        return {"not_before": None, "not_after": None}
    return {"not_before": _iso(leaf.not_before), "not_after": _iso(leaf.not_after)}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
