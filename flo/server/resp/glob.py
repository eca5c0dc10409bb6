"""Patterns of SCAN and KEYS: `*`, `?`, `[a-z]`, `[^a]` and `\\` before a character that stands for itself."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

PATTERN_BYTES: Final = 4_096  # no key is longer
PATTERNS_CACHED: Final = 64

STAR: Final = 42
QUESTION: Final = 63
OPEN: Final = 91
CLOSE: Final = 93
BACKSLASH: Final = 92
CARET: Final = 94
HYPHEN: Final = 45


class Glob:
    """A pattern: the literal prefix that every match begins with, and what decides on the rest."""

    __slots__ = ("literal", "prefix", "_match")

    def __init__(self, pattern: bytes) -> None:
        """`literal`: the pattern is the one key `prefix`."""
        prefix, rest = _literal_prefix(pattern)
        self.prefix = prefix
        self.literal = not rest
        # What `prefix*` asks for, a scan of the prefix answers by itself.
        self._match = None if rest.strip(b"*") == b"" and rest else compiled(pattern)

    def matches(self, key: bytes) -> bool:
        """Of a key that begins with the prefix."""
        return self._match is None or self._match.fullmatch(key) is not None


def _literal_prefix(pattern: bytes) -> tuple[bytes, bytes]:
    prefix = bytearray()
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        if byte in (STAR, QUESTION, OPEN):
            break
        if byte == BACKSLASH and at + 1 < len(pattern):
            at += 1
            byte = pattern[at]
        prefix.append(byte)
        at += 1
    return bytes(prefix), pattern[at:]


@lru_cache(maxsize=PATTERNS_CACHED)
def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """The pattern as a regular expression that never goes back over a star: the first place where the part behind
    it fits is as good as any later one, since no part has a length of its own choice."""
    parts: list[list[bytes]] = [[]]
    at = 0
    size = len(pattern)
    while at < size:
        byte = pattern[at]
        if byte == STAR:
            if parts[-1] or len(parts) == 1:
                parts.append([])
        elif byte == QUESTION:
            parts[-1].append(b".")
        elif byte == OPEN:
            one, at = _class(pattern, at + 1)
            parts[-1].append(one)
        else:
            if byte == BACKSLASH and at + 1 < size:
                at += 1
                byte = pattern[at]
            parts[-1].append(re.escape(bytes((byte,))))
        at += 1
    first, *others = [b"".join(part) for part in parts]
    if not others:
        return re.compile(first, re.DOTALL)
    middle = b"".join(b"(?>.*?%b)" % part for part in others[:-1])
    return re.compile(first + middle + b".*" + others[-1], re.DOTALL)


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class whose `[` stands before `at`, and where it ends; one that is not closed ends with the pattern."""
    size = len(pattern)
    inverted = at < size and pattern[at] == CARET
    if inverted:
        at += 1
    members: set[int] = set()
    while at < size and pattern[at] != CLOSE:
        low = pattern[at]
        if low == BACKSLASH and at + 1 < size:
            at += 1
            members.add(pattern[at])
        elif at + 2 < size and pattern[at + 1] == HYPHEN:
            high = pattern[at + 2]
            members.update(range(min(low, high), max(low, high) + 1))
            at += 2
        else:
            members.add(low)
        at += 1
    if not members:
        return (b"." if inverted else b"(?!)"), min(at, size - 1)
    body = b"".join(b"\\x%02x" % member for member in sorted(members))
    return (b"[^" if inverted else b"[") + body + b"]", min(at, size - 1)
