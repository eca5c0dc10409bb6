"""`memory:`: a log that lives as long as its store. The fake for tests and embedders, and the log of `ephemeral`.

log = MemoryBackend()
log.fail(2, NoSpace("full"))                     # the second append from now is refused
log.fail(1, OutcomeUnknown("?"), landed=True)    # it is in the log, but nobody knows
log.hold(); ...; log.wait_held(); ...; log.release()   # appends stop before they are durable
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from flo.log.contract import WARM, Frame, LiveEvents, LogInfo
from flo.log.errors import LogDamaged, LogError, LogFenced, SyncFailed, TooLarge
from flo.log.frame import BATCH_BYTES, encoded_size

SNAPSHOTS_KEPT: Final = 2
PRUNE_EVENTS_MIN: Final = 1_024  # kept ones, before it is asked again which are live


class MemoryStore:
    """What survives the backends that use it: pass one store to two backends to fence or restart."""

    def __init__(self, log_id: str = "0" * 32) -> None:
        self.log_id = log_id
        self.frames: list[Frame] = []
        self.first_indexes: list[int] = []  # of the frames, for searching
        self.sizes: list[int] = []  # of the frames, in encoded bytes
        self.kept: dict[int, bytes] = {}  # payloads of live events below the first index
        self.prune_at = 0  # so many of them are a reason to ask which are still live
        self.first_index = 1
        self.last_index = 0
        self.last_time_ms = 0
        self.epoch = 0
        self.blobs: dict[tuple[str, bytes], bytes] = {}
        self.snapshots: list[tuple[int, dict[str, bytes], frozenset[bytes]]] = []  # oldest first
        self.lock = threading.Lock()


class MemoryBackend:
    """LogBackend over a MemoryStore."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store if store is not None else MemoryStore()
        self.room: int | None = None  # bytes that `reserve` still grants; None is endless
        self._epoch = self.store.epoch
        self._pins: Counter[tuple[str, bytes]] = Counter()
        self._faults: list[tuple[int, LogError, bool]] = []  # appends to go, error, landed
        self._broken: LogError | None = None
        self._release = threading.Event()
        self._release.set()
        self._held = threading.Event()
        self.written_bytes = 0

    def fail(self, nth: int, error: LogError, *, landed: bool = False) -> None:
        """The nth append from now raises this error; `landed` says whether its frames are in the log all the same."""
        assert nth >= 1
        self._faults.append((nth, error, landed))

    def hold(self) -> None:
        """Appends stop before they are durable, until `release`."""
        self._held.clear()
        self._release.clear()

    def wait_held(self, timeout: float = 10.0) -> bool:
        """Waits until an append is being held."""
        return self._held.wait(timeout)

    def release(self) -> None:
        self._release.set()

    def open(self) -> LogInfo:
        store = self.store
        with store.lock:
            self._epoch = store.epoch
            newest = store.snapshots[-1][0] if store.snapshots else 0
            return LogInfo(store.log_id, store.first_index, store.last_index, store.last_time_ms, store.epoch, newest)

    @property
    def last_index(self) -> int:
        return self.store.last_index

    @property
    def epoch(self) -> int:
        return self._epoch

    def claim(self) -> int:
        self._raise_fault()
        with self.store.lock:
            self.store.epoch += 1
            self._epoch = self.store.epoch
        return self._epoch

    def append(self, frames: Sequence[Frame]) -> None:
        if not self._release.is_set():
            self._held.set()
            self._release.wait()
        fault = self._due_fault()
        if fault is not None and not fault[1]:
            raise fault[0]
        sizes = [encoded_size(frame.events) for frame in frames]
        if max(sizes, default=0) > BATCH_BYTES:
            raise TooLarge(f"a batch of {max(sizes)} bytes is over the limit of {BATCH_BYTES} bytes")
        store = self.store
        with store.lock:
            if self._epoch != store.epoch:
                self._broken = LogFenced(f"epoch {store.epoch} has claimed the log; this owner has epoch {self._epoch}")
                raise self._broken
            for frame, size in zip(frames, sizes, strict=True):
                assert frame.first_index == store.last_index + 1, "frames must follow one another"
                assert frame.epoch == self._epoch, "frames bear the epoch of their claim"
                store.frames.append(frame)
                store.first_indexes.append(frame.first_index)
                store.sizes.append(size)
                store.last_index += len(frame.events)
                store.last_time_ms = max(store.last_time_ms, frame.time_ms)
                self.written_bytes += size
        if fault is not None:
            raise fault[0]

    def settle(self, frames: Sequence[Frame]) -> bool:
        self._raise_fault()
        with self.store.lock:
            return self.store.last_index >= frames[-1].first_index + len(frames[-1].events) - 1

    def reserve(self, size: int, pending: int = 0) -> bool:
        return self.room is None or size <= self.room

    def read(self, from_index: int = 1) -> Iterator[Frame]:
        store = self.store
        with store.lock:
            if from_index < store.first_index:
                raise LogDamaged(
                    f"the log reaches back to index {store.first_index} only, not to {from_index}",
                    hint="read on from the newest snapshot",
                )
            start = max(0, bisect_right(store.first_indexes, from_index) - 1)
            frames = store.frames[start:]
        if frames and frames[0].first_index + len(frames[0].events) <= from_index:
            frames = frames[1:]
        return iter(frames)

    def read_events(self, indexes: Sequence[int]) -> list[tuple[bytes, str]]:
        store = self.store
        with store.lock:
            return [(self._payload(index), WARM) for index in indexes]

    def _payload(self, index: int) -> bytes:
        store = self.store
        if index < store.first_index:
            return store.kept[index]
        if index > store.last_index:
            raise KeyError(index)
        at = bisect_right(store.first_indexes, index) - 1
        return store.frames[at].events[index - store.first_indexes[at]][2]

    def put_blob(self, data: bytes, *, tenant: str = "default") -> bytes:
        digest = hashlib.sha256(data).digest()
        with self.store.lock:
            self.store.blobs[tenant, digest] = data
            self._pins[tenant, digest] += 1
        return digest

    def get_blob(self, digest: bytes, *, tenant: str = "default") -> bytes:
        return self.store.blobs[tenant, digest]

    def has_blob(self, digest: bytes, *, tenant: str = "default") -> bool:
        return (tenant, digest) in self.store.blobs

    def unpin(self, digest: bytes, *, tenant: str = "default") -> None:
        with self.store.lock:
            self._pins[tenant, digest] -= 1
            self._pins += Counter()  # forgets what nobody pins any more

    def sweep(self, live: frozenset[bytes], *, tenant: str = "default") -> int:
        store = self.store
        with store.lock:
            kept = live.union(*(blobs for _, _, blobs in store.snapshots))
            dead = [key for key in store.blobs if key[0] == tenant and key[1] not in kept and key not in self._pins]
            for key in dead:
                del store.blobs[key]
        return len(dead)

    def put_snapshot(
        self,
        index: int,
        sections: dict[str, bytes],
        blobs: frozenset[bytes],
        *,
        live: LiveEvents | None = None,
    ) -> None:
        store = self.store
        with store.lock:
            assert index <= store.last_index, "a snapshot holds what is durable"
            if store.snapshots and index <= store.snapshots[-1][0]:
                return
            store.snapshots.append((index, dict(sections), blobs))
            if len(store.snapshots) < SNAPSHOTS_KEPT:
                return
            del store.snapshots[:-SNAPSHOTS_KEPT]
            older = store.snapshots[0][0]
        self.let_go(older, live)

    def let_go(self, index: int, live: LiveEvents | None) -> None:
        """Drops whole frames up to this index, but for the payloads of live events: nothing is rebuilt from before."""
        store = self.store
        with store.lock:
            dropped = max(0, bisect_right(store.first_indexes, index + 1) - 1)
            first = store.first_index
            last = store.first_indexes[dropped] - 1 if dropped else first - 1
            prune = len(store.kept) >= store.prune_at
        if live is not None:
            old = live(1, first - 1) if prune else None
            new = live(first, last) if dropped else ()
            with store.lock:
                if old is not None:
                    store.kept = {wanted: store.kept[wanted] for wanted in old}
                    store.prune_at = max(PRUNE_EVENTS_MIN, 2 * len(store.kept))
                store.kept.update((wanted, self._payload(wanted)) for wanted in new)
        if dropped:
            with store.lock:
                del store.frames[:dropped], store.first_indexes[:dropped], store.sizes[:dropped]
                store.first_index = last + 1

    def get_snapshot(self) -> tuple[int, dict[str, bytes]] | None:
        with self.store.lock:
            if not self.store.snapshots:
                return None
            index, sections, _ = self.store.snapshots[-1]
            return index, dict(sections)

    def size_since_snapshot(self) -> int:
        store = self.store
        with store.lock:
            newest = store.snapshots[-1][0] if store.snapshots else 0
            return sum(store.sizes[bisect_right(store.first_indexes, newest) :])

    def close(self) -> None:
        self.release()

    def _due_fault(self) -> tuple[LogError, bool] | None:
        self._raise_fault()
        due = None
        waiting = []
        for nth, error, landed in self._faults:
            if nth == 1 and due is None:
                due = (error, landed)
            else:
                waiting.append((max(1, nth - 1), error, landed))
        self._faults = waiting
        if due is not None and isinstance(due[0], LogFenced | SyncFailed):
            self._broken = due[0]
        return due

    def _raise_fault(self) -> None:
        """After a fence or a failed flush nothing is answered any more."""
        if self._broken is not None:
            raise self._broken
