"""Which dedup keys of a queue are taken, and by which message.

A key is taken while a live message (delayed, ready, leased) carries it, and for five minutes after it was last
enqueued. What was enqueued with a key stands in a window in the order of arrival, until an enqueue after the five
minutes drops it. Who owns a key follows from the window and the live messages: the newest message in the window,
else the live one with the highest seq. The others that live, which only requeueing brings about, are its rivals.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

DEDUP_WINDOW_MS: Final = 300_000
DROPS: Final = 16  # entries that one enqueue drops at most
GARBAGE: Final = 1_024  # dropped entries, before it pays to make room
ENTRY_BYTES: Final = 180  # memory of an entry besides its key, about

Window: TypeAlias = tuple[list[int], list[int], list[bytes]]  # instants, seqs, keys


class DedupTable:
    """`live` in its methods holds the seqs of the live messages, without one that has just ended."""

    __slots__ = ("entries", "_ats", "_head", "_keys", "_owners", "_rivals", "_seqs")

    def __init__(self) -> None:
        self.entries = 0  # of the window
        self._owners: dict[bytes, int] = {}
        self._rivals: dict[bytes, list[int]] = {}
        self._ats: array[int] = array("Q")
        self._seqs: array[int] = array("Q")
        self._keys: list[bytes] = []
        self._head = 0

    def owner(self, key: bytes, now: int, live: Collection[int]) -> int:
        """The seq of the message that has the key; 0: it is free."""
        seq = self._owners.get(key, 0)
        if not seq or seq in live:
            return seq
        if self._ats[bisect_left(self._seqs, seq, self._head)] > now - DEDUP_WINDOW_MS:
            return seq
        rivals = self._rivals.get(key)
        return max(rivals) if rivals is not None else 0

    def enqueued(self, key: bytes, seq: int, now: int) -> int:
        """Returns the bytes that the table grew by."""
        self._owners[key] = seq
        self._ats.append(now)
        self._seqs.append(seq)
        self._keys.append(key)
        self.entries += 1
        return ENTRY_BYTES + len(key)

    def expire(self, now: int, live: Collection[int]) -> int:
        """Drops some of what is over; returns the bytes that the table shrank by."""
        head = self._head
        end = min(head + DROPS, len(self._ats))
        freed = 0
        while head < end and self._ats[head] <= now - DEDUP_WINDOW_MS:
            key = self._keys[head]
            seq = self._seqs[head]
            head += 1
            self.entries -= 1
            freed += ENTRY_BYTES + len(key)
            if self._owners.get(key) == seq and seq not in live:
                self._pass_on(key)
        if head >= GARBAGE and 2 * head >= len(self._ats):
            del self._ats[:head]
            del self._seqs[:head]
            del self._keys[:head]
            head = 0
        self._head = head
        return freed

    def ended(self, key: bytes, seq: int) -> None:
        """The message with this key is not live any more."""
        if self._owners.get(key) == seq:
            if not self._in_window(seq):
                self._pass_on(key)
            return
        rivals = self._rivals.get(key)
        if rivals is not None and seq in rivals:
            rivals.remove(seq)
            if not rivals:
                del self._rivals[key]

    def revived(self, key: bytes, seq: int) -> None:
        """A message with this key came back from the dead-letter queue."""
        owner = self._owners.get(key, 0)
        if owner == seq:
            return
        if not owner:
            self._owners[key] = seq
        elif owner > seq or self._in_window(owner):
            self._rivals.setdefault(key, []).append(seq)
        else:
            self._owners[key] = seq
            self._rivals.setdefault(key, []).append(owner)

    def purged(self) -> None:
        """No message is live any more."""
        self._owners = dict(zip(self._keys[self._head :], self._seqs[self._head :], strict=True))
        self._rivals = {}

    def window(self) -> Window:
        head = self._head
        return list(self._ats[head:]), list(self._seqs[head:]), self._keys[head:]

    def load(self, window: Window, live: Iterable[tuple[int, bytes]]) -> int:
        """`live`: seqs and keys of the messages that live and carry one, by ascending seq. Returns the bytes held."""
        ats, seqs, keys = window
        self._ats = array("Q", ats)
        self._seqs = array("Q", seqs)
        self._keys = keys
        self._head = 0
        self.entries = len(keys)
        self.purged()
        for seq, key in live:
            self.revived(key, seq)
        return sum(map(len, keys)) + ENTRY_BYTES * len(keys)

    def _in_window(self, seq: int) -> bool:
        return self.entries > 0 and seq >= self._seqs[self._head]

    def _pass_on(self, key: bytes) -> None:
        rivals = self._rivals.get(key)
        if rivals is None:
            del self._owners[key]
            return
        heir = max(rivals)
        rivals.remove(heir)
        self._owners[key] = heir
        if not rivals:
            del self._rivals[key]
