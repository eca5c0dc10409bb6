"""The root of every error that Flo shows to a person, and the errors of the log.

    FloError
    └── LogError
        ├── LogDamaged        bytes in the log do not match their checksums, or a newer format
        ├── LogFenced         another owner has claimed the log; nothing was written
        ├── OutcomeUnknown    the append may or may not be in the log; settle it by reading back
        ├── NoSpace           no room for the frame now; it is kept and tried again
        ├── SyncFailed        the disk refused to make data durable; the process must end
        ├── TooLarge          one atomic batch is over its limit; nothing was applied or written
        ├── DirectoryLocked   another process owns the directory (its socket is in `.socket`)
        └── DirectoryUnusable not writable, not a directory, foreign files
            └── TopologyMismatch  other shards or partitions than the directory was made with

The root lives on the lowest floor so that every floor above may derive from it.
"""

from __future__ import annotations

from typing import ClassVar


class FloError(Exception):
    """An error with a stable `code`, a message (where, what) and a `hint` (what to do).

    `retryable` tells whether the same call may succeed later without anybody changing anything.
    Codes are documented in docs/errors.md; a test checks that each is.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class LogError(FloError):
    code = "log"


class LogDamaged(LogError):
    code = "log_damaged"

    def __init__(self, message: str, *, hint: str = "", offset: int = 0, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.offset = offset  # in the file that the message names
        self.reason = reason or message


class LogFenced(LogError):
    code = "log_fenced"
    retryable = True


class OutcomeUnknown(LogError):
    code = "outcome_unknown"
    retryable = True


class NoSpace(LogError):
    code = "no_space"
    retryable = True


class SyncFailed(LogError):
    code = "sync_failed"


class TooLarge(LogError):
    code = "too_large"


class DirectoryLocked(LogError):
    code = "directory_locked"
    retryable = True

    def __init__(self, message: str, *, socket: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.socket = socket


class DirectoryUnusable(LogError):
    code = "directory_unusable"


class TopologyMismatch(DirectoryUnusable):
    code = "topology_mismatch"
