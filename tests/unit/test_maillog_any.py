"""The mail log whatever comes: what is held is bounded, and processes do not get mixed up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtastsd.postfix import maillog
from mtastsd.postfix.attempts import MAX_ATTEMPTS
from mtastsd.postfix.maillog import MailLog
from tests.unit.maillog_tools import (
    AT,
    NO_HANDSHAKE,
    NOT_VERIFIED,
    RESUMED,
    A,
    B,
    established,
    run,
    shown,
    to,
    told,
    unlisted,
    untrusted,
)
from tests.unit.test_maillog_state import EXPIRED, NOBODY

# ---- bounds


def test_the_process_that_was_silent_longest_goes_first() -> None:
    log = MailLog()
    for pid in range(maillog.MAX_PROCESSES + 5):
        log.feed("postfix/smtp", pid, established(), AT)
        log.feed("postfix/smtp", 3, established(), AT)
    assert log.held <= maillog.MAX_PROCESSES * 2 + MAX_ATTEMPTS
    assert len(log.feed("postfix/smtp", 4, to(), AT)) == 0
    assert len(log.feed("postfix/smtp", 3, to(), AT)) == MAX_ATTEMPTS
    assert len(log.feed("postfix/smtp", 20, to(), AT)) == 1


def test_silent_processes_are_forgotten() -> None:
    log = MailLog()
    for pid in range(100):
        log.feed("postfix/smtp", pid, established(), AT)
    log.feed("postfix/smtp", 7, unlisted(), AT + maillog.MAX_SILENCE)
    assert log.held == 201
    log.feed("postfix/smtp", 200, unlisted(), AT + maillog.MAX_SILENCE + 1)
    assert log.held == 5  # two processes; an attempt and a skipped host, a skipped host
    assert len(log.feed("postfix/smtp", 7, to(), AT + 3 * maillog.MAX_SILENCE)) == 0


def test_a_delivery_is_bounded() -> None:
    log = MailLog()
    for n in range(1000):
        log.feed("postfix/smtp", 1, unlisted(f"x{n}.example.com"), AT)
        log.feed("postfix/smtp", 1, told(f"x{n}.example.com[192.0.2.1]"), AT)
        log.feed("postfix/smtp", 1, f"8FB4822638D: {NOT_VERIFIED}", AT)
    assert log.held <= 1 + 2 * MAX_ATTEMPTS


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    log = MailLog()
    log.feed("postfix/smtp", 1, established(), AT)
    assert len(log.feed("postfix/smtp", 1, to(), AT - 86400 * 365)) == 1


# ---- properties

_TLS = "TLS is required, but was not offered by host a.example.com[192.0.2.1]"
_LINES = st.sampled_from(
    [
        *(established(), established(B), untrusted(), EXPIRED, RESUMED, told(), told(B)),
        *(told(A, "certificate_expired"), to(), to(B), to(A, NOT_VERIFIED), to(A, _TLS)),
        *(to("none", NO_HANDSHAKE), to(tls="may:none"), unlisted(), f"8FB4822638D: {_TLS}"),
        *(f"8FB4822638D: {NOT_VERIFIED}", f"8FB4822638D: {NO_HANDSHAKE}", NOBODY),
        *(f"SSL_connect error to {A}: -1", f"warning: {A}: all TLSA records unusable"),
        "TLS library problem: error:0A000102:SSL routines::unsupported protocol:x.c:1:",
    ]
)
_PROGRAMS = st.sampled_from(["postfix/smtp", "postfix/smtp", "postfix/tlsproxy", "x/smtp"])


@st.composite
def damaged(draw: st.DrawFn) -> str:
    line = draw(_LINES)
    at = draw(st.integers(0, len(line)))
    return line[:at] + draw(st.text(max_size=4)) + line[at + draw(st.integers(0, 5)) :]


@given(
    st.lists(
        st.tuples(_PROGRAMS, st.integers(0, 2), _LINES | damaged() | st.text(), st.floats(0, 9e9))
    )
)
def test_any_lines(lines: list[tuple[str, int, str, float]]) -> None:
    log, beside = MailLog(), MailLog(beside_datagrams=True)
    for line in lines:
        for session in (*log.feed(*line), *beside.feed(*line)):
            shown(session)
            assert session.success or session.details
            assert session.counts or not session.success
    assert log.held <= 3 * len(lines)


@given(st.lists(st.lists(_LINES, max_size=8), min_size=2, max_size=4), st.randoms())
def test_lines_of_processes_may_mingle(deliveries: list[list[str]], chance: object) -> None:
    """Each process by itself, whatever the others say meanwhile. (What a resumed session shows is
    remembered of the host, so these are left out.)"""
    own = [[line for line in lines if line != RESUMED] for lines in deliveries]
    apart = [run(f"smtp[{pid}]|{line}" for line in lines) for pid, lines in enumerate(own, 1)]
    waiting = [(pid, list(lines)) for pid, lines in enumerate(own, 1) if lines]
    log, mingled = MailLog(), [list[str]() for _ in own]
    while waiting:
        pid, lines = chance.choice(waiting)  # type: ignore[attr-defined]
        mingled[pid - 1] += run([f"smtp[{pid}]|{lines.pop(0)}"], log=log)
        waiting = [(p, left) for p, left in waiting if left]
    assert mingled == apart
