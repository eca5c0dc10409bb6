"""How the calls of FloClient reach a server, and what all of them have in common: limits, refusals, our own operation.

A transport sends one operation of the wire protocol and gives an awaitable of the reply. Over TCP that is a
connection (flo.client.connection), in process the store itself (flo.client.local).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from flo.client.sdk_errors import (
    BlockTooLongError,
    IncompleteResponseError,
    KeyTooLargeError,
    NamespaceTooLargeError,
    ServerError,
    ValidationError,
    ValueTooLargeError,
    server_error,
)
from flo.wire import calls, opcodes, statuses, tlv
from flo.wire.calls import A, Call, CallError, R
from flo.wire.frames import KEY_BYTES, NAMESPACE_BYTES, VALUE_BYTES, Reply
from flo.wire.layouts import LayoutError

T = TypeVar("T")

BLOCK_MS: Final = 300_000  # the longest wait of a call
UNSIGNED_MAX: Final = 2**64 - 1
Tags = dict[int, bytes]

_json = msgspec.json.Encoder().encode


class Transport(Protocol):
    """What carries operations to a server."""

    @property
    def namespace(self) -> str:
        """Of calls that name none."""
        ...

    def send(
        self, opcode: int, ns: str, key: bytes, value: bytes = b"", tags: Tags | None = None, wait_ms: int = 0
    ) -> Awaitable[Reply]:
        """Sends an operation; it has `wait_ms` longer than others to answer. Raises FloConnectionError, at once or
        from the awaitable. Giving that up forgets the reply, not the operation."""
        ...

    def abandon(self, reply: Awaitable[Reply]) -> None:
        """The caller has given up a wait: where that is possible it ends, and takes nothing more."""
        ...


class HasNamespace(Protocol):
    @property
    def namespace(self) -> str | None: ...


class Operations:
    """The calls of one family, over a transport."""

    __slots__ = ("_send", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._send = transport.send

    def _ns(self, options: HasNamespace | None) -> str:
        ns = self._transport.namespace if options is None or options.namespace is None else options.namespace
        if len(ns) > 63 and len(ns.encode()) > NAMESPACE_BYTES:
            raise NamespaceTooLargeError(
                f"a namespace of {len(ns.encode())} bytes is over the limit of {NAMESPACE_BYTES}"
            )
        return ns

    async def _call(self, call: Call[A, R], ns: str, arguments: A, wait_ms: int = 0) -> R:
        """Our own operation: what the protocol's others do not carry."""
        value = calls.encode(arguments)
        if len(value) > VALUE_BYTES:
            raise ValueTooLargeError(f"{len(value)} bytes are over the limit of {VALUE_BYTES}")
        reply = await self._send(opcodes.CALL, ns, call.name.encode(), value, None, wait_ms)
        if reply.status:
            raise call_refusal(reply)
        return call_result(call, reply.body)


def call_result(call: Call[A, R], body: bytes) -> R:
    """Raises IncompleteResponseError."""
    try:
        return calls.decode_result(call, body)
    except CallError as error:
        raise IncompleteResponseError(f"the reply is not understood: {error}") from None


def refusal(reply: Reply) -> ServerError:
    """The error that a reply to one of the protocol's operations tells."""
    return server_error(reply.status, reply.body.decode("utf-8", "replace"))


def call_refusal(reply: Reply) -> ServerError:
    """The error that a reply to our own operation tells: a map, or the text of a server that has no such operation."""
    try:
        told = calls.decode_refusal(reply.body)
    except CallError:
        return refusal(reply)
    return server_error(reply.status, told.message, told.details if isinstance(told.details, dict) else None)


def is_unknown_call(reply: Reply) -> bool:
    """Whether the server has no operations of ours: its refusal is a text."""
    if reply.status != statuses.BAD_REQUEST:
        return False
    try:
        calls.decode_refusal(reply.body)
    except CallError:
        return True
    return False


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """A reply's body. Raises IncompleteResponseError when it is cut off."""
    try:
        return decode(body)
    except LayoutError as error:
        raise IncompleteResponseError(f"the reply is not understood: {error}") from None


def key_bytes(key: str | bytes) -> bytes:
    """A key as it is sent. Raises KeyTooLargeError."""
    data = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else bytes(key)
    if len(data) > KEY_BYTES:
        raise KeyTooLargeError(f"a key of {len(data)} bytes is over the limit of {KEY_BYTES}")
    return data


def key_text(key: bytes) -> str:
    """A key as callers see it; bytes that are no UTF-8 come back as the same bytes when it is sent."""
    return key.decode("utf-8", "surrogateescape")


def payload_bytes(value: Any) -> bytes:
    """A value as it is sent: bytes as they are, a text as UTF-8, anything else as JSON. Raises ValueTooLargeError."""
    if isinstance(value, bytes):
        data = value
    elif isinstance(value, str):
        data = value.encode()
    elif isinstance(value, bytearray | memoryview):
        data = bytes(value)
    else:
        data = json_bytes(value)
    if len(data) > VALUE_BYTES:
        raise ValueTooLargeError(f"a value of {len(data)} bytes is over the limit of {VALUE_BYTES}")
    return data


def json_bytes(value: Any) -> bytes:
    """The JSON text of a value. Raises ValidationError."""
    try:
        return _json(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(f"{type(value).__name__} cannot be sent: {error}") from None


def wait_of(ms: int | None, name: str = "block_ms") -> int:
    """A wait in milliseconds, 0 for none. Raises BlockTooLongError."""
    if ms is None:
        return 0
    if ms > BLOCK_MS:
        raise BlockTooLongError(f"{name} of {ms} is over the limit of {BLOCK_MS}")
    return unsigned(ms, name, BLOCK_MS)


def unsigned(number: int, name: str, largest: int = UNSIGNED_MAX) -> int:
    """The number itself. Raises ValidationError when it is none from 0 to `largest`."""
    if not (isinstance(number, int) and 0 <= number <= largest):  # type: ignore[redundant-expr]
        raise ValidationError(f"{name} must be 0..{largest}, not {number!r}")
    return number


def u8(number: int, name: str) -> bytes:
    return unsigned(number, name, 2**8 - 1).to_bytes(1, "little")


def u32(number: int, name: str) -> bytes:
    return unsigned(number, name, 2**32 - 1).to_bytes(4, "little")


def u64(number: int, name: str) -> bytes:
    return unsigned(number, name).to_bytes(8, "little")


def short(data: bytes, name: str) -> bytes:
    """What fits an option. Raises ValidationError."""
    if len(data) > tlv.OPTION_BYTES:
        raise ValidationError(f"{name} of {len(data)} bytes is over the limit of {tlv.OPTION_BYTES}")
    return data


def ttl_ms(seconds: float | None, ms: int | None) -> int:
    """A time to live in milliseconds, 0 for none. Raises ValidationError when both are given."""
    if seconds is None:
        return 0 if ms is None else unsigned(ms, "ttl_ms", 2**63 - 1)
    if ms is not None:
        raise ValidationError("ttl_seconds and ttl_ms are the same: give one")
    if isinstance(seconds, int):
        return unsigned(seconds, "ttl_seconds", 2**63 - 1) * 1_000
    if not 0 <= seconds < 2**53:
        raise ValidationError(f"ttl_seconds must be 0 or more, not {seconds!r}")
    return max(1, round(seconds * 1_000)) if seconds else 0


def seq_list(seqs: int | Sequence[int], name: str = "seqs") -> list[int]:
    """Sequence numbers as a list; one alone will do. Raises ValidationError."""
    listed = [seqs] if isinstance(seqs, int) else list(seqs)
    if not listed:
        raise ValidationError(f"{name} is empty")
    for seq in listed:
        unsigned(seq, name)
    return listed


async def keep(transport: Transport, reply: Awaitable[Reply], give_back: Callable[[Reply], None]) -> Reply:
    """Waits for the reply of something that hands out. When the caller gives up meanwhile, a reply that comes all the
    same goes to `give_back`, so that nothing stays leased to nobody."""
    future = asyncio.ensure_future(reply)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:

        def late(future: asyncio.Future[Reply]) -> None:
            if not future.cancelled() and future.exception() is None and not future.result().status:
                give_back(future.result())

        future.add_done_callback(late)
        transport.abandon(future)
        raise
