"""What every deterministic machine has in common (design.md §5.1).

A machine **decides** a command into events without changing anything, and **applies** events without
ever failing. Deciding gets the frame's time and the index that the first event will have, so that events
hold final values. Replay only applies. Machines read no clock, draw no randomness, do no I/O.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import msgspec


class Event(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A fact. Subclasses set KIND (unique number) and VERSION; what they mean never changes once released.

    KIND ranges: 1–99 runs, 100–149 kv, 150–199 locks, 200–249 queues, 300–349 streams,
    360–369 namespaces.
    """

    KIND: ClassVar[int] = 0
    VERSION: ClassVar[int] = 1


class Refused(Exception):
    """A command that its machine refuses: an error reply; nothing has changed.

    `kind` is an error kind of flo.primitives.outcome, `details` JSON-like data such as {"current_version": 7}.
    """

    def __init__(self, kind: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.details = details


class Machine(Protocol):
    name: ClassVar[str]  # of its snapshot section
    events: ClassVar[dict[tuple[int, int], type[Event]]]  # by (KIND, VERSION), old versions included

    def apply(self, event: Event, index: int, now: int) -> None:
        """Applies one event of its own; total. `index` is the event's, `now` its frame's time in epoch ms."""
        ...

    def next_due(self) -> int | None:
        """The epoch ms of the earliest timer, or None."""
        ...

    def due(self, now: int, index: int) -> list[Event]:
        """Decides the timers that are due: at most COMMAND_EVENTS events; what is left is due again at once."""
        ...

    def dump(self) -> bytes:
        """The whole state, for a snapshot; equal states of equal history give equal bytes."""
        ...

    def load(self, data: bytes) -> None:
        """Replaces the state by a dump's. Raises ValueError for a version it does not know."""
        ...
