"""What clients wait for is brought by timers, by others, or never: and what became of it when it comes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from flo.grid.store import PARKED
from flo.primitives.stream_pages import GroupSettings, NewRecord
from tests.grid.manual import Bench
from tests.grid.storage import NS, batch


def wait_group_read(bench: Bench, consumer: str, got: list[Any], **options: Any) -> None:
    found = batch(
        bench, lambda s: s.wait_group_read(NS, "s", "g", consumer, timeout_ms=None, done=got.append, **options)
    )
    assert found is PARKED


def test_what_a_timer_brings_to_a_waiting_reader_is_logged_at_the_time_of_the_timer():
    bench = Bench()
    settings = GroupSettings(ack_timeout_ms=1_000)
    got: list[Any] = []
    batch(bench, lambda s: s.stream_append(NS, "s", [NewRecord(b"x")]))
    batch(bench, lambda s: s.group_read(NS, "s", "g", "w1", settings=settings))
    wait_group_read(bench, "w2", got)
    bench.advance(5_000)

    assert [each.delivery_count for each in got[0]] == [2]
    times = [frame.time_ms for frame in bench.backend.read(1)]
    assert all(before <= after for before, after in pairwise(times))
    assert bench.replayed() == bench.machines.dump()


@pytest.mark.parametrize("mode", ["shared", "exclusive", "key_shared"])
def test_the_waiting_read_of_a_consumer_that_leaves_ends_empty_and_it_stays_away(mode: str):
    bench = Bench()
    got: list[Any] = []
    settings = GroupSettings(mode=mode)
    batch(bench, lambda s: s.stream_append(NS, "s", [NewRecord(b"x")]))
    batch(bench, lambda s: s.group_read(NS, "s", "g", "w1", settings=settings, owner="connection"))
    wait_group_read(bench, "w1", got, owner="connection")
    batch(bench, lambda s: s.group_leave(NS, "s", "g", "w1"))

    assert got == [[]]
    info = batch(bench, lambda s: s.group_info(NS, "s", "g"))
    assert info is not None and info.members == []
    assert [each.delivery_count for each in batch(bench, lambda s: s.group_read(NS, "s", "g", "w2"))] == [2]
