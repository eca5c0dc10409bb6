"""Questions to an error, for those who like them better than classes: `except FloError as e: if is_conflict(e)`."""

from __future__ import annotations

from flo.api.errors import BadArgument, Conflict, FloError, NotFound, Overloaded
from flo.client.sdk_errors import (
    FloConnectionError,
    FloTimeoutError,
    GenericServerError,
    InternalServerError,
    RateLimitedError,
    UnauthorizedError,
)


def is_not_found(error: BaseException) -> bool:
    """What was named does not exist."""
    return isinstance(error, NotFound)


def is_conflict(error: BaseException) -> bool:
    """A condition did not hold."""
    return isinstance(error, Conflict)


def is_bad_request(error: BaseException) -> bool:
    """An argument was wrong, by the client's or the server's judgement."""
    return isinstance(error, BadArgument)


def is_unauthorized(error: BaseException) -> bool:
    """The server does not allow it."""
    return isinstance(error, UnauthorizedError)


def is_overloaded(error: BaseException) -> bool:
    """A bound is reached; nothing was done."""
    return isinstance(error, Overloaded)


def is_rate_limited(error: BaseException) -> bool:
    """Too many requests in too short a time; nothing was done."""
    return isinstance(error, RateLimitedError)


def is_internal(error: BaseException) -> bool:
    """Something is wrong in the server."""
    return isinstance(error, InternalServerError)


def is_group_locked(error: BaseException) -> bool:
    """An exclusive consumer group takes no more members."""
    return isinstance(error, GenericServerError) and error.status_code == 6


def is_connection_error(error: BaseException) -> bool:
    """There is no connection, or it was lost."""
    return isinstance(error, FloConnectionError)


def is_timeout(error: BaseException) -> bool:
    """No reply came in time."""
    return isinstance(error, FloTimeoutError)


def is_retryable(error: BaseException) -> bool:
    """The same call may succeed later without anybody changing anything. After a time-out or a lost connection the
    call may have been carried out: repeat only what is safe to repeat."""
    return isinstance(error, FloError) and error.retryable
