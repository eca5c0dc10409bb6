"""The server's log: one line on stderr for each event, as text for people or as JSON for programs.

    2026-07-01T12:00:00.123Z info  server: ready client=127.0.0.1:9000 data=/var/lib/flo
    {"time":"2026-07-01T12:00:00.123Z","level":"info","logger":"server","event":"ready","client":"127.0.0.1:9000",…}

    event(log, "ready", client="127.0.0.1:9000")

Values of keys, messages and records, and settings that are secret, are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, Final, TextIO

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
NAMES: Final = {number: name for name, number in LEVELS.items()} | {logging.CRITICAL: "error"}
VALUE_CHARS: Final = 8_192  # of one field; the rest is cut

_faults = logging.getLogger("flo.server")


def event(log: logging.Logger, text: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Logs an event with its fields."""
    log.log(level, "%s", text, extra={"fields": fields})


def set_up(level: str, format: str, stream: TextIO | None = None) -> None:
    """From now on Flo's loggers write to the stream (stderr), and so do faults that nobody catches."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger("flo")
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    root.propagate = False
    for other in ("asyncio", "py.warnings"):
        logger = logging.getLogger(other)
        logger.handlers[:] = [handler]
        logger.setLevel(max(LEVELS[level], logging.WARNING))
        logger.propagate = False
    threading.excepthook = _thread_fault


def _thread_fault(fault: threading.ExceptHookArgs) -> None:
    if fault.exc_type is SystemExit:
        return
    name = fault.thread.name if fault.thread is not None else ""
    error = fault.exc_value
    trace = (fault.exc_type, error, fault.exc_traceback) if error is not None else None
    _faults.error("%s", "a thread had a fault", exc_info=trace, extra={"fields": {"thread": name}})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, "fields", None) or {})
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["error"] = f"{type(error).__name__}: {error}"
        fields["trace"] = "".join(traceback.format_exception(error))
    return fields


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _name(record: logging.LogRecord) -> str:
    return record.name.removeprefix("flo.").removeprefix("server.")


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}… ({len(text)} characters)"


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = NAMES.get(record.levelno, record.levelname.lower())
        fields = "".join(f" {name}={_text(value)}" for name, value in _fields(record).items())
        message = _cut(record.getMessage()).replace("\n", "\\n")
        return f"{_time(record)} {level:<5} {_name(record)}: {message}{fields}"


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = {
            "time": _time(record),
            "level": NAMES.get(record.levelno, record.levelname.lower()),
            "logger": _name(record),
            "event": _cut(record.getMessage()),
        }
        for name, value in _fields(record).items():
            shown[f"{name}_" if name in shown else name] = _cut(value) if isinstance(value, str) else value
        return json.dumps(shown, ensure_ascii=False, default=str)


def _text(value: object) -> str:
    """A field's value in one word, quoted where that is not obvious."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    text = _cut(str(value))
    if text and not any(char.isspace() or char in '"=\\' or not char.isprintable() for char in text):
        return text
    return json.dumps(text, ensure_ascii=False)
