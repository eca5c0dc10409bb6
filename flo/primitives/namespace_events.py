"""The events of namespaces (KIND 360–369)."""

from __future__ import annotations

from flo.primitives.machine import Event


class NamespaceCreated(Event, frozen=True):
    """By hand, or by the first write into it."""

    KIND = 360
    ns: str


class NamespaceDeleted(Event, frozen=True):
    """With everything in it: all machines drop what they hold of it."""

    KIND = 361
    ns: str
