"""Claims, and what is special in exclusive and key-shared groups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flo.primitives import group_modes, group_slots
from flo.primitives.stream_pages import GroupSettings
from flo.primitives.stream_rules import key_hash
from tests.support.group_world import NS, G, S, World, refused


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.check()


# -- claims


def test_a_claim_with_min_idle_0_takes_ones_own_and_what_is_redeliverable(world: World):
    """Acceptance 27."""
    world.fill(4)
    world.join("w2")
    assert world.read("w1") == [1, 2, 3, 4]
    assert world.claim("w2", 0, 1, 2, 3, 4) == []
    assert [each.record.ordinal for each in world.autoclaim("w1", 0).records] == [1, 2, 3, 4]
    world.nack(4)
    assert world.claim("w2", 0, 1, 2, 3, 4) == [4]
    world.nack(3, delay=1_000)
    assert world.claim("w2", 0, 3) == []
    world.advance(100)
    assert world.claim("w2", 50, 4, 3, 2, 1) == [1, 2, 3, 4]
    assert world.claim("w1", 0, 1, 2, 3, 4) == []
    assert {entry.consumer for entry in world.pending().values()} == {"w2"}
    assert [entry.delivery_count for entry in world.pending().values()] == [3, 3, 3, 4]
    assert world.ack(1, consumer="w1") == 0


def test_min_idle_spares_what_was_delivered_since(world: World):
    world.fill(2)
    world.read("w1", 1)
    world.advance(60)
    world.read("w1", 1)
    world.advance(40)
    assert world.claim("w2", 100, 1, 2) == [1]
    assert world.pending()[1].deadline == world.now + 30_000
    assert world.claim("w2", 600_000, 1, 2) == []


def test_autoclaim_walks_by_cursor(world: World):
    world.fill(10)
    world.read("w1")
    world.ack(1, 5)
    world.advance(100)
    page = world.autoclaim("w2", 50, limit=3)
    assert [each.record.ordinal for each in page.records] == [2, 3, 4]
    assert page.next == world.ids(6)[0]
    page = world.autoclaim("w2", 50, page.next or (0, 0), 100)
    assert [(each.record.ordinal, each.delivery_count) for each in page.records] == [(n, 2) for n in range(6, 11)]
    assert page.next is None
    assert [member.consumer for member in world.info().members] == ["w1", "w2"]


# -- exclusive


def test_the_first_member_is_active_and_the_longest_waiting_standby_follows(world: World):
    """Acceptance 20."""
    world.create(GroupSettings(mode="exclusive"))
    world.fill(5)
    for consumer in ("w1", "w2", "w3"):
        world.join(consumer)
    assert world.read("w1", 3) == [1, 2, 3]
    assert world.read("w2") == [] and world.claim("w2", 1, 1) == []
    assert [member.state for member in world.info().members] == ["active", "standby", "standby"]
    assert world.read("w4") == [], "who reads becomes a standby"
    world.leave("w1")
    assert world.read("w3") == []
    assert world.read("w2") == [1, 2, 3, 4, 5]
    world.leave("w2")
    world.restart()
    world.join("w2")
    assert world.read("w3", 1) == [1]
    assert [member.consumer for member in world.info().members] == ["w3", "w4", "w2"]


def test_more_standbys_than_allowed_are_locked_out(world: World):
    world.create(GroupSettings(mode="exclusive", max_standbys=1))
    world.join("w1")
    world.join("w2")
    for call in (world.join, world.read):
        assert refused("conflict", "locked", call, "w3").details == {"code": "group_locked"}
    assert world.join("w2") == []
    world.leave("w1")
    world.join("w3")


def test_a_singleton_group_lets_nobody_else_in(world: World):
    world.create(GroupSettings(mode="exclusive", max_standbys=0))
    world.join("w1")
    refused("conflict", "locked", world.join, "w2")
    world.leave("w1")
    world.join("w2")


def test_a_claim_does_not_join_an_exclusive_or_key_shared_group(world: World):
    for mode in ("exclusive", "key_shared"):
        world = World()
        world.fill(1)
        world.create(GroupSettings(mode=mode))
        world.read("w1")
        world.nack(1)
        assert world.claim("w2", 0, 1) == []
        assert [member.consumer for member in world.info().members] == ["w1"]


def test_bound_members_are_told_of_after_a_restart(world: World):
    world.create(GroupSettings(mode="exclusive"))
    world.join("w1", bound=True)
    world.join("w2")
    assert world.join("w1", bound=True) == []
    world.join("w2", bound=True)
    world.join("w3")
    world.join("x", "shared", bound=True)
    world.restart()
    assert world.groups.present() == [
        (NS, S, G, "w1", True),
        (NS, S, G, "w2", True),
        (NS, S, G, "w3", False),
    ]
    assert [member.consumer for member in world.info().members] == ["w1", "w2", "w3"]


# -- key_shared


def keyed(world: World, count: int, keys: int = 10) -> dict[int, int]:
    """Appends `count` records over some keys; the key of each ordinal."""
    found = world.live.streams.find(NS, S)
    first = found.last_ordinal + 1 if found is not None else 1
    for n in range(count):
        world.append(str(n), key=f"key{n % keys}")
    return {first + n: n % keys for n in range(count)}


def test_each_key_has_one_consumer_and_comes_in_order(world: World):
    """Acceptance 21."""
    world.create(GroupSettings(mode="key_shared"))
    world.join("w1")
    world.join("w2")
    key_of = keyed(world, 100)
    seen: dict[str, list[int]] = {"w1": [], "w2": []}
    for _ in range(20):
        for consumer in seen:
            got = world.read(consumer, 7)
            seen[consumer] += got
            if got:
                world.ack(*got)
    assert sorted(seen["w1"] + seen["w2"]) == [*range(1, 101)]
    assert seen["w1"] and seen["w2"]
    assert not {key_of[n] for n in seen["w1"]} & {key_of[n] for n in seen["w2"]}
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert world.info().lag == 0 and world.info().ack_floor is not None


def test_records_without_a_key_are_spread_over_the_consumers(world: World):
    world.create(GroupSettings(mode="key_shared"))
    for consumer in ("w1", "w2", "w3", "w4"):
        world.join(consumer)
    world.fill(400)
    counts = [len(world.read(f"w{n}", 1_000)) for n in (1, 2, 3, 4)]
    assert sum(counts) == 400 and min(counts) > 60


def test_a_slot_that_moved_waits_for_its_old_owner(world: World):
    world.create(GroupSettings(mode="key_shared", slots=16, ack_timeout_ms=1_000))
    key_of = keyed(world, 40)
    held = world.read("w1", 20)
    assert held == [*range(1, 21)]
    world.join("w2")
    assert world.read("w2", 100) == [], "w1 holds records of every key"
    mine = world.read("w1", 100)
    kept = {key_of[n] for n in mine}
    moved = set(range(10)) - kept
    assert mine and moved
    key = min(moved)
    of_key = [n for n in held if key_of[n] == key]
    world.ack(of_key[0])
    assert not [n for n in world.read("w2", 100) if key_of[n] == key]
    world.ack(*of_key)
    got = world.read("w2", 100)
    assert got and {key_of[n] for n in got} == {key} and got[0] > max(of_key)
    world.restart()
    other = min(moved - {key})
    of_other = [n for n in held if key_of[n] == other]
    world.nack(*of_other)
    got = [n for n in world.read("w2", 100) if key_of[n] == other]
    assert got[: len(of_other)] == of_other and got == sorted(got) and len(got) > len(of_other)
    world.advance(1_000)
    got = world.read("w2", 100)
    assert {key_of[n] for n in got} == moved, "timed out: nobody holds anything any more"


def test_a_leaver_gives_its_slots_and_records_to_the_others(world: World):
    """Acceptance 26."""
    world.create(GroupSettings(mode="key_shared", ack_timeout_ms=600_000))
    keyed(world, 20, keys=20)
    assert len(world.read("w1", 20)) == 20
    world.join("w2")
    assert world.read("w2", 20) == []
    world.leave("w1")
    assert world.read("w2", 20) == [*range(1, 21)]


def test_a_claim_in_a_key_shared_group_keeps_to_the_slots_of_the_consumer(world: World):
    world.create(GroupSettings(mode="key_shared"))
    keyed(world, 20)
    world.read("w1", 20)
    world.join("w2")
    world.advance(100)
    taken = world.claim("w2", 50, *range(1, 21))
    assert 0 < len(taken) < 20
    rest = [n for n in range(1, 21) if n not in taken]
    assert world.claim("w1", 50, *range(1, 21)) == rest
    assert world.claim("w1", 0, *taken) == []
    assert world.ack(*range(1, 21)) == 20


def test_what_others_still_work_on_keeps_its_slot_waiting_also_for_what_is_redeliverable(world: World):
    world.create(GroupSettings(mode="key_shared", slots=2))
    keys = {group_slots.slot_of(key_hash(b"k%d" % n), 1, 2): f"k{n}" for n in range(10)}
    world.append("a", "b", "c", key=keys[1])
    assert world.read("w1") == [1, 2, 3]
    world.join("w2")
    world.nack(1, 3)
    assert world.read("w2") == [] and world.claim("w2", 0, 1, 3) == [] and world.read("w1") == []
    world.ack(2)
    assert world.claim("w2", 0, 3) == [3]
    assert world.read("w2") == [1]


def test_a_read_that_skips_many_records_of_others_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(group_slots, "SCAN_RECORDS", 50)
    monkeypatch.setattr(group_modes, "SCAN_LOGGED", 10)
    world.create(GroupSettings(mode="key_shared", slots=2))
    world.join("w1")
    world.join("w2")
    keys = {group_slots.slot_of(key_hash(b"k%d" % n), 1, 2): f"k{n}" for n in range(10)}
    world.append(*["x"] * 170, key=keys[0])
    world.append("y", key=keys[1])
    reads = [world.read("w2") for _ in range(5)]
    assert reads == [[], [], [], [171], []]
    assert world.read("w1", 3) == [1, 2, 3]
    before = world.index
    assert world.read("w2") == []
    assert world.index == before, "nothing to remember"


def test_a_lagging_slot_does_not_hold_up_the_others(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(group_slots, "SCAN_RECORDS", 20)
    monkeypatch.setattr(group_modes, "SCAN_LOGGED", 20)
    world.create(GroupSettings(mode="key_shared", slots=2))
    keys = {group_slots.slot_of(key_hash(b"k%d" % n), 1, 2): f"k{n}" for n in range(10)}
    world.append("0", key=keys[1])
    assert world.read("w1") == [1]
    world.join("w2")
    world.append(*["x"] * 100, key=keys[0])
    assert len(world.read("w1", 90)) > 10
    while world.read("w1", 90):
        pass
    world.append("y", key=keys[1])
    world.leave("w2")
    world.ack(1)
    world.append("z", key=keys[0])
    got = world.read("w1")
    assert 103 in got, "the slot that is up to date is served beside the one that lags"
    for _ in range(10):
        got += world.read("w1")
    assert sorted(got) == [102, 103]
