"""Operations on streams (spec/streams.md §§4–7)."""

from __future__ import annotations

from collections.abc import Sequence

from flo.grid.store_batch import Done, ParkedResult
from flo.grid.store_queue import QueueOperations
from flo.primitives.stream_pages import (
    Appended,
    NewRecord,
    PlacedPage,
    Retention,
    StreamId,
    StreamInfo,
    StreamList,
    Trimmed,
)


class StreamOperations(QueueOperations):
    def stream_append(
        self, ns: str, stream: str, records: Sequence[NewRecord], *, partition: int | None = None,
        key: bytes | None = None,
    ) -> Appended:  # fmt: skip
        self._admit()
        self._check_namespace(ns)
        events, appended = self._streams.decide_append(
            self.now, self._index_in(ns), ns, stream, records, partition=partition, key=key
        )
        self._write(ns, events)
        return appended

    def stream_read(
        self, ns: str, stream: str, *, start: StreamId | None = None, end: StreamId | None = None,
        after: StreamId | None = None, limit: int = 100, partition: int | None = None, key: bytes | None = None,
        skip: int = 0,
    ) -> PlacedPage:  # fmt: skip
        return self._streams.read(
            self._partition.command_time, ns, stream, start=start, end=end, after=after, limit=limit,
            partition=partition, key=key, skip=skip,
        )  # fmt: skip

    def wait_read(
        self, ns: str, stream: str, *, start: StreamId | None = None, end: StreamId | None = None,
        after: StreamId | None = None, limit: int = 100, partition: int | None = None, key: bytes | None = None,
        skip: int = 0, tail: bool = False, timeout_ms: int | None, done: Done,
    ) -> PlacedPage | ParkedResult:  # fmt: skip
        """Waits for the first record that matches. With `tail` only records that are appended from now on do."""
        if tail:
            after = self._streams.tail_id(ns, stream)
            start = None

        existed = self._streams.find(ns, stream) is not None
        nothing = PlacedPage([], False, after or start or (0, 0))

        def attempt() -> tuple[PlacedPage] | None:
            if existed and self._streams.find(ns, stream) is None:
                return (nothing,)  # it was deleted, and one that is made anew is another
            page = self.stream_read(
                ns, stream, start=start, end=end, after=after, limit=limit, partition=partition, key=key, skip=skip
            )
            return (page,) if page.records else None

        served = attempt()
        if served is not None:
            return served[0]
        return self._park([("stream", ns, stream)], attempt, done, nothing, timeout_ms)

    def stream_tail(self, ns: str, stream: str) -> StreamId:
        """The newest id ever; (0, 0) of a stream that is not there."""
        return self._streams.tail_id(ns, stream)

    def stream_info(self, ns: str, stream: str) -> StreamInfo | None:
        return self._streams.info(self.now, ns, stream)

    def stream_list(self, ns: str, limit: int = 0, cursor: str = "") -> StreamList:
        return self._streams.list(self.now, ns, limit, cursor)

    def stream_create(self, ns: str, stream: str, partitions: int, retention: Retention) -> None:
        self._admit()
        self._check_namespace(ns)
        events, _ = self._streams.decide_create(self.now, self._index_in(ns), ns, stream, partitions, retention)
        self._write(ns, events)

    def stream_alter(
        self, ns: str, stream: str, *, max_age_ms: int | None = None, max_records: int | None = None,
        max_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """None leaves a bound, 0 clears it."""
        events, _ = self._streams.decide_alter(
            self.now, self._partition.next_index, ns, stream, max_age_ms=max_age_ms, max_records=max_records,
            max_bytes=max_bytes,
        )  # fmt: skip
        self._change(events)

    def stream_trim(
        self, ns: str, stream: str, *, max_records: int | None = None, before: StreamId | None = None,
        max_age_ms: int | None = None, max_bytes: int | None = None, dry_run: bool = False,
    ) -> Trimmed:  # fmt: skip
        events, trimmed = self._streams.decide_trim(
            self.now, self._partition.next_index, ns, stream, max_records=max_records, before=before,
            max_age_ms=max_age_ms, max_bytes=max_bytes, dry_run=dry_run,
        )  # fmt: skip
        self._change(events)
        return trimmed

    def stream_delete(self, ns: str, stream: str, force: bool = False) -> None:
        events, _ = self._streams.decide_delete(self.now, self._partition.next_index, ns, stream, force)
        self._change(events)
        self.members.gone(ns, stream)
