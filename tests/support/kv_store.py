"""A key–value machine with the log and the clock that its partition would give it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from flo.primitives.kv import KV
from flo.primitives.kv_events import KvReaped
from flo.primitives.machine import Event, Refused

NOW = 1_750_000_000_000


class Store:
    def __init__(self, **options: Any) -> None:
        self.kv = KV(**options)
        self.now = NOW
        self.index = 0
        self.log: list[tuple[int, int, bytes]] = []

    def commit(self, event: Event | None) -> int:
        """Applies what was decided; returns its index."""
        if event is not None:
            self.index += 1
            self.log.append((self.now, event.KIND, msgspec.msgpack.encode(event)))
            self.kv.apply(event, self.index, self.now)
        return self.index

    def do(self, what: str, key: bytes, *args: Any, ns: str = "default", **options: Any) -> int:
        decide: Callable[..., Event] = getattr(self.kv, f"decide_{what}")
        return self.commit(decide(self.now, self.index + 1, ns, key, *args, **options))

    def put(self, key: bytes, value: bytes, **options: Any) -> int:
        return self.do("put", key, value, **options)

    def incr(self, key: bytes, delta: int = 1) -> int:
        event = self.kv.decide_incr(self.now, self.index + 1, "default", key, delta)
        self.commit(event)
        return event.value

    def value(self, key: bytes, ns: str = "default") -> bytes | None:
        entry = self.kv.get(self.now, ns, key)
        return None if entry is None else entry.value

    def reap(self) -> int:
        """Runs the timers that are due; returns how many keys went."""
        count = 0
        while (due := self.kv.next_due()) is not None and due <= self.now:
            for event in self.kv.due(self.now, self.index + 1):
                assert isinstance(event, KvReaped)
                count += len(event.keys)
                self.commit(event)
        return count

    def replayed(self) -> KV:
        machine = KV()
        for index, (now, kind, payload) in enumerate(self.log, 1):
            machine.apply(msgspec.msgpack.decode(payload, type=KV.events[kind, 1]), index, now)
        return machine


def refusal(call: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value
