"""A node's storage in one thread under a seed: fake clock and simulated disk, keys, queues, streams and groups.

The seed chooses what happens next: a batch of clients' operations, a flush, time passing, a snapshot, a planned
restart, a disk that fills up, a power loss at some change of the disk. After each loss the memory that is recovered
must be, byte for byte, what it was at some point between the last acknowledgement and the end; and in the end the
oracle of the kill loop looks at what clients were told.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from flo.api.clock import FakeClock
from flo.api.errors import Overloaded
from flo.grid.node import Node
from flo.grid.rebuild import rebuilt
from flo.grid.store_batch import PARKED
from flo.log.errors import LogError, NoSpace
from flo.log.file.backend import RESERVE_BYTES, FileBackend
from flo.log.inspect import verify
from flo.log.simdisk import PowerLoss, SimDisk
from flo.primitives.machine import Refused
from flo.primitives.machines import Machines
from flo.primitives.queue_pages import NewMessage
from flo.primitives.stream_pages import Delivered, GroupSettings, NewRecord
from flo.primitives.stream_rules import format_id, parse_id
from tests.faults.core_load import content, name_of
from tests.faults.core_oracle import Final as FinalState
from tests.faults.core_oracle import Told, wrong
from tests.faults.linearizability import NEVER

DIRECTORY: Final = "/data"
SEGMENT_BYTES: Final = 16 * 1024
NS: Final = "default"
SETTINGS: Final = GroupSettings(ack_timeout_ms=800, max_deliver=0)
LONG_MS: Final = 1_000_000


class Asked:
    """An operation of a client that has not heard of it yet."""

    def __init__(self, op: str, arguments: dict[str, Any], begun: int) -> None:
        self.op = op
        self.arguments = arguments
        self.begun = begun
        self.status = "ok"
        self.result: Any = None

    def told(self, ended: int, status: str) -> Told:
        return Told("sim", self.op, self.arguments, self.begun, ended, status, self.result)


class StorageWorld:
    def __init__(self, seed: int, *, fills_up: bool = False) -> None:
        self.rng = random.Random(seed)
        self.disk = SimDisk()
        self.clock = FakeClock()
        self.told: list[Told] = []
        self.trace: list[str] = []
        self.figures: Counter[str] = Counter()
        self.node: Node
        self._fills_up = fills_up
        self._moment = 0
        self._open: dict[Asked, None] = {}
        self._number = 0
        self._acknowledged = 0  # index
        self._states: dict[int, dict[str, bytes]] = {}  # at the ends of atomic pieces of the log
        self._leased: list[int] = []
        self._held: list[str] = []
        self._versions: dict[str, int] = {}
        self.boot()

    # -- one life of the process

    def boot(self) -> None:
        while True:
            try:
                self._recover()
                return
            except PowerLoss:
                self._after_power_loss()
            except NoSpace:  # a start copies the newest file of the log
                assert self.disk.capacity is not None
                self.figures["starts without room"] += 1
                self.disk.restart(keep=True)
                self.disk.capacity = None

    def _recover(self) -> None:
        """What is recovered is a state that was, and not older than what was acknowledged."""
        backend = self._backend()
        last = backend.open().last_index
        machines, _ = rebuilt(backend, Machines())
        if last or self._states:
            assert last >= self._acknowledged, f"the log ends at {last}, and {self._acknowledged} was acknowledged"
            assert last in self._states, f"the log ends in the middle of something atomic, at {last}"
            recovered = machines.dump()
            for name, state in self._states[last].items():
                assert recovered[name] == state, f"{name} is not what it was at {last}"
            self._states = {last: recovered}
        backend.close()
        self.backend = self._backend()
        self.node = Node.open(self.backend, clock=self.clock, entropy=self.rng.randbytes, threads=False)
        self._watch()

    def _backend(self) -> FileBackend:
        return FileBackend(DIRECTORY, disk=self.disk, segment_bytes=SEGMENT_BYTES, make_log_id=lambda: bytes(range(16)))

    def _watch(self) -> None:
        """Keeps the state at the end of each atomic piece that the log is given, from here on."""
        node = self.node
        commit = node.commit_group
        add = commit.add

        def watched(events: Any, time_ms: int, origin: bytes = b"") -> int:
            last = add(events, time_ms, origin)
            self._states[last] = node.partition.machines.dump()
            return last

        self._states[commit.last_index] = node.partition.machines.dump()
        commit.add = watched  # type: ignore[method-assign]

    def _after_power_loss(self) -> None:
        self.forget(seed=self.rng.randrange(1 << 30), keep=self.rng.random() < 0.3)
        self.plan_power_loss()

    def forget(self, *, seed: int | None = None, keep: bool = False) -> None:
        """The process is gone, and of the disk what SimDisk.restart says; clients know nothing of what was going on."""
        self.figures["power losses"] += 1
        for asked in self._open:
            self.told.append(asked.told(NEVER, "unknown"))
        self._open.clear()
        self._leased.clear()
        self._held.clear()
        self.disk.restart(seed=seed, keep=keep)

    def plan_power_loss(self) -> None:
        if self.rng.random() < 0.9:
            self.disk.crash_after(self.rng.randrange(1, 60))

    # -- what happens

    def step(self) -> None:
        """One thing that the seed chooses; a power loss ends this life and begins the next."""
        try:
            self.act()
        except PowerLoss:
            self._after_power_loss()
            self.boot()

    def act(self) -> None:
        choice = self.rng.random()
        if choice < 0.55:
            self.batch(self.rng.choice([1, 1, 3, 8]))
        elif choice < 0.80:
            self.flush()
        elif choice < 0.94:
            self.clock.advance(self.rng.choice([1, 50, 300, 2_000]))
            self.node.tick()
        elif choice < 0.95:
            self.clock.set_wall(self.clock.wall_ms() - 600_000)
        elif choice < 0.96:
            self.snapshot()
        elif choice < 0.97:
            self.restart()
        elif self._fills_up:
            self.fill(self.rng.choice([None, None, RESERVE_BYTES + 60_000, 30_000, 0]))

    def flush(self) -> None:
        self.node.pump()
        durable = self.node.commit_group.durable_index
        self._states = {index: state for index, state in self._states.items() if index >= durable}

    def snapshot(self) -> None:
        self.flush()
        machines = self.node.partition.machines
        last = self.node.partition.last_index
        if self.node.commit_group.durable_index < last:
            return  # the disk is full
        try:
            self.backend.put_snapshot(last, machines.dump(), machines.named_blobs(), live=machines.streams.live_indexes)
            self.figures["snapshots"] += 1
        except LogError as error:
            self.trace.append(str(error))

    def restart(self) -> None:
        self.disk.capacity = None
        self.node.close()
        self._recover()
        self.figures["restarts"] += 1

    def fill(self, room: int | None) -> None:
        """From now on the disk has so much room, None: enough."""
        self.disk.capacity = 1 << 40
        used = self.disk.capacity - self.disk.free_bytes("/")
        self.disk.capacity = None if room is None else used + room

    def batch(self, size: int, *what: str) -> list[Asked]:
        """These operations, or so many that the seed chooses, as one batch of the store."""
        store = self.node.store
        asked: list[Asked] = []
        with store.lock:
            store.begin(200 * size)
            try:
                for name in what or [self._choose() for _ in range(size)]:
                    done = self._perform(name)
                    if done is not None:
                        asked.append(done)
            finally:
                index = store.end()
            for each in asked:
                self._release_after(index, each)
        store.after()
        return asked

    def _release_after(self, index: int, asked: Asked) -> None:
        self._open[asked] = None
        self.node.store.releases.after(index, partial(self._released, index, asked), partial(self._lost, asked))

    def _released(self, index: int, asked: Asked) -> None:
        del self._open[asked]
        self._acknowledged = max(self._acknowledged, index)
        self.told.append(asked.told(self._tick(), asked.status))
        self.figures[asked.status] += 1
        if asked.status != "ok":
            return
        if asked.op == "dequeue":
            self._leased += [seq for seq, *_ in asked.result["got"]]
        elif asked.op == "read":
            self._held += [id for id, *_ in asked.result["got"]]
        elif asked.op == "put":
            self._versions[asked.arguments["key"]] = asked.result["version"]

    def _lost(self, asked: Asked, error: LogError) -> None:
        raise AssertionError(f"the log was lost: {error}")

    def _tick(self) -> int:
        self._moment += 1
        return self._moment

    # -- operations

    def _choose(self) -> str:
        return self.rng.choices(
            ["put", "get", "delete", "incr", "txn", "enqueue", "dequeue", "wait", "ack", "nack", "touch", "append",
             "read", "done", "back", "trim", "purge", "expiring"],
            [4, 2, 1, 3, 2, 3, 4, 1, 4, 1, 1, 3, 3, 3, 1, 1, 1, 1],
        )[0]  # fmt: skip

    def _perform(self, name: str) -> Asked | None:
        """None when there is nothing to do, or the answer comes later."""
        asked = Asked(name, {}, self._tick())
        perform: Callable[[Asked], Any] = getattr(self, f"_{name}")
        try:
            result = perform(asked)
        except Refused as refused:
            asked.status = "refused"
            details = refused.details if isinstance(refused.details, dict) else {}
            result = {"code": refused.kind, "current": details.get("current_version")}
        except Overloaded as full:
            asked.status, result = "refused", {"code": full.code}
            self.figures["overloaded"] += 1
        if result is None or result is PARKED:
            return None
        asked.result = result
        return asked

    def _unique(self) -> str:
        self._number += 1
        return f"s.{self._number}"

    def _payload(self, name: str) -> bytes:
        return content(name, self.rng.choice([0, 20, 500, 3_000]))

    def _key(self) -> str:
        return f"r-{self._number // 60}-{self.rng.randrange(2)}"

    def _put(self, asked: Asked) -> Any:
        key, value = self._key(), self._unique()
        condition = self.rng.choice([None, None, "nx", "xx", self._versions.get(key, 1)])
        asked.arguments = {"key": key, "value": value, "if": condition}
        given: dict[str, Any] = {condition: True} if isinstance(condition, str) else {"cas": condition}
        return {"version": self.node.store.put(NS, key.encode(), self._payload(value), **given)}

    def _get(self, asked: Asked) -> Any:
        asked.arguments = {"key": self._key()}
        entry = self.node.store.get(NS, asked.arguments["key"].encode())
        if entry is None:
            raise Refused("not_found", "key not found")
        return {"value": name_of(entry.value), "version": entry.version}

    def _delete(self, asked: Asked) -> Any:
        asked.arguments = {"key": self._key()}
        return {"version": self.node.store.delete(NS, asked.arguments["key"].encode())}

    def _incr(self, asked: Asked) -> Any:
        delta = self.rng.randrange(1, 5)
        asked.arguments = {"key": "c-all", "delta": delta}
        version, value = self.node.store.incr(NS, b"c-all", delta)
        return {"value": value, "version": version}

    def _txn(self, asked: Asked) -> Any:
        store = self.node.store
        key, value = f"p-{self._number // 60}", self._unique()
        asked.arguments = {"key": key, "value": value}
        txn, _ = store.txn_begin(NS, key.encode())
        payload = self._payload(value)
        for written in (key, f"{key}-other"):
            store.put(NS, written.encode(), payload, txn=txn)
        store.incr(NS, f"{key}-count".encode(), txn=txn)
        return {"version": store.txn_commit(NS, txn)[0]}

    def _enqueue(self, asked: Asked) -> Any:
        names = [self._unique() for _ in range(self.rng.choice([1, 3]))]
        asked.arguments = {"names": names}
        messages = [
            NewMessage(self._payload(name), self.rng.randrange(3), self.rng.choice([0, 0, 100])) for name in names
        ]
        return {"seqs": [each.seq for each in self.node.store.enqueue_many(NS, "jobs", messages)]}

    def _dequeue(self, asked: Asked) -> Any:
        asked.arguments = {"visibility": self.rng.choice([60, 400, 5_000])}
        count = self.rng.choice([1, 4])
        return self._handed_out(
            self.node.store.dequeue(NS, "jobs", count, visibility_ms=asked.arguments["visibility"])
        )  # fmt: skip

    def _wait(self, asked: Asked) -> Any:
        asked.op = "dequeue"
        asked.arguments = {"visibility": 400}

        def done(result: Any) -> None:
            assert not isinstance(result, Exception), result
            asked.result = self._handed_out(result[1])
            self._release_after(self.node.store.last_index, asked)

        served = self.node.store.wait_dequeue(NS, ["jobs"], 2, visibility_ms=400, timeout_ms=1_000, done=done)
        return served if served is PARKED else self._handed_out(served[1])  # type: ignore[index]

    def _handed_out(self, messages: Sequence[Any]) -> Any:
        return {"got": [(m.seq, name_of(m.payload), m.delivery_count, m.lease_expires_at) for m in messages]}

    def _settle(self, asked: Asked, call: Callable[[list[int]], Any]) -> Any:
        seqs = self._taken(self._leased)
        asked.arguments = {"seqs": seqs}
        return {"missing": call(seqs).missing} if seqs else None

    def _taken(self, some: list[Any]) -> list[Any]:
        self.rng.shuffle(some)
        taken = some[: self.rng.choice([1, 5])]
        del some[: len(taken)]
        return taken

    def _ack(self, asked: Asked) -> Any:
        return self._settle(asked, partial(self.node.store.ack, NS, "jobs"))

    def _nack(self, asked: Asked) -> Any:
        return self._settle(asked, partial(self.node.store.nack, NS, "jobs", dlq=self.rng.random() < 0.1))

    def _touch(self, asked: Asked) -> Any:
        return self._settle(asked, partial(self.node.store.touch_messages, NS, "jobs", extend_ms=6_000))

    def _append(self, asked: Asked) -> Any:
        names = [self._unique() for _ in range(self.rng.choice([1, 4]))]
        asked.arguments = {"names": names}
        records = [NewRecord(self._payload(name)) for name in names]
        appended = self.node.store.stream_append(NS, "events", records)
        return {"first": format_id(appended.first), "last": format_id(appended.last)}

    def _read(self, asked: Asked) -> Any:
        store = self.node.store
        delivered = store.group_read(NS, "events", "g", self.rng.choice("xy"), 5, settings=SETTINGS)
        return {"got": self._records(delivered)}

    def _records(self, delivered: Sequence[Delivered]) -> list[tuple[str, str, int]]:
        return [
            (format_id((record.ms, record.seq)), name_of(record.payload), record.delivery_count)
            for record in self.node.store.records.load(delivered)
        ]

    def _done(self, asked: Asked) -> Any:
        asked.arguments = {"ids": self._taken(self._held)}
        ids = [parse_id(id) for id in asked.arguments["ids"]]
        return {"count": self.node.store.group_ack(NS, "events", "g", ids)} if ids else None

    def _back(self, asked: Asked) -> Any:
        asked.arguments = {"ids": self._taken(self._held)}
        ids = [parse_id(id) for id in asked.arguments["ids"]]
        return {"count": self.node.store.group_nack(NS, "events", "g", ids)} if ids else None

    def _trim(self, asked: Asked) -> Any:
        """On a stream of its own, which the oracle does not follow."""
        store = self.node.store
        store.stream_append(NS, "short", [NewRecord(self._payload("x"))] * 3)
        return {"trimmed": store.stream_trim(NS, "short", max_records=self.rng.randrange(1, 4)).count}

    def _purge(self, asked: Asked) -> Any:
        store = self.node.store
        store.enqueue(NS, "other", self._payload("x"), delay_ms=200, dedup_key=b"%d" % self.rng.randrange(3))
        if self.rng.random() < 0.5:
            return {"purged": store.purge(NS, "other")}
        store.queue_delete(NS, "other", True)
        return {"purged": 0}

    def _expiring(self, asked: Asked) -> Any:
        key = b"t-%d" % self.rng.randrange(3)
        return {"expires": self.node.store.put(NS, key, b"x", ttl_ms=self.rng.choice([1, 300, 5_000]))}

    # -- the end

    def finish(self) -> None:
        """No more failures: what clients were told, and what is there, must agree."""
        self.disk.crash_after(1 << 60)
        self.disk.capacity = None
        for ms in (2_000, LONG_MS):  # first the waits end
            self.flush()
            self.clock.advance(ms)
            self.node.tick()
        final = self._final()
        self.flush()
        assert not self._open, f"{len(self._open)} operations were never answered"
        problems = wrong(self.told, final)
        assert not problems, "\n".join(problems)
        self.node.close()
        report = verify(DIRECTORY, disk=self.disk)
        assert report.ok, [str(problem) for problem in report.problems]

    def _final(self) -> FinalState:
        final = FinalState()
        store = self.node.store
        keys = {told.arguments["key"] for told in self.told if "key" in told.arguments}
        keys |= {f"{key}-{what}" for key in keys if key.startswith("p-") for what in ("other", "count")}
        with store.lock:
            store.begin(0)
            for key in sorted(keys):
                entry = store.get(NS, key.encode())
                if entry is not None and entry.kind == "counter":
                    final.counts[key] = int(entry.value)
                elif entry is not None:
                    final.values[key] = (name_of(entry.value), entry.version)
            while messages := store.dequeue(NS, "jobs", 100, visibility_ms=LONG_MS):
                final.messages |= {message.seq: name_of(message.payload) for message in messages}
            letters = store.dlq_list(NS, "jobs", 1_000).entries
            final.dead = {letter.seq: name_of(letter.payload) for letter in letters}
            page = store.stream_read(NS, "events", limit=1_000)
            while page.records:
                records = store.records.load(page.records)
                final.records += [(format_id((each.ms, each.seq)), name_of(each.payload)) for each in records]
                page = store.stream_read(NS, "events", after=page.next, limit=1_000)
            while delivered := store.group_read(NS, "events", "g", "end", 1_000, settings=SETTINGS):
                final.pending |= {id: name for id, name, _ in self._records(delivered)}
            store.end()
        return final


def simulate(seed: int, steps: int = 120) -> StorageWorld:
    """One simulation, every third with a disk that fills up; raises AssertionError when a promise was broken."""
    world = StorageWorld(seed, fills_up=seed % 3 == 0)
    world.plan_power_loss()
    for _ in range(steps):
        world.step()
    world.finish()
    return world
