"""What a process wrote, kept within a bound: the beginning and the end."""

from __future__ import annotations


class BoundedOutput:
    """Takes any number of bytes and keeps `limit` of them, half from the front and half from the back."""

    __slots__ = ("_limit", "_head", "_tail", "_total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def write(self, data: bytes) -> None:
        self._total += len(data)
        room = self._limit // 2 - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._limit:  # cut now and then, not at each write
            del self._tail[: -self._limit]

    def text(self) -> str:
        """As UTF-8 text, with U+FFFD for what is none. Where something was cut it says how much."""
        keep = self._limit - self._limit // 2
        if self._total <= self._limit:
            return bytes(self._head + self._tail).decode(errors="replace")
        tail = bytes(self._tail[-keep:])
        # A character that the cut went through is dropped with the rest.
        head = bytes(self._head)
        for length in range(1, 4):
            if len(head) >= length and head[-length] >= 0xC0:
                head = head[:-length] if _length(head[-length]) > length else head
                break
        skip = 0
        while skip < min(3, len(tail)) and tail[skip] & 0xC0 == 0x80:
            skip += 1
        cut = self._total - len(head) - (len(tail) - skip)
        return f"{head.decode(errors='replace')}\n[… {cut:,} bytes cut …]\n{tail[skip:].decode(errors='replace')}"


def _length(first: int) -> int:
    """How many bytes a UTF-8 character with this first byte has."""
    return 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2
