"""Whether what concurrent clients saw could have happened one operation after another (Wing & Gong's search, with
Lowe's memory of what was tried, as Porcupine does it).

    history = [Operation("a", "put", ("x",), 7, call=10, end=20), …]       # of one object
    verdict = check(Register(), history)
    assert verdict.ok, verdict

An operation takes effect at one moment between its call and its end. One whose outcome nobody knows may do so at any
time after its call, or never. A model says what an operation may do to a state; the states of an operation with
several possible effects are all tried.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

NEVER = 1 << 62  # the end of an operation whose outcome is unknown
BUDGET = 2_000_000  # states looked at before a search is given up


class Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Operation:
    client: str
    name: str
    arguments: tuple[Any, ...]
    result: Any  # UNKNOWN: it was never answered
    call: int
    end: int = NEVER

    @property
    def known(self) -> bool:
        return self.result is not UNKNOWN

    def __str__(self) -> str:
        end = "…" if self.end == NEVER else self.end
        return f"{self.client} {self.name}{self.arguments} → {self.result!r} [{self.call}, {end}]"


class Model(Protocol):
    """The object that clients share. States can be hashed."""

    initial: Hashable

    def step(self, state: Any, operation: Operation) -> Iterable[Hashable]:
        """The states after it; none when its result cannot be in this state. Of an unknown one the states that it
        may leave."""
        ...


@dataclass
class Verdict:
    ok: bool
    looked: int  # states
    placed: list[Operation] = field(default_factory=list)  # in an order that works, or the longest that was found
    stuck: list[Operation] = field(default_factory=list)  # none of them can come next
    state: Any = None
    given_up: bool = False

    def __str__(self) -> str:
        if self.ok:
            return f"linearizable ({self.looked} states)"
        lines = ["the search was given up" if self.given_up else "not linearizable"]
        lines += [f"the longest order that was found, of {len(self.placed)} operations, ends:"]
        lines += [f"  {operation}" for operation in self.placed[-12:]]
        lines += [f"there the state is {self.state!r}, and none of these can follow:"]
        lines += [f"  {operation}" for operation in self.stuck[:12]]
        return "\n".join(lines)


class _Node:
    """A point of the search: some operations are placed, and these may come next."""

    __slots__ = ("bits", "choices", "number", "state")

    def __init__(self, bits: int, state: Hashable, number: int, choices: Iterator[tuple[int, Hashable]]) -> None:
        self.bits = bits
        self.state = state
        self.number = number  # of the operation that led here
        self.choices = choices


class _Line:
    """Calls and ends of the operations not placed yet, in the order of time; a call before an end of the same time."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        moments = []
        for number, operation in enumerate(operations):
            moments += [(operation.call, 0, number), (operation.end, 1, number)]
        moments.sort()
        size = len(moments)
        self.head = size  # of a ring
        self.next = [*range(1, size + 1), 0 if size else self.head]
        self.previous = [size if at == 0 else at - 1 for at in range(size)] + [size - 1 if size else self.head]
        self.number = [number for _, _, number in moments]
        self.is_end = [kind == 1 for _, kind, _ in moments]
        self.time = [time for time, _, _ in moments]
        self.places: list[list[int]] = [[] for _ in operations]
        for at, (_, _, number) in enumerate(moments):
            self.places[number].append(at)

    def first(self) -> tuple[list[int], int]:
        """The operations that may come next, and the time of the first end among those left."""
        found = []
        at = self.next[self.head]
        while at != self.head and not self.is_end[at]:
            found.append(self.number[at])
            at = self.next[at]
        return found, NEVER if at == self.head else self.time[at]

    def take(self, number: int) -> None:
        for at in self.places[number]:
            self.next[self.previous[at]] = self.next[at]
            self.previous[self.next[at]] = self.previous[at]

    def put_back(self, number: int) -> None:
        for at in reversed(self.places[number]):
            self.next[self.previous[at]] = at
            self.previous[self.next[at]] = at


def check(model: Model, history: Iterable[Operation], *, budget: int = BUDGET) -> Verdict:
    """Of one object; operations on independent ones are checked apart: `check_each`."""
    operations = sorted(history, key=lambda operation: (operation.call, operation.end))
    known = [operation for operation in operations if operation.known]
    unknown = [operation for operation in operations if not operation.known]
    every = known + unknown
    line = _Line(known)
    wanted = (1 << len(known)) - 1
    longest = 0

    def choices(bits: int, state: Hashable) -> Iterator[tuple[int, Hashable]]:
        numbers, until = line.first()
        for number in numbers:
            for after in model.step(state, known[number]):
                yield number, after
        tried = set()  # those that are the same but for the client need not be tried one by one
        for number in range(len(known), len(every)):
            operation = every[number]
            alike = (operation.name, operation.arguments)
            if operation.call > until or bits >> number & 1 or alike in tried:
                continue
            tried.add(alike)
            for after in model.step(state, operation):
                if after != state:
                    yield number, after

    path = [_Node(0, model.initial, -1, choices(0, model.initial))]
    seen: set[tuple[int, Hashable]] = {(0, model.initial)}
    verdict = Verdict(not known, 1, state=model.initial, stuck=[known[n] for n in line.first()[0]])
    while path and not verdict.ok:
        node = path[-1]
        for number, state in node.choices:
            bits = node.bits | 1 << number
            if (bits, state) in seen:
                continue
            seen.add((bits, state))
            if number < len(known):
                line.take(number)
            path.append(_Node(bits, state, number, choices(bits, state)))
            if (bits & wanted).bit_count() > longest:
                longest = (bits & wanted).bit_count()
                verdict.placed = [every[node.number] for node in path[1:]]
                verdict.stuck = [known[n] for n in line.first()[0]]
                verdict.state = state
            verdict.ok = bits & wanted == wanted
            break
        else:
            path.pop()
            if 0 <= node.number < len(known):
                line.put_back(node.number)
        if len(seen) > budget:
            verdict.given_up = True
            break
    verdict.looked = len(seen)
    return verdict


def check_each(
    model: Model, history: Iterable[Operation], key: Callable[[Operation], Hashable], *, budget: int = BUDGET
) -> dict[Hashable, Verdict]:
    """The verdicts on independent objects, by their key."""
    histories: dict[Hashable, list[Operation]] = {}
    for operation in history:
        histories.setdefault(key(operation), []).append(operation)
    return {name: check(model, operations, budget=budget) for name, operations in histories.items()}
