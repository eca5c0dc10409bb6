"""Operations on queues (spec/queues.md)."""

from __future__ import annotations

from collections.abc import Sequence

from flo.grid.store_batch import Done, ParkedResult
from flo.grid.store_kv import KeyOperations
from flo.primitives.queue_pages import (
    DeadLetters,
    DeadLetterStats,
    Enqueued,
    Message,
    NewMessage,
    QueueList,
    QueueStats,
    Settled,
)


class QueueOperations(KeyOperations):
    def enqueue(
        self, ns: str, queue: str, payload: bytes, *, priority: int = 0, delay_ms: int = 0, dedup_key: bytes = b""
    ) -> Enqueued:
        self._admit()
        self._check_namespace(ns)
        events, enqueued = self._queues.decide_enqueue(
            self.now, self._index_in(ns), ns, queue, payload, priority=priority, delay_ms=delay_ms, dedup_key=dedup_key
        )
        self._write(ns, events)
        return enqueued

    def enqueue_many(self, ns: str, queue: str, messages: Sequence[NewMessage]) -> list[Enqueued]:
        self._admit()
        self._check_namespace(ns)
        events, enqueued = self._queues.decide_enqueue_many(self.now, self._index_in(ns), ns, queue, messages)
        self._write(ns, events)
        return enqueued

    def dequeue(
        self, ns: str, queue: str, count: int = 1, *, visibility_ms: int = 0, ack: bool = False
    ) -> list[Message]:  # fmt: skip
        """With `ack` the messages are gone as soon as they are handed out."""
        now = self._partition.command_time
        events, messages = self._queues.decide_dequeue(
            now, self._partition.next_index, ns, queue, count, visibility_ms=visibility_ms, ack=ack
        )
        self._change(events)
        return messages

    def wait_dequeue(
        self, ns: str, queues: Sequence[str], count: int = 1, *, visibility_ms: int = 0, ack: bool = False,
        timeout_ms: int | None, done: Done,
    ) -> tuple[str, list[Message]] | ParkedResult:  # fmt: skip
        """From the first queue, in order, that has something; waits until one has. ("", []) when the time is over."""

        def attempt() -> tuple[tuple[str, list[Message]]] | None:
            for queue in queues:
                messages = self.dequeue(ns, queue, count, visibility_ms=visibility_ms, ack=ack)
                if messages:
                    return ((queue, messages),)
            return None

        served = attempt()
        if served is not None:
            return served[0]
        return self._park([("queue", ns, queue) for queue in queues], attempt, done, ("", []), timeout_ms)

    def ack(self, ns: str, queue: str, seqs: Sequence[int]) -> Settled:
        events, settled = self._queues.decide_ack(self.now, self._partition.next_index, ns, queue, seqs)
        self._change(events)
        return settled

    def nack(self, ns: str, queue: str, seqs: Sequence[int], *, dlq: bool = False, delay_ms: int = 0) -> Settled:
        events, settled = self._queues.decide_nack(
            self.now, self._partition.next_index, ns, queue, seqs, dlq=dlq, delay_ms=delay_ms
        )
        self._change(events)
        return settled

    def touch_messages(self, ns: str, queue: str, seqs: Sequence[int], *, extend_ms: int = 0) -> Settled:
        """Leases end `extend_ms` from now; 0: the visibility that each was taken with."""
        events, settled = self._queues.decide_touch(
            self.now, self._partition.next_index, ns, queue, seqs, extend_ms=extend_ms
        )
        self._change(events)
        return settled

    def peek(self, ns: str, queue: str, count: int = 1) -> list[Message]:
        return self._queues.peek(self.now, ns, queue, count)

    def queue_stats(self, ns: str, queue: str) -> QueueStats | None:
        return self._queues.stats(self.now, ns, queue)

    def queue_list(self, ns: str, limit: int = 0, cursor: str = "") -> QueueList:
        return self._queues.list(self.now, ns, limit, cursor)

    def purge(self, ns: str, queue: str) -> int:
        events, count = self._queues.decide_purge(self.now, self._partition.next_index, ns, queue)
        self._change(events)
        return count

    def queue_delete(self, ns: str, queue: str, force: bool = False) -> None:
        events, _ = self._queues.decide_delete(self.now, self._partition.next_index, ns, queue, force)
        self._change(events)

    def dlq_list(self, ns: str, queue: str, limit: int = 0, cursor: str = "") -> DeadLetters:
        return self._queues.dlq_list(self.now, ns, queue, limit, cursor)

    def dlq_requeue(self, ns: str, queue: str, seqs: Sequence[int]) -> Settled:
        events, settled = self._queues.decide_dlq_requeue(self.now, self._partition.next_index, ns, queue, seqs)
        self._change(events)
        return settled

    def dlq_delete(self, ns: str, queue: str, seqs: Sequence[int]) -> Settled:
        events, settled = self._queues.decide_dlq_delete(self.now, self._partition.next_index, ns, queue, seqs)
        self._change(events)
        return settled

    def dlq_purge(self, ns: str, queue: str) -> int:
        events, count = self._queues.decide_dlq_purge(self.now, self._partition.next_index, ns, queue)
        self._change(events)
        return count

    def dlq_stats(self, ns: str, queue: str) -> DeadLetterStats:
        return self._queues.dlq_stats(self.now, ns, queue)
