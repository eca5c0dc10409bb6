"""Consumer groups by the rules of the specification, at virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from flo.primitives import group_modes, group_slots
from flo.primitives import groups as groups_module
from flo.primitives.groups import Groups
from flo.primitives.machine import Event, Refused
from flo.primitives.stream_events import StreamCopied, StreamDeleted, StreamTrimmed
from flo.primitives.stream_pages import Claimed, Delivered, GroupInfo, GroupSettings, NewRecord, Pending, StreamId
from flo.primitives.stream_rules import key_hash
from flo.primitives.streams import Streams

NOW = 1_750_000_000_000
NS = "default"
S = "events"
G = "g"
DEFAULT = GroupSettings()


class Replica:
    """The two machines, applied to as the composite machine does."""

    def __init__(self) -> None:
        self.streams = Streams()
        self.groups = Groups(self.streams)

    def apply(self, event: Event, index: int, now: int) -> None:
        if (event.KIND, event.VERSION) in Groups.events:
            self.groups.apply(event, index, now)
            return
        self.streams.apply(event, index, now)
        if isinstance(event, StreamTrimmed):
            self.groups.trimmed(event.ns, event.stream, event.first_ordinal)
        elif isinstance(event, StreamDeleted):
            self.groups.stream_deleted(event.ns, event.stream)

    def dump(self) -> tuple[bytes, bytes]:
        return self.streams.dump(), self.groups.dump()


class World:
    """Applies what is decided, also to a replica that gets the events as a log would give them."""

    def __init__(self) -> None:
        self.live, self.replica = Replica(), Replica()
        self.now = NOW
        self.index = 1
        self.log: list[Event] = []

    @property
    def groups(self) -> Groups:
        return self.live.groups

    def commit(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.live.apply(event, self.index, self.now)
            kinds = {**Streams.events, **Groups.events}
            copy = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kinds[event.KIND, event.VERSION])
            self.replica.apply(copy, self.index, self.now)
            self.index += 1
            self.log.append(event)
        return events

    def check(self) -> None:
        """Replay, live state and a loaded snapshot are the same, bytewise."""
        assert self.live.dump() == self.replica.dump()
        loaded = Replica()
        loaded.streams.load(self.live.streams.dump())
        loaded.groups.load(self.live.groups.dump())
        assert loaded.dump() == self.live.dump()
        assert loaded.groups.bytes == self.groups.bytes == self.replica.groups.bytes

    def restart(self) -> None:
        self.check()
        data = self.live.dump()
        self.live = Replica()
        self.live.streams.load(data[0])
        self.live.groups.load(data[1])

    def advance(self, ms: int) -> None:
        """Time goes on; timers run when they are due."""
        end = self.now + ms
        while True:
            self.run_timers()
            due = self.groups.next_due()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
        self.now = end
        self.run_timers()

    def run_timers(self) -> None:
        while (due := self.groups.next_due()) is not None and due <= self.now:
            self.commit(self.groups.due(self.now, self.index))

    # -- commands

    def append(self, *payloads: str, key: str | None = None, stream: str = S, partition: int | None = None) -> None:
        records = [NewRecord(payload.encode()) for payload in payloads]
        raw = None if key is None else key.encode()
        events, _ = self.live.streams.decide_append(
            self.now, self.index, NS, stream, records, key=raw, partition=partition
        )
        self.commit(events)

    def fill(self, count: int) -> None:
        self.append(*(str(n) for n in range(count)))

    def ids(self, *ordinals: int, stream: str = S) -> list[StreamId]:
        found = self.live.streams.find(NS, stream)
        assert found is not None
        return [found.id_of(ordinal) for ordinal in ordinals]

    def trim(self, keep: int) -> None:
        self.commit(self.live.streams.decide_trim(self.now, self.index, NS, S, max_records=keep)[0])

    def create(self, settings: GroupSettings = DEFAULT, group: str = G, start: StreamId | None = None) -> list[Event]:
        return self.commit(self.groups.decide_create(self.now, self.index, NS, S, group, settings, start)[0])

    def join(self, consumer: str, group: str = G, bound: bool = False) -> list[Event]:
        return self.commit(self.groups.decide_join(self.now, self.index, NS, S, group, consumer, bound=bound)[0])

    def leave(self, consumer: str, group: str = G) -> list[Event]:
        return self.commit(self.groups.decide_leave(self.now, self.index, NS, S, group, consumer)[0])

    def deliver(
        self,
        consumer: str,
        limit: int = 10,
        group: str = G,
        no_ack: bool = False,
        settings: GroupSettings | None = None,
    ) -> list[Delivered]:
        events, delivered = self.groups.decide_read(
            self.now, self.index, NS, S, group, consumer, limit, no_ack=no_ack, settings=settings
        )
        self.commit(events)
        return delivered

    def read(self, consumer: str, limit: int = 10, group: str = G, no_ack: bool = False) -> list[int]:
        return [each.record.ordinal for each in self.deliver(consumer, limit, group, no_ack)]

    def ack(self, *ordinals: int, consumer: str = "", group: str = G) -> int:
        events, count = self.groups.decide_ack(
            self.now, self.index, NS, S, group, self.ids(*ordinals), consumer
        )  # fmt: skip
        self.commit(events)
        return count

    def nack(self, *ordinals: int, delay: int | None = None, consumer: str = "") -> int:
        events, count = self.groups.decide_nack(
            self.now, self.index, NS, S, G, self.ids(*ordinals), delay_ms=delay, consumer=consumer
        )
        self.commit(events)
        return count

    def touch(self, *ordinals: int, consumer: str, extend: int | None = None) -> int:
        events, count = self.groups.decide_touch(
            self.now, self.index, NS, S, G, self.ids(*ordinals), consumer, extend_ms=extend
        )
        self.commit(events)
        return count

    def claim(self, consumer: str, min_idle: int, *ordinals: int) -> list[int]:
        events, claimed = self.groups.decide_claim(
            self.now, self.index, NS, S, G, consumer, min_idle, self.ids(*ordinals)
        )
        self.commit(events)
        return [each.record.ordinal for each in claimed.records]

    def autoclaim(self, consumer: str, min_idle: int, start: StreamId = (0, 0), limit: int = 100) -> Claimed:
        events, claimed = self.groups.decide_autoclaim(
            self.now, self.index, NS, S, G, consumer, min_idle, start, limit
        )  # fmt: skip
        self.commit(events)
        return claimed

    def info(self, group: str = G) -> GroupInfo:
        info = self.groups.info(self.now, NS, S, group)
        assert info is not None
        return info

    def pending(self, consumer: str = "", group: str = G) -> dict[int, Pending]:
        """By ordinal."""
        found = self.live.streams.find(NS, S)
        assert found is not None
        page = self.groups.pending(self.now, NS, S, group, consumer, 1000)
        assert not page.has_more
        return {found.ordinal_of(entry.ms, entry.seq) or 0: entry for entry in page.entries}

    def dead_letters(self) -> list[dict[bytes, bytes]]:
        """The headers that the copies have got."""
        return [dict(event.headers) for event in self.log if isinstance(event, StreamCopied)]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.check()


def refused(kind: str, text: str, call: object, *args: object, **kwargs: object) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    assert caught.value.kind == kind and text in caught.value.message, caught.value.message
    return caught.value


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


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 256, "ü" * 128])
def test_names_of_groups_and_consumers_have_1_to_255_bytes_without_nul(world: World, name: str):
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
