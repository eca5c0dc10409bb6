"""What a register, a counter, a queue and a consumer group may do: models for tests.faults.linearizability.

They are written from the specification, not from the machines, and know no clock: the time of a hand-out is what its
lease says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations
from typing import Any, TypeAlias

from tests.faults.linearizability import UNKNOWN, Operation

RegisterState: TypeAlias = tuple[Any, int | None, int]  # value or None, version (None: unknown), versions are above it


class Register:
    """One key.

    put (value, condition) → ("ok", version) or ("conflict", current version); a condition is None, "nx", "xx" or the
    version of a compare-and-set. delete (if_match) → ("ok", version), ("missing",) or ("conflict", current version).
    get () → (value, version) or None.
    """

    initial: RegisterState = (None, 0, 0)

    def step(self, state: RegisterState, operation: Operation) -> Iterable[RegisterState]:
        return getattr(self, operation.name)(state, operation.result, *operation.arguments)

    def get(self, state: RegisterState, result: Any) -> Iterator[RegisterState]:
        value, _, _ = state
        if result is UNKNOWN:
            yield state
        elif result is None:
            if value is None:
                yield state
        elif value == result[0]:
            yield from self._bound(state, result[1])

    def put(self, state: RegisterState, result: Any, new: Any, condition: Any) -> Iterator[RegisterState]:
        yield from self._write(state, result, new, condition)

    def delete(self, state: RegisterState, result: Any, condition: int | None) -> Iterator[RegisterState]:
        if state[0] is None and condition is None:
            if result == ("missing",):
                yield state
        elif result != ("missing",):
            yield from self._write(state, result, None, condition)

    def _write(self, state: RegisterState, result: Any, new: Any, condition: Any) -> Iterator[RegisterState]:
        if result is UNKNOWN or result[0] == "ok":
            for _, _, floor in self._holds(state, condition):
                if result is UNKNOWN:
                    yield new, 0 if new is None else None, floor
                elif result[1] > floor:
                    yield new, 0 if new is None else result[1], result[1]
        else:
            yield from self._refused(state, condition, result[1])

    def _holds(self, state: RegisterState, condition: Any) -> Iterator[RegisterState]:
        """The state in which the condition holds, with what that tells of its version."""
        there = state[0] is not None
        if condition is None or (condition == "nx" and not there) or (condition == "xx" and there):
            yield state
        elif isinstance(condition, int) and there:
            yield from self._bound(state, condition)

    def _refused(self, state: RegisterState, condition: Any, current: int | None) -> Iterator[RegisterState]:
        there = state[0] is not None
        if condition == "nx" and there:
            yield state if current is None else next(self._bound(state, current), state)
        elif condition == "xx" and not there:
            yield state
        elif isinstance(condition, int):
            if not there:
                if current == 0:
                    yield state
            elif current != condition and current is not None:
                yield from self._bound(state, current)

    def _bound(self, state: RegisterState, version: int) -> Iterator[RegisterState]:
        """The state if it has this version, or may have it."""
        value, own, floor = state
        if own == version:
            yield state
        elif own is None and version > floor:
            yield value, version, version


CounterState: TypeAlias = tuple[int, int]  # value, version that later ones are above


class Counter:
    """incr (delta) → (version, value); get () → value, 0 for a key that is not there."""

    initial: CounterState = (0, 0)

    def step(self, state: CounterState, operation: Operation) -> Iterator[CounterState]:
        value, floor = state
        result = operation.result
        if operation.name == "get":
            if result is UNKNOWN or result == value:
                yield state
            return
        value += operation.arguments[0]
        if result is UNKNOWN:
            yield value, floor
        elif result[1] == value and result[0] > floor:
            yield value, result[0]


Waiting: TypeAlias = tuple[int, int, Any, int, int]
"""Priority, seq, payload, deliveries; then the lease: 0 for none, a deadline, or minus the earliest that it may be."""

QueueState: TypeAlias = tuple[int, int, tuple[Waiting, ...]]  # last seq, time of the last hand-out, by priority and seq


class Queue:
    """enqueue (((payload, priority), …)) → seqs. dequeue (count, visibility) → ((seq, payload, deliveries, deadline),
    …). ack (seqs) and nack (seqs) → (count, missing seqs). Dead letters are out of sight."""

    initial: QueueState = (0, 0, ())

    def __init__(self, max_attempts: int = 5) -> None:
        self._max_attempts = max_attempts

    def step(self, state: QueueState, operation: Operation) -> Iterable[QueueState]:
        return getattr(self, operation.name)(state, operation.result, *operation.arguments)

    def enqueue(self, state: QueueState, result: Any, messages: tuple[tuple[Any, int], ...]) -> Iterator[QueueState]:
        last, time, waiting = state
        seqs = tuple(range(last + 1, last + 1 + len(messages)))
        if result is UNKNOWN or result == seqs:
            new = [(priority, seq, payload, 0, 0) for seq, (payload, priority) in zip(seqs, messages, strict=True)]
            yield last + len(messages), time, tuple(sorted([*waiting, *new]))

    def dequeue(self, state: QueueState, result: Any, count: int, visibility: int) -> Iterator[QueueState]:
        last, time, waiting = state
        if result is UNKNOWN:
            yield from self._some_hand_out(state, count, visibility)
        elif not result:
            if not any(self._ready(message, time) for message in waiting):
                yield state
        else:
            at = result[0][3] - visibility
            wanted = {seq: (payload, deliveries) for seq, payload, deliveries, deadline in result}
            if at >= time and all(deadline == at + visibility for *_, deadline in result):
                left, taken = self._hand_out(waiting, at, at + visibility, count, frozenset(wanted))
                if [(seq, payload, deliveries) for _, seq, payload, deliveries, _ in taken] == [
                    (seq, payload, deliveries) for seq, payload, deliveries, _ in result
                ]:
                    yield last, at, left

    def _some_hand_out(self, state: QueueState, count: int, visibility: int) -> Iterator[QueueState]:
        """A dequeue whose answer nobody saw: at any time from now on, with any of the leases over that may be."""
        last, time, waiting = state
        ends = sorted({time} | {message[4] for message in waiting if message[4] > time})
        for at in ends:
            may = [message[1] for message in waiting if message[4] < 0 and -message[4] <= at]
            for over in chain.from_iterable(combinations(may, size) for size in range(len(may) + 1)):
                left, _ = self._hand_out(waiting, at, -(at + visibility), count, frozenset(over))
                yield last, at, left

    def _hand_out(
        self, waiting: tuple[Waiting, ...], at: int, lease: int, count: int, over: frozenset[int]
    ) -> tuple[tuple[Waiting, ...], list[Waiting]]:
        """What is left and what was taken. `over`: the seqs whose lease has ended, where that is not known."""
        left: list[Waiting] = []
        taken: list[Waiting] = []
        for message in waiting:
            priority, seq, payload, deliveries, until = message
            ready = self._ready(message, at) or (until < 0 and -until <= at and seq in over)
            if ready and until and deliveries >= self._max_attempts:
                continue  # a dead letter
            if ready and len(taken) < count:
                message = (priority, seq, payload, deliveries + 1, lease)
                taken.append(message)
            elif ready:
                message = (priority, seq, payload, deliveries, 0)
            left.append(message)
        return tuple(left), taken

    def _ready(self, message: Waiting, at: int) -> bool:
        return message[4] == 0 or 0 < message[4] <= at

    def ack(self, state: QueueState, result: Any, seqs: tuple[int, ...]) -> Iterator[QueueState]:
        yield from self._settle(state, result, seqs, gone=True)

    def nack(self, state: QueueState, result: Any, seqs: tuple[int, ...]) -> Iterator[QueueState]:
        yield from self._settle(state, result, seqs, gone=False)

    def _settle(self, state: QueueState, result: Any, seqs: tuple[int, ...], gone: bool) -> Iterator[QueueState]:
        last, time, waiting = state
        missing = () if result is UNKNOWN else result[1]
        left: list[Waiting] = []
        found: set[int] = set()
        for message in waiting:
            priority, seq, payload, deliveries, until = message
            exhausted = until != 0 and deliveries >= self._max_attempts
            if seq not in seqs or (gone and not deliveries):
                left.append(message)
            elif seq in missing:
                if not exhausted:
                    return  # it was there
                found.add(seq)  # it may have become a dead letter meanwhile
            else:
                found.add(seq)
                if not gone and not exhausted:
                    left.append((priority, seq, payload, deliveries, 0))
        if result is UNKNOWN or (set(seqs) - found <= set(missing) and result[0] == len(set(seqs)) - len(set(missing))):
            yield last, time, tuple(left)


Entry: TypeAlias = tuple[int, Any, int, bool]  # place in the stream, payload, deliveries, held
GroupState: TypeAlias = tuple[int, tuple[tuple[int, Any], ...], tuple[Entry, ...]]
"""Records ever, those that were not delivered, and those that were delivered and not acknowledged."""


class Group:
    """A shared group on its stream, with leases that do not end meanwhile. Records are named by their payloads.

    append (payloads) → anything. read (limit) → ((payload, deliveries), …). ack (payloads) and nack (payloads) →
    count.
    """

    initial: GroupState = (0, (), ())

    def step(self, state: GroupState, operation: Operation) -> Iterator[GroupState]:
        count, fresh, entries = state
        result = operation.result
        arguments = operation.arguments
        if operation.name == "append":
            new = tuple(enumerate(arguments[0], count + 1))
            yield count + len(new), fresh + new, entries
        elif operation.name == "read":
            yield from self._read(state, result, arguments[0])
        else:
            named = [entry for entry in entries if entry[1] in arguments[0]]
            if operation.name == "nack":
                named = [entry for entry in named if entry[3]]
            if result is UNKNOWN or result == len(named):
                rest = [entry for entry in entries if entry not in named]
                if operation.name == "nack":
                    rest += [(place, payload, deliveries, False) for place, payload, deliveries, _ in named]
                yield count, fresh, tuple(sorted(rest))

    def _read(self, state: GroupState, result: Any, limit: int) -> Iterator[GroupState]:
        count, fresh, entries = state
        again = [entry for entry in entries if not entry[3]][:limit]
        new = fresh[: limit - len(again)]
        taken = [(place, payload, deliveries + 1, True) for place, payload, deliveries, _ in again]
        taken += [(place, payload, 1, True) for place, payload in new]
        if result is UNKNOWN or list(result) == [(payload, deliveries) for _, payload, deliveries, _ in taken]:
            rest = [entry for entry in entries if entry not in again]
            yield count, fresh[len(new) :], tuple(sorted([*rest, *taken]))
