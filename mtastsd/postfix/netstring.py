"""Netstrings, `5:hello,`: the frames of the socketmap protocol, decoded as they trickle in."""

from __future__ import annotations

import re
from typing import Literal

Why = Literal[
    "length",  # no decimal number and colon: another protocol speaks here
    "leading-zero",
    "too-long",  # the length is over the decoder's limit
    "terminator",  # no comma behind the payload: we are out of step
]

_LENGTH = re.compile(rb"0|[1-9][0-9]*")
_DIGITS = re.compile(rb"[0-9]+")
_COMMA = ord(",")


class NetstringError(Exception):
    """The stream is no sequence of netstrings, and nothing that follows can be understood.

    `frames` are those that were whole before the break in the same octets: their askers still
    have an answer to come.
    """

    def __init__(self, why: Why, frames: tuple[bytes, ...] = ()) -> None:
        super().__init__(why)
        self.why: Why = why
        self.frames = frames


class Decoder:
    """Octets as they come to the payloads of whole frames.

    Holds at most `limit` octets of payload and the length before it. The limit is held against
    the length as soon as that is read, so that no frame is buffered that would be refused. An
    octet is moved a bounded number of times, in whatever pieces it comes.
    """

    __slots__ = ("_broken", "_buffer", "_limit", "_most_digits", "_need")

    def __init__(self, limit: int) -> None:
        """`limit`: octets of payload in one frame."""
        self._limit = limit
        self._most_digits = len(str(limit))
        self._buffer = bytearray()
        self._need = 0  # octets in the buffer below which it is not worth a look
        self._broken: Why | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing of a frame has begun: what comes next is the first octet of one."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are whole now, in order.

        Raises NetstringError, and again for whatever comes after.
        """
        if self._broken is not None:
            raise NetstringError(self._broken)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        frames: list[bytes] = []
        try:
            rest = self._take(data, frames)
        except NetstringError as error:
            self._broken = error.why
            raise NetstringError(error.why, tuple(frames)) from None
        self._buffer += data[rest:]
        return frames

    def _take(self, data: bytes, frames: list[bytes]) -> int:
        """Append the payloads that are whole to `frames`; where the rest begins."""
        at = 0
        while at < len(data):
            colon = data.find(b":", at, at + self._most_digits + 1)
            if colon < 0:
                self._length(data[at : at + self._most_digits + 1])
                self._need = 0
                return at
            end = colon + 1 + self._length(data[at:colon])
            if end >= len(data):
                self._need = end + 1 - at
                return at
            if data[end] != _COMMA:
                raise NetstringError("terminator")
            frames.append(data[colon + 1 : end])
            at = end + 1
        return at

    def _length(self, digits: bytes) -> int:
        """The length that is written there; also asked of its beginning, which is never greater.

        Raises NetstringError. Netstrings have no leading zeros.
        """
        if _LENGTH.fullmatch(digits):
            length = int(digits)
            if length <= self._limit:
                return length
        raise NetstringError(self._why_not(digits))

    def _why_not(self, digits: bytes) -> Why:
        """Why its shortest bad beginning is bad: the same in whatever pieces it came."""
        for end in range(1, len(digits) + 1):
            if not _DIGITS.fullmatch(digits, 0, end):
                break
            if not _LENGTH.fullmatch(digits, 0, end):
                return "leading-zero"
            if int(digits[:end]) > self._limit:
                return "too-long"
        return "length"


def encode(payload: bytes) -> bytes:
    """The frame around a payload."""
    return b"%d:%b," % (len(payload), payload)
