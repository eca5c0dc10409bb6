"""What clients do with keys, queues, streams and namespaces: the operations of every surface, in batches.

    with store.lock:
        store.begin(size)                 # bytes of the requests
        try:
            version = store.put("default", b"k", b"v")        # any number of operations of any number of clients
        finally:
            index = store.end()           # what was answered may leave once this index is durable
    store.after()                         # without the lock: timers and workers learn of it

An operation is refused by `Refused` or a FloError and changes nothing; the others of its batch go on. `end` raises
Unavailable when memory broke within the batch: nothing that was answered in it may leave then.
"""

from __future__ import annotations

from flo.grid.release import unknown_outcome
from flo.grid.store_batch import PARKED as PARKED
from flo.grid.store_group import GroupOperations
from flo.log.errors import LogError
from flo.primitives.machine import Refused


class Store(GroupOperations):
    """All operations. The classes of store_kv, store_queue, store_stream and store_group are a chain and not bases side
    by side, because compiled classes have one base."""

    def namespace_create(self, ns: str) -> bool:
        """Whether it is new."""
        event = self._namespaces.decide_create(ns)
        if event is not None:
            self._admit()
            self._partition.emit([event], self.now)
        return event is not None

    def namespace_delete(self, ns: str, force: bool = False) -> None:
        """With `force` with everything in it; without, only an empty one."""
        event = self._namespaces.decide_delete(ns)
        if not force and not self.namespace_is_empty(ns):
            raise Refused("conflict", f"namespace {ns!r} is not empty")
        self._transactions.drop_namespace(ns)
        self._partition.emit([event], self.now)
        self.members.gone(ns)

    def namespace_is_empty(self, ns: str) -> bool:
        return not (
            self._kv.key_count(ns)
            or self._queues.list(self.now, ns, 1, "").queues
            or self._streams.list(self.now, ns, 1, "").streams
        )

    def namespace_list(self) -> list[str]:
        return self._namespaces.names()

    def namespace_exists(self, ns: str) -> bool:
        return ns in self._namespaces.created

    # -- life

    def started(self) -> None:
        """The memory is new: no connection of before is there."""
        self.bind()
        self.begin()
        self.members.started(self.now)
        self.end()

    def lost(self, error: LogError) -> None:
        """Memory is thrown away: nobody who waits here is served any more."""
        self._transactions.clear()
        self._partition.waiters.lost(unknown_outcome(error))
