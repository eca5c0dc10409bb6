"""A grid without engine or log, told by its test what its runs do; with a directory, one that a lock guards.

Runs of the flow `fake::echo` end at once with their arguments, all others when the test says so or, with
`fake::wait`, at the signal `go`.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flo.api.errors import Conflict, FloError, NotFound
from flo.api.grid import FINAL, HistoryEntry, LogLine, RunError, RunView, StartRequest, Update
from flo.log.errors import DirectoryLocked


class FakeGrid:
    def __init__(self, directory: str | None = None) -> None:
        self.lock = threading.RLock()
        self.bundles: dict[bytes, bytes] = {}
        self.requests: dict[str, StartRequest] = {}
        self.views: dict[str, RunView] = {}
        self.lines: dict[str, list[LogLine]] = {}
        self.signals: list[tuple[str, str, str]] = []
        self.executed: list[Sequence[str] | None] = []
        self.batches: list[int] = []
        self.watchers: dict[str, list[Callable[[Update], None]]] = {}
        self.closed = False
        self.before_call: Callable[[str], None] = lambda name: None
        self._file: Any = None
        if directory is not None:
            self._open(directory)

    def _open(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        self._file = open(os.path.join(directory, "lock"), "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DirectoryLocked(f"{directory} is locked by another process") from None
        self._file.seek(0)
        for line in self._file:
            self._apply(*msgspec.json.decode(line))

    def _write(self, *fact: Any) -> None:
        if self._file is not None:
            self._file.write(msgspec.json.encode(fact) + b"\n")
            self._file.flush()
        self._apply(*fact)

    def _apply(self, what: str, id: str, *rest: Any) -> None:
        if what == "start":
            request = msgspec.convert(rest[0], StartRequest)
            self.requests[id] = request
            self.views[id] = RunView(id=id, flow=request.flow, status="running", started_at=1)
            self.lines[id] = []
        elif what == "line":
            line = LogLine(at=2, task="0", channel="print", text=rest[0])
            self.lines[id].append(line)
            self._tell(id, Update(lines=[line]))
        elif what == "end":
            status, value, error = rest
            self.views[id] = msgspec.structs.replace(
                self.views[id], status=status, finished_at=3,
                result=None if value is None else msgspec.Raw(value.encode()),
                error=None if error is None else msgspec.convert(error, RunError),
                output=[line.text for line in self.lines[id]],
            )  # fmt: skip
            self._tell(id, Update(lines=[], view=self.views[id]))

    def _tell(self, id: str, update: Update) -> None:
        for watcher in list(self.watchers.get(id, ())):
            watcher(update)

    def print(self, id: str, text: str) -> None:
        with self.lock:
            self._write("line", id, text)

    def finish(self, id: str, value: Any = None) -> None:
        with self.lock:
            self._write("end", id, "completed", msgspec.json.encode(value).decode(), None)

    def fail(self, id: str, status: str, kind: str, message: str) -> None:
        with self.lock:
            self._write("end", id, status, None, {"kind": kind, "message": message, "where": "x.flow:3:5"})

    def pause(self, id: str, why: str) -> None:
        with self.lock:
            self.views[id] = msgspec.structs.replace(self.views[id], paused=why)
            self._tell(id, Update(lines=[], view=self.views[id]))

    def lose(self) -> None:
        """As a node that was fenced."""
        with self.lock:
            for id in self.watchers:
                self._tell(id, Update(lines=[]))

    def has_bundle(self, digest: bytes) -> bool:
        return digest in self.bundles

    def put_bundle(self, digest: bytes, data: bytes) -> None:
        self.bundles[digest] = data

    def start(self, request: StartRequest, *, execute: bool = True) -> RunView:
        self.before_call("start")
        with self.lock:
            known = self.requests.get(request.id)
            if known is None:
                self._write("start", request.id, msgspec.to_builtins(request))
            elif (known.flow, known.args) != (request.flow, request.args):
                raise Conflict(f"run {request.id} exists with another flow or other arguments")
            if execute:
                self._step(request.id)
            return self.views[request.id]

    def start_many(self, requests: Sequence[StartRequest], *, execute: bool = True) -> list[RunView | FloError]:
        self.batches.append(len(requests))
        answers: list[RunView | FloError] = []
        for request in requests:
            try:
                answers.append(self.start(request, execute=execute))
            except FloError as error:
                answers.append(error)
        return answers

    def _step(self, id: str) -> None:
        request = self.requests[id]
        if self.views[id].status in FINAL:
            return
        if request.flow == "fake::echo":
            self._write("line", id, f"echo {request.args}")
            self.finish(id, msgspec.json.decode(request.args))
        elif request.flow == "fake::wait" and not self.lines[id]:
            self._write("line", id, "waiting")

    def execute(self, ids: Sequence[str] | None) -> list[str]:
        self.before_call("execute")
        self.executed.append(ids)
        with self.lock:
            named = [self._view(id).id for id in ids] if ids is not None else list(self.views)
            for id in named:
                self._step(id)
            return [id for id in named if self.views[id].status not in FINAL]

    def _view(self, id: str) -> RunView:
        if id not in self.views:
            raise NotFound(f"there is no run {id}", hint="flo runs list")
        return self.views[id]

    def show(self, id: str) -> RunView:
        self.before_call("show")
        return self._view(id)

    def history(self, id: str) -> list[HistoryEntry]:
        self._view(id)
        return [HistoryEntry(index=1, id="", kind="run.started", at=1, status="completed", params={"big": 2**80})]

    def logs(self, id: str) -> list[LogLine]:
        self._view(id)
        return self.lines[id]

    def signal(self, id: str, type: str, payload: str) -> None:
        self.before_call("signal")
        with self.lock:
            if self._view(id).status in FINAL:
                raise Conflict(f"run {id} is over")
            self.signals.append((id, type, payload))
            if self.requests[id].flow == "fake::wait" and type == "go":
                self.finish(id, msgspec.json.decode(payload))

    def cancel(self, id: str, reason: str = "") -> None:
        with self.lock:
            if self._view(id).status in FINAL:
                raise Conflict(f"run {id} is over")
            self.fail(id, "cancelled", "cancelled", reason)

    def watch(self, id: str, on_update: Callable[[Update], None]) -> Callable[[], None]:
        self.before_call("watch")
        with self.lock:
            view = self._view(id)
            watchers = self.watchers.setdefault(id, [])
            watchers.append(on_update)
            on_update(Update(lines=list(self.lines[id]), view=view))

        def unwatch() -> None:
            with self.lock:
                if on_update in watchers:
                    watchers.remove(on_update)

        return unwatch

    def publish_socket(self, socket: str) -> None:
        self.socket = socket

    def close(self) -> None:
        self.closed = True
        if self._file is not None:
            self._file.close()

    # last, for below it `list` means this method in annotations
    def list(self) -> list[RunView]:
        return [msgspec.structs.replace(view, output=[]) for view in self.views.values()]
