"""Consumer groups by the rules of the specification: what holds in every mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flo.primitives import group_modes
from flo.primitives import groups as groups_module
from flo.primitives.groups import Groups
from flo.primitives.stream_pages import GroupSettings
from flo.primitives.streams import Streams
from tests.support.group_world import DEFAULT, NOW, NS, G, S, World, refused


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.check()


# -- groups and members


def test_a_group_that_is_created_again_with_its_settings_stays_and_with_others_is_a_conflict(world: World):
    world.fill(1)
    assert world.create(GroupSettings(ack_timeout_ms=5_000))
    assert world.create(GroupSettings(ack_timeout_ms=5_000)) == []
    refused("conflict", "other settings", world.create, GroupSettings(ack_timeout_ms=6_000))

    world.restart()
    assert world.info().settings.ack_timeout_ms == 5_000


def test_creating_joining_and_reading_make_the_stream_and_the_group(world: World):
    world.create()
    assert world.live.streams.find(NS, S) is not None
    assert world.groups.count(NS, S) == 1
    for command in ("join", "read"):
        world = World()
        assert getattr(world, command)("w1") is not None
        assert [member.consumer for member in world.info().members] == ["w1"]
        assert world.join("w1") == []
        world.check()


def test_a_group_begins_at_the_first_record_that_is_there_or_where_it_is_told_to(world: World):
    world.fill(20)
    world.trim(15)
    world.create(group="first")
    world.create(group="ninth", start=world.ids(9)[0])
    ms, seq = world.ids(20)[0]
    world.create(group="tail", start=(ms, seq + 1))
    world.append("new")

    assert world.read("w", 1, group="first") == [6]
    assert world.read("w", 1, group="ninth") == [9]
    assert world.read("w", 1, group="tail") == [21]
    assert [info.group for info in world.groups.list(world.now, NS, S)] == ["first", "ninth", "tail"]


def test_settings_of_a_read_are_those_of_a_group_that_it_makes_only(world: World):
    world.fill(2)
    world.deliver("w", 1, settings=GroupSettings(ack_timeout_ms=1_000))
    world.deliver("w", 1, settings=GroupSettings(ack_timeout_ms=2_000))

    assert world.info().settings == GroupSettings(ack_timeout_ms=1_000)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (GroupSettings(mode="nonsense"), "unknown group mode 'nonsense'"),
        (GroupSettings(ack_timeout_ms=-1), "ack_timeout"),
        (GroupSettings(max_deliver=256), "max_deliver"),
        (GroupSettings(redeliver_delay_ms=-1), "redeliver_delay"),
        (GroupSettings(max_standbys=65_536), "max_standbys"),
        (GroupSettings(slots=0), "slots"),
        (GroupSettings(slots=4_097), "slots"),
    ],
)
def test_settings_have_bounds(world: World, settings: GroupSettings, text: str):
    refused("bad_argument", text, world.create, settings)


def test_a_wildcard_in_the_stream_of_any_call_is_refused(world: World):
    groups, ids = world.groups, [(1, 1)]
    at = (world.now, world.index, NS, "events.*", G)
    text = "wildcard group reads are not supported"
    refused("bad_argument", text, groups.decide_create, *at, DEFAULT)
    for decide in (groups.decide_join, groups.decide_leave, groups.decide_read):
        refused("bad_argument", text, decide, *at, "w")
    for decide in (groups.decide_ack, groups.decide_nack):
        refused("bad_argument", text, decide, *at, ids)
    refused("bad_argument", text, groups.decide_touch, *at, ids, "w")
    refused("bad_argument", text, groups.decide_claim, *at, "w", 0, ids)
    refused("bad_argument", text, groups.decide_autoclaim, *at, "w", 0)
    refused("bad_argument", text, groups.decide_delete, *at)
    refused("bad_argument", text, groups.pending, world.now, NS, "events.*", G)
    refused("bad_argument", text, groups.info, world.now, NS, "events.*", G)
    refused("bad_argument", text, groups.list, world.now, NS, "events.*")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 256, "ü" * 128, "\ud800"])
def test_names_of_groups_and_consumers_have_1_to_255_bytes_of_text_without_nul(world: World, name: str):
    refused("bad_argument", "group name", world.create, group=name)
    refused("bad_argument", "consumer name", world.join, name)
    refused("bad_argument", "consumer name", world.read, name)
    world.join("x" * 255)


def test_what_needs_a_group_that_is_not_there_is_not_found(world: World):
    world.fill(1)
    for call in (world.ack, world.nack):
        refused("not_found", "no group 'g' on stream 'events'", call, 1)
    refused("not_found", "no group", world.touch, 1, consumer="w")
    refused("not_found", "no group", world.claim, "w", 0, 1)
    refused("not_found", "no group", world.autoclaim, "w", 0)
    refused("not_found", "no group", world.pending)
    refused("not_found", "no group", world.groups.decide_delete, world.now, world.index, NS, S, G)
    assert world.groups.info(world.now, NS, S, G) is None
    assert world.leave("w") == []


def test_deleting_a_group_or_its_stream_or_namespace_forgets_it(world: World):
    empty = Groups(world.live.streams).dump()
    for how in ("group", "stream", "namespace"):
        world.append("a")
        assert world.read("w") != []
        if how == "group":
            world.commit(world.groups.decide_delete(world.now, world.index, NS, S, G)[0])
        elif how == "stream":
            world.commit(world.live.streams.decide_delete(world.now, world.index, NS, S, True)[0])
        else:
            for replica in (world.live, world.replica):
                replica.groups.drop_namespace(NS)
        assert world.groups.dump() == empty and world.groups.bytes == 0
        world.advance(60_000)
        assert world.groups.next_due() is None


def test_groups_and_members_have_bounds(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups_module, "GROUPS", 2)
    monkeypatch.setattr(groups_module, "MEMBERS", 2)
    world.create(group="a")
    world.create(group="b")
    refused("quota_exceeded", "2 groups", world.create, group="c")
    world.join("w1", "a")
    world.join("w2", "a")
    refused("quota_exceeded", "2 members", world.join, "w3", "a")


def test_a_group_with_too_many_unacknowledged_records_hands_out_nothing_new(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(group_modes, "PENDING", 5)
    for mode in ("shared", "key_shared"):
        world = World()
        world.fill(20)
        world.create(GroupSettings(mode=mode))
        assert len(world.read("w", 5)) == 5
        assert world.read("w") == []
        world.nack(3)
        assert world.read("w") == [3]
        assert world.ack(1, 2) == 2
        assert world.read("w", 1) == [6]
        world.check()


def test_limits_and_counts_of_ids_are_checked(world: World):
    world.fill(1)
    world.read("w")
    refused("bad_argument", "limit", world.read, "w", 0)
    refused("bad_argument", "1 to 1000 ids", world.ack)
    refused("bad_argument", "1 to 1000 ids", world.ack, *[1] * 1001)
    refused("bad_argument", "delay", world.nack, 1, delay=-1)
    refused("bad_argument", "extend", world.touch, 1, consumer="w", extend=-1)
    refused("bad_argument", "min_idle", world.claim, "w", -1, 1)
    refused("bad_argument", "consumer name", world.touch, 1, consumer="")
    assert world.ack(1, 1, 1) == 1


# -- shared


def test_two_consumers_share_the_records(world: World):
    """Acceptance 14 and 15."""
    world.fill(20)
    one, other = world.read("w1"), world.read("w2")
    assert one == [*range(1, 11)] and other == [*range(11, 21)]
    assert world.info().pending == 20
    assert set(world.pending("w1")) == set(one)

    assert world.ack(*one[:5]) == 5
    assert world.info().pending == 15
    assert world.ack(*one[:5]) == 0
    assert world.read("x", 100, group="other") == [*range(1, 21)]


def test_an_ack_that_names_a_consumer_concerns_only_its_own_records(world: World):
    world.fill(2)
    world.read("w1", 1)
    world.read("w2", 1)
    assert world.ack(1, 2, consumer="w1") == 1
    assert world.ack(1, 2, consumer="w1") == 0
    assert world.ack(2) == 1


def test_an_unacknowledged_record_is_redelivered_after_the_ack_timeout(world: World):
    """Acceptance 16."""
    world.create(GroupSettings(ack_timeout_ms=500))
    world.fill(1)
    assert world.read("w1") == [1]
    world.advance(499)
    assert world.read("w2") == []
    world.advance(1)
    (again,) = world.deliver("w2")
    assert (again.record.ordinal, again.delivery_count) == (1, 2)
    entry = world.pending()[1]
    assert (entry.consumer, entry.delivered_at, entry.last_delivery, entry.delivery_count) == ("w2", NOW, NOW + 500, 2)
    assert entry.deadline == NOW + 1_000


def test_no_ack_timeout_means_never(world: World):
    world.create(GroupSettings(ack_timeout_ms=0))
    world.fill(1)
    world.read("w1")
    world.advance(10**9)
    assert world.read("w2") == [] and world.pending()[1].deadline == 0
    world.leave("w1")
    assert world.read("w2") == [1]


def test_a_late_ack_counts_and_a_late_nack_or_touch_does_not(world: World):
    world.create(GroupSettings(ack_timeout_ms=500))
    world.fill(2)
    world.read("w1")
    world.advance(500)
    assert world.nack(1, consumer="w1") == world.touch(1, consumer="w1") == 0
    assert world.ack(1, consumer="w1") == 1
    assert world.read("w2") == [2]
    assert world.ack(2, consumer="w1") == 0


def test_a_nack_with_delay_holds_the_record_back(world: World):
    """Acceptance 17."""
    world.fill(1)
    world.read("w1")
    assert world.nack(1, delay=1_000) == 1
    world.advance(500)
    assert world.read("w1") == [] and world.pending()[1].state == "delayed"
    world.advance(500)
    assert world.pending()[1].state == "pending"
    assert world.read("w2") == [1]


def test_the_redeliver_delay_follows_timeouts_and_plain_nacks(world: World):
    world.create(GroupSettings(ack_timeout_ms=1_000, redeliver_delay_ms=300))
    world.fill(2)
    world.read("w")
    world.nack(1)
    world.advance(299)
    assert world.read("w") == []
    world.advance(1)
    assert world.read("w") == [1]
    world.advance(700)
    assert world.pending()[2].state == "delayed"
    world.advance(299)
    assert world.read("w") == []
    world.advance(1)
    assert world.read("w") == [2]
    assert world.nack(2, delay=0) == 1
    assert world.read("w") == [2]


def test_redelivery_comes_before_new_records_and_oldest_first(world: World):
    world.fill(30)
    world.read("w", 20)
    for ordinal in (7, 3, 12):
        world.nack(ordinal)
    assert world.read("w", 5) == [3, 7, 12, 21, 22]
    world.nack(*range(1, 21))
    assert world.read("w", 20) == [*range(1, 21)]


def test_a_record_is_copied_to_the_dead_letter_stream_when_its_deliveries_are_used_up(world: World):
    """Acceptance 18."""
    world.create(GroupSettings(max_deliver=2))
    world.fill(2)
    for _ in range(2):
        assert world.read("w", 1) == [1]
        world.nack(1, delay=5_000)
        if not world.info().pending:
            break
        world.advance(5_000)
    assert world.info().pending == 0, "absent at once, though the copy is still to be made"
    assert world.ack(1) == world.touch(1, consumer="w") == 0
    assert world.claim("w", 1, 1) == []
    world.restart()
    assert world.groups.next_due() == 0
    world.advance(0)
    assert world.dead_letters() == [
        {
            b"flo-origin-stream": b"events",
            b"flo-origin-id": f"{NOW}-0".encode(),
            b"flo-group": b"g",
            b"flo-deliveries": b"2",
            b"flo-reason": b"nack",
        }
    ]
    dead = world.live.streams.find(NS, "events.g.dlq")
    assert dead is not None and dead.last_ordinal == 1
    assert world.read("w") == [2]
    info = world.info()
    assert (info.pending, info.ack_floor) == (1, world.ids(1)[0])


def test_timeouts_leaves_and_claims_use_deliveries_up_as_well(world: World):
    world.create(GroupSettings(max_deliver=1, ack_timeout_ms=1_000))
    world.fill(3)
    world.read("w1", 1)
    world.advance(1_000)
    world.read("w1", 1)
    world.leave("w1")
    world.advance(0)
    world.read("w2", 1)
    assert world.claim("w2", 0, 3) == []
    world.advance(0)
    assert [headers[b"flo-reason"] for headers in world.dead_letters()] == [b"ack_timeout", b"leave", b"claim"]
    assert world.info().pending == 0


def test_many_dead_letters_of_one_moment_keep_their_order_and_get_ids_of_their_own(world: World):
    world.create(GroupSettings(max_deliver=1))
    world.fill(600)
    world.read("w", 1_000)
    world.leave("w")
    world.advance(0)
    dead = world.live.streams.find(NS, "events.g.dlq")
    assert dead is not None and dead.last_ordinal == 600
    origins = [headers[b"flo-origin-id"] for headers in world.dead_letters()]
    assert origins == [f"{NOW}-{seq}".encode() for seq in range(600)]


def test_max_deliver_0_is_unlimited(world: World):
    world.create(GroupSettings(max_deliver=0))
    world.fill(1)
    for _ in range(300):
        world.read("w")
        world.nack(1)
    assert world.deliver("w")[0].delivery_count == 301


def test_touch_moves_the_deadline(world: World):
    """Acceptance 19."""
    world.create(GroupSettings(ack_timeout_ms=1_000))
    world.fill(2)
    world.read("w1")
    assert world.touch(1, consumer="w2", extend=60_000) == 0
    assert world.touch(1, consumer="w1", extend=60_000) == 1
    world.advance(1_000)
    assert world.read("w2") == [2]
    world.advance(59_000)
    assert world.read("w1") == [1, 2]
    world.touch(1, consumer="w1", extend=10)
    world.advance(10)
    assert world.read("w1") == [1]
    world.advance(500)
    world.touch(1, consumer="w1")
    world.advance(999)
    assert world.pending("w1")[1].state == "pending" and 1 not in world.read("w2")
    world.advance(1)
    assert world.read("w2") == [1]


def test_a_no_ack_read_leaves_nothing_pending(world: World):
    """Acceptance 22."""
    world.fill(6)
    assert world.read("w", 2, no_ack=True) == [1, 2]
    assert world.info().pending == 0
    assert world.read("w", 2) == [3, 4]
    world.nack(3)
    assert world.read("w", 2, no_ack=True) == [3, 5]
    assert set(world.pending()) == {4}
    assert world.info().ack_floor == world.ids(3)[0]


def test_a_leaver_frees_its_records_at_once(world: World):
    world.fill(3)
    world.read("w1", 2)
    world.read("w2", 1)
    world.leave("nobody")
    world.leave("w1")
    assert world.read("w2") == [1, 2]
    assert [member.consumer for member in world.info().members] == ["w2"]


def test_trimmed_records_leave_the_pending_list_and_are_never_delivered(world: World):
    world.create(GroupSettings(ack_timeout_ms=1_000))
    world.fill(10)
    world.read("w", 4)
    world.nack(1)
    world.nack(2, delay=100)
    world.trim(3)
    assert world.info().pending == 0
    world.advance(5_000)
    assert world.read("w") == [8, 9, 10]
    world.ack(8, 9, 10)
    world.trim(1)
    info = world.info()
    assert (info.lag, info.last_delivered, info.ack_floor) == (0, world.ids(10)[0], world.ids(10)[0])


def test_a_doomed_record_that_is_trimmed_is_gone(world: World):
    world.create(GroupSettings(max_deliver=1))
    world.fill(2)
    world.read("w", 1)
    world.nack(1)
    world.trim(1)
    world.advance(0)
    assert world.dead_letters() == [] and world.groups.next_due() != 0
    assert world.read("w") == [2]


def test_info_tells_how_far_a_group_is(world: World):
    world.fill(10)
    world.create(GroupSettings(ack_timeout_ms=77))
    info = world.info()
    assert (info.last_delivered, info.ack_floor, info.lag, info.pending) == (None, None, 10, 0)
    world.read("w", 6)
    world.ack(1, 2, 4)
    info = world.info()
    assert (info.last_delivered, info.ack_floor) == (world.ids(6)[0], world.ids(2)[0])
    assert (info.lag, info.pending, info.namespace, info.stream, info.group) == (4, 3, NS, S, G)
    (member,) = info.members
    assert (member.consumer, member.state, member.joined_at, member.pending) == ("w", "active", NOW, 3)
    assert world.groups.members(world.now, NS, S, G) == [member]


def test_the_pending_list_comes_in_pages(world: World):
    world.append(*"abcdefghij")
    world.read("w1", 5)
    world.read("w2", 5)
    world.ack(3)
    seen: list[int] = []
    cursor = ""
    while True:
        page = world.groups.pending(world.now, NS, S, G, limit=4, cursor=cursor)
        seen += [entry.seq + 1 for entry in page.entries]
        cursor = page.cursor
        if not page.has_more:
            break
    assert seen == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    page = world.groups.pending(world.now, NS, S, G, "w2", 3)
    assert [entry.seq + 1 for entry in page.entries] == [6, 7, 8]
    refused("bad_argument", "invalid stream id", world.groups.pending, world.now, NS, S, G, cursor="x")


def test_a_page_of_few_among_many_goes_on_by_its_cursor(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flo.primitives.group_views.LOOKS", 3)
    monkeypatch.setattr(groups_module, "LOOKS", 3)
    world.append(*"abcdefgh")
    world.read("w1", 7)
    world.read("w2", 1)
    first = world.groups.pending(world.now, NS, S, G, "w2")
    assert first.entries == [] and first.has_more
    second = world.groups.pending(world.now, NS, S, G, "w2", cursor=first.cursor)
    third = world.groups.pending(world.now, NS, S, G, "w2", cursor=second.cursor)
    assert [entry.seq for entry in third.entries] == [7] and not third.has_more

    page = world.autoclaim("w2", 0)
    assert page.records == [] and page.next == world.ids(4)[0]


# -- recovery


def test_after_a_restart_exactly_the_unacknowledged_records_come(world: World):
    """Acceptance 24."""
    world.create(GroupSettings(ack_timeout_ms=1_000))
    world.fill(100)
    world.read("w", 60)
    world.ack(*range(1, 41))
    ids = world.ids(*range(41, 101))
    world.restart()
    world.advance(1_000)
    delivered = world.deliver("w2", 1_000)
    assert [(each.record.ms, each.record.seq) for each in delivered] == ids
    assert world.ack(*range(41, 101)) == 60
    assert world.groups.next_due() is None or world.groups.next_due() > world.now


def test_a_snapshot_of_another_version_is_refused():
    with pytest.raises(ValueError, match="groups snapshot of version 9"):
        Groups(Streams()).load(b"\x09")


def test_timers_of_records_that_are_done_are_swept_out(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups_module, "TIMER_GARBAGE", 100)
    world.fill(1_000)
    for _ in range(100):
        got = world.read("w")
        world.ack(*got)
    assert world.groups._timers.size <= 120
