"""A consumer group against a model that looks at every record every time."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flo.primitives import group_modes, group_slots
from flo.primitives.group_slots import slot_of
from flo.primitives.machine import Refused
from flo.primitives.stream_pages import GroupSettings
from flo.primitives.stream_rules import key_hash
from tests.support.group_world import World

CONSUMERS = ("w1", "w2", "w3")
SLOTS = 3

consumers = st.sampled_from(CONSUMERS)
limits = st.sampled_from([1, 2, 3, 5, 20])
picks = st.lists(st.integers(0, 40), min_size=1, max_size=6)


class Lease:
    def __init__(self, consumer: str, now: int, due: int, count: int = 1) -> None:
        self.consumer = consumer
        self.at = now
        self.due = due
        self.count = count
        self.state = "held"


class Model:
    """One group: what was handed out, to whom, and what becomes of it."""

    def __init__(self, given: GroupSettings) -> None:
        self.given = given
        self.members: list[str] = []
        self.slots: dict[int, int] = {}  # of every record
        self.first = 1
        self.seen: set[int] = set()
        self.leases: dict[int, Lease] = {}
        self.doomed: list[int] = []
        self.buried: list[int] = []

    def owner(self, slot: int) -> str | None:
        count = len(self.members)
        for place, member in enumerate(self.members):
            if place * SLOTS // count <= slot < (place + 1) * SLOTS // count:
                return member
        return None

    def is_open(self, ordinal: int, consumer: str) -> bool:
        """Whether a read of the consumer may hand this record out."""
        if self.given.mode == "exclusive":
            return self.members[0] == consumer
        if self.given.mode == "shared":
            return True
        slot = self.slots[ordinal]
        held = {lease.consumer for n, lease in self.leases.items() if lease.state == "held" and self.slots[n] == slot}
        return self.owner(slot) == consumer and held <= {consumer}

    def readable(self, consumer: str, limit: int) -> list[int]:
        ready = [n for n in sorted(self.leases) if self.leases[n].state == "ready"]
        new = [n for n in sorted(self.slots) if n >= self.first and n not in self.seen]
        return [n for n in ready + new if self.is_open(n, consumer)][:limit]

    def due(self, now: int) -> int:
        return now + self.given.ack_timeout_ms if self.given.ack_timeout_ms else 0

    def hand_out(self, consumer: str, ordinals: list[int], now: int, no_ack: bool) -> None:
        for n in ordinals:
            self.seen.add(n)
            before = self.leases.pop(n, None)
            if not no_ack:
                self.leases[n] = Lease(consumer, now, self.due(now), before.count + 1 if before else 1)

    def free(self, n: int, until: int) -> None:
        lease = self.leases[n]
        lease.due = until
        if self.given.max_deliver and lease.count >= self.given.max_deliver:
            del self.leases[n]
            self.doomed.append(n)
        else:
            lease.state = "delayed" if until else "ready"

    def next_due(self) -> int | None:
        return min((lease.due for lease in self.leases.values() if lease.due), default=None)

    def run_timers(self, now: int) -> None:
        self.buried += self.doomed
        self.doomed = []
        for n, lease in sorted(self.leases.items()):
            if lease.due and lease.due <= now:
                if lease.state == "held":
                    delay = self.given.redeliver_delay_ms
                    self.free(n, now + delay if delay else 0)
                else:
                    lease.state, lease.due = "ready", 0
        self.buried += self.doomed
        self.doomed = []

    def leave(self, consumer: str) -> None:
        if consumer not in self.members:
            return
        self.members.remove(consumer)
        for n, lease in sorted(self.leases.items()):
            if lease.consumer == consumer and lease.state == "held":
                self.free(n, 0)

    def may_claim(self, n: int, consumer: str, min_idle: int, now: int) -> bool:
        lease = self.leases.get(n)
        if lease is None:
            return False
        if self.given.mode != "shared" and consumer not in self.members:
            return False
        if self.given.mode == "exclusive" and self.members[0] != consumer:
            return False
        if self.given.mode == "key_shared" and self.owner(self.slots[n]) != consumer:
            return False
        if min_idle:
            return now - lease.at >= min_idle
        if lease.state == "ready":
            return self.is_open(n, consumer)
        return lease.state == "held" and lease.consumer == consumer


class Groups(RuleBasedStateMachine):
    mode = "shared"

    @initialize(
        ack_timeout=st.sampled_from([0, 1_000]),
        max_deliver=st.sampled_from([0, 1, 3]),
        delay=st.sampled_from([0, 300]),
        standbys=st.sampled_from([1, 65_535]),
        scan=st.sampled_from([3, group_slots.SCAN_RECORDS]),
    )
    def begin(self, ack_timeout: int, max_deliver: int, delay: int, standbys: int, scan: int) -> None:
        mode = self.mode
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(group_slots, "SCAN_RECORDS", scan)
        self.patch.setattr(group_modes, "SCAN_LOGGED", min(scan, group_modes.SCAN_LOGGED))
        self.exact = mode != "key_shared" or scan > 3  # a read sees all that it may hand out
        given = GroupSettings(mode, ack_timeout, max_deliver, delay, standbys, SLOTS)
        self.world = World()
        self.model = Model(given)
        self.world.create(given)
        self.first_reads: dict[int, list[int]] = {}
        for n in range(12):
            self.append(1, n % 5)
        self.read("w1", 5, False)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            if self.model.slots:
                self.drain("w1")
            self.patch.undo()

    def timers(self) -> None:
        self.world.run_timers()
        self.model.run_timers(self.world.now)

    def some(self, picked: list[int]) -> list[int]:
        """Of the records that are there, those that lie next to what is handed out."""
        there = [n for n in sorted(self.model.slots) if n >= self.model.first]
        handed = sorted(self.model.leases) or there
        return [handed[pick % len(handed)] for pick in picked] if handed else []

    @rule(count=st.integers(1, 6), key=st.integers(0, 4))
    def append(self, count: int, key: int) -> None:
        self.timers()
        name = f"key{key}" if key else None
        self.world.append(*["x"] * count, key=name)
        for _ in range(count):
            n = len(self.model.slots) + 1
            self.model.slots[n] = slot_of(key_hash(name.encode()) if name else 0, n, SLOTS)

    @rule(consumer=consumers)
    def join(self, consumer: str) -> None:
        self.timers()
        if self.is_locked_out(consumer):
            with pytest.raises(Refused) as refused:
                self.world.join(consumer)
            assert refused.value.details == {"code": "group_locked"}
            return
        self.world.join(consumer)
        self.enter(consumer)

    def is_locked_out(self, consumer: str) -> bool:
        if self.model.given.mode != "exclusive" or consumer in self.model.members:
            return False
        return len(self.model.members) > self.model.given.max_standbys

    def enter(self, consumer: str) -> None:
        if consumer not in self.model.members:
            self.model.members.append(consumer)

    @rule(consumer=consumers)
    def leave(self, consumer: str) -> None:
        self.timers()
        self.world.leave(consumer)
        self.model.leave(consumer)

    @rule(consumer=consumers, limit=limits, no_ack=st.sampled_from([False, False, False, True]))
    def read(self, consumer: str, limit: int, no_ack: bool) -> None:
        self.timers()
        if self.is_locked_out(consumer):
            return
        self.enter(consumer)
        expected = self.model.readable(consumer, limit)
        delivered = self.world.deliver(consumer, limit, no_ack=no_ack)
        got = [each.record.ordinal for each in delivered]
        if self.exact:
            assert got == expected
        else:
            assert len(got) <= len(expected) and set(got) <= set(self.model.readable(consumer, 1_000))
            expected = got
        new = [n for n in expected if n not in self.model.seen]
        for each in delivered:
            lease = self.model.leases.get(each.record.ordinal)
            assert each.delivery_count == (lease.count + 1 if lease else 1)
        self.model.hand_out(consumer, expected, self.world.now, no_ack)
        for n in new:
            self.first_reads.setdefault(self.model.slots[n], []).append(n)

    @rule(picked=picks, consumer=st.sampled_from(["", *CONSUMERS]))
    def ack(self, picked: list[int], consumer: str) -> None:
        self.timers()
        ordinals = self.some(picked)
        if not ordinals:
            return
        mine = {n for n in ordinals if n in self.model.leases}
        mine = {n for n in mine if not consumer or self.model.leases[n].consumer == consumer}
        assert self.world.ack(*ordinals, consumer=consumer) == len(mine)
        for n in mine:
            del self.model.leases[n]

    def held(self, ordinals: list[int], consumer: str) -> list[int]:
        leases = self.model.leases
        held = {n for n in ordinals if n in leases and leases[n].state == "held"}
        return sorted(n for n in held if not consumer or leases[n].consumer == consumer)

    @rule(picked=picks, consumer=st.sampled_from(["", *CONSUMERS]), delay=st.sampled_from([None, 0, 200]))
    def nack(self, picked: list[int], consumer: str, delay: int | None) -> None:
        self.timers()
        ordinals = self.some(picked)
        if not ordinals:
            return
        mine = self.held(ordinals, consumer)
        assert self.world.nack(*ordinals, consumer=consumer, delay=delay) == len(mine)
        wait = self.model.given.redeliver_delay_ms if delay is None else delay
        for n in mine:
            self.model.free(n, self.world.now + wait if wait else 0)

    @rule(consumer=consumers, part=st.integers(1, 2), give_back=st.booleans())
    def finish(self, consumer: str, part: int, give_back: bool) -> None:
        """All that a consumer holds, or its every second record."""
        self.timers()
        mine = self.held([*self.model.leases], consumer)[::part]
        if not mine:
            return
        if give_back:
            assert self.world.nack(*mine, delay=0) == len(mine)
            for n in mine:
                self.model.free(n, 0)
        else:
            assert self.world.ack(*mine) == len(mine)
            for n in mine:
                del self.model.leases[n]

    @rule(consumers=st.permutations(CONSUMERS), limit=limits)
    def round(self, consumers: list[str], limit: int) -> None:
        for consumer in consumers:
            if consumer in self.model.members:
                self.read(consumer, limit, False)

    @rule(picked=picks, consumer=consumers, extend=st.sampled_from([None, 100, 5_000]))
    def touch(self, picked: list[int], consumer: str, extend: int | None) -> None:
        self.timers()
        ordinals = self.some(picked)
        if not ordinals:
            return
        mine = self.held(ordinals, consumer)
        assert self.world.touch(*ordinals, consumer=consumer, extend=extend) == len(mine)
        for n in mine:
            self.model.leases[n].due = self.model.due(self.world.now) if extend is None else self.world.now + extend

    @rule(picked=picks, consumer=consumers, min_idle=st.sampled_from([0, 1, 500]), walk=st.booleans())
    def claim(self, picked: list[int], consumer: str, min_idle: int, walk: bool) -> None:
        self.timers()
        ordinals = sorted(self.model.leases) if walk else sorted({*self.some(picked)})
        if not ordinals:
            return
        now, given = self.world.now, self.model.given
        mine = [n for n in ordinals if self.model.may_claim(n, consumer, min_idle, now)]
        spent = [n for n in mine if given.max_deliver and self.model.leases[n].count >= given.max_deliver]
        taken = [n for n in mine if n not in spent]
        if walk:
            got = [each.record.ordinal for each in self.world.autoclaim(consumer, min_idle).records]
        else:
            got = self.world.claim(consumer, min_idle, *ordinals)
        assert got == taken
        for n in spent:
            self.model.free(n, 0)
        if taken:
            self.enter(consumer)
        first = {n: self.model.leases[n].at for n in taken}
        self.model.hand_out(consumer, taken, now, False)
        assert all(self.world.pending()[n].delivered_at <= at for n, at in first.items())

    @precondition(lambda self: len(self.model.slots) >= self.model.first)
    @rule(keep=st.integers(1, 30))
    def trim(self, keep: int) -> None:
        self.timers()
        self.world.trim(keep)
        first = max(self.model.first, len(self.model.slots) - keep + 1)
        self.model.first = first
        self.model.leases = {n: lease for n, lease in self.model.leases.items() if n >= first}

    @rule(ms=st.sampled_from([0, 50, 250, 1_500]))
    def advance(self, ms: int) -> None:
        end = self.world.now + ms
        self.timers()
        while (due := self.model.next_due()) is not None and due <= end:
            self.world.advance(max(0, due - self.world.now))
            self.model.run_timers(self.world.now)
        self.world.advance(end - self.world.now)
        self.model.run_timers(self.world.now)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    def drain(self, consumer: str) -> None:
        """Left alone, a consumer gets everything that is not acknowledged, and the group is done."""
        for other in CONSUMERS:
            if other != consumer:
                self.world.leave(other)
                self.model.leave(other)
        self.enter(consumer)
        self.world.join(consumer)
        self.advance(1_500)
        for _ in range(3 if self.exact else len(self.model.slots) + 3):
            self.timers()
            expected = self.model.readable(consumer, 1_000)
            got = self.world.read(consumer, 1_000)
            assert got == expected or not self.exact
            expected = got
            self.model.hand_out(consumer, expected, self.world.now, False)
            mine = sorted(self.model.leases)
            if mine:
                assert self.world.ack(*mine) == len(mine)
            self.model.leases.clear()
        self.timers()
        info = self.world.info()
        found = self.world.live.streams.find("default", "events")
        assert found is not None
        assert info.pending == 0 and info.lag == 0
        assert self.model.seen >= set(range(self.model.first, len(self.model.slots) + 1))
        if found.records and not self.model.doomed:
            assert info.ack_floor == found.last_id

    @invariant()
    def the_pending_list_is_the_models(self) -> None:
        now = self.world.now
        if not self.model.slots:
            return
        there = {
            n: (lease.consumer, lease.count, lease.at, lease.due if lease.state == "held" else 0, lease.state)
            for n, lease in self.model.leases.items()
        }
        listed = self.world.pending()
        assert {
            n: (e.consumer, e.delivery_count, e.last_delivery, e.deadline, there[n][4] if n in there else "")
            for n, e in listed.items()
        } == there
        assert all((listed[n].state == "delayed") == (there[n][4] == "delayed") for n in listed)
        assert all(e.idle_ms == now - e.last_delivery for e in listed.values())
        info = self.world.info()
        assert info.pending == len(there)
        assert [member.consumer for member in info.members] == self.model.members
        assert {member.consumer: member.pending for member in info.members} == {
            consumer: len(self.held([*there], consumer)) for consumer in self.model.members
        }

    @invariant()
    def what_a_slot_hands_out_first_is_in_order(self) -> None:
        for ordinals in self.first_reads.values():
            assert ordinals == sorted(ordinals)

    @invariant()
    def dead_letters_are_those_of_the_model(self) -> None:
        assert len(self.world.dead_letters()) == len(self.model.buried)

    @invariant()
    def replay_and_snapshot_are_the_live_state(self) -> None:
        self.world.check()


class Exclusive(Groups):
    mode = "exclusive"


class KeyShared(Groups):
    mode = "key_shared"


TestShared = Groups.TestCase
TestShared.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestExclusive = Exclusive.TestCase
TestExclusive.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKeyShared = KeyShared.TestCase
TestKeyShared.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
