"""The namespaces of a partition (spec/kv.md §12): which there are, not what is in them.

The first write into a namespace creates it, reads never do. `default` is always there.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from flo.primitives.kv_rules import DEFAULT_NAMESPACE, check_namespace
from flo.primitives.machine import Event, Refused
from flo.primitives.namespace_events import NamespaceCreated, NamespaceDeleted

NAMESPACES: Final = 1_024
DUMP_VERSION: Final = 1

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, int]).decode


class Namespaces:
    name: ClassVar[str] = "namespaces"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {
        (event.KIND, event.VERSION): event for event in (NamespaceCreated, NamespaceDeleted)
    }

    def __init__(self) -> None:
        self.created: dict[str, int] = {DEFAULT_NAMESPACE: 0}  # epoch ms, by name

    def decide_create(self, ns: str) -> NamespaceCreated | None:
        """None when it is there. Raises Refused for a name that no namespace may have, and over the limit."""
        if ns in self.created:
            return None
        check_namespace(ns)
        if len(self.created) >= NAMESPACES:
            raise Refused("quota_exceeded", "namespace limit reached", {"limit": NAMESPACES})
        return NamespaceCreated(ns)

    def decide_delete(self, ns: str) -> NamespaceDeleted:
        if ns == DEFAULT_NAMESPACE:
            raise Refused("conflict", "the namespace default cannot be deleted")
        check_namespace(ns)
        if ns not in self.created:
            raise Refused("not_found", f"no namespace {ns!r}")
        return NamespaceDeleted(ns)

    def names(self) -> list[str]:
        return sorted(self.created)

    def apply(self, event: Event, index: int, now: int) -> None:
        if type(event) is NamespaceCreated:
            self.created[event.ns] = now
        elif type(event) is NamespaceDeleted:
            self.created.pop(event.ns, None)
        else:
            raise AssertionError(f"not an event of namespaces: {event!r}")

    def next_due(self) -> int | None:
        return None

    def due(self, now: int, index: int) -> list[Event]:
        return []

    def dump(self) -> bytes:
        return bytes([DUMP_VERSION]) + _encode({ns: self.created[ns] for ns in sorted(self.created)})

    def load(self, data: bytes) -> None:
        if data[:1] != bytes([DUMP_VERSION]):
            raise ValueError(f"namespaces snapshot of version {data[:1]!r}; this release reads {DUMP_VERSION}")
        self.created = _decode(memoryview(data)[1:])
