"""Runs as they are shown outside: views, history entries, log lines. Read with the partition's lock held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

import msgspec

from flo.api.grid import HistoryEntry, LogLine, RunError, RunView, Waiting
from flo.grid.payloads import Payloads
from flo.primitives.history import Record, unpack
from flo.primitives.payload import is_reference, succeeded
from flo.primitives.run_state import Open, Run, Task

SHOWN_BYTES = 4_096  # of a value in a history entry; longer ones are cut and say so
WAITING_TOLD = 50  # flows of a run in an update to its watchers, which each of its commands may set off

Load = Callable[[str], str]  # the text behind a reference

_json = msgspec.json.Decoder().decode


def log_lines(run: Run, payloads: Payloads) -> list[LogLine]:
    """All output of a run, wherever it is."""
    packed, count = bytes(run.output), run.output_count
    if not packed and count and run.archives:
        for part in archive_parts(payloads.load_bytes(run.archives[-1])):
            if part.run == run.id and part.output_count:
                packed = part.output
    if not packed:
        return []
    lines = msgspec.msgpack.decode(b"\xdd" + count.to_bytes(4, "big") + packed, type=list[tuple[int, str, str, str]])
    return [LogLine(*line) for line in lines]


def run_view(run: Run, payloads: Payloads, *, output: bool = True, waiting_max: int | None = None) -> RunView:
    result, error = None, None
    if run.status != "running":
        outcome = payloads.load(run.outcome)
        if succeeded(outcome):
            result = msgspec.Raw(outcome[1:].encode()) if run.status == "completed" else None
        else:
            error = run_error(outcome)
    return RunView(
        id=run.id,
        flow=run.root.flow,
        status=run.status,
        result=result,
        error=error,
        output=[line.text for line in log_lines(run, payloads) if line.channel == "print"] if output else [],
        started_at=run.started_at,
        finished_at=run.finished_at or None,
        waiting=waiting(run, waiting_max) if run.status == "running" else [],
        paused=run.paused or None,
        parent=run.parent.rpartition("/")[0] or None,
    )


def run_error(outcome: str) -> RunError:
    body = _json(outcome[1:].encode())
    details = body.get("details")
    traceback = ""
    if isinstance(details, dict):
        traceback = str(details.pop("traceback", "") or "")
    return RunError(
        kind=body["kind"],
        message=body["message"],
        where=body.get("where"),
        traceback=traceback,
        retryable=bool(body.get("retryable")),
        details=details or None,
    )


def waiting(run: Run, most: int | None = None) -> list[Waiting]:
    """What each strand of the run waits for; `running` for one that could be evaluated. Of more than `most` the
    oldest, and one entry that stands for the others."""
    tasks = chain((run.root,), (run.tasks or {}).values())
    told = [_waiting(task) for task in islice((task for task in tasks if not task.inline), most)]
    left = 0 if most is None or len(told) < most else 1 + len(run.tasks or ()) - most
    if left > 0:
        told.append(Waiting(task="", flow="", on=f"{left} more flows", since=run.started_at))
    return told


def _waiting(task: Task) -> Waiting:
    name = task.flow.rpartition("::")[2] or task.flow
    if task.phase == "backoff":
        return Waiting(task=task.prefix, flow=name, on=f"retry at {_clock(task.due)}", since=task.started_at)
    if task.phase == "ending":
        return Waiting(task=task.prefix, flow=name, on=f"ending ({_ending(task)})", since=task.started_at)
    if task.resources is not None:
        for r in task.resources:
            if r.state != "open":
                what = f"lock {r.name}" if r.kind == "lock" else f"resource {r.name} ({r.state})"
                return Waiting(task=task.prefix, flow=name, on=what, since=task.started_at)
    if task.blocked is not None:
        holder, n = task.blocked
        opened = (holder.open or {}).get(n)
        if opened is not None:
            return Waiting(task=task.prefix, flow=name, on=_on(opened), since=opened.at)
    return Waiting(task=task.prefix, flow=name, on="running", since=task.started_at)


def _ending(task: Task) -> str:
    if task.children:
        return "a flow below it is ending" if task.children == 1 else f"{task.children} flows below it are ending"
    return ", ".join(f"closing {r.name}" for r in task.resources or () if r.state != "closed") or "closing"


def _clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _on(opened: Open) -> str:
    """What an open action waits for, in words."""
    kind = opened.kind
    try:
        params = _json(opened.recorded.encode())
    except msgspec.DecodeError:
        params = {}  # long parameters are kept as their hash
    until = f" until {_clock(opened.due)}" if opened.due else ""
    if kind == "clock.sleep":
        return f"sleep{until}"
    if kind == "signal":
        return f"signal {params.get('type', '')}{until}"
    if kind == "receive":
        return f"message{until}"
    if kind == "wait":
        return f"wait for {opened.left} of {len(opened.handles or ())} handles{until}"
    if kind.startswith("http."):
        again = f" (attempt {opened.attempt})" if opened.attempt > 1 else ""
        return f"{kind} {params.get('url', '')}{again}{until}"
    if kind == "flow":
        return f"flow {str(params.get('flow', '')).rpartition('::')[2]}"
    return kind


# -- history


def history(run: Run, payloads: Payloads) -> list[HistoryEntry]:
    """All entries of a run, oldest first. Inside a finished flow they are its result only."""
    load = payloads.load
    started = HistoryEntry(
        index=run.index, id="", kind="run.started", at=run.started_at, status="completed",
        params={"flow": run.root.flow, "args": _shown(run.root.args, load), "username": run.username},
    )  # fmt: skip
    entries = [started]
    for task in run.all_tasks():
        for record in _records(run, task, payloads):
            entries.append(_entry(task.prefix, record, load))
        for n, opened in (task.open or {}).items():
            entries.append(_open_entry(task.prefix, n, opened))
    if run.status != "running":
        outcome = run.outcome
        entries.append(
            HistoryEntry(
                index=run.finished_index,
                id="",
                kind="run.finished",
                at=run.finished_at,
                status="completed" if run.status == "completed" else "failed",
                result=_value(outcome, load) if succeeded(outcome) else None,
                error=None if succeeded(outcome) else _without_traceback(_value(outcome, load)),
            )
        )
    entries.sort(key=lambda entry: entry.index)
    return entries


class ArchivePart(msgspec.Struct, array_like=True):
    """One packed history inside an archive's blob."""

    run: str
    prefix: str
    count: int
    packed: bytes
    output: bytes = b""
    output_count: int = 0


archive_parts = msgspec.msgpack.Decoder(list[ArchivePart]).decode


def _records(run: Run, task: Task, payloads: Payloads) -> Iterator[Record]:
    if task is run.root and not task.count and run.status != "running" and run.archives:
        for part in archive_parts(payloads.load_bytes(run.archives[-1])):
            if part.run == run.id and part.prefix == task.prefix:
                yield from unpack(part.packed, part.count)
        return
    yield from task.records()


def _entry(prefix: str, r: Record, load: Load) -> HistoryEntry:
    fine = succeeded(r.outcome)
    return HistoryEntry(
        index=r.index, id=f"{prefix}.{r.n}", kind=_kind(r.kind), at=r.at, status="completed" if fine else "failed",
        params=_shown(r.params, load), result=_value(r.outcome, load) if fine else None,
        error=None if fine else _without_traceback(_value(r.outcome, load)), where=r.where,
    )  # fmt: skip


def _open_entry(prefix: str, n: int, o: Open) -> HistoryEntry:
    return HistoryEntry(
        index=o.index, id=f"{prefix}.{n}", kind=_kind(o.kind), at=o.at, status="requested",
        params=_shown(o.recorded, None), where=o.where,
    )  # fmt: skip


def _kind(kind: str) -> str:
    return "flow.run" if kind == "flow" else kind


def _shown(text: str, load: Load | None) -> Any:
    if is_reference(text):
        return text
    try:
        return _json(text.encode())
    except msgspec.DecodeError:
        return text  # the hash of long parameters


def _value(outcome: str, load: Load) -> Any:
    if is_reference(outcome):
        outcome = load(outcome)
    if len(outcome) > SHOWN_BYTES and outcome[0] == "+":
        return outcome[1:SHOWN_BYTES] + f"… ({len(outcome) - 1} bytes)"
    return _json(outcome[1:].encode())


def _without_traceback(error: Any) -> Any:
    details = error.get("details") if isinstance(error, dict) else None
    if isinstance(details, dict):
        details.pop("traceback", None)
        error["details"] = details or None
    return error
