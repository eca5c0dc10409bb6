"""A node: one partition with its log, the strands and jobs of the runs that it executes, and its clock.

    commands → Partition → GroupCommit → backend
                  │ notes                 │ durable index
        Strands, Jobs, Watches         Releases → replies, jobs, watchers

`Node.open` rebuilds the machines from snapshot and log, claims the log, and only then answers. It
implements flo.api.grid.Grid.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TypeVar
from uuid import uuid4

from flo.api import limits
from flo.api.clock import Clock, SystemClock
from flo.api.errors import BadArgument, Conflict, FloError, NotFound, Overloaded, Unavailable
from flo.api.grid import HistoryEntry, LogLine, RunView, StartRequest, Update
from flo.api.jobs import ConnectorHost
from flo.api.version import VERSION
from flo.api.worker import CRASHING, RunCore, Worker
from flo.grid.archive import Archivist
from flo.grid.jobs import Jobs
from flo.grid.partition import NEVER, Partition
from flo.grid.payloads import Payloads
from flo.grid.pressure import MEMORY_BUDGET, Pressure
from flo.grid.rebuild import rebuilt
from flo.grid.records import Records
from flo.grid.release import Releases, unknown_outcome
from flo.grid.requests import checked_start, wrong_signal
from flo.grid.run_waits import RunWaits
from flo.grid.snapshotter import SNAPSHOT_BYTES_MIN, Snapshotter
from flo.grid.store import Store
from flo.grid.strands import Strands
from flo.grid.ticker import Ticker
from flo.grid.time import PartitionTime
from flo.grid.transactions import Transactions
from flo.grid.views import history, log_lines, run_view
from flo.grid.watches import Watches
from flo.log.commit import FlushMeter, GroupCommit
from flo.log.contract import LogBackend
from flo.log.errors import LogError
from flo.log.hot import HOT_BYTES, HotBuffer
from flo.log.url import directory_of, open_log
from flo.primitives import run_decide
from flo.primitives.machine import Refused
from flo.primitives.machines import Machines
from flo.primitives.run_state import Note, Run

T = TypeVar("T")

RUNTIME = f"flo {VERSION}, replay 1"
SNAPSHOT_EVENTS = 10_000  # a planned stop with more of them since the last snapshot makes one
REBUILD_EVENTS = 10_000  # a fault in memory within so many events of the last one counts as the same again

WorkerFactory = Callable[[RunCore], Worker]
HostFactory = Callable[[], ConnectorHost]
_Mark = tuple[int, int]  # index in the log, incarnation of the memory

_REFUSALS: dict[str, type[FloError]] = {
    "not_found": NotFound,
    "conflict": Conflict,
    "bad_argument": BadArgument,
    "quota_exceeded": Overloaded,
}
_STRANDS = frozenset({"record", "ready", "revoke"})
_JOBS = frozenset({"job", "unjob", "resource"})


class Node:
    """Use `Node.open`. Thread-safe; no method may be called from `on_update` of a watch but in another thread."""

    def __init__(
        self,
        backend: LogBackend,
        machines: Machines,
        *,
        log_id: str,
        last_time_ms: int,
        snapshot_index: int,
        worker_factory: WorkerFactory | None,
        host_factory: HostFactory | None,
        clock: Clock,
        entropy: Callable[[int], bytes],
        threads: bool,
        session: str,
        directory: str | None,
        on_warning: Callable[[str], None] | None,
        snapshot_bytes_min: int,
        speculation_bytes: int,
        memory_budget: int,
        hot_bytes: int,
        partitions: int,
        make_machines: Callable[[str], Machines],
        meter: FlushMeter | None,
    ) -> None:
        self.log_id = log_id
        self.session = session
        self._backend = backend
        self._threads = threads
        self._worker_factory = worker_factory
        self._host_factory = host_factory
        self._snapshot_index = snapshot_index
        self.replayed = backend.last_index - snapshot_index  # entries of the log that the start has applied
        self._executing: set[str] = set()
        self._closing = False
        self.lost: LogError | None = None
        self.when_lost: Callable[[LogError], None] | None = None  # told of it, in any thread
        self._make_machines = make_machines
        self._meter = meter
        self.releases = Releases(0)
        self._snapshotter: Snapshotter | None = None
        if directory is not None:
            self._snapshotter = Snapshotter(
                backend, directory, on_warning, self._sweep, bytes_min=snapshot_bytes_min, live=self._live_events
            )  # fmt: skip
        self.commit_group = GroupCommit(backend, self._on_durable, self._on_lost, thread=threads, meter=meter)
        self.releases.on_durable(self.commit_group.durable_index)
        self._time = PartitionTime(clock, last_time_ms)
        self.hot = HotBuffer(hot_bytes)
        self.partition = Partition(machines, self.commit_group, self._time, self._on_notes, self._on_broken, self.hot)
        self.payloads = Payloads(backend)
        self.watches = Watches(self.releases, self.payloads)
        self.jobs = Jobs(self.partition, self.payloads, self.releases, session, log_id, self._executes, self._after)
        self.store = Store(
            self.partition, self.releases, Pressure(backend, memory_budget),
            Transactions(partitions, entropy), Records(self.hot, backend.read_events), self._after,
        )  # fmt: skip
        self.strands = Strands(
            self.partition, self.payloads, self.store.records, self.store.members, self.store.memory_refuses,
            backend.get_blob, self.jobs.claim_for, entropy, self._after, speculation_bytes=speculation_bytes,
        )  # fmt: skip
        self._run_waits = RunWaits(self.partition, self.payloads, self.store.records, self.store.members, entropy)
        self._archivist = Archivist(self.partition, self.payloads, self._await_durable)
        self._ticker = Ticker(
            self.partition, self._archivist, tick=self.tick, rebuild=self._rebuild, on_fault=self._timers_stopped,
            over=lambda: self._closing or self.lost is not None,
        )  # fmt: skip
        self._speculation_bytes = speculation_bytes
        self._bundles: set[bytes] = set()  # that were seen here and stay as long as this node
        self._rebuilt_at = -REBUILD_EVENTS  # index of the last rebuild

    # -- life

    @classmethod
    def open(
        cls,
        url: str | LogBackend,
        *,
        worker_factory: WorkerFactory | None = None,
        host_factory: HostFactory | None = None,
        durability: str = "sync",
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        threads: bool = True,
        on_warning: Callable[[str], None] | None = None,
        session: str = "",
        snapshot_bytes_min: int = SNAPSHOT_BYTES_MIN,
        speculation_bytes: int = limits.SPECULATION_BYTES,
        memory_budget: int = MEMORY_BUDGET,
        hot_bytes: int = HOT_BYTES,
        directory: str | None = None,
        make_machines: Callable[[str], Machines] = Machines,
        meter: FlushMeter | None = None,
    ) -> Node:
        """Opens and claims the log. Without factories the node executes nothing. With `threads=False` it has no
        thread of its own: `pump` flushes and `tick` runs timers (simulations, virtual time). `directory`: of a log
        that is given as a backend, for its snapshots. Raises DirectoryLocked, DirectoryUnusable, LogDamaged."""
        backend = open_log(url, durability=durability) if isinstance(url, str) else url
        info = backend.open()
        try:
            for warning in info.warnings:
                if on_warning is not None:
                    on_warning(warning)
            machines, snapshot_index = rebuilt(backend, make_machines(RUNTIME))
            backend.claim()
            machines.runs.rebuild_derived()
            if threads and isinstance(url, str):
                directory = directory_of(url)
            node = cls(
                backend, machines, log_id=info.log_id, last_time_ms=info.last_time_ms, snapshot_index=snapshot_index,
                worker_factory=worker_factory, host_factory=host_factory, clock=clock or SystemClock(), entropy=entropy,
                threads=threads, session=session or uuid4().hex[:12], directory=directory,
                on_warning=on_warning, snapshot_bytes_min=snapshot_bytes_min, speculation_bytes=speculation_bytes,
                memory_budget=memory_budget, hot_bytes=hot_bytes, partitions=info.partitions,
                make_machines=make_machines, meter=meter,
            )  # fmt: skip
        except BaseException:
            backend.close()
            raise
        with node.partition.lock:
            node.partition.commit([], node.partition.now())
            node.begin_serving()
        node._after()
        return node

    def close(self) -> None:
        """A planned stop: strands are unwound, jobs not begun are returned, those begun get STOP_GRACE_MS."""
        if self._closing:
            return
        self._closing = True
        self._ticker.changed.set()
        with self.partition.lock:
            self.strands.revoke_all("stopping")
        self._after()
        if self.strands.worker is not None:
            self.strands.worker.stop(limits.STOP_GRACE_MS)
        with suppress(Unavailable):  # the memory is lost: the next start finds the claims of a dead session
            self.jobs.close()
        if self.jobs.host is not None:
            unbegun = self.jobs.host.stop(limits.STOP_GRACE_MS)
            with suppress(Unavailable):
                self.jobs.returned(unbegun or ())
        if self._snapshotter is not None:
            self._snapshotter.close()
        self._ticker.join()
        try:
            if self.lost is None:
                self.commit_group.close()
                if self.partition.broken is None:
                    self._snapshot()
        finally:
            self.watches.lost()
            self._backend.close()

    def begin_serving(self) -> None:
        """The memory is new: whoever waited in the memory before, or was connected, is found again or given up. Called
        with the lock held."""
        self.store.started()
        self._run_waits.started()

    def publish_socket(self, socket: str) -> None:
        """Tells other processes where this owner listens, where the log has a place for it."""
        publish = getattr(self._backend, "publish_socket", None)
        if publish is not None:
            publish(socket)

    def _snapshot(self) -> None:
        last = self.partition.last_index
        newest = self._snapshot_index
        if self._snapshotter is not None:
            newest = max(newest, self._snapshotter.newest)
        if last - newest >= SNAPSHOT_EVENTS:
            machines = self.partition.machines
            live = machines.streams.live_indexes
            self._backend.put_snapshot(last, machines.dump(), machines.named_blobs(), live=live)
            self._sweep()

    def _live_events(self, first: int, last: int) -> Sequence[int]:
        """The events in this range of the log whose payloads are still read. Called without the lock."""
        with self.partition.lock:
            if self.partition.broken is not None:
                raise LogError(self.partition.broken)
            live = self.partition.machines.streams.live_indexes(first, last)
            index = self.partition.last_index
        if not self._await_durable(index):  # until then a restart may find a state that reads more
            raise LogError("the log was not durable in time to tell what of it is still read")
        return live

    def _sweep(self) -> None:
        """Removes the blobs that nothing names any more. Called without the lock."""
        with self.partition.lock:
            if self.partition.broken is not None:
                return
            self.payloads.keep_pins()
            live = self.partition.machines.named_blobs()
            last = self.partition.last_index
        durable = False
        try:
            durable = self._await_durable(last)  # until then a restart may find a state that names more
        finally:
            self.payloads.sweep(live if durable else None)

    def _await_durable(self, index: int) -> bool:
        """Waits in a thread of the node; False when the node ends or is lost before."""
        if not self._threads:
            self.commit_group.pump()
        try:
            while not self.commit_group.wait(index, timeout=1.0):
                if self._closing:
                    return False
        except LogError:
            return False
        return True

    def pump(self) -> None:
        """Without threads: makes everything pending durable, releases what waited for it, and rebuilds memory that
        cannot be trusted any more."""
        self.commit_group.pump()
        if self.partition.broken is not None:
            self._rebuild()

    def tick(self) -> None:
        """Runs the timers that are due."""
        self.partition.tick()
        self._after()

    @property
    def next_due(self) -> int | None:
        """At or before the epoch ms of the next timer."""
        due = self.partition.next_due
        return None if due == NEVER else due

    def now(self) -> int:
        with self.partition.lock:
            return self.partition.now()

    def _on_durable(self, index: int) -> None:
        self.hot.durable(index)
        self.releases.on_durable(index)
        if self._snapshotter is not None:
            self._snapshotter.on_durable(index)

    def _on_lost(self, error: LogError) -> None:
        """The log is lost (fenced, or its disk failed): nothing that rests on memory may go out any more."""
        self.lost = error
        with self.partition.lock:
            self.partition.broken = error.message
            self.strands.revoke_all("lost")
            self.store.lost(error)
        self.releases.on_lost(error)
        self.watches.lost()
        self._after()
        if self.when_lost is not None:
            self.when_lost(error)

    def _on_broken(self) -> None:
        """Called with the lock held: a command failed half-way."""
        if self._threads:
            self._ticker.wake()

    def _rebuild(self) -> None:
        """Throws memory away and begins a new incarnation from the log. Leases are over, watchers are told that they
        are lost, what waited ends as unknown; what connectors do goes on. Called without the lock."""
        if self.lost is not None or self._closing:
            return
        assert self.partition.broken is not None
        fault = LogError(self.partition.broken)
        self.releases.abandon(fault)
        with self.partition.lock:
            self.strands.restart()
            self.watches.lost()
            self.store.lost(fault)
        self._after()
        try:
            if self.partition.last_index - self._rebuilt_at < REBUILD_EVENTS:
                raise fault
            self.commit_group.close()
            machines, _ = rebuilt(self._backend, self._make_machines(RUNTIME))
            self._backend.claim()
        except LogError as error:
            if self.lost is None:
                self._on_lost(error)
            return
        machines.runs.rebuild_derived()
        with self.partition.lock:
            self.commit_group = GroupCommit(
                self._backend, self._on_durable, self._on_lost, thread=self._threads, meter=self._meter
            )  # fmt: skip
            self._rebuilt_at = self.commit_group.last_index
            self.hot.clear()
            self.partition.restart(machines, self.commit_group)
            self.jobs.restart()
            self.releases.on_durable(self._rebuilt_at)
            executing, self._executing = self._executing, set()
            with suppress(Unavailable):  # broken again: the next rebuild is the end
                self.partition.commit([], self.partition.now())
                self.begin_serving()
                for run_id in executing:
                    if run_id in machines.runs.runs:
                        self._begin_execution(machines.runs.runs[run_id])
        self._after()
        self.jobs.answer([])

    # -- what a command sets off

    def _on_notes(self, notes: list[Note]) -> None:
        """Called with the lock held, at the end of every command that has something to tell."""
        strands, jobs, watches, waits = self.strands, self.jobs, self.watches, self._run_waits
        for note in notes:
            what = note.what
            if what in _STRANDS:
                strands.note(note)
                if waits and what == "record":
                    waits.note(note)
            elif what == "park":
                waits.note(note)
            elif what in _JOBS:
                jobs.note(note)
            elif what == "started":
                if note.run.parent and note.run.parent.rpartition("/")[0] in self._executing:
                    self._executing.add(note.run.id)
            elif what == "final":
                strands.forget(note.run)
                self._executing.discard(note.run.id)
                if watches:
                    watches.note(note)
            elif watches:
                watches.note(note)
        if watches:
            watches.flush(self.partition.last_index)

    def _after(self) -> None:
        """Called without the lock: leases what is ready, and sees to the next timer."""
        self.partition.stirred = False
        strands = self.strands
        if strands.pending and strands.worker is not None:
            with self.partition.lock:
                starts, wakes = strands.hand_out(self._executes)
            strands.deliver(starts, wakes)
        if self._threads:
            self._ticker.see()

    def _timers_stopped(self, fault: Exception) -> None:
        self._on_lost(LogError(f"the timers of the node stopped: {type(fault).__name__}: {fault}"))

    def _executes(self, run: Run) -> bool:
        return run.id in self._executing and not self._closing

    def _begin_execution(self, run: Run, *, named: bool = False) -> None:
        """With the lock held: from now on this node executes the run. What a dead owner left is settled first. A
        run that keeps killing its process goes on only when it is `named`."""
        if run.status != "running" or (run.paused.startswith(CRASHING) and run.root.phase == "body" and not named):
            return
        partition = self.partition
        known = run.id in self._executing
        self._executing.add(run.id)
        if run.paused and (named or not known):
            partition.commit(run_decide.pause(partition.machines.runs, run.id, ""), partition.now())
        if known:
            return
        for task in run.all_tasks():
            partition.commit(
                run_decide.recover(partition.machines.runs, partition.now(), task, self.session), partition.now()
            )
        for task in run.all_tasks():
            if partition.machines.runs.is_ready(task):
                self.strands.ready(task)
        self.jobs.find(run)
        for task in run.all_tasks():
            for n, opened in (task.open or {}).items():
                if opened.kind == "flow" and opened.child is None:  # who waits for a detached run executes it too
                    self._begin_execution(partition.machines.runs.runs[f"{run.id}/{task.prefix}.{n}"])

    def _ensure_hands(self) -> None:
        """The worker and the connector host, made when the first run is executed."""
        if self.strands.worker is None and self._worker_factory is not None:
            self.strands.worker = self._worker_factory(self.strands)
        if self.jobs.host is None and self._host_factory is not None:
            host = self._host_factory()
            host.attach(self.jobs)
            self.jobs.host = host

    # -- waiting for the log

    def _mark(self) -> _Mark:
        """What an answer computed now has to wait for. Call with the lock held."""
        return self.partition.last_index, self.partition.incarnation

    def _durable(self, mark: _Mark) -> None:
        """Waits until everything up to this mark is durable. Raises Unavailable when that is never known."""
        index, incarnation = mark
        if not self._threads:
            self.commit_group.pump()
        try:
            self.commit_group.wait(index)
        except LogError as error:
            raise unknown_outcome(error) from error
        if incarnation != self.partition.incarnation:
            raise unknown_outcome(LogError("the node found a fault in its memory and reads the log again"))

    def _answer(self, compute: Callable[[], T]) -> T:
        """What a command or a look at the state gives, a refusal too, told when what it rests on is durable."""
        refused: FloError | None = None
        with self.partition.lock:
            self._check()
            try:
                value = compute()
            except Refused as error:
                refused = _REFUSALS[error.kind](error.message)
            except NotFound as error:
                refused = error
            mark = self._mark()
        self._after()
        self._durable(mark)
        if refused is not None:
            raise refused
        return value

    def _check_room(self) -> None:
        """With a full disk nothing is taken in beyond what may be speculative."""
        stalled = self.commit_group.stalled
        if stalled is not None and self.commit_group.pending_bytes > self._speculation_bytes:
            raise Overloaded(f"the log does not get on: {stalled}", hint="nothing was done; try again")

    def _check(self) -> None:
        if self.lost is not None:
            raise unknown_outcome(self.lost)
        if self.partition.broken is not None:
            raise unknown_outcome(LogError(self.partition.broken))
        if self._closing:
            raise Unavailable("the node is stopping")

    def _run(self, id: str) -> Run:
        run = self.partition.machines.runs.runs.get(id)
        if run is None:
            raise NotFound(f"no run {id}", hint="`flo runs list` shows the runs of this data directory")
        return run

    # -- Grid

    def has_bundle(self, digest: bytes) -> bool:
        """Whether the bundle is there; it stays as long as this node, for a start may follow at any time."""
        if digest not in self._bundles:
            try:
                self._backend.put_blob(self._backend.get_blob(digest))
            except KeyError:
                return False
            self._bundles.add(digest)
        return True

    def put_bundle(self, digest: bytes, data: bytes) -> None:
        if sha256(data).digest() != digest:
            raise BadArgument("the bundle does not match its digest")
        if len(data) > limits.BUNDLE_BYTES + limits.BUNDLE_BYTES // 8:
            raise BadArgument(f"the bundle of {len(data)} bytes is over the limit of {limits.BUNDLE_BYTES} bytes")
        self._backend.put_blob(data)
        self._bundles.add(digest)

    def start(self, request: StartRequest, *, execute: bool = True) -> RunView:
        (view,) = self.start_many([request], execute=execute)
        if isinstance(view, FloError):
            raise view
        return view

    def start_many(self, requests: Sequence[StartRequest], *, execute: bool = True) -> list[RunView | FloError]:
        """Starts many runs with one wait for the log; each gives its view, or the error that refused it."""
        if execute:
            self._ensure_hands()
        checked = [checked_start(request, self.has_bundle, self.payloads) for request in requests]
        try:
            return self._answer(lambda: [r if isinstance(r, FloError) else self._start(r, execute) for r in checked])
        finally:
            for request in checked:
                if not isinstance(request, FloError):
                    self.payloads.unpin(request.args)

    def _start(self, r: StartRequest, execute: bool) -> RunView | FloError:
        self._check_room()
        runs = self.partition.machines.runs
        now = self.partition.begin()
        try:
            events = run_decide.start(
                runs, now, id=r.id, bundle=r.bundle, flow=r.flow, args=r.args, options=r.options,
                timeout_ms=r.timeout_ms, username=r.username, script=r.script, parent="", runtime=RUNTIME,
            )  # fmt: skip
        except Refused as refused:
            return _REFUSALS[refused.kind](refused.message, hint="choose another id, or run it as it was started")
        if execute and events:
            self._executing.add(r.id)
        self.partition.commit(events, now)
        run = runs.runs[r.id]
        if events:
            return RunView(id=r.id, flow=r.flow, status="running", started_at=run.started_at)
        if execute:
            self._begin_execution(run)
        return run_view(run, self.payloads)

    def execute(self, ids: Sequence[str] | None) -> list[str]:
        self._ensure_hands()

        def begin() -> list[str]:
            self.partition.begin()
            runs = [self._run(id) for id in ids] if ids is not None else self.partition.machines.live_runs()
            for run in runs:
                self._begin_execution(run, named=ids is not None)
            return [run.id for run in runs if run.status == "running"]

        return self._answer(begin)

    def show(self, id: str) -> RunView:
        return self._answer(lambda: run_view(self._run(id), self.payloads))

    def history(self, id: str) -> list[HistoryEntry]:
        return self._answer(lambda: history(self._run(id), self.payloads))

    def logs(self, id: str) -> list[LogLine]:
        return self._answer(lambda: log_lines(self._run(id), self.payloads))

    def signal(self, id: str, type: str, payload: str) -> None:
        answer = self.signal_many([(id, type, payload)])[0]
        if answer is not None:
            raise answer

    def signal_many(self, signals: Sequence[tuple[str, str, str]]) -> list[FloError | None]:
        """Delivers many signals (run, type, JSON payload) with one wait for the log."""
        wrong = [wrong_signal(type, payload) for _, type, payload in signals]
        return self._answer(
            lambda: [refused or self._signal(*signal) for refused, signal in zip(wrong, signals, strict=True)]
        )  # fmt: skip

    def _signal(self, id: str, type: str, payload: str) -> FloError | None:
        self._check_room()
        now = self.partition.begin()
        try:
            events = run_decide.signal(self.partition.machines.runs, id, type, payload, limits.INBOX_MESSAGES)
        except Refused as refused:
            return _REFUSALS[refused.kind](refused.message)
        self.partition.commit(events, now)
        return None

    def cancel(self, id: str, reason: str = "") -> None:
        def ask() -> None:
            self._check_room()
            now = self.partition.begin()
            self.partition.commit(run_decide.cancel(self.partition.machines.runs, id, "user", reason), now)

        self._answer(ask)

    def watch(self, id: str, on_update: Callable[[Update], None]) -> Callable[[], None]:
        return self._watch(id, on_update, self.watches.add)

    def watch_end(self, id: str, on_update: Callable[[Update], None]) -> Callable[[], None]:
        """As `watch`, but tells of the run's end, or its pause, alone: what a caller of `result` wants."""
        return self._watch(id, on_update, self.watches.add_end)

    def _watch(
        self,
        id: str,
        on_update: Callable[[Update], None],
        add: Callable[[Run, Callable[[Update], None], int], Callable[[], None]],
    ) -> Callable[[], None]:
        with self.partition.lock:
            self._check()
            run = self.partition.machines.runs.runs.get(id)
            if run is not None:
                stop = add(run, on_update, self.partition.last_index)
        if run is None:
            self._answer(lambda: self._run(id))
        if not self._threads:
            self.commit_group.pump()

        def unwatch() -> None:
            with self.partition.lock:
                stop()

        return unwatch

    def list(self) -> list[RunView]:
        runs = self.partition.machines.runs.runs
        return self._answer(lambda: [run_view(run, self.payloads, output=False) for run in runs.values()])
