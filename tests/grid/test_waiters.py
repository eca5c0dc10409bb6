"""Who waits in a namespace that is deleted is told at once, and nobody elsewhere."""

from __future__ import annotations

from typing import Any

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import NewRecord, PlacedPage
from tests.grid.manual import Bench
from tests.grid.storage import batch

NS = "team"


def test_readers_in_a_namespace_that_is_deleted_wait_no_longer():
    bench = Bench()
    read: list[Any] = []
    grouped: list[Any] = []
    elsewhere: list[Any] = []
    for ns in (NS, "other"):
        batch(bench, lambda s, ns=ns: s.stream_append(ns, "s", [NewRecord(b"x")]))
        batch(bench, lambda s, ns=ns: s.group_read(ns, "s", "g", "w"))
    batch(bench, lambda s: s.wait_read(NS, "s", tail=True, timeout_ms=None, done=read.append))
    batch(bench, lambda s: s.wait_group_read(NS, "s", "g", "w", timeout_ms=None, done=grouped.append))
    batch(bench, lambda s: s.wait_read("other", "s", tail=True, timeout_ms=None, done=elsewhere.append))
    batch(bench, lambda s: s.namespace_delete(NS, True))

    assert len(read) == len(grouped) == 1 and elsewhere == []
    assert isinstance(read[0], PlacedPage) and read[0].records == []
    assert isinstance(grouped[0], Refused) and grouped[0].kind == "not_found"
    assert bench.node.partition.waiters.count == 1
    assert bench.replayed() == bench.machines.dump()
