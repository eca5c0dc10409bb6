"""The lock machine: who holds which lock, and who waits for it in order of arrival.

An owner is one resource of one task of one run, and claims one lock. A wait that would close a circle is
refused: everybody in it would wait for ever. Between runs a circle is one of runs, whichever of their tasks
hold and wait. Within a run a task waits for its inner tasks and not for those beside it, so there a circle
is one that leads back to the waiting task or to one around it.
"""

from __future__ import annotations

from typing import ClassVar, Final, NamedTuple, TypeAlias

import msgspec

from flo.primitives.kv_rules import check_namespace
from flo.primitives.limits import COMMAND_EVENTS
from flo.primitives.lock_events import LockGranted as LockGranted
from flo.primitives.lock_events import LockQueued as LockQueued
from flo.primitives.lock_events import LockReleased as LockReleased
from flo.primitives.machine import Event, Refused

LOCK_NAME_BYTES: Final = 512
LOCK_WAITERS: Final = 100_000  # in the line of one lock
DUMP_VERSION: Final = 1

_encode = msgspec.msgpack.Encoder().encode


class Owner(NamedTuple):
    run: str
    task: str  # its prefix: `0`, `0.3~2`
    resource: str


OwnerLike: TypeAlias = tuple[str, str, str]
Address: TypeAlias = tuple[str, str]  # namespace and name
_Locks: TypeAlias = list[tuple[str, str, Owner | None, list[Owner]]]
_decode = msgspec.msgpack.Decoder(_Locks).decode


class _Lock:
    __slots__ = ("holder", "line")

    def __init__(self) -> None:
        self.holder: Owner | None = None
        self.line: dict[Owner, None] = {}  # in order of arrival


class _Wait(NamedTuple):
    """One link of a possible circle."""

    waiter: Owner
    address: Address
    holder: Owner
    before: _Wait | None


class LockMachine:
    name: ClassVar[str] = "locks"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {
        (event.KIND, event.VERSION): event for event in (LockGranted, LockQueued, LockReleased)
    }

    def __init__(self) -> None:
        self._locks: dict[Address, _Lock] = {}
        self._claims: dict[str, dict[Owner, Address]] = {}  # by run; held or waited for

    # -- decisions

    def decide_acquire(self, ns: str, name: str, owner: OwnerLike) -> list[Event]:
        """`LockGranted` if the lock is free, else `LockQueued`; nothing if the owner has or awaits it already."""
        check_namespace(ns)
        check_lock_name(name)
        claimant = Owner(*owner)
        address = (ns, name)
        claimed = self._claims.get(claimant.run, {}).get(claimant)
        if claimed == address:
            return []
        if claimed is not None:
            text = f"resource {claimant.resource!r} of {_shown(claimant)} has claimed lock {claimed[1]!r} already"
            raise Refused("conflict", text)
        lock = self._locks.get(address)
        if lock is None or lock.holder is None:
            return [LockGranted(ns, name, *claimant)]
        if len(lock.line) >= LOCK_WAITERS:
            raise Refused("quota_exceeded", f"lock {name!r} has {LOCK_WAITERS} waiters")
        circle = self._circle(_Wait(claimant, address, lock.holder, None))
        if circle:
            raise _refusal(name, circle)
        return [LockQueued(ns, name, *claimant)]

    def decide_release(self, ns: str, name: str, owner: OwnerLike) -> list[Event]:
        """Gives the lock back, or leaves its line; then the next in line gets it. Nothing if there is no claim."""
        claimant = Owner(*owner)
        if self._claims.get(claimant.run, {}).get(claimant) != (ns, name):
            return []
        return self._release((ns, name), [claimant])

    def decide_drop(self, run: str, task: str | None = None) -> list[Event]:
        """Releases all that a run, or one task of it, claims. Long work: call it again until it returns nothing."""
        leaving: dict[Address, list[Owner]] = {}
        room = COMMAND_EVENTS // 2  # each may be followed by a grant
        for owner, address in self._claims.get(run, {}).items():
            if task is None or owner.task == task:
                leaving.setdefault(address, []).append(owner)
                room -= 1
                if not room:
                    break
        return [event for address, owners in leaving.items() for event in self._release(address, owners)]

    # -- reads

    def holder(self, ns: str, name: str) -> Owner | None:
        lock = self._locks.get((ns, name))
        return None if lock is None else lock.holder

    def line(self, ns: str, name: str) -> list[Owner]:
        """Who waits for a lock, the next one first."""
        lock = self._locks.get((ns, name))
        return [] if lock is None else list(lock.line)

    def waiting(self, owner: OwnerLike) -> Address | None:
        """Namespace and name of the lock that an owner waits for."""
        claimant = Owner(*owner)
        address = self._claims.get(claimant.run, {}).get(claimant)
        return None if address is None or self._locks[address].holder == claimant else address

    # -- events

    def apply(self, event: Event, index: int, now: int) -> None:
        if isinstance(event, LockGranted):
            owner, address = _parts(event)
            lock = self._claim(owner, address)
            lock.line.pop(owner, None)
            lock.holder = owner
        elif isinstance(event, LockQueued):
            owner, address = _parts(event)
            self._claim(owner, address).line[owner] = None
        elif isinstance(event, LockReleased):
            self._leave(*_parts(event))
        else:
            raise AssertionError(f"not an event of locks: {event!r}")

    def next_due(self) -> int | None:
        return None

    def due(self, now: int, index: int) -> list[Event]:
        return []

    # -- snapshots

    def dump(self) -> bytes:
        locks: _Locks = [(*at, self._locks[at].holder, list(self._locks[at].line)) for at in sorted(self._locks)]
        return bytes([DUMP_VERSION]) + _encode(locks)

    def load(self, data: bytes) -> None:
        if data[:1] != bytes([DUMP_VERSION]):
            known = f"this release reads {DUMP_VERSION}"
            raise ValueError(f"locks snapshot of version {data[0] if data else None}; {known}")
        locks = _decode(memoryview(data)[1:])
        self._locks = {}
        self._claims = {}
        for ns, name, holder, line in locks:
            if holder is not None:
                self._claim(holder, (ns, name)).holder = holder
            for owner in line:
                self._claim(owner, (ns, name)).line[owner] = None

    # -- within

    def _claim(self, owner: Owner, address: Address) -> _Lock:
        self._claims.setdefault(owner.run, {})[owner] = address
        lock = self._locks.get(address)
        if lock is None:
            lock = self._locks[address] = _Lock()
        return lock

    def _leave(self, owner: Owner, address: Address) -> None:
        claims = self._claims.get(owner.run)
        lock = self._locks.get(address)
        if claims is None or lock is None or claims.get(owner) != address:
            return
        del claims[owner]
        if not claims:
            del self._claims[owner.run]
        lock.line.pop(owner, None)
        if lock.holder == owner:
            lock.holder = None
        if lock.holder is None and not lock.line:
            del self._locks[address]

    def _release(self, address: Address, leaving: list[Owner]) -> list[Event]:
        events: list[Event] = [LockReleased(*address, *owner) for owner in leaving]
        lock = self._locks[address]
        if lock.holder in leaving:
            gone = set(leaving)
            heir = next((owner for owner in lock.line if owner not in gone), None)
            if heir is not None:
                events.append(LockGranted(*address, *heir))
        return events

    def _circle(self, first: _Wait) -> list[_Wait]:
        """The waits of a circle that `first` would close, in order; empty when it closes none."""
        me = first.waiter
        seen: set[tuple[str, str]] = set()
        ways = [first]
        while ways:
            way = ways.pop()
            run, task = way.holder.run, way.holder.task
            if run != me.run:
                task = ""  # between runs, any of its tasks stands for the run
            elif way.waiter.run != run or _is_around(task, me.task):
                return _in_order(way)
            if (run, task) in seen:
                continue
            seen.add((run, task))
            for owner, address in self._claims.get(run, {}).items():
                holder = self._locks[address].holder
                if holder is None or holder == owner or (task and not _is_around(task, owner.task)):
                    continue
                if holder.run != run or run == me.run:
                    ways.append(_Wait(owner, address, holder, way))
        return []


def check_lock_name(name: str) -> None:
    if not name:
        raise Refused("bad_argument", "lock name is required")
    if len(name.encode()) > LOCK_NAME_BYTES:
        raise Refused("bad_argument", f"lock name too long (max {LOCK_NAME_BYTES} bytes)")


def _is_around(outer: str, inner: str) -> bool:
    """Whether a task is the other one, or has started it, directly or not."""
    return inner == outer or inner.startswith(outer + ".")


def _in_order(last: _Wait) -> list[_Wait]:
    waits = [last]
    while (before := waits[-1].before) is not None:
        waits.append(before)
    return waits[::-1]


def _refusal(name: str, circle: list[_Wait]) -> Refused:
    links = [(_shown(w.waiter), w.address[1], _shown(w.holder)) for w in circle]
    told = "; ".join(f"{waiter} waits for {lock!r}, which {holder} holds" for waiter, lock, holder in links)
    details = {"circle": [{"waiter": waiter, "lock": lock, "holder": holder} for waiter, lock, holder in links]}
    return Refused("conflict", f"waiting for lock {name!r} would close a circle: {told}", details)


def _shown(owner: Owner) -> str:
    return f"run {owner.run}" if owner.task == "0" else f"run {owner.run}/{owner.task}"


def _parts(event: LockGranted | LockQueued | LockReleased) -> tuple[Owner, Address]:
    return Owner(event.run, event.task, event.resource), (event.ns, event.name)
