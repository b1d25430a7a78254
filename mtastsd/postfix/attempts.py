"""The connections of one delivery to MX hosts, as the lines of an smtp(8) process tell of them.

In the order of the log a connection's lines are: what is wrong with the certificate, `established`,
and a `TLSRPT:` line before or behind that; then a line with the queue id, which ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtastsd.names import Domain
from mtastsd.postfix.details import NO_HANDSHAKE, Fault
from mtastsd.postfix.maillines import (
    Blame,
    Delivered,
    Established,
    LibraryError,
    Peer,
    Remark,
    Told,
    Word,
    Wrong,
)
from mtastsd.tlsrpt.session import ResultType

MAX_ATTEMPTS = 20
"""MX hosts of one delivery that are held: Postfix tries 5 (`smtp_mx_address_limit`)."""


@dataclass(slots=True)
class Attempt:
    """One connection to an MX host that came as far as TLS.

    `told`: a TLSRPT line has spoken for it, and named its next hop. `queue_id`: given up, by the
    delivery of that id. `broken`: without a TLS session.
    """

    peer: Peer | None
    word: Word | None = None
    fault: Fault | None = None
    failed: bool = False
    broken: bool = False
    told: Domain | None = None
    queue_id: str = ""

    def blame(self, fault: Fault | None) -> None:
        """The delivery gave it up because of TLS; what was found before is nearer to the cause."""
        self.failed = True
        self.fault = self.fault or fault


class Attempts:
    """The attempts of the delivery that is under way, oldest first."""

    def __init__(self) -> None:
        self._list: list[Attempt] = []

    def __len__(self) -> int:
        return len(self._list)

    def established(self, event: Established) -> None:
        """The end of a handshake."""
        self._handshake(event.peer).word = event.word

    def wrong(self, event: Wrong) -> None:
        """A fault. The first one is told, as in Postfix's own reports."""
        attempt = self._handshake(event.peer)
        attempt.fault = attempt.fault or event.fault
        attempt.broken = event.broken
        attempt.failed = attempt.failed or event.decisive

    def explained(self, event: LibraryError) -> None:
        """OpenSSL's word for a handshake that broke; of several the first is nearest the cause."""
        last = self._list[-1] if self._list else None
        if last is not None and last.broken and last.fault == NO_HANDSHAKE:
            last.fault = Fault(NO_HANDSHAKE.result, event.reason)

    def told(self, event: Told) -> None:
        """A TLSRPT line: the attempt is counted already."""
        attempt = self._under_way()
        if attempt is None or attempt.peer != event.peer or attempt.told is not None:
            attempt = self._begun(event.peer)
        attempt.told = event.domain

    def given_up(self, event: Remark) -> None:
        """A line with a queue id: what was under way is of that delivery. An attempt on another
        host that is still open is left over from one whose lines are missing."""
        last = self._under_way()
        if event.blame is not None:
            last = self._blamed(event.blame, last)
        for attempt in reversed(self._list):
            if last is None or attempt.queue_id or attempt.peer != last.peer:
                break
            attempt.queue_id = event.queue_id
        self._list = [attempt for attempt in self._list if attempt.queue_id]

    def _blamed(self, blame: Blame, last: Attempt | None) -> Attempt | None:
        """The attempt that the blame is on. Without STARTTLS, and where tlsproxy(8) made no
        handshake, there was no line before; a certificate nobody saw is that of no MX host."""
        if blame.peer is not None and (last is None or last.peer != blame.peer):
            last = self._begun(blame.peer)
        elif last is None and blame.fault == NO_HANDSHAKE:
            last = self._begun(None)
        if last is not None:
            last.blame(blame.fault)
        return last

    def ended(self, event: Delivered, *, again: bool) -> list[Attempt]:
        """The attempts that a delivery ends; others are left over from lines that are missing.

        `again`: a further recipient, whose reason is that of the first.
        """
        ended = [a for a in self._list if _is_of(a, event)]
        self._list = []
        if event.blame is not None and not again:
            _blame_last(ended, event, event.blame)
        return ended

    def _under_way(self) -> Attempt | None:
        last = self._list[-1] if self._list else None
        return None if last is None or last.queue_id else last

    def _begun(self, peer: Peer | None) -> Attempt:
        attempt = Attempt(peer)
        self._list.append(attempt)
        del self._list[:-MAX_ATTEMPTS]
        return attempt

    def _handshake(self, peer: Peer) -> Attempt:
        """The attempt whose handshake is under way, which its faults and its end are lines of."""
        last = self._under_way()
        if last is None or last.peer != peer or last.word is not None or last.broken:
            return self._begun(peer)
        return last


def _is_of(attempt: Attempt, event: Delivered) -> bool:
    if attempt.queue_id:
        return attempt.queue_id == event.queue_id
    return attempt.peer == event.peer


def _blame_last(attempts: list[Attempt], event: Delivered, blame: Blame) -> None:
    """The attempt that the delivery ended with failed; there may have been no line of it.

    Where no connection was left, the reason is that of a host that was given up before.
    """
    under_way = [a for a in attempts if not a.queue_id]
    if under_way:
        under_way[-1].blame(blame.fault)
        return
    peer = blame.peer or event.peer
    if peer is None and event.connected:  # to no MX host
        return
    if not any(a.failed and peer in (None, a.peer) for a in attempts):
        attempts.append(Attempt(peer))
        attempts[-1].blame(blame.fault)


def by_word(word: Word | None) -> Fault:
    """What is wrong with a certificate that is refused: a chain that is trusted has a wrong name.

    Postfix 3.4 and 3.5 log no more than this.
    """
    trusted = word in ("Trusted", "Verified")
    mismatch, other = ResultType.CERTIFICATE_HOST_MISMATCH, ResultType.CERTIFICATE_NOT_TRUSTED
    return Fault(mismatch if trusted else other)
