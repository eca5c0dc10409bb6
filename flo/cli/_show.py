"""Runs, their history and their output as text and as JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flo.api.grid import HistoryEntry, LogLine, RunView
from flo.cli import _out, _times

STATUS_STYLES: Final = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "timed_out": "red",
}

_encode = msgspec.json.Encoder().encode
_NULL: Final = b"null"


def run_object(view: RunView) -> dict[str, Any]:
    """What `flo run --format json` prints of a run; `paused` is there when the runtime paused it."""
    error = view.error
    shown: dict[str, Any] = {
        "id": view.id,
        "flow": view.flow,
        "status": view.status,
        "result": view.result,
        "error": None if error is None else {"kind": error.kind, "message": error.message, "where": error.where},
        "output": view.output,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
    }
    if view.paused is not None:
        shown["paused"] = view.paused
    return shown


def whole_object(view: RunView) -> dict[str, Any]:
    """What `flo runs show` prints: also what the run waits for, and where it comes from."""
    return {**run_object(view), "waiting": view.waiting, "paused": view.paused, "parent": view.parent}


def list_object(view: RunView) -> dict[str, Any]:
    whole = whole_object(view)
    del whole["output"]
    return whole


def as_json(value: Any) -> bytes:
    return _encode(value)


def result_line(view: RunView) -> str | None:
    """The result as one line of JSON, None when there is none to show."""
    raw = bytes(view.result) if view.result is not None else _NULL
    if raw.strip() == _NULL:
        return None
    if b"\n" in raw:
        raw = msgspec.json.format(raw, indent=-1)
    return raw.decode()


def waits_for(view: RunView) -> str:
    """What a run waits for, in a few words."""
    if view.status != "running":
        return ""
    if view.paused is not None:
        return "paused: " + view.paused.partition("\n")[0]
    kinds = list(dict.fromkeys(waiting.on for waiting in view.waiting))
    return ", ".join(kinds[:3]) + (f", … {len(kinds) - 3} more" if len(kinds) > 3 else "")


def duration(view: RunView, now: int) -> str:
    return _times.span((view.finished_at or now) - view.started_at)


def status_word(status: str) -> str:
    return _out.styled(status, STATUS_STYLES[status], sys.stdout)


def runs_table(views: Sequence[RunView], now: int) -> str:
    rows = [
        [view.id, view.flow, view.status, _times.rough(now - view.started_at), duration(view, now), waits_for(view)]
        for view in views
    ]
    return table(["ID", "FLOW", "STATUS", "AGE", "DURATION", "WAITS FOR"], rows, status_column=2)


def history_table(entries: Sequence[HistoryEntry]) -> str:
    rows = [
        [str(entry.index), _times.local(entry.at), entry.id, entry.kind, entry.status, _detail(entry)]
        for entry in entries
    ]
    return table(["INDEX", "AT", "ID", "KIND", "STATUS", "WHAT"], rows)


def log_text(line: LogLine) -> str:
    """A print as it was; what came another way says which: `[log] charged amount=30`, `[progress] 3/10`."""
    if line.channel == "print":
        return line.text
    try:
        value = msgspec.json.decode(line.text)
    except msgspec.DecodeError:
        value = None
    return f"[{line.channel}] " + (_channel_text(line.channel, value) or line.text)


def _channel_text(channel: str, value: Any) -> str | None:
    match channel, value:
        case "log", {"message": str(message), "fields": dict(fields)}:
            return " ".join([message, *(f"{name}={_encode(field).decode()}" for name, field in fields.items())])
        case "progress", {"done": done, "total": total}:
            return _encode(done).decode() + ("" if total is None else f"/{_encode(total).decode()}")
        case "publish", {"key": key, "value": published}:
            return f"{key} = {_encode(published).decode()}"
    return None


def run_text(view: RunView, now: int) -> str:
    """All about one run, a field to a line."""
    fields = [
        ("id", view.id),
        ("flow", view.flow),
        ("status", status_word(view.status)),
        ("started", f"{_times.local(view.started_at)} ({_times.rough(now - view.started_at)} ago)"),
    ]
    if view.finished_at is not None:
        fields.append(("finished", _times.local(view.finished_at)))
    fields.append(("duration", duration(view, now)))
    if view.parent is not None:
        fields.append(("parent", view.parent))
    if view.paused is not None:
        fields.append(("paused", view.paused))
    fields += [
        ("waits for", f"{waiting.on}  ({waiting.task} {waiting.flow}, {_times.rough(now - waiting.since)})")
        for waiting in view.waiting
    ]
    if view.output:
        fields.append(("output", f"{len(view.output)} prints, see: flo runs logs {view.id}"))
    line = result_line(view)
    if line is not None:
        fields.append(("result", line))
    if view.error is not None:
        fields.append(("error", error_text(view)))
    width = len("waits for") + 2
    text = "".join(f"{name:<{width}}" + value.replace("\n", "\n" + " " * width) + "\n" for name, value in fields)
    if view.error is not None and view.error.traceback:
        text += "\n" + view.error.traceback.rstrip("\n") + "\n"
    return text


def error_text(view: RunView) -> str:
    error = view.error
    assert error is not None
    return f"{error.kind}: {error.message}" + (f" at {error.where}" if error.where else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, status_column: int | None = None) -> str:
    """Columns two blanks apart; the last one is cut at the edge of a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    room = shutil.get_terminal_size().columns if _out.is_terminal(sys.stdout) else sys.maxsize
    lines = []
    for row in [head, *rows]:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        left = max(room - sum(widths[:-1]) - 2 * (len(widths) - 1), 10)
        cells[-1] = row[-1] if len(row[-1]) <= left else row[-1][: left - 1] + "…"
        if row is head:
            lines.append(_out.styled("  ".join(cells).rstrip(), "bold", sys.stdout))
            continue
        if status_column is not None:
            word = row[status_column]
            cells[status_column] = cells[status_column].replace(word, status_word(word))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _detail(entry: HistoryEntry) -> str:
    parts = []
    for name, value in (("", entry.params), ("→ ", entry.result), ("✗ ", entry.error)):
        if value is not None:
            text = _encode(value).decode()
            parts.append(name + (text if len(text) <= 200 else text[:199] + "…"))
    return " ".join([*parts, *([f"({entry.where})"] if entry.where else [])])
