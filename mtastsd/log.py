"""Logging: one event, `key=value`. Text, JSON, or the journal with fields.

An event is a stable word with fields; where each is emitted, its level says who should care:
`debug` nobody, `info` whoever asks what happened, `warning` the operator, `error` the operator now.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

LOGGER = "mtastsd"

MAX_VALUE = 300
"""Characters of one field's value: a log line stays a line that a person reads."""

_BARE = re.compile(r"[!-<>-~]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Fields = Mapping[str, object]


class Log:
    """Events of one part of the daemon. Fields may hold remote text: it is made printable here."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(LOGGER)

    def debug(self, event: str, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, *, exc: BaseException | None = None, **fields: object) -> None:
        """An error; `exc` adds its traceback, for bugs only."""
        self._emit(logging.ERROR, event, fields, exc)

    def _emit(
        self, level: int, event: str, fields: Fields, exc: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level, "%s", event, extra={"fields": _clean(fields)}, exc_info=exc, stacklevel=3
            )


def _clean(fields: Fields) -> dict[str, object]:
    """Drop what says nothing (None, ""), bound and defuse what is text."""
    out: dict[str, object] = {}
    for key, value in fields.items():
        if value is None or value == "":
            continue
        if isinstance(value, bool):
            out[key] = "yes" if value else "no"
        elif isinstance(value, float):
            out[key] = round(value, 3)
        elif isinstance(value, int):
            out[key] = value
        else:
            out[key] = _CONTROL.sub("?", str(value)[:MAX_VALUE])
    return out


def line(record: logging.LogRecord) -> str:
    """`event key=value key="two words"`, without time and level."""
    parts = [record.getMessage()]
    for key, value in fields_of(record).items():
        text = str(value)
        if not _BARE.fullmatch(text):
            text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        parts.append(f"{key}={text}")
    return " ".join(parts)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record; empty for records of other libraries."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


class TextFormatter(logging.Formatter):
    """For a terminal or a syslog that adds its own time: `warning: event key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else record.levelname.lower() + ": "
        text = f"mtastsd: {level}{line(record)}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


class JournalHandler(logging.Handler):
    """To systemd's journal, each field as `MTASTSD_NAME`, the event as `MTASTSD_EVENT`."""

    _PRIORITY = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def emit(self, record: logging.LogRecord) -> None:
        from systemd import journal

        priority = next((p for level, p in self._PRIORITY if record.levelno >= level), 7)
        fields = {f"MTASTSD_{k.upper()}": str(v) for k, v in fields_of(record).items()}
        text = line(record)
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        journal.send(
            text,
            PRIORITY=priority,
            SYSLOG_IDENTIFIER="mtastsd",
            MTASTSD_EVENT=record.getMessage(),
            **fields,
        )


def setup(level: str, fmt: str, *, under_systemd: bool) -> None:
    """Point the process's logging at one handler. `fmt` is auto, text, json or journal."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter())
    if fmt == "journal" or (fmt == "auto" and under_systemd):
        try:
            import systemd.journal  # noqa: F401

            handler = JournalHandler()
        except ImportError:
            pass  # without the extra `systemd`, stderr reaches the journal all the same
    # What no formatter of ours shows, and what takes a third of the time of a line.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Change the level of our own events."""
    logging.getLogger(LOGGER).setLevel(level.upper())
