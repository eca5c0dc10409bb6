"""What the floors above see of the log. Backends implement `LogBackend`; `flo.log.commit` groups commits.

Obligations of the owner of a log, in this order:
1. `open()` the backend, then `read(...)` its frames (and the newest good snapshot) to rebuild the machines.
2. `claim()`: a frame with epoch + 1. Answer nobody before it is durable.
3. Hand every batch's events to `GroupCommit.add`; let nothing that rests on them leave the node before
   `durable_index` has reached their last index.
4. After LogFenced, OutcomeUnknown that cannot be settled, or SyncFailed: answer nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

LoggedEvent: TypeAlias = tuple[int, int, bytes]
"""An event as it lies in the log: kind, version, payload. Its index is the frame's first index plus its place. A plain
tuple, because hundreds of thousands are made in a second."""

LiveEvents: TypeAlias = Callable[[int, int], Sequence[int]]
"""`live(first, last)`: which events of this range of indexes are still read by `read_events`, ascending. It is asked
without any lock of the log held, and answers by what is durable: an event whose end may still be lost is live."""

WARM = "warm"  # the tier of what lies on this machine's disk


class Frame(NamedTuple):
    first_index: int
    time_ms: int
    epoch: int
    events: Sequence[LoggedEvent]
    origin: bytes = b""  # msgpack of (principal, quota node, trace context); opaque here


class LogInfo(NamedTuple):
    """What `open` found."""

    log_id: str  # of the directory, for marks on outside things
    first_index: int  # of the oldest frame that is still there; 1 in a new log
    last_index: int  # 0 in a new log
    last_time_ms: int
    epoch: int
    snapshot_index: int  # of the newest good snapshot, 0 when there is none
    partitions: int = 4_096  # slots that keys are placed in, as the directory records them
    warnings: tuple[str, ...] = ()  # torn tail cut, snapshot ignored … one line each, for a person


class LogBackend(Protocol):
    """One log: `memory:`, `file:DIR`, later `nats://…` and `postgresql://…`.

    `append` is called by one thread at a time; the rest is thread-safe.
    """

    def open(self) -> LogInfo:
        """Locks, checks, cuts a torn tail, and tells what is there.
        Raises DirectoryLocked, DirectoryUnusable, LogDamaged."""
        ...

    @property
    def last_index(self) -> int:
        """Of the newest event that was appended; 0 in a new log. Valid after `open`."""
        ...

    @property
    def epoch(self) -> int:
        """Of the newest claim; frames must bear it. Valid after `open`."""
        ...

    def claim(self) -> int:
        """Puts the claim frame at the end by compare-and-append; returns the new epoch once it is durable."""
        ...

    def append(self, frames: Sequence[Frame]) -> None:
        """Appends and makes durable as the mode says; one write and one flush for all of them. Raises NoSpace
        (nothing is in the log; try the same again), LogFenced, OutcomeUnknown (call `settle`), SyncFailed."""
        ...

    def settle(self, frames: Sequence[Frame]) -> bool:
        """After OutcomeUnknown: reads back whether these frames are in the log."""
        ...

    def reserve(self, size: int, pending: int = 0) -> bool:
        """Whether there is room for this many bytes more, besides what is kept back for deletes and timers.
        `pending` bytes were granted before and are not appended yet (`GroupCommit.pending_bytes`)."""
        ...

    def read(self, from_index: int = 1) -> Iterator[Frame]:
        """Durable frames that hold events from this index on, in order; the first may begin below it. Claims hold
        no events and are not shown. Raises LogDamaged, also when the log no longer reaches back to the index."""
        ...

    def read_events(self, indexes: Sequence[int]) -> list[tuple[bytes, str]]:
        """Payload and tier of each of these durable events, in the order asked for; neighbours cost one read. Raises
        KeyError for one that the log has let go, LogDamaged."""
        ...

    def put_blob(self, data: bytes, *, tenant: str = "default") -> bytes:
        """Stores and syncs; returns the SHA-256 digest. The blob is pinned until `unpin`."""
        ...

    def get_blob(self, digest: bytes, *, tenant: str = "default") -> bytes:
        """Raises KeyError, or LogDamaged when the content does not match its digest."""
        ...

    def has_blob(self, digest: bytes, *, tenant: str = "default") -> bool: ...

    def unpin(self, digest: bytes, *, tenant: str = "default") -> None:
        """The command that brought the blob is in the log now: state names it."""
        ...

    def sweep(self, live: frozenset[bytes], *, tenant: str = "default") -> int:
        """Removes blobs that neither `live`, a kept snapshot's list nor a pin names; returns how many."""
        ...

    def put_snapshot(
        self,
        index: int,
        sections: dict[str, bytes],
        blobs: frozenset[bytes],
        *,
        live: LiveEvents | None = None,
    ) -> None:
        """Publishes the state at `index` (sections by machine name) with the blobs it names; keeps two, and drops
        the log's prefix below the older one, but for the events that `live` names: those `read_events` still finds.
        Without `live` there are none."""
        ...

    def get_snapshot(self) -> tuple[int, dict[str, bytes]] | None:
        """The newest good one."""
        ...

    def size_since_snapshot(self) -> int:
        """Bytes of log after the newest snapshot."""
        ...

    @property
    def written_bytes(self) -> int:
        """Appended since `open`; a cheap hint that the log has grown."""
        ...

    def close(self) -> None: ...
