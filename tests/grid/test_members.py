"""Who is there in exclusive and key-shared groups: connections that end, silence, and what is deleted meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flo.grid.members import GARBAGE
from flo.grid.store import Store
from flo.primitives.stream_pages import GroupSettings
from tests.grid.manual import Bench
from tests.grid.storage import ActingRun, batch

NS = "team"
EXCLUSIVE = GroupSettings(mode="exclusive")


def consumers(bench: Bench) -> list[str]:
    info = batch(bench, lambda s: s.group_info(NS, "s", "g"))
    assert info is not None
    return [member.consumer for member in info.members]


DELETIONS: dict[str, Callable[[Store], object]] = {
    "group": lambda s: s.group_delete(NS, "s", "g"),
    "stream": lambda s: s.stream_delete(NS, "s", True),
    "namespace": lambda s: s.namespace_delete(NS, True),
}


@pytest.mark.parametrize("what", DELETIONS)
def test_the_connection_of_a_member_of_what_was_deleted_is_not_that_of_one_that_has_its_name(what: str):
    bench = Bench()
    batch(bench, lambda s: s.group_create(NS, "s", "g", EXCLUSIVE))
    batch(bench, lambda s: s.group_join(NS, "s", "g", "w", owner="before"))
    batch(bench, DELETIONS[what])
    batch(bench, lambda s: s.group_create(NS, "s", "g", EXCLUSIVE))
    batch(bench, lambda s: s.group_read(NS, "s", "g", "w", owner="after"))
    batch(bench, lambda s: s.owner_gone("before"))
    assert consumers(bench) == ["w"]
    batch(bench, lambda s: s.owner_gone("after"))
    assert consumers(bench) == []


def test_who_leaves_and_comes_again_leaves_nothing_behind():
    bench = Bench()
    members = bench.node.store.members
    batch(bench, lambda s: s.group_create(NS, "s", "g", EXCLUSIVE))

    def come_and_go(store: Store) -> None:
        store.group_join(NS, "s", "g", "w")
        store.group_leave(NS, "s", "g", "w")

    for _ in range(GARBAGE + 10):
        batch(bench, come_and_go)
    assert len(members._deadlines) <= GARBAGE + 3
    batch(bench, lambda s: s.group_join(NS, "s", "g", "w"))
    bench.advance(29_999)
    assert consumers(bench) == ["w"]
    bench.advance(1)
    assert consumers(bench) == [] and members.next_due() is None


def members_of(bench: Bench) -> list[tuple[str, str]]:
    info = batch(bench, lambda s: s.group_info("default", "s", "g"))
    assert info is not None
    return [(member.consumer, member.state) for member in info.members]


def test_a_run_that_falls_silent_leaves_its_group_to_the_next():
    bench = Bench()
    run = ActingRun(bench)
    batch(bench, lambda s: s.group_create("default", "s", "g", EXCLUSIVE))
    run.do("stream.group_join", stream="s", group="g", consumer="run")
    batch(bench, lambda s: s.group_join("default", "s", "g", "client", owner=1))
    assert members_of(bench) == [("run", "active"), ("client", "standby")]
    bench.advance(29_000)
    batch(bench, lambda s: s.group_read("default", "s", "g", "client", owner=1))
    bench.advance(1_000)
    assert members_of(bench) == [("client", "active")]


def test_a_run_whose_read_waits_is_not_silent_also_after_a_restart():
    bench = Bench()
    run = ActingRun(bench)
    batch(bench, lambda s: s.group_create("default", "s", "g", EXCLUSIVE))
    run.waits("stream.group_read", stream="s", group="g", consumer="run", timeout=None)
    bench.advance(120_000)
    assert members_of(bench) == [("run", "active")]

    bench.node.pump()
    again = Bench(bench.store, bench.clock)
    again.advance(120_000)
    assert members_of(again) == [("run", "active")]


def test_a_run_that_is_over_does_not_keep_its_place():
    bench = Bench()
    run = ActingRun(bench)
    batch(bench, lambda s: s.group_create("default", "s", "g", EXCLUSIVE))
    run.waits("stream.group_read", stream="s", group="g", consumer="run", timeout=None)
    bench.node.cancel("r")
    bench.advance(200_000)
    bench.advance(60_000)
    assert members_of(bench) == []
