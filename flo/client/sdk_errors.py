"""Errors of FloClient. Each is a FloError too, and where the grid in process knows the same error, also that one.

FloError
├── FloConnectionError (also ConnectionError)
│   ├── NotConnectedError       connect() was not called, or the connection was closed or dropped meanwhile
│   ├── ConnectionFailedError   nobody could be reached
│   ├── InvalidEndpointError    the endpoint is not host:port (also ValueError)
│   ├── UnexpectedEofError      the server closed the connection in mid-call: the outcome is unknown
│   └── FloTimeoutError         no reply in time (also TimeoutError): the outcome is unknown
├── ProtocolError               what came is no reply of this protocol; the connection is closed
│   ├── InvalidMagicError, UnsupportedVersionError, InvalidChecksumError, InvalidReservedFieldError
│   ├── PayloadTooLargeError    a reply over the limit
│   └── IncompleteResponseError a reply whose body is cut off
├── ValidationError (BadArgument) an argument cannot be sent; nothing was
│   └── NamespaceTooLargeError, KeyTooLargeError, ValueTooLargeError, BlockTooLongError
├── ServerError                 the server refused; `status_code` tells the family
│   ├── NotFoundError (NotFound) 2, BadRequestError (BadArgument) 3, UnauthorizedError 7, ConflictError (Conflict) 8
│   ├── InternalServerError 9, OverloadedError (Overloaded) 10, RateLimitedError 11
│   └── GenericServerError      any other
├── NonRetryableError           raised by handlers: trying again would not help
└── TxnUnsupportedOpError       the operation is not available inside a transaction
"""

from __future__ import annotations

import re
from typing import Any, Final

from flo.api.errors import BadArgument, Conflict, FloError, NotFound, Overloaded
from flo.wire.frames import FrameError

NO_ACTIVE_TRANSACTION: Final = 5  # status code
CURRENT_VERSION: Final = re.compile(r"current version (\d+)")


class FloConnectionError(FloError, ConnectionError):
    """The server cannot be reached, or can no longer."""

    code = "connection"


class NotConnectedError(FloConnectionError):
    """There is no connection: connect() was not called, or it was closed or dropped. `reconnect` makes another."""

    code = "not_connected"
    retryable = True


class ConnectionFailedError(FloConnectionError):
    """Nobody could be reached at the endpoint."""

    code = "connection_failed"
    retryable = True


class InvalidEndpointError(FloConnectionError, ValueError):
    """The endpoint is not `host:port`, `[v6]:port` or `flo://host:port`."""

    code = "invalid_endpoint"


class UnexpectedEofError(FloConnectionError):
    """The server closed the connection in mid-call. Whether the call was carried out is not known."""

    code = "connection_lost"
    retryable = True


class FloTimeoutError(FloConnectionError, TimeoutError):
    """No reply in time. Whether the call was carried out is not known; the connection was dropped."""

    code = "timeout"
    retryable = True


class ProtocolError(FloError):
    """What came is no reply of this protocol. The connection is closed."""

    code = "protocol"


class InvalidMagicError(ProtocolError):
    """A reply does not begin as one: the other side is no Flo server."""


class UnsupportedVersionError(ProtocolError):
    """A reply has a version of the protocol that this client does not speak."""


class InvalidChecksumError(ProtocolError):
    """A reply was damaged on its way."""


class InvalidReservedFieldError(ProtocolError):
    """Reserved bytes of a reply's header are not zero."""


class PayloadTooLargeError(ProtocolError):
    """A reply announces more bytes than are accepted."""


class IncompleteResponseError(ProtocolError):
    """The body of a reply is shorter than its layout."""


class ValidationError(BadArgument, ValueError):
    """An argument is wrong; nothing was sent."""


class NamespaceTooLargeError(ValidationError):
    """A namespace of more than 255 bytes."""


class KeyTooLargeError(ValidationError):
    """A key or name that does not fit the protocol: over 65,535 bytes."""


class ValueTooLargeError(ValidationError):
    """A value or payload of more than 16 MiB."""


class BlockTooLongError(ValidationError):
    """A wait of more than 300,000 ms."""


class ServerError(FloError):
    """The server refused. `status_code` is that of the reply, `details` what else it told."""

    code = "server"

    def __init__(
        self, status_code: int, message: str, *, hint: str = "", details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status_code = status_code
        self.details = details or {}


class NotFoundError(ServerError, NotFound):
    """What was named does not exist (status 2)."""

    code = "not_found"


class BadRequestError(ServerError, BadArgument):
    """The server does not take these arguments; nothing was done (status 3)."""

    code = "bad_argument"


class UnauthorizedError(ServerError):
    """Not allowed: a reserved key, or a permission that is missing (status 7)."""

    code = "unauthorized"


class ConflictError(ServerError, Conflict):
    """A condition does not hold: another version, the key exists, the key does not exist (status 8)."""

    code = "conflict"

    @property
    def current_version(self) -> int | None:
        """The version that the key has, 0 when it is absent; None when the server did not tell."""
        told = self.details.get("current_version")
        if isinstance(told, int):
            return told
        found = CURRENT_VERSION.search(self.message)
        return int(found[1]) if found else None


class InternalServerError(ServerError):
    """Something is wrong in the server (status 9)."""

    code = "internal"


class OverloadedError(ServerError, Overloaded):
    """A bound of the server is reached and nothing was done; trying again may help (status 10)."""

    code = "overloaded"
    retryable = True


class RateLimitedError(ServerError):
    """Too many requests in too short a time; nothing was done (status 11)."""

    code = "rate_limited"
    retryable = True


class GenericServerError(ServerError):
    """A refusal with any other status: 4 keys of several partitions, 5 no such transaction, 6 group locked …"""


class NonRetryableError(FloError):
    """Raised by a handler to say that trying again would not help."""

    code = "non_retryable"


class TxnUnsupportedOpError(FloError):
    """The operation is not available inside a transaction; nothing was sent."""

    code = "kv_txn_unsupported_op"


_BY_STATUS: Final[dict[int, type[ServerError]]] = {
    2: NotFoundError,
    3: BadRequestError,
    7: UnauthorizedError,
    8: ConflictError,
    9: InternalServerError,
    10: OverloadedError,
    11: RateLimitedError,
}
_TEXTS: Final = {
    2: "not found",
    3: "bad request",
    4: "the keys of the transaction lie in several partitions",
    5: "no active transaction",
    6: "the consumer group is locked",
    7: "unauthorized",
    8: "conflict",
    9: "internal error of the server",
    10: "the server is overloaded",
    11: "too many requests",
    12: "the server is unavailable",
}
_BY_FRAME_ERROR: Final[dict[str, type[ProtocolError]]] = {
    "magic": InvalidMagicError,
    "version": UnsupportedVersionError,
    "checksum": InvalidChecksumError,
    "reserved": InvalidReservedFieldError,
    "too_large": PayloadTooLargeError,
    "truncated": IncompleteResponseError,
}


def server_error(status: int, message: str = "", details: dict[str, Any] | None = None) -> ServerError:
    """The error of a reply's status; a built-in text when the server sent none."""
    text = message or _TEXTS.get(status, f"the server answered with status {status}")
    return _BY_STATUS.get(status, GenericServerError)(status, text, details=details)


def protocol_error(error: FrameError) -> ProtocolError:
    """The error of bytes that are no reply."""
    return _BY_FRAME_ERROR[error.kind](error.message)
