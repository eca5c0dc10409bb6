"""A queue machine as a partition uses it, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from flo.primitives.machine import Event, Refused
from flo.primitives.queue_pages import Enqueued, Message
from flo.primitives.queues import Queues

START = 1_750_000_000_000


class Desk:
    """A machine that is used as a partition does it, and a replica that gets the events as a log would give them."""

    def __init__(self, **settings: int) -> None:
        self.settings = settings
        self.machine, self.replica = Queues(**settings), Queues(**settings)
        self.now = START
        self.index = 0
        self.ns = "default"

    def commit(self, events: Sequence[Event]) -> None:
        for event in events:
            self.index += 1
            self.machine.apply(event, self.index, self.now)
            kind = Queues.events[event.KIND, event.VERSION]
            logged = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kind)
            self.replica.apply(logged, self.index, self.now)

    def run_timers(self) -> None:
        for _ in range(1_000):
            due = self.machine.next_due()
            if due is None or due > self.now:
                return
            self.commit(self.machine.due(self.now, self.index + 1))
        raise AssertionError("timers do not come to an end")

    def do(self, what: str, queue: str, *args: Any, **options: Any) -> Any:
        self.run_timers()
        decide = getattr(self.machine, f"decide_{what}")
        events, reply = decide(self.now, self.index + 1, self.ns, queue, *args, **options)
        self.commit(events)
        return reply

    def refused(self, what: str, *args: Any, **options: Any) -> Refused:
        before = self.machine.dump()
        with pytest.raises(Refused) as refusal:
            self.do(what, *args, **options)
        assert self.machine.dump() == before
        return refusal.value

    def restart(self) -> None:
        data = self.machine.dump()
        assert self.replica.dump() == data
        held = self.machine.bytes
        self.machine = Queues(**self.settings)
        self.machine.load(data)
        assert self.machine.dump() == data
        assert self.machine.bytes == self.replica.bytes == held

    # -- shorter

    def enqueue(self, queue: str, payload: bytes = b"job", **options: Any) -> int:
        enqueued = self.do("enqueue", queue, payload, **options)
        assert isinstance(enqueued, Enqueued)
        return enqueued.seq

    def dequeue(self, queue: str, count: int = 1, **options: Any) -> list[Message]:
        messages: list[Message] = self.do("dequeue", queue, count, **options)
        return messages

    def stats(self, queue: str) -> dict[str, int]:
        self.run_timers()
        stats = self.machine.stats(self.now, self.ns, queue)
        assert stats is not None
        return {name: value for name in stats.__struct_fields__ if isinstance(value := getattr(stats, name), int)}

    def dead(self, queue: str) -> list[tuple[int, int, str]]:
        self.run_timers()
        page = self.machine.dlq_list(self.now, self.ns, queue, 1_000)
        return [(entry.seq, entry.attempts, entry.reason) for entry in page.entries]


def seqs(messages: Sequence[Message]) -> list[int]:
    return [message.seq for message in messages]


def payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]
