"""The events of the lock machine (KIND 150–199)."""

from __future__ import annotations

from flo.primitives.machine import Event


class LockGranted(Event, frozen=True):
    """The lock is its owner's, at once or after having waited."""

    KIND = 150
    ns: str
    name: str
    run: str
    task: str  # prefix of the task
    resource: str


class LockQueued(Event, frozen=True):
    KIND = 151
    ns: str
    name: str
    run: str
    task: str
    resource: str


class LockReleased(Event, frozen=True):
    """The owner gave the lock back, or left the line."""

    KIND = 152
    ns: str
    name: str
    run: str
    task: str
    resource: str
