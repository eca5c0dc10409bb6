"""Open transactions (spec/kv.md §11): ids, buffers and the time in which they must be used. Nothing of it is logged.

Called with the partition's lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

from flo.api.errors import Overloaded
from flo.primitives.kv import KV
from flo.primitives.kv_txn import Transaction
from flo.primitives.machine import Refused

OPEN_TRANSACTIONS: Final = 1_024
IDLE_MS: Final = 60_000
ID_BITS: Final = 53  # survives JSON
COPIES: Final = 2  # of a buffered value: as it came, and as it is seen from within
OPERATION_BYTES: Final = 400  # memory of a buffered operation besides its key and value


def routing_hash(key: bytes) -> int:
    """The stable hash that places keys: of the routing key, or of the key itself."""
    return crc32(key)


class Open:
    __slots__ = ("buffer", "ns", "slot", "touched_at")

    def __init__(self, ns: str, slot: int, buffer: Transaction, now: int) -> None:
        self.ns = ns
        self.slot = slot
        self.buffer = buffer
        self.touched_at = now


class Transactions:
    def __init__(self, partitions: int, entropy: Callable[[int], bytes]) -> None:
        self._partitions = partitions
        self._entropy = entropy
        self._open: dict[int, Open] = {}  # the least recently used first

    def __len__(self) -> int:
        return len(self._open)

    @property
    def memory_bytes(self) -> int:
        """Memory that the buffers hold, about."""
        return sum([COPIES * one.buffer.bytes + OPERATION_BYTES * len(one.buffer.ops) for one in self._open.values()])

    def begin(self, now: int, kv: KV, ns: str, routing_key: bytes) -> tuple[int, int]:
        """The id and the routing key's hash. Raises Overloaded over the limit."""
        if not routing_key:
            raise Refused("bad_argument", "routing key is required")
        self.expire(now)
        if len(self._open) >= OPEN_TRANSACTIONS:
            raise Overloaded(f"too many open transactions (max {OPEN_TRANSACTIONS})", hint="try again")
        number = 0
        while number == 0 or number in self._open:
            number = int.from_bytes(self._entropy(7), "little") >> (56 - ID_BITS)
        pinned = routing_hash(routing_key)
        self._open[number] = Open(ns, pinned % self._partitions, Transaction(kv, ns), now)
        return number, pinned

    def find(self, now: int, ns: str, number: int) -> Open:
        """The transaction, used now. Raises Refused when there is none of this id in the namespace."""
        found = self._open.get(number)
        if found is None or found.ns != ns or now - found.touched_at >= IDLE_MS:
            raise Refused("conflict", "transaction not found", {"code": "kv_txn_unknown"})
        found.touched_at = now
        self._open[number] = self._open.pop(number)
        return found

    def check_place(self, now: int, kv: KV, found: Open, key: bytes) -> None:
        """Every key of a transaction lies beside its routing key; one that is not there yet will."""
        if kv.current(now, found.ns, key) is None:
            return
        slot = kv.slot(found.ns, key)
        if (routing_hash(key) % self._partitions if slot is None else slot) != found.slot:
            text = f"kv_txn_cross_shard: key {key[:100]!r} lies in another partition than the transaction's routing key"
            raise Refused("conflict", text, {"code": "kv_txn_cross_shard"})

    def slot_of(self, key: bytes) -> int:
        return routing_hash(key) % self._partitions

    def close(self, number: int) -> None:
        self._open.pop(number, None)

    def drop_namespace(self, ns: str) -> None:
        for number in [number for number, found in self._open.items() if found.ns == ns]:
            del self._open[number]

    def expire(self, now: int) -> None:
        while self._open:
            number = next(iter(self._open))
            if now - self._open[number].touched_at < IDLE_MS:
                return
            del self._open[number]

    def clear(self) -> None:
        """The memory that they looked at is thrown away."""
        self._open.clear()
