"""Operations on consumer groups (spec/streams.md §8)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from flo.grid.store_batch import Done, ParkedResult
from flo.grid.store_stream import StreamOperations
from flo.primitives.machine import Refused
from flo.primitives.stream_pages import Claimed, Delivered, GroupInfo, GroupSettings, PendingPage, StreamId

SCANS: Final = 64  # steps of a key-shared read that finds records of other consumers only


class GroupOperations(StreamOperations):
    def group_create(
        self, ns: str, stream: str, group: str, settings: GroupSettings, start: StreamId | None = None
    ) -> None:
        self._admit()
        self._check_namespace(ns)
        events, _ = self.groups.decide_create(self.now, self._index_in(ns), ns, stream, group, settings, start)
        self._write(ns, events)

    def group_join(
        self, ns: str, stream: str, group: str, consumer: str, *, settings: GroupSettings | None = None,
        owner: Hashable = None,
    ) -> None:  # fmt: skip
        """`owner` stands for the connection: when it goes, members of groups that are not shared leave."""
        self._admit()
        self._check_namespace(ns)
        events, _ = self.groups.decide_join(
            self.now, self._index_in(ns), ns, stream, group, consumer, settings, bound=owner is not None
        )  # fmt: skip
        self._write(ns, events)
        self.members.seen(self.now, ns, stream, group, consumer, owner, joined=True)

    def group_leave(self, ns: str, stream: str, group: str, consumer: str) -> None:
        """The consumer's entries may be delivered again at once. Of an unknown one nothing happens."""
        now = self._partition.command_time
        events, _ = self.groups.decide_leave(now, self._partition.next_index, ns, stream, group, consumer)
        self._change(events)
        self.members.left(ns, stream, group, consumer)

    def group_read(
        self, ns: str, stream: str, group: str, consumer: str, limit: int = 10, *, no_ack: bool = False,
        settings: GroupSettings | None = None, owner: Hashable = None,
    ) -> list[Delivered]:  # fmt: skip
        """Makes the group, and its stream, when they are not there; `settings` are those of a new group."""
        if self._pressure.refuses and not self.groups.is_member(ns, stream, group, consumer):
            raise self._pressure.error()  # a read may go on, but not make a consumer, a group or a stream
        self._check_namespace(ns)
        now = self._partition.command_time
        for _ in range(SCANS):
            events, delivered = self.groups.decide_read(
                now, self._index_in(ns), ns, stream, group, consumer, limit, no_ack=no_ack, settings=settings,
                bound=owner is not None,
            )  # fmt: skip
            self._write(ns, events)
            if delivered or not events:
                break
        self.members.seen(now, ns, stream, group, consumer, owner)
        return delivered

    def wait_group_read(
        self, ns: str, stream: str, group: str, consumer: str, limit: int = 10, *, no_ack: bool = False,
        settings: GroupSettings | None = None, owner: Hashable = None, timeout_ms: int | None, done: Done,
    ) -> list[Delivered] | ParkedResult:  # fmt: skip
        def attempt() -> tuple[list[Delivered]] | None:
            if self.groups.info(self._partition.command_time, ns, stream, group) is None:
                raise Refused("not_found", f"no group {group!r} on stream {stream!r}")
            if not self.groups.is_member(ns, stream, group, consumer):
                return ([],)  # it has left: what it held is for others, and it must not join again by this
            delivered = self.group_read(ns, stream, group, consumer, limit, no_ack=no_ack, owner=owner)
            return (delivered,) if delivered else None

        delivered = self.group_read(ns, stream, group, consumer, limit, no_ack=no_ack, settings=settings, owner=owner)
        if delivered:
            return delivered
        result = self._park([("stream", ns, stream)], attempt, done, [], timeout_ms)
        assert self.last_parked is not None
        self.members.parked(ns, stream, group, consumer, self.last_parked)
        return result

    def group_ack(self, ns: str, stream: str, group: str, ids: Sequence[StreamId], consumer: str = "") -> int:
        events, count = self.groups.decide_ack(
            self.now, self._partition.next_index, ns, stream, group, ids, consumer
        )  # fmt: skip
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return count

    def group_nack(
        self, ns: str, stream: str, group: str, ids: Sequence[StreamId], *, delay_ms: int | None = None,
        consumer: str = "",
    ) -> int:  # fmt: skip
        events, count = self.groups.decide_nack(
            self.now, self._partition.next_index, ns, stream, group, ids, delay_ms=delay_ms, consumer=consumer
        )
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return count

    def group_touch(
        self, ns: str, stream: str, group: str, ids: Sequence[StreamId], consumer: str, *,
        extend_ms: int | None = None,
    ) -> int:  # fmt: skip
        events, count = self.groups.decide_touch(
            self.now, self._partition.next_index, ns, stream, group, ids, consumer, extend_ms=extend_ms
        )
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return count

    def group_claim(
        self, ns: str, stream: str, group: str, consumer: str, min_idle_ms: int, *,
        ids: Sequence[StreamId] | None = None, start: StreamId | None = None, limit: int = 100,
    ) -> Claimed:  # fmt: skip
        """The entries of these ids, or without `ids` the next from `start` on."""
        index = self._partition.next_index
        if ids is not None:
            events, claimed = self.groups.decide_claim(
                self.now, index, ns, stream, group, consumer, min_idle_ms, ids
            )  # fmt: skip
        else:
            events, claimed = self.groups.decide_autoclaim(
                self.now, index, ns, stream, group, consumer, min_idle_ms, start or (0, 0), limit
            )
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return claimed

    def group_pending(
        self, ns: str, stream: str, group: str, consumer: str = "", limit: int = 100, cursor: str = ""
    ) -> PendingPage:
        return self.groups.pending(self.now, ns, stream, group, consumer, limit, cursor)

    def group_info(self, ns: str, stream: str, group: str) -> GroupInfo | None:
        return self.groups.info(self.now, ns, stream, group)

    def group_list(self, ns: str, stream: str) -> list[GroupInfo]:
        return self.groups.list(self.now, ns, stream)

    def group_delete(self, ns: str, stream: str, group: str) -> None:
        events, _ = self.groups.decide_delete(self.now, self._partition.next_index, ns, stream, group)
        self._change(events)
        self.members.gone(ns, stream, group)

    def owner_gone(self, owner: Hashable) -> None:
        """A connection is closed: the members that joined on it leave."""
        self.members.owner_gone(owner)
