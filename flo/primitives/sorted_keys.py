"""A sorted set of byte strings: a list of sorted lists, so that an insertion moves a thousand pointers at most."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

CHUNK: Final = 1_024  # keys in a chunk when it is built; split at twice that


class SortedKeys:
    """Adding a key that is there, or removing one that is not, is the caller's error."""

    __slots__ = ("_at", "_chunk", "_chunks", "_lasts", "_place")

    def __init__(self, keys: list[bytes] | None = None, *, chunk: int = CHUNK) -> None:
        """`keys` must be sorted and distinct."""
        given = keys or []
        self._chunk = chunk
        self._chunks: list[list[bytes]] = [given[i : i + chunk] for i in range(0, len(given), chunk)]
        self._lasts: list[bytes] = [chunk[-1] for chunk in self._chunks]
        self._place = self._at = 0  # behind the key that was added last

    def add(self, key: bytes) -> None:
        lasts = self._lasts
        if not lasts or key > lasts[-1]:
            # Ascending keys fill their chunks instead of leaving halves behind.
            place = len(lasts)
            if place == 0 or len(self._chunks[place - 1]) >= self._chunk:
                self._chunks.append([key])
                lasts.append(key)
            else:
                self._chunks[place - 1].append(key)
                lasts[place - 1] = key
            return
        place = self._place
        at = self._at
        chunk = self._chunks[place] if place < len(lasts) else []
        # Keys with a number at their end come one behind the other, wherever that is.
        if not 0 < at < len(chunk) or not chunk[at - 1] < key < chunk[at]:
            self._place = place = bisect_left(lasts, key)
            chunk = self._chunks[place]
            at = bisect_left(chunk, key)
        chunk.insert(at, key)
        self._at = at + 1
        if len(chunk) > 2 * self._chunk:
            half = chunk[: self._chunk]
            del chunk[: self._chunk]
            self._chunks.insert(place, half)
            lasts.insert(place, half[-1])

    def remove(self, key: bytes) -> None:
        place = bisect_left(self._lasts, key)
        chunk = self._chunks[place]
        at = bisect_left(chunk, key)
        assert chunk[at] == key
        del chunk[at]
        if not chunk:
            del self._chunks[place]
            del self._lasts[place]
            return
        self._lasts[place] = chunk[-1]
        if len(chunk) < self._chunk // 4 and place + 1 < len(self._chunks):
            after = self._chunks[place + 1]
            if len(chunk) + len(after) <= self._chunk:
                chunk.extend(after)
                self._lasts[place] = chunk[-1]
                del self._chunks[place + 1]
                del self._lasts[place + 1]

    def walk(self, start: bytes, *, beyond: bool = False) -> Iterator[bytes]:
        """The keys from `start` on, without `start` itself if `beyond`; the set must not change meanwhile."""
        for keys in self.lists(start, beyond=beyond):
            yield from keys

    def lists(self, start: bytes, *, beyond: bool = False) -> Iterator[list[bytes]]:
        """As `walk`, some hundred keys at a time; the lists must not be changed."""
        place = bisect_left(self._lasts, start)
        if place == len(self._lasts):
            return
        first = self._chunks[place]
        yield first[bisect_right(first, start) if beyond else bisect_left(first, start) :]
        for following in range(place + 1, len(self._chunks)):
            yield self._chunks[following]

    def all(self) -> list[bytes]:
        return [key for chunk in self._chunks for key in chunk]
