"""How a process comes by the grid of a data directory: as its owner, or as a guest of the process that is.

Owners come and go, so both ways are tried in turn until one works: the owner that holds the lock may have
no socket yet, or leave between two tries. Only a directory that stays locked by a process that never
answers ends in an error.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from flo.api.clock import Clock, SystemClock
from flo.api.errors import FloError, Overloaded, Unavailable
from flo.api.grid import Grid
from flo.api.version import VERSION
from flo.client.remote import OwnerLeft, RemoteGrid
from flo.grid.gateway import Gateway, OpenWire, Wire, socket_path
from flo.log.errors import DirectoryLocked

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

ATTACH_TIMEOUT_MS = 30_000  # longer than an owner's planned stop takes
RETRY_FIRST_MS = 2
RETRY_LONGEST_MS = 50
SERVER_RETURN_MS = 10_000  # in which a server that was restarted takes its directory again

_servers: set[str] = set()  # directories that a server owned when this process was last its guest


class OwnedGrid(Grid, Protocol):
    """What an owner opens."""

    def publish_socket(self, socket: str) -> None:
        """Tells other processes where this owner listens."""
        ...


OpenOwner: TypeAlias = Callable[[str], OwnedGrid]  # of a directory; raises DirectoryLocked


class Attachment:
    """A grid in use. `owner` tells whether this process holds the directory, and so executes the runs. `folder` is
    removed at the end."""

    def __init__(
        self,
        grid: Grid,
        gateway: Gateway | None = None,
        *,
        owner: bool,
        folder: TemporaryDirectory[str] | None = None,
    ) -> None:
        self.grid = grid
        self.owner = owner
        self._gateway = gateway
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """A guest detaches. An owner leaves as at a planned stop, and one of its guests takes over."""
        if self._gateway is not None:
            self._gateway.close()
        self.grid.close()
        if self._folder is not None:
            self._folder.cleanup()


def data_directory(given: str | None = None) -> str:
    """The directory that is named, else FLO_DATA_DIR, else ~/.flo/data; absolute."""
    return os.path.abspath(os.path.expanduser(given or os.environ.get("FLO_DATA_DIR") or "~/.flo/data"))


def attach(
    directory: str,
    *,
    open_owner: OpenOwner | None = None,
    on_warning: Callable[[str], None] | None = None,
    timeout_ms: int = ATTACH_TIMEOUT_MS,
    stopping: threading.Event | None = None,
    clock: Clock | None = None,
) -> Attachment:
    """Becomes the owner of the directory or its owner's guest, whichever comes first. `on_warning` gets what an
    owner should tell a person about the directory, such as a torn tail that was cut.

    After a server has left, its guests wait for it to come back before one of them takes the directory over.

    Raises Unavailable when neither is possible within `timeout_ms` or `stopping` is set meanwhile, Conflict
    when the owner runs another version, and what opening a directory raises (flo.log.errors).
    """
    if open_owner is None:
        from flo.client.owner import open_node

        open_owner = partial(open_node, on_warning=on_warning)
    clock = clock or SystemClock()
    stopping = stopping or threading.Event()
    begun = clock.monotonic_ms()
    give_up = begun + timeout_ms
    pause = RETRY_FIRST_MS
    while True:
        remote, reason = _as_guest(socket_path(directory))
        if remote is None and directory in _servers and clock.monotonic_ms() - begun < SERVER_RETURN_MS:
            reason = "the server that owned it has left, and is awaited"
        elif remote is None:
            try:
                grid = open_owner(directory)
            except DirectoryLocked as locked:
                remote, why = _as_guest(locked.socket)
                reason = why or reason or str(locked)
            else:
                return _as_owner(grid, directory)
        if remote is not None:
            if remote.owner.server:
                _servers.add(directory)
            else:
                _servers.discard(directory)
            return Attachment(remote, owner=False)
        left = give_up - clock.monotonic_ms()
        if left <= 0:
            raise Unavailable(
                f"{directory} is in use by another process, which does not answer: {reason}",
                hint="try again, or end that process",
            )
        if stopping.wait(min(pause, left) / 1000):
            raise Unavailable(f"stopped while waiting for {directory}")
        pause = min(pause * 2, RETRY_LONGEST_MS)


def _as_guest(socket: str) -> tuple[RemoteGrid | None, str]:
    """A connection to the owner's socket, or why there is none ("" when there is no socket)."""
    if not os.path.exists(socket):
        return None, ""
    try:
        return RemoteGrid(socket, version=VERSION), ""
    except (OwnerLeft, Overloaded) as error:
        return None, str(error)


def _as_owner(grid: OwnedGrid, directory: str) -> Attachment:
    gateway: Gateway | None = None
    try:
        gateway = Gateway(grid, directory, version=VERSION, wire=_wire_of(grid))
        grid.publish_socket(gateway.path)
    except BaseException:
        if gateway is not None:
            gateway.close()
        grid.close()
        raise
    return Attachment(grid, gateway, owner=True)


def _wire_of(grid: OwnedGrid) -> OpenWire | None:
    """What performs guests' operations on keys, queues and streams."""
    store = getattr(grid, "store", None)
    if store is None:
        return None

    def open_wire(answer: Callable[[int, bytes | FloError], None]) -> Wire:
        from flo.server.guest_session import GuestSession  # few guests need it

        return GuestSession(store, answer)

    return open_wire
