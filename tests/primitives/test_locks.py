"""The lock machine: order of arrival, and circles against a search of every way."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flo.primitives import locks as locks_module
from flo.primitives.locks import LOCK_WAITERS, LockGranted, LockMachine, LockQueued, LockReleased, Owner
from flo.primitives.machine import Event, Refused

NOW = 1_750_000_000_000
A, B, C = (Owner(run, "0", "guard") for run in "abc")


class Locks:
    """A machine that applies what it decides, and a replica that gets the events as a log would give them."""

    def __init__(self) -> None:
        self.machine, self.replica = LockMachine(), LockMachine()
        self.index = 0

    def commit(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.index += 1
            self.machine.apply(event, self.index, NOW)
            kind = LockMachine.events[event.KIND, event.VERSION]
            self.replica.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kind), self.index, NOW)
            assert self.machine.dump() == self.replica.dump()
        return events

    def acquire(self, name: str, owner: Owner, ns: str = "default") -> list[Event]:
        return self.commit(self.machine.decide_acquire(ns, name, owner))

    def release(self, name: str, owner: Owner, ns: str = "default") -> list[Event]:
        return self.commit(self.machine.decide_release(ns, name, owner))


@pytest.fixture
def locks() -> Locks:
    return Locks()


def test_a_lock_goes_to_its_waiters_in_order_of_arrival(locks: Locks):
    assert locks.acquire("x", A) == [LockGranted("default", "x", *A)]
    assert locks.acquire("x", B) == [LockQueued("default", "x", *B)]
    assert locks.acquire("x", C) == [LockQueued("default", "x", *C)]
    assert locks.machine.line("default", "x") == [B, C]
    assert locks.machine.waiting(B) == ("default", "x")

    assert locks.release("x", A) == [LockReleased("default", "x", *A), LockGranted("default", "x", *B)]
    assert locks.machine.holder("default", "x") == B
    assert locks.machine.waiting(B) is None
    assert locks.release("x", C) == [LockReleased("default", "x", *C)]
    assert locks.release("x", B) == [LockReleased("default", "x", *B)]
    assert locks.machine.holder("default", "x") is None
    assert locks.machine.dump() == LockMachine().dump()


def test_asking_again_and_releasing_again_are_nothing(locks: Locks):
    locks.acquire("x", A)
    locks.acquire("x", B)

    assert locks.acquire("x", A) == locks.acquire("x", B) == []
    locks.release("x", A)
    assert locks.release("x", A) == []
    assert locks.machine.holder("default", "x") == B


def test_namespaces_do_not_meet(locks: Locks):
    locks.acquire("x", A)

    assert locks.acquire("x", B, "other") == [LockGranted("other", "x", *B)]


def test_a_resource_claims_one_lock(locks: Locks):
    locks.acquire("x", A)

    with pytest.raises(Refused, match="has claimed lock 'x' already"):
        locks.acquire("y", A)


def test_a_circle_of_runs_is_refused_and_named(locks: Locks):
    a2, b2, c2 = (Owner(run, "0", "second") for run in "abc")
    for name, owner in (("x", A), ("y", B), ("z", C)):
        locks.acquire(name, owner)
    locks.acquire("y", a2)
    locks.acquire("z", b2)
    before = locks.machine.dump()

    with pytest.raises(Refused) as caught:
        locks.acquire("x", c2)
    assert caught.value.kind == "conflict"
    assert caught.value.message == (
        "waiting for lock 'x' would close a circle: run c waits for 'x', which run a holds; "
        "run a waits for 'y', which run b holds; run b waits for 'z', which run c holds"
    )
    assert caught.value.details["circle"][0] == {"waiter": "run c", "lock": "x", "holder": "run a"}
    assert locks.machine.dump() == before


def test_any_task_of_a_run_stands_for_it_between_runs(locks: Locks):
    locks.acquire("x", Owner("a", "0.1", "r"))
    locks.acquire("y", Owner("b", "0.1", "r"))
    locks.acquire("y", Owner("a", "0.2", "r"))

    with pytest.raises(Refused, match=r"run b/0\.2 waits for 'x', which run a/0\.1 holds"):
        locks.acquire("x", Owner("b", "0.2", "r"))


def test_a_task_does_not_wait_for_what_a_task_around_it_holds(locks: Locks):
    locks.acquire("x", Owner("a", "0.1~2", "r"))

    for task in ("0.1~2", "0.1~2.3", "0.1~2.3~4.1"):
        with pytest.raises(Refused, match="would close a circle"):
            locks.acquire("x", Owner("a", task, "other"))


def test_tasks_beside_each_other_wait(locks: Locks):
    locks.acquire("x", Owner("a", "0.1", "r"))

    for task in ("0.2", "0.11", "0.1~2", "0"):
        assert locks.acquire("x", Owner("a", task, "r")) == [LockQueued("default", "x", "a", task, "r")]


def test_a_circle_of_tasks_of_one_run_is_refused(locks: Locks):
    locks.acquire("x", Owner("a", "0.1", "r"))
    locks.acquire("y", Owner("a", "0.2", "r"))
    locks.acquire("y", Owner("a", "0.1.1", "r"))

    with pytest.raises(Refused, match="would close a circle"):
        locks.acquire("x", Owner("a", "0.2.5", "r"))


def test_dropping_a_run_lets_the_next_ones_in(locks: Locks):
    inner = Owner("a", "0.1", "guard")
    locks.acquire("x", A)
    locks.acquire("y", Owner("d", "0", "guard"))
    locks.acquire("y", inner)
    for owner in (B, C):
        locks.acquire("x", owner._replace(resource="second"))
    second = B._replace(resource="second")

    assert locks.commit(locks.machine.decide_drop("a", "0.1")) == [LockReleased("default", "y", *inner)]
    assert locks.commit(locks.machine.decide_drop("a")) == [
        LockReleased("default", "x", *A),
        LockGranted("default", "x", *second),
    ]
    locks.commit(locks.machine.decide_drop("b"))
    assert locks.machine.holder("default", "x") == C._replace(resource="second")
    assert locks.machine.holder("default", "y") == Owner("d", "0", "guard")
    assert locks.machine.decide_drop("b") == []


def test_a_run_that_drops_holder_and_waiters_of_one_lock_grants_it_past_itself(locks: Locks):
    for task in ("0.1", "0.2", "0.3"):
        locks.acquire("x", Owner("a", task, "r"))
    locks.acquire("x", B)

    assert locks.commit(locks.machine.decide_drop("a"))[-1] == LockGranted("default", "x", *B)


def test_dropping_many_claims_goes_in_parts(locks: Locks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks_module, "COMMAND_EVENTS", 4)
    for n in range(5):
        locks.acquire(f"l{n}", Owner("a", f"0.{n}", "r"))

    parts = []
    while events := locks.commit(locks.machine.decide_drop("a")):
        parts.append(len(events))
    assert parts == [2, 2, 1]


def test_bad_names_are_refused(locks: Locks):
    with pytest.raises(Refused, match="lock name is required"):
        locks.acquire("", A)
    with pytest.raises(Refused, match="lock name too long"):
        locks.acquire("é" * 257, A)
    with pytest.raises(Refused, match="namespace name"):
        locks.acquire("x", A, "_bad")
    assert locks.acquire("é" * 256, A)


def test_the_line_of_a_lock_is_bounded():
    machine = LockMachine()
    machine.apply(LockGranted("default", "x", *A), 1, NOW)
    for n in range(LOCK_WAITERS):
        machine.apply(LockQueued("default", "x", f"run{n}", "0", "guard"), n + 2, NOW)

    with pytest.raises(Refused, match="lock 'x' has 100000 waiters") as caught:
        machine.decide_acquire("default", "x", B)
    assert caught.value.kind == "quota_exceeded"


def test_a_snapshot_of_another_version_is_refused_and_changes_nothing(locks: Locks):
    locks.acquire("x", A)

    for data in (b"", b"\x02" + locks.machine.dump()[1:]):
        with pytest.raises(ValueError, match="locks snapshot of version"):
            locks.machine.load(data)
    assert locks.machine.holder("default", "x") == A
    assert locks.machine.next_due() is None
    assert locks.machine.due(NOW, 1) == []
    with pytest.raises(AssertionError):
        locks.machine.apply(Event(), 1, NOW)


OWNERS = st.builds(
    Owner,
    st.sampled_from("abc"),
    st.sampled_from(["0", "0.1", "0.1.1", "0.2", "0.2~2.1"]),
    st.sampled_from(["r", "s"]),
)
NAMES = st.sampled_from("xyz")


class LockHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.locks = Locks()
        self.lines: dict[str, list[Owner]] = {}  # the holder first

    def claim_of(self, owner: Owner) -> str | None:
        return next((name for name, line in self.lines.items() if owner in line), None)

    def closes_a_circle(self, owner: Owner, name: str) -> bool:
        """Every way from holder to holder, without remembering anything but the way itself."""

        def around(outer: str, inner: str) -> bool:
            return inner.split(".")[: len(outer.split("."))] == outer.split(".")

        def waits(holder: Owner) -> Iterator[tuple[Owner, Owner]]:
            for line in self.lines.values():
                for waiter in line[1:]:
                    same_run = waiter.run == holder.run
                    if same_run and (holder.run != owner.run or around(holder.task, waiter.task)):
                        yield waiter, line[0]

        def search(waiter: Owner, holder: Owner, way: list[Owner]) -> bool:
            if holder.run == owner.run and (waiter.run != owner.run or around(holder.task, owner.task)):
                return True
            return any(search(w, h, [*way, w]) for w, h in waits(holder) if w not in way)

        return search(owner, self.lines[name][0], [])

    @rule(owner=OWNERS, name=NAMES)
    def acquire(self, owner: Owner, name: str) -> None:
        claimed = self.claim_of(owner)
        line = self.lines.get(name, [])
        refused = claimed not in (None, name) or (claimed is None and line != [] and self.closes_a_circle(owner, name))
        if refused:
            before = self.locks.machine.dump()
            with pytest.raises(Refused):
                self.locks.machine.decide_acquire("default", name, owner)
            assert self.locks.machine.dump() == before
            return
        events = self.locks.acquire(name, owner)
        assert len(events) == (claimed is None)
        if claimed is None:
            self.lines.setdefault(name, []).append(owner)

    @rule(owner=OWNERS)
    def release(self, owner: Owner) -> None:
        name = self.claim_of(owner)
        self.locks.release(name or "x", owner)
        if name is not None:
            self.lines[name].remove(owner)

    @rule(run=st.sampled_from("abc"), task=st.none() | st.sampled_from(["0", "0.1"]))
    def drop(self, run: str, task: str | None) -> None:
        self.locks.commit(self.locks.machine.decide_drop(run, task))
        for line in self.lines.values():
            line[:] = [owner for owner in line if owner.run != run or (task is not None and owner.task != task)]

    @rule()
    def restart(self) -> None:
        data = self.locks.machine.dump()
        self.locks.machine = LockMachine()
        self.locks.machine.load(data)
        assert self.locks.machine.dump() == data

    @invariant()
    def everybody_is_where_the_model_says(self) -> None:
        self.lines = {name: line for name, line in self.lines.items() if line}
        machine = self.locks.machine
        for name in "xyz":
            holder = machine.holder("default", name)
            assert ([] if holder is None else [holder, *machine.line("default", name)]) == self.lines.get(name, [])
        for name, (holder, *waiters) in self.lines.items():
            assert machine.waiting(holder) is None
            assert all(machine.waiting(owner) == ("default", name) for owner in waiters)


LockHistories.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLockHistories = LockHistories.TestCase
