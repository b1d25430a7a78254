"""A log file by its name, through rotation and truncation: octets in, whole lines out.

Everything here blocks on the disk and belongs in a thread, one call at a time. Nothing is kept
but offsets: a line whose end is not written yet is read again, so a position is always the
beginning of a line.

Rotation by rename: the file that was being read is read to its end, then the one that follows it,
which may have been rotated itself meanwhile (`NAME.1`, or `NAME-20251124` of logrotate's
`dateext`). One process writes a log, so once the next file has a line the one before has all of
its own. Rotation by copy and truncation: the octets before the position are not there any more; the
copy that has them is read to its end. Compressed files are not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CHUNK = 16_384
"""Octets of a read. At 20 us for a line of 200 that tells of TLS it takes less than 2 ms to digest,
for which look-ups wait."""

LONGEST = 8_192
"""Octets of a line; a longer one is skipped. Postfix writes 2,000 at most, rsyslog cuts at 8 K."""

BEFORE = 512
"""Octets before a position by which it is known again: some lines, with their times and pids."""

MAX_SIBLINGS = 64
"""Files beside the log that are looked at."""

_MARK = re.compile(r"([0-9]{1,20}):([0-9]{1,20}):([0-9]{1,19}):([0-9]{1,3}):([0-9a-f]{16})")
_NUMBERED = re.compile(r"\.([0-9]{1,4})")
_DATED = re.compile(r"-[0-9]{8}[0-9-]{0,12}")


@dataclass(frozen=True, slots=True)
class Mark:
    """The beginning of a line. `digest` is that of the `length` octets before it.

    An inode may be used again, and a device have another number after a restart of the machine, so
    what decides is the octets; with none of them (offset 0) the inode has to do.
    """

    device: int
    inode: int
    offset: int
    length: int
    digest: str

    def encode(self) -> str:
        """Text without blanks."""
        return f"{self.device}:{self.inode}:{self.offset}:{self.length}:{self.digest}"

    @staticmethod
    def decode(text: str) -> Mark | None:
        """What `encode` gave, None for anything else."""
        found = _MARK.fullmatch(text)
        if found is None or int(found[4]) > int(found[3]):
            return None
        return Mark(int(found[1]), int(found[2]), int(found[3]), int(found[4]), found[5])


@dataclass(frozen=True, slots=True)
class NotOpen:
    """A file can't be read. `missing`: there is none."""

    missing: bool
    why: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What a read gave. `octets` passed, 0 at the end. `long`: lines that were skipped.

    `changed`: the octets before the position are others now, so nothing was read.
    """

    lines: Sequence[bytes] = ()
    octets: int = 0
    long: int = 0
    changed: bool = False


class TailedFile:
    """An open file and how far it was read."""

    def __init__(self, fd: int, offset: int = 0) -> None:
        """Takes the descriptor over. `offset` is the beginning of a line."""
        self._fd = fd
        status = os.fstat(fd)
        self.key = (status.st_dev, status.st_ino)
        length = min(offset, BEFORE)
        before = os.pread(fd, length, offset - length)
        self._offset, self._before = offset, before
        self._safe = offset, before
        self._skipping = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def size(self) -> int:
        """Octets now."""
        return os.fstat(self._fd).st_size

    def begun(self) -> bool:
        """Whether there is a whole line: at its end the file can be known again."""
        first = os.pread(self._fd, LONGEST + 1, 0)
        return b"\n" in first or len(first) > LONGEST

    def mark(self) -> Mark:
        """The beginning of the first line that was not given out."""
        offset, before = self._safe
        return Mark(*self.key, offset, len(before), _digest(before))

    def at(self, mark: Mark) -> bool:
        """Whether this is how the file began or goes on at a mark."""
        if mark.length == 0:
            return mark.offset == 0 and self.key[1] == mark.inode
        before = os.pread(self._fd, mark.length, mark.offset - mark.length)
        return len(before) == mark.length and _digest(before) == mark.digest

    def seek(self, offset: int) -> None:
        """Read from the beginning of a line on."""
        length = min(offset, BEFORE)
        before = os.pread(self._fd, length, offset - length)
        self._offset, self._before = offset, before
        self._safe = offset, before
        self._skipping = False

    def seek_end(self) -> None:
        """Read what is written from now on, beginning with the line that is not whole yet."""
        size = self.size()
        begin = max(size - LONGEST - 1, 0)
        end = os.pread(self._fd, size - begin, begin).rfind(b"\n")
        self.seek(begin + end + 1)  # without a line end in sight: at a line that is too long

    def read(self, until: int | None = None) -> Piece:
        """The next whole lines, without their ends; `until` is an offset to stop at."""
        limit = CHUNK if until is None else min(max(until - self._offset, 0), CHUNK)
        known = len(self._before)
        data = os.pread(self._fd, known + limit, self._offset - known)
        if data[:known] != self._before:
            return Piece(changed=True)
        body = data[known:]
        if self._skipping:
            return self._skip(body)
        whole, end, rest = body.rpartition(b"\n")
        if not end:
            if len(rest) <= LONGEST:
                return Piece()
            self._skipping = True
            return self._skip(body)
        self._pass(body[: len(whole) + 1], safe=True)
        lines = whole.split(b"\n")
        kept = [line for line in lines if len(line) <= LONGEST]
        return Piece(kept, len(whole) + 1, len(lines) - len(kept))

    def _skip(self, body: bytes) -> Piece:
        """Within a line that is too long: up to its end. The position stays at its beginning, or a
        restart would take its rest for a line, which whoever wrote it may have meant."""
        end = body.find(b"\n")
        if end < 0:
            self._pass(body, safe=False)
            return Piece(octets=len(body))
        self._skipping = False
        self._pass(body[: end + 1], safe=True)
        return Piece(octets=end + 1, long=1)

    def _pass(self, octets: bytes, *, safe: bool) -> None:
        self._offset += len(octets)
        self._before = (self._before + octets)[-BEFORE:]
        if safe:
            self._safe = self._offset, self._before


Note = Literal["", "opened", "rotated", "truncated", "missing", "denied"]


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a turn. `mark`: the position behind the lines. `idle`: nothing is left for now.

    `partial`: octets at the end of a rotated file that are no line. `found`: of a file that was
    truncated there is a copy, so that nothing is lost.
    """

    mark: Mark | None = None
    lines: Sequence[bytes] = ()
    octets: int = 0
    long: int = 0
    note: Note = ""
    idle: bool = False
    partial: bool = False
    found: bool = False
    why: str = ""


class Tail:
    """The log of a name: which file is being read, and which comes next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TailedFile | None = None

    def begin(self) -> Mark | NotOpen:
        """Read what is written from now on; a file that is not there now, from its beginning."""
        file = open_log(self._path)
        if isinstance(file, NotOpen):
            return file
        try:
            file.seek_end()
        except OSError as error:
            file.close()
            return NotOpen(False, str(error))
        self._file = file
        return file.mark()

    def resume(self, mark: Mark) -> bool | NotOpen:
        """Go on at a mark; False if it is not found, neither in the log nor in one beside it."""
        self._file = locate(self._path, mark)
        if self._file is not None:
            return True
        file = open_log(self._path)
        if isinstance(file, NotOpen):
            return file
        file.close()
        return False

    def again(self, mark: Mark) -> Iterator[Step]:
        """What was read between a mark and the position now; nothing if the mark is not found.

        Reads while it is iterated over.
        """
        last = self._file
        first = locate(self._path, mark)
        if first is None or last is None:
            return
        files = _chain(self._path, first, last)
        try:
            for file in files:
                until = last.mark().offset if file.key == last.key else None
                while (piece := file.read(until)).octets:
                    yield Step(file.mark(), piece.lines, piece.octets)
        finally:
            for file in {first, *files}:
                file.close()

    def step(self) -> Step:
        """The next lines, or what became of the file."""
        if self._file is None:
            return self._open()
        piece = self._file.read()
        if piece.changed:
            return self._truncated(self._file)
        if piece.octets:
            return _step(self._file, piece)
        return self._rotated(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> Step:
        file = open_log(self._path)
        if isinstance(file, NotOpen):
            return _not_open(file)
        self._file = file
        return Step(file.mark(), note="opened")

    def _truncated(self, file: TailedFile) -> Step:
        mark = file.mark()
        other = locate(self._path, mark)
        found = other is not None
        if other is None:
            again = open_log(self._path)
            if isinstance(again, NotOpen):
                return _not_open(again)
            other = again
        self._file = other
        file.close()
        return Step(other.mark(), note="truncated", found=found)

    def _rotated(self, file: TailedFile) -> Step:
        """At the end of a file: go on with the one that follows."""
        after = _successor(self._path, file)
        if after is None:
            return Step(idle=True)
        if isinstance(after, NotOpen):
            # Between a rename and the creation of the new file there is none.
            return Step(idle=True) if after.missing else _not_open(after)
        piece = file.read()  # what was written before the next file was begun
        if piece.changed or piece.octets:
            after.close()
            return _step(file, piece)
        partial = file.size() > file.mark().offset
        self._file = after
        file.close()
        return Step(after.mark(), note="rotated", partial=partial)


def _step(file: TailedFile, piece: Piece) -> Step:
    return Step(file.mark(), piece.lines, piece.octets, piece.long)


def _not_open(file: NotOpen) -> Step:
    return Step(note="missing" if file.missing else "denied", idle=True, why=file.why)


def open_log(path: Path) -> TailedFile | NotOpen:
    """Open a file at its beginning; only a regular one, for a pipe would never end."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        return NotOpen(isinstance(error, FileNotFoundError), os.strerror(error.errno or 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return NotOpen(False, "not a regular file")
    return TailedFile(fd)


def locate(path: Path, mark: Mark) -> TailedFile | None:
    """The file that has the octets before a mark, at it; rather the one with its inode."""
    beside = [p for family in _families(path) for p in family]
    paths = sorted([path, *reversed(beside)], key=lambda p: _key(p) != (mark.device, mark.inode))
    for candidate in paths:
        file = open_log(candidate)
        if isinstance(file, NotOpen):
            continue
        with contextlib.suppress(OSError):
            if file.at(mark):
                file.seek(mark.offset)
                return file
        file.close()
    return None


def _chain(path: Path, first: TailedFile, last: TailedFile) -> Sequence[TailedFile]:
    """The files from the first to the last, both included; none if the last does not follow.

    The last one is not the given one, which is being read elsewhere, unless it is the first.
    """
    files = [first]
    while files[-1].key != last.key:
        after = _successor(path, files[-1]) if len(files) <= MAX_SIBLINGS else None
        if after is None or isinstance(after, NotOpen):
            for file in files[1:]:
                file.close()
            return ()
        files.append(after)
    return files


def _successor(path: Path, file: TailedFile) -> TailedFile | NotOpen | None:
    """The file that was begun when this one was rotated; None if there is none yet.

    None as well while files are being renamed, which is told by looking twice.
    """
    wanted = _next(path, file)
    if wanted is None:
        return None
    after = open_log(wanted)
    if isinstance(after, NotOpen):
        return after
    begun = wanted != path or after.begun()
    if begun and _key(wanted) == after.key and _next(path, file) == wanted:
        return after
    after.close()
    return None


def _next(path: Path, file: TailedFile) -> Path | None:
    """The name of the file that follows; None if this is the log itself."""
    if _key(path) == file.key:
        return None
    for family in _families(path):
        keys = [_key(p) for p in family]
        if file.key in keys:
            return [*family, path][keys.index(file.key) + 1]
    return path  # it was deleted or compressed, or moved elsewhere


def _families(path: Path) -> tuple[list[Path], list[Path]]:
    """Rotated files beside the log by their two kinds of name, each oldest first.

    Those of one kind may be left over from a time when the other was not in use.
    """
    try:
        names = [n for n in os.listdir(path.parent) if n.startswith(path.name)]
    except OSError:
        names = []
    ends = [name[len(path.name) :] for name in names]
    numbered = [e for e in ends if _NUMBERED.fullmatch(e)]
    numbered.sort(key=lambda e: -int(e[1:]))
    dated = sorted(e for e in ends if _DATED.fullmatch(e))
    return (
        [path.with_name(path.name + e) for e in numbered[-MAX_SIBLINGS:]],
        [path.with_name(path.name + e) for e in dated[-MAX_SIBLINGS:]],
    )


def _key(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _digest(octets: bytes) -> str:
    return hashlib.blake2b(octets, digest_size=8).hexdigest()
