"""Payloads that were read from the log lately."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from typing import Final

CACHE_BYTES: Final = 32 * 1024 * 1024
PAYLOAD_OVERHEAD: Final = 48  # bytes that a payload in a list takes besides its content


class Block:
    """Payloads of neighbouring events. Without `indexes` they are those of `first`, `first` + 1, …"""

    __slots__ = ("first", "indexes", "payloads", "size")

    def __init__(self, first: int, payloads: list[bytes], indexes: list[int] | None = None) -> None:
        self.first = first
        self.payloads = payloads
        self.indexes = indexes
        self.size = sum(map(len, payloads)) + PAYLOAD_OVERHEAD * len(payloads)

    def get(self, index: int) -> bytes | None:
        if self.indexes is None:
            place = index - self.first
            return self.payloads[place] if 0 <= place < len(self.payloads) else None
        place = bisect_left(self.indexes, index)
        if place < len(self.indexes) and self.indexes[place] == index:
            return self.payloads[place]
        return None


class BlockCache:
    """The blocks used last, by a key of the caller's, of at most `capacity_bytes`; thread-safe."""

    def __init__(self, capacity_bytes: int = CACHE_BYTES) -> None:
        self._capacity = capacity_bytes
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._lock = threading.Lock()
        self.held_bytes = 0

    def get(self, key: int) -> Block | None:
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: int, block: Block) -> None:
        """Takes the place of a block of the same key; one over the capacity is not kept."""
        with self._lock:
            old = self._blocks.pop(key, None)
            if old is not None:
                self.held_bytes -= old.size
            if block.size > self._capacity:
                return
            self._blocks[key] = block
            self.held_bytes += block.size
            while self.held_bytes > self._capacity:
                _, oldest = self._blocks.popitem(last=False)
                self.held_bytes -= oldest.size
