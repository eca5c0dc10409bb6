"""What Turns works with: the links that ask, what they have asked for, and what waits for the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from flo.grid.release import Releases
from flo.log.errors import FloError, LogError

REPLY_BYTES: Final = 16 * 1024 * 1024  # of replies that wait for one connection, above which nothing of it is begun


class BatchStore(Protocol):
    """What Turns needs of a store."""

    lock: Any
    releases: Releases

    @property
    def last_index(self) -> int: ...
    @property
    def durable_index(self) -> int: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def stalled(self) -> str | None:
        """Why the log cannot be written at present; the store then refuses writes by itself."""

    def begin(self, size: int) -> object: ...
    def end(self) -> int: ...
    def after(self) -> None: ...


class Link:
    """One client as Turns sees it: a connection, or a caller in this process. To be derived from.

    All attributes belong to Turns; `room` may be set by a link whose transport holds bytes back.
    """

    __slots__ = (
        "replied",
        "written",
        "room",
        "full",
        "holds",
        "held",
        "loads",
        "ending",
        "ended",
        "gone",
        "paused",
        "arrived",
        "backlog",
        "pieces",
    )

    def __init__(self) -> None:
        self.replied = 0  # bytes of replies computed so far; changed with the store's lock held
        self.written = 0  # bytes of them that were passed to `write`; changed by the loop's thread
        self.room = REPLY_BYTES  # replied - written above it: `full`
        self.full = False  # nothing is begun before replies have left
        self.holds = 0  # the number of the hold that lasts: nothing is begun before its late reply has left
        self.held = 0  # holds so far
        self.loads = False  # that reply is being loaded
        self.ending = False  # nothing more arrives, and nothing may wait for anything but the log
        self.ended = False  # its last reply is computed: what has arrived beyond is dropped
        self.gone = False  # what has arrived is dropped, what is answered too
        self.paused = False
        self.arrived = 0  # bytes of requests not begun
        self.backlog: deque[Chunk] = deque()  # arrived while full or holding
        self.pieces: list[bytes] | None = None  # its replies of this turn

    def stops(self) -> bool:
        """Whether nothing of it may be begun now."""
        return self.full or self.holds > 0 or self.ended or self.gone

    def execute(self, store: Any, request: Any) -> bytes | None:
        """Performs a request, under the lock within begin and end; its reply, or None if that comes later.
        Refusals are replies; an exception is a defect: it is logged and ends the link."""
        raise NotImplementedError

    def refuse(self, request: Any, error: FloError) -> bytes | None:
        """The reply to a request that was not begun because the node cannot serve now."""
        raise NotImplementedError

    def withdraw(self, store: Any) -> None:
        """The client has gone: cancels what it waits for, and lets go what is bound to it. Called within a batch,
        perhaps more than once."""

    def write(self, data: bytes) -> None:
        """Sends replies, joined. Called by the loop's thread."""
        raise NotImplementedError

    def over(self) -> None:
        """All that was asked for is answered and written: close. Called by the loop's thread after `finish` or
        `end`."""

    def lost(self, error: Exception) -> None:
        """What was answered will never be durable, or a request broke: the outcome is unknown and the link must
        end. Called by the loop's thread, perhaps more than once."""
        raise NotImplementedError

    def pause(self) -> None:
        """More has arrived than can be begun: stop reading until `resume`."""

    def resume(self) -> None:
        """Read on."""


class Chunk:
    """Requests of one link that arrived after one another; or the end of a link, with its last words."""

    __slots__ = ("link", "requests", "size", "last")

    def __init__(self, link: Link, requests: list[Any], size: int, last: bytes | None = None) -> None:
        self.link = link
        self.requests = requests
        self.size = size
        self.last = last


class Batch:
    """Replies that may leave once `index` is durable."""

    __slots__ = ("_wake", "index", "replies", "freed", "loads", "late", "ready", "error")

    def __init__(self, wake: Callable[[], None], index: int) -> None:
        self._wake = wake
        self.index = index
        self.replies: list[tuple[Link, bytes]] = []
        self.freed: list[tuple[Link, int]] | None = None  # whose late reply this is, so that they go on; their holds
        self.loads: list[tuple[Link, int, int, Callable[[], bytes]]] | None = None  # hold, size, work
        self.late = False  # a link may have several replies in it
        self.ready = False
        self.error: LogError | None = None

    def release(self) -> None:
        self.ready = True
        self._wake()

    def lose(self, error: LogError) -> None:
        self.error = error
        self.ready = True
        self._wake()
