"""Requests of the Redis protocol, however they arrive: arrays of bulk strings, and inline lines.

    *3 CRLF $3 CRLF SET CRLF $1 CRLF k CRLF $5 CRLF value CRLF

Every bound is checked as soon as the line that announces something is there, and nothing is reserved for what
was only announced: what the parser holds has arrived.
"""

from __future__ import annotations

from typing import Final

ARGUMENTS: Final = 1_024  # of one command
LINE_BYTES: Final = 64 * 1024
BULK_BYTES: Final = 1024 * 1024
COMMAND_BYTES: Final = 64 * 1024 * 1024  # of all arguments of one command

CRLF: Final = b"\r\n"
ASTERISK: Final = 42
DOLLAR: Final = 36
NO_INLINE: Final = b"$+-:"  # begin other types of the protocol
DIGITS_MAX: Final = 18

# The lines that nearly every command is made of, so that they need not be searched and read.
_counts: Final[dict[bytes, int]] = {b"*%d\r\n" % n: n for n in range(1, 10)}
_lengths_1: Final[dict[bytes, int]] = {b"$%d\r\n" % n: n for n in range(10)}
_lengths_2: Final[dict[bytes, int]] = {b"$%d\r\n" % n: n for n in range(10, 100)}
_lengths_3: Final[dict[bytes, int]] = {b"$%d\r\n" % n: n for n in range(100, 1_000)}


class RequestParser:
    """`feed` it what arrives. After a protocol error, told in `error`, nothing more is read."""

    __slots__ = ("error", "_args", "_bulk", "_bulk_size", "_bytes", "_left", "_rest")

    def __init__(self) -> None:
        self.error = ""
        self._args: list[bytes] = []  # of the command that has not arrived in full
        self._left = 0  # arguments that it still lacks
        self._bytes = 0  # of its arguments, announced ones included
        self._bulk = bytearray()  # the beginning of its next argument
        self._bulk_size = -1  # of that argument with its CRLF; -1: its line has not arrived
        self._rest = b""  # a line that has not arrived in full

    @property
    def unread(self) -> int:
        """Bytes of a command that has not arrived in full, without its complete arguments."""
        return len(self._rest) + len(self._bulk)

    @property
    def held(self) -> int:
        """Bytes of a command that has not arrived in full, with those of the argument that was announced last."""
        return len(self._rest) + (self._bytes if self._left else 0)

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that are whole now, in order; none of them is empty."""
        commands: list[list[bytes]] = []
        if self.error:
            return commands
        at = 0
        if self._bulk_size >= 0:
            at = self._bulk_size - len(self._bulk)
            if len(data) < at:
                self._bulk += data
                return commands
            self._bulk += data[:at]
            if not self._end_bulk(commands):
                return commands
        elif self._rest:
            data = self._rest + data
            self._rest = b""
        if at < len(data):
            self._read(data, at, commands)
        return commands

    def _read(self, data: bytes, at: int, commands: list[list[bytes]]) -> None:
        size = len(data)
        args = self._args
        left = self._left
        total = self._bytes
        self._args = []
        self._left = 0
        while at < size:
            if left == 0:
                if data[at] != ASTERISK:
                    at = self._inline(data, at, commands)
                    if at < 0:
                        return
                    continue
                left = _counts.get(data[at : at + 4], 0)
                if left > 0:
                    at += 4
                else:
                    end = data.find(CRLF, at)
                    if not self._is_line(data, at, end, "too big mbulk count string"):
                        return
                    left = _number(data[at + 1 : end])
                    if left > ARGUMENTS:
                        self.error = "invalid multibulk length"
                        return
                    at = end + 2
                    if left <= 0:  # an empty command is none
                        left = 0
                        continue
                args = []
                total = 0
            while left > 0:
                length = _lengths_1.get(data[at : at + 4], -1)
                if length >= 0:
                    start = at + 4
                elif (length := _lengths_2.get(data[at : at + 5], -1)) >= 0:
                    start = at + 5
                elif (length := _lengths_3.get(data[at : at + 6], -1)) >= 0:
                    start = at + 6
                else:
                    end = data.find(CRLF, at)
                    if not self._is_line(data, at, end, "too big bulk count string"):
                        self._args = args
                        self._left = left
                        self._bytes = total
                        return
                    if data[at] != DOLLAR:
                        self.error = f"expected '$', got {_shown(data[at])}"
                        return
                    length = _number(data[at + 1 : end])
                    if length < 0 or length > BULK_BYTES:
                        self.error = "invalid bulk length"
                        return
                    start = end + 2
                stop = start + length
                total += length
                if total > COMMAND_BYTES:
                    self.error = f"command over {COMMAND_BYTES} bytes"
                    return
                if data[stop : stop + 2] != CRLF:
                    self._args = args
                    self._left = left
                    self._bytes = total
                    if stop + 2 <= size:
                        self.error = "expected CRLF after a bulk string"
                    else:
                        self._bulk = bytearray(data[start:])
                        self._bulk_size = length + 2
                    return
                args.append(data[start:stop])
                at = stop + 2
                left -= 1
            commands.append(args)

    def _end_bulk(self, commands: list[list[bytes]]) -> bool:
        """Takes the argument that has arrived in full now."""
        bulk = bytes(self._bulk)
        self._bulk = bytearray()
        self._bulk_size = -1
        if not bulk.endswith(CRLF):
            self.error = "expected CRLF after a bulk string"
            return False
        self._args.append(bulk[:-2])
        self._left -= 1
        if self._left == 0:
            commands.append(self._args)
            self._args = []
        return True

    def _is_line(self, data: bytes, at: int, end: int, too_long: str) -> bool:
        """Whether the line at `at` has arrived, to `end`. Keeps the beginning of one that has not."""
        if (len(data) if end < 0 else end) - at > LINE_BYTES:
            self.error = too_long
            return False
        if end < 0:
            self._rest = data[at:]
            return False
        return True

    def _inline(self, data: bytes, at: int, commands: list[list[bytes]]) -> int:
        """Reads one inline line; where it ends, or -1 when nothing more can be read."""
        if data[at] in NO_INLINE:
            self.error = f"expected '*' or an inline command, got {_shown(data[at])}"
            return -1
        end = data.find(b"\n", at)
        if not self._is_line(data, at, end, "too big inline request"):
            return -1
        args = split_line(data[at:end])
        if args is None:
            self.error = "unbalanced quotes in request"
            return -1
        if len(args) > ARGUMENTS:
            self.error = f"more than {ARGUMENTS} arguments"
            return -1
        if args:
            commands.append(args)
        return end + 1


def _number(digits: bytes) -> int:
    """A number as the protocol writes it, without leading zeros; what is none counts as too large."""
    plain = digits[1:] if digits.startswith(b"-") else digits
    if not plain.isdigit() or len(plain) > DIGITS_MAX or (plain.startswith(b"0") and len(digits) > 1):
        return BULK_BYTES + 1
    return int(digits)


def _shown(byte: int) -> str:
    return f"'{chr(byte)}'" if 32 <= byte < 127 else f"byte {byte}"


_ESCAPES: Final = {110: 10, 114: 13, 116: 9, 98: 8, 97: 7}  # n r t b a
_HEX: Final = b"0123456789abcdefABCDEF"
_SPACE: Final = b" \t\n\r\x0b\x0c\0"


def split_line(line: bytes) -> list[bytes] | None:
    """The words of an inline line; "…" with escapes and '…' hold spaces. None when a quote is not closed."""
    if b'"' not in line and b"'" not in line:
        return line.split()
    args: list[bytes] = []
    at = 0
    size = len(line)
    while at < size:
        if line[at] in _SPACE:
            at += 1
            continue
        word = bytearray()
        while at < size and line[at] not in _SPACE:
            quote = line[at]
            if quote != 34 and quote != 39:
                word.append(quote)
                at += 1
                continue
            at = _quoted(line, at + 1, quote, word)
            if at < 0 or (at < size and line[at] not in _SPACE):
                return None
        args.append(bytes(word))
    return args


def _quoted(line: bytes, at: int, quote: int, word: bytearray) -> int:
    """Adds what stands to the closing quote to `word`; the place behind it, or -1 when there is none."""
    size = len(line)
    while at < size:
        byte = line[at]
        if byte == quote:
            return at + 1
        if byte == 92 and at + 1 < size:
            following = line[at + 1]
            if quote == 39:
                if following == 39:
                    byte = 39
                    at += 1
            elif following == 120 and at + 3 < size and line[at + 2] in _HEX and line[at + 3] in _HEX:
                byte = int(line[at + 2 : at + 4], 16)
                at += 3
            else:
                byte = _ESCAPES.get(following, following)
                at += 1
        word.append(byte)
        at += 1
    return -1
