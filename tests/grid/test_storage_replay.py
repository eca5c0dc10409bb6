"""replay(log) equals the live state and snapshot + the rest of the log, whatever clients store, also by timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flo.api.clock import FakeClock
from flo.api.errors import FloError
from flo.grid.partition import replay
from flo.grid.store_batch import PARKED
from flo.primitives.machine import Refused
from flo.primitives.machines import Machines
from flo.primitives.queue_pages import NewMessage
from flo.primitives.stream_pages import GroupSettings, NewRecord, Retention
from tests.grid.manual import Bench

NAMES = st.sampled_from(["default", "default", "default", "other"])
KEYS = st.sampled_from([b"a", b"b", b"counter"])
QUEUES = st.sampled_from(["jobs", "jobs", "mail"])
STREAMS = st.sampled_from(["log", "log", "log.g.dlq"])
GROUPS = st.sampled_from(["g", "one", "slots"])
CONSUMERS = st.sampled_from(["x", "y"])
MODES = {"g": "shared", "one": "exclusive", "slots": "key_shared"}
TIMES = st.sampled_from([0, 1, 50, 1_000, 20_000])
SEQS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


class MovingClock(FakeClock):
    """Time goes on whenever somebody looks, as it does in a batch that takes long."""

    def monotonic_ms(self) -> int:
        self.advance(1)
        return super().monotonic_ms()


class Storage(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(clock=MovingClock())
        self.snapshot: tuple[int, dict[str, bytes]] = (0, {})
        self.transactions: list[tuple[str, int]] = []

    @initialize(moves=st.booleans())
    def clock(self, moves: bool) -> None:
        self.bench = Bench(clock=MovingClock() if moves else FakeClock())

    @property
    def store(self) -> Any:
        return self.bench.node.store

    def batch(self, *operations: Callable[[], Any]) -> None:
        with self.store.lock:
            self.store.begin(0)
            try:
                for operation in operations:
                    try:
                        operation()
                    except (Refused, FloError):
                        pass  # it changes nothing, which the invariant sees
            finally:
                self.store.end()
        self.store.after()

    @rule(
        ns=NAMES, key=KEYS, other=KEYS, ttl=TIMES, what=st.sampled_from(["put", "incr", "delete", "touch", "json"]),
        placed=st.booleans(),
    )  # fmt: skip
    def keys(self, ns: str, key: bytes, other: bytes, ttl: int, what: str, placed: bool) -> None:
        store = self.store
        operations: dict[str, Callable[[], Any]] = {
            "put": lambda: store.put(ns, key, b'{"n":1}', ttl_ms=ttl, routing_key=b"r" if placed else b""),
            "incr": lambda: store.incr(ns, key, 3),
            "delete": lambda: store.delete(ns, key),
            "touch": lambda: store.touch(ns, key, ttl),
            "json": lambda: store.jset(ns, key, "$.n", b"2"),
        }
        self.batch(operations[what], lambda: store.append(ns, other, b"+"))

    @rule(ns=NAMES, key=KEYS, ends=st.sampled_from(["commit", "rollback", "open"]))
    def transaction(self, ns: str, key: bytes, ends: str) -> None:
        store = self.store

        def write() -> None:
            txn, _ = store.txn_begin(ns, b"r")
            store.put(ns, b"in " + key, b"v", txn=txn)
            store.incr(ns, b"count " + key, 2, txn=txn)
            if ends == "commit":
                store.txn_commit(ns, txn)
            elif ends == "rollback":
                store.txn_rollback(ns, txn)

        self.batch(write)

    @rule(
        ns=NAMES, queue=QUEUES, count=st.integers(1, 5), priority=st.integers(0, 2), delay=TIMES,
        dedup=st.sampled_from([b"", b"same"]),
    )  # fmt: skip
    def enqueue(self, ns: str, queue: str, count: int, priority: int, delay: int, dedup: bytes) -> None:
        messages = [NewMessage(b"%d" % n, priority, delay, dedup if n == 0 else b"") for n in range(count)]
        self.batch(lambda: self.store.enqueue_many(ns, queue, messages))

    @rule(ns=NAMES, queue=QUEUES, count=st.integers(1, 4), visibility=TIMES, gone=st.booleans())
    def dequeue(self, ns: str, queue: str, count: int, visibility: int, gone: bool) -> None:
        dequeue = self.store.dequeue
        self.batch(lambda: dequeue(ns, queue, count, visibility_ms=visibility, ack=gone), lambda: dequeue(ns, queue, 1))

    @rule(ns=NAMES, queue=QUEUES, seqs=SEQS, delay=TIMES, what=st.sampled_from(["ack", "nack", "dlq", "touch", "back"]))
    def settle(self, ns: str, queue: str, seqs: list[int], delay: int, what: str) -> None:
        store = self.store
        operations: dict[str, Callable[[], Any]] = {
            "ack": lambda: store.ack(ns, queue, seqs),
            "nack": lambda: store.nack(ns, queue, seqs, delay_ms=delay),
            "dlq": lambda: store.nack(ns, queue, seqs, dlq=True),
            "touch": lambda: store.touch_messages(ns, queue, seqs, extend_ms=delay),
            "back": lambda: store.dlq_requeue(ns, queue, seqs),
        }
        self.batch(lambda: store.dequeue(ns, queue, 1, visibility_ms=500), operations[what])

    @rule(ns=NAMES, queue=QUEUES, what=st.sampled_from(["purge", "dlq_purge", "queue_delete"]))
    def empty(self, ns: str, queue: str, what: str) -> None:
        arguments = (ns, queue, True) if what == "queue_delete" else (ns, queue)
        self.batch(lambda: getattr(self.store, what)(*arguments))

    @rule(ns=NAMES, queue=QUEUES, timeout=TIMES)
    def waits(self, ns: str, queue: str, timeout: int) -> None:
        def wait() -> None:
            store = self.store
            served = store.wait_dequeue(ns, [queue], 1, visibility_ms=50, timeout_ms=timeout, done=lambda result: None)
            assert served is PARKED or served[1]

        self.batch(wait)

    @rule(ns=NAMES, stream=STREAMS, count=st.integers(1, 4), key=st.sampled_from([None, b"k", b"l"]))
    def append(self, ns: str, stream: str, count: int, key: bytes | None) -> None:
        records = [NewRecord(b"%d" % n, ((b"h", b"v"),)) for n in range(count)]
        self.batch(
            lambda: self.store.stream_append(ns, stream, records, key=key),
            lambda: self.store.stream_append(ns, stream, records[:1]),
        )

    @rule(ns=NAMES, stream=STREAMS, what=st.sampled_from(["create", "alter", "trim", "age", "delete"]))
    def stream(self, ns: str, stream: str, what: str) -> None:
        store = self.store
        operations: dict[str, Callable[[], Any]] = {
            "create": lambda: store.stream_create(ns, stream, 2, Retention(max_age_ms=1_000)),
            "alter": lambda: store.stream_alter(ns, stream, max_records=3),
            "trim": lambda: store.stream_trim(ns, stream, max_records=1),
            "age": lambda: store.stream_trim(ns, stream, max_age_ms=500),
            "delete": lambda: store.stream_delete(ns, stream, True),
        }
        self.batch(operations[what])

    @rule(ns=NAMES, stream=STREAMS, group=GROUPS, consumer=CONSUMERS, limit=st.integers(1, 3), no_ack=st.booleans())
    def group_read(self, ns: str, stream: str, group: str, consumer: str, limit: int, no_ack: bool) -> None:
        how = GroupSettings(mode=MODES[group], ack_timeout_ms=1_000, max_deliver=2, redeliver_delay_ms=50, slots=2)
        store = self.store
        self.batch(
            lambda: store.group_read(ns, stream, group, consumer, limit, no_ack=no_ack, settings=how, owner=consumer),
            lambda: store.group_read(ns, stream, group, "z", limit, settings=how),
        )

    @rule(
        ns=NAMES, stream=STREAMS, group=GROUPS, consumer=CONSUMERS, place=st.integers(0, 9), ms=TIMES,
        what=st.sampled_from(["ack", "nack", "touch", "claim", "leave", "gone", "delete"]),
    )  # fmt: skip
    def group(self, ns: str, stream: str, group: str, consumer: str, place: int, ms: int, what: str) -> None:
        store = self.store
        found = self.bench.machines.groups.info(0, ns, stream, group)
        if found is None:
            return
        entries = store.group_pending(ns, stream, group).entries
        ids = [(entry.ms, entry.seq) for entry in entries[place % max(1, len(entries)) :][:2]] or [(1, 0)]
        operations: dict[str, Callable[[], Any]] = {
            "ack": lambda: store.group_ack(ns, stream, group, ids),
            "nack": lambda: store.group_nack(ns, stream, group, ids, delay_ms=ms),
            "touch": lambda: store.group_touch(ns, stream, group, ids, consumer, extend_ms=ms),
            "claim": lambda: store.group_claim(ns, stream, group, consumer, ms),
            "leave": lambda: store.group_leave(ns, stream, group, consumer),
            "gone": lambda: store.owner_gone(consumer),
            "delete": lambda: store.group_delete(ns, stream, group),
        }
        self.batch(operations[what])

    @rule(ns=st.sampled_from(["other"]), force=st.booleans())
    def namespace(self, ns: str, force: bool) -> None:
        self.batch(lambda: self.store.namespace_delete(ns, force))

    @rule(ms=st.sampled_from([1, 60, 1_000, 40_000, 700_000]))
    def time_passes(self, ms: int) -> None:
        self.bench.advance(ms)

    @rule()
    def wall_clock_is_set_back(self) -> None:
        self.bench.clock.set_wall(self.bench.clock.wall_ms() - 600_000)

    @rule()
    def takes_a_snapshot(self) -> None:
        self.bench.node.pump()
        self.snapshot = (self.bench.node.partition.last_index, self.bench.machines.dump())

    @rule()
    def crash(self) -> None:
        self.bench.node.pump()
        self.bench = self.bench.crash()

    @invariant()
    def replay_equals_live(self) -> None:
        live = self.bench.machines.dump()
        assert self.bench.replayed() == live
        index, sections = self.snapshot
        machines = Machines()
        if sections:
            machines.load(sections)
        replay(machines, self.bench.backend.read(index + 1), index + 1)
        machines.runs.rebuild_derived()
        assert machines.dump() == live
        assert machines.memory_bytes == self.bench.machines.memory_bytes

    @invariant()
    def time_in_the_log_never_goes_back(self) -> None:
        times = [frame.time_ms for frame in self.bench.backend.read(1)]
        assert times == sorted(times)


Storage.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestStorage = Storage.TestCase


def test_a_dead_letter_that_a_snapshot_took_over_comes_back_as_any_other():
    bench = Bench()
    store = bench.node.store
    with store.lock:
        store.begin(0)
        store.enqueue("default", "jobs", b"x")
        store.dequeue("default", "jobs", visibility_ms=500)
        store.nack("default", "jobs", [1], dlq=True)
        loaded = Machines()
        loaded.load(bench.machines.dump())
        index = bench.node.partition.next_index
        store.dlq_requeue("default", "jobs", [1])
        store.end()
    bench.node.pump()
    replay(loaded, bench.backend.read(index), index)

    assert loaded.dump() == bench.machines.dump()


def test_what_happens_in_one_batch_happens_at_once_also_when_the_clock_goes_on():
    bench = Bench(clock=MovingClock())
    store = bench.node.store
    with store.lock:
        store.begin(0)
        store.enqueue("default", "jobs", b"x")
        (message,) = store.dequeue("default", "jobs", visibility_ms=500)
        store.nack("default", "jobs", [message.seq], dlq=True)
        (dead,) = store.dlq_list("default", "jobs").entries
        store.end()

    assert message.lease_expires_at == message.enqueued_at + 500
    assert dead.moved_at == message.enqueued_at
    assert bench.replayed() == bench.machines.dump()
