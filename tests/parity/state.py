"""What a store holds, in a form that does not hang on the log's indexes."""

from __future__ import annotations

from typing import Any

from flo.grid.node import Node
from flo.grid.store import Store


def state(node: Node) -> dict[str, Any]:
    """Everything that clients can see, by namespace."""
    store = node.store
    with store.lock:
        store.begin()
        try:
            return {ns: _namespace(store, ns) for ns in ["default", *store.namespace_list()]}
        finally:
            store.end()


def _namespace(store: Store, ns: str) -> dict[str, Any]:
    keys = [row.key for row in store.scan(ns, limit=1_000).rows]
    queues = [each.name for each in store.queue_list(ns).queues]
    streams = [each.name for each in store.stream_list(ns).streams]
    return {
        "keys": {key: _key(store, ns, key) for key in keys},
        "queues": {name: _queue(store, ns, name) for name in queues},
        "streams": {name: _stream(store, ns, name) for name in streams},
    }


def _key(store: Store, ns: str, key: bytes) -> Any:
    entry = store.get(ns, key)
    assert entry is not None
    versions = [(v.value, v.tombstone) for v in store.history(ns, key, 64)]
    return entry.value, entry.kind, entry.expires_at, entry.written_at, versions


def _queue(store: Store, ns: str, name: str) -> Any:
    dead = store.dlq_list(ns, name).entries
    return {
        "stats": store.queue_stats(ns, name),
        "ready": store.peek(ns, name, 100),
        "dead": [(d.seq, d.payload, d.attempts, d.reason, d.moved_at) for d in dead],
    }


def _stream(store: Store, ns: str, name: str) -> Any:
    records = store.records.load(store.stream_read(ns, name, limit=1_000).records)
    groups = [
        {
            "name": group.group,
            "settings": group.settings,
            "members": [(m.consumer, m.state, m.pending) for m in group.members],
            "pending": store.group_pending(ns, name, group.group).entries,
            "at": (group.last_delivered, group.ack_floor, group.lag),
        }
        for group in store.group_list(ns, name)
    ]
    return {
        "records": [((r.ms, r.seq), r.partition, r.key, r.payload, r.headers) for r in records],
        "last": store.stream_tail(ns, name),
        "groups": groups,
    }
