"""The queue machine against lists and dicts: any history of commands and timers, at every index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flo.primitives.machine import Event, Refused
from flo.primitives.queue_dedup import DEDUP_WINDOW_MS
from flo.primitives.queue_events import QueueDue, QueueExpired, QueueMoved
from flo.primitives.queue_pages import Enqueued, Message, NewMessage, Settled
from flo.primitives.queues import Queues

ATTEMPTS = 2
CAPACITY = 3
VISIBILITY = 30_000
COUNTERS = ("enqueued", "dequeued", "acked", "nacked", "expired", "dlq_moved", "dlq_evicted", "purged")

ADDRESSES = st.sampled_from([("default", "q")] * 6 + [("default", "r"), ("other", "q")])
BACK = st.lists(st.integers(-1, 7), min_size=1, max_size=4)  # seqs, counted back from the newest
NEW = st.builds(
    NewMessage,
    st.sampled_from([b"", b"payload"]),
    st.sampled_from([0, 0, 0, 1, 255]),
    st.sampled_from([0, 0, 0, 1, 700, 20_000]),
    st.sampled_from([b"", b"", b"k", b"l"]),
)


@dataclass
class Held:
    seq: int
    new: NewMessage
    enqueued_at: int
    state: str
    at: int
    attempts: int = 0
    visibility: int = 0


@dataclass
class Model:
    last_seq: int = 0
    live: dict[int, Held] = field(default_factory=dict)
    dead: list[tuple[Held, int, str]] = field(default_factory=list)
    keys: list[tuple[bytes, int, int]] = field(default_factory=list)  # with seq and time, in the order of arrival
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    def owner(self, key: bytes, now: int) -> int:
        recent = [seq for known, seq, at in self.keys if known == key and at > now - DEDUP_WINDOW_MS]
        return max(recent or [seq for seq, held in self.live.items() if held.new.dedup_key == key], default=0)

    def ready(self) -> list[Held]:
        ready = [held for held in self.live.values() if held.state == "ready"]
        return sorted(ready, key=lambda held: (held.new.priority, held.seq))

    def move(self, seq: int, now: int, reason: str) -> None:
        self.dead.append((self.live.pop(seq), now, reason))
        self.counts["dlq_moved"] += 1
        if len(self.dead) > CAPACITY:
            del self.dead[0]
            self.counts["dlq_evicted"] += 1


class QueueHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine, self.replica = self.new(), self.new()
        self.models: dict[tuple[str, str], Model] = {}
        self.retired: dict[tuple[str, str], int] = {}
        self.now = 1_750_000_000_000
        self.index = 0

    # -- help

    def new(self) -> Queues:
        return Queues(max_attempts=ATTEMPTS, dlq_capacity=CAPACITY)

    def commit(self, events: Sequence[Event]) -> None:
        for event in events:
            self.index += 1
            self.machine.apply(event, self.index, self.now)
            kind = Queues.events[event.KIND, event.VERSION]
            self.replica.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kind), self.index, self.now)

    def do(self, what: str, address: tuple[str, str], *args: Any, **options: Any) -> Any:
        """The reply; a kind of refusal as text."""
        before = self.machine.dump()
        try:
            events, reply = getattr(self.machine, f"decide_{what}")(
                self.now, self.index + 1, *address, *args, **options
            )
        except Refused as refused:
            events, reply = [], refused.kind
        assert self.machine.dump() == before
        self.commit(events)
        return reply

    def model(self, address: tuple[str, str]) -> Model:
        return self.models.get(address) or Model(self.retired.get(address, 0))

    def settled(self, asked: Sequence[int], known: Callable[[int], bool], reply: Any) -> list[int]:
        distinct = list(dict.fromkeys(asked))
        good = [seq for seq in distinct if known(seq)]
        missing = [seq for seq in distinct if not known(seq)]
        if not good:
            assert reply == "not_found"
        else:
            assert isinstance(reply, Settled)
            assert (reply.count, sorted(reply.missing)) == (len(good), sorted(missing))
        return good

    # -- commands

    def stored(self, address: tuple[str, str], new: NewMessage) -> Enqueued:
        model = self.model(address)
        owner = model.owner(new.dedup_key, self.now) if new.dedup_key else 0
        if owner:
            return Enqueued(owner, True)
        self.models[address] = model
        self.retired.pop(address, None)
        model.last_seq += 1
        seq = model.last_seq
        due_at = self.now + new.delay_ms if new.delay_ms else 0
        model.live[seq] = Held(seq, new, self.now, "delayed" if due_at else "ready", due_at)
        model.counts["enqueued"] += 1
        if new.dedup_key:
            model.keys.append((new.dedup_key, seq, self.now))
        return Enqueued(seq, False)

    @rule(address=ADDRESSES, new=NEW)
    def enqueue(self, address: tuple[str, str], new: NewMessage) -> None:
        reply = self.do(
            "enqueue", address, new.payload, priority=new.priority, delay_ms=new.delay_ms, dedup_key=new.dedup_key
        )
        assert reply == self.stored(address, new)

    @rule(address=ADDRESSES, batch=st.lists(NEW, min_size=1, max_size=5))
    def enqueue_many(self, address: tuple[str, str], batch: list[NewMessage]) -> None:
        reply = self.do("enqueue_many", address, batch)
        assert reply == [self.stored(address, new) for new in batch]

    @rule(address=ADDRESSES, count=st.integers(1, 4), visibility=st.sampled_from([0, 1, 900, 8_000]), ack=st.booleans())
    def dequeue(self, address: tuple[str, str], count: int, visibility: int, ack: bool) -> None:
        messages = self.do("dequeue", address, count, visibility_ms=visibility, ack=ack)
        model = self.model(address)
        visibility = visibility or VISIBILITY
        expected = []
        for held in model.ready()[:count]:
            held.attempts += 1
            held.state, held.at, held.visibility = "leased", self.now + visibility, visibility
            model.counts["dequeued"] += 1
            if ack:
                del model.live[held.seq]
                model.counts["acked"] += 1
            until = 0 if ack else held.at
            new = held.new
            expected.append(Message(held.seq, new.payload, new.priority, held.enqueued_at, held.attempts, until))
        assert messages == expected

    @rule(address=ADDRESSES, back=BACK)
    def ack(self, address: tuple[str, str], back: list[int]) -> None:
        seqs = [self.model(address).last_seq - n for n in back]
        reply = self.do("ack", address, seqs)
        model = self.model(address)
        for seq in self.settled(seqs, lambda seq: seq in model.live and model.live[seq].attempts > 0, reply):
            del model.live[seq]
            model.counts["acked"] += 1

    @rule(address=ADDRESSES, back=BACK, dlq=st.booleans(), delay=st.sampled_from([0, 0, 600, 9_000]))
    def nack(self, address: tuple[str, str], back: list[int], dlq: bool, delay: int) -> None:
        seqs = [self.model(address).last_seq - n for n in back]
        reply = self.do("nack", address, seqs, dlq=dlq, delay_ms=delay)
        model = self.model(address)
        for seq in self.settled(seqs, model.live.__contains__, reply):
            held = model.live[seq]
            if not dlq and held.state != "leased":
                continue
            model.counts["nacked"] += 1
            if dlq or held.attempts >= ATTEMPTS:
                model.move(seq, self.now, "explicit" if dlq else "max_attempts")
            else:
                held.state, held.at = ("delayed", self.now + delay) if delay else ("ready", 0)

    @rule(address=ADDRESSES, back=BACK, extend=st.sampled_from([0, 0, 1, 900, 8_000]))
    def touch(self, address: tuple[str, str], back: list[int], extend: int) -> None:
        seqs = [self.model(address).last_seq - n for n in back]
        reply = self.do("touch", address, seqs, extend_ms=extend)
        model = self.model(address)

        def leased(seq: int) -> bool:
            return seq in model.live and model.live[seq].state == "leased" and model.live[seq].at > self.now

        for seq in self.settled(seqs, leased, reply):
            held = model.live[seq]
            held.at = self.now + (extend or held.visibility)

    @rule(address=ADDRESSES, back=BACK)
    def dlq_requeue(self, address: tuple[str, str], back: list[int]) -> None:
        seqs = [self.model(address).last_seq - n for n in back]
        reply = self.do("dlq_requeue", address, seqs)
        model = self.model(address)
        there = {held.seq: held for held, _, _ in model.dead}
        for seq in self.settled(seqs, there.__contains__, reply):
            held = model.live[seq] = there[seq]
            held.state, held.at, held.attempts = "ready", 0, 0
        model.dead = [entry for entry in model.dead if entry[0].seq not in seqs]

    @rule(address=ADDRESSES, back=BACK)
    def dlq_delete(self, address: tuple[str, str], back: list[int]) -> None:
        seqs = [self.model(address).last_seq - n for n in back]
        reply = self.do("dlq_delete", address, seqs)
        model = self.model(address)
        there = {held.seq for held, _, _ in model.dead}
        self.settled(seqs, there.__contains__, reply)
        model.dead = [entry for entry in model.dead if entry[0].seq not in seqs]

    @rule(address=ADDRESSES, what=st.sampled_from(["purge", "delete", "force", "dlq_purge", "drop_namespace"]))
    def destroy(self, address: tuple[str, str], what: str) -> None:
        model = self.model(address)
        if what == "purge":
            assert self.do("purge", address) == len(model.live)
            model.counts["purged"] += len(model.live)
            model.live.clear()
        elif what == "dlq_purge":
            assert self.do("dlq_purge", address) == len(model.dead)
            model.dead = []
        elif what == "drop_namespace":
            ns = address[0]
            self.machine.drop_namespace(ns)
            self.replica.drop_namespace(ns)
            self.models = {known: model for known, model in self.models.items() if known[0] != ns}
            self.retired = {known: seq for known, seq in self.retired.items() if known[0] != ns}
        else:
            reply = self.do("delete", address, what == "force")
            if address not in self.models:
                assert reply == "not_found"
            elif (model.live or model.dead) and what != "force":
                assert reply == "conflict"
            else:
                assert reply is None
                self.retired[address] = model.last_seq
                del self.models[address]

    # -- time

    @rule(ms=st.sampled_from([1, 600, 900, 9_000, 31_000, DEDUP_WINDOW_MS - 1, DEDUP_WINDOW_MS]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule()
    def run_timers(self) -> None:
        for _ in range(100):
            next_due = self.machine.next_due()
            if next_due is None or next_due > self.now:
                break
            before = self.machine.dump()
            events = self.machine.due(self.now, self.index + 1)
            assert self.machine.dump() == before
            for event in events:
                assert isinstance(event, QueueDue | QueueExpired | QueueMoved)
                model = self.models[event.ns, event.queue]
                for seq in event.seqs:
                    held = model.live[seq]
                    assert held.at <= self.now
                    assert held.state == ("delayed" if isinstance(event, QueueDue) else "leased")
                    assert (held.attempts >= ATTEMPTS) == isinstance(event, QueueMoved) or held.state == "delayed"
                    model.counts["expired"] += held.state == "leased"
                    if isinstance(event, QueueMoved):
                        model.move(seq, self.now, "max_attempts")
                    else:
                        held.state, held.at = "ready", 0
            self.commit(events)
        left = [held.at for model in self.models.values() for held in model.live.values() if held.at]
        assert all(at > self.now for at in left)
        next_due = self.machine.next_due()
        assert (next_due is None) == (not left)
        assert next_due is None or min(left) - 1_000 < next_due <= min(left)

    @rule()
    def restart(self) -> None:
        data = self.machine.dump()
        held = self.machine.bytes
        self.machine = self.new()
        self.machine.load(data)
        assert self.machine.dump() == data
        assert self.machine.bytes == held

    # -- what must hold at every index

    @invariant()
    def the_replica_is_equal(self) -> None:
        assert self.replica.dump() == self.machine.dump()
        assert self.replica.bytes == self.machine.bytes

    @invariant()
    def reads_are_the_models(self) -> None:
        for ns in ("default", "other"):
            names = [queue.name for queue in self.machine.list(self.now, ns).queues]
            assert names == sorted(name for known, name in self.models if known == ns)
        for address, model in self.models.items():
            stats = self.machine.stats(self.now, *address)
            assert stats is not None
            ready = model.ready()
            states = [held.state for held in model.live.values()]
            assert (stats.available, stats.delayed, stats.inflight) == (
                len(ready),
                states.count("delayed"),
                states.count("leased"),
            )
            assert stats.pending == len(states) == self.machine.length(*address)
            assert stats.oldest_ready_ms == max((self.now - held.enqueued_at for held in ready), default=0)
            assert {name: getattr(stats, name) for name in COUNTERS} == model.counts
            peeked = self.machine.peek(self.now, *address, 100)
            assert [(m.seq, m.delivery_count) for m in peeked] == [(held.seq, held.attempts) for held in ready]
            page = self.machine.dlq_list(self.now, *address)
            assert [(entry.seq, entry.attempts, entry.moved_at, entry.reason) for entry in page.entries] == [
                (held.seq, held.attempts, at, reason) for held, at, reason in model.dead
            ]


QueueHistories.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestQueueHistories = QueueHistories.TestCase
