"""The checker finds every order that there is and no other, and the models accept what the specification does."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.linearizability import NEVER, UNKNOWN, Model, Operation, check, check_each
from tests.faults.models import Counter, Group, Queue, Register


def op(client: str, call: int, end: int, name: str, *arguments: Any, to: Any = UNKNOWN) -> Operation:
    return Operation(client, name, arguments, to, call, NEVER if to is UNKNOWN else end)


def put(client: str, call: int, end: int, value: str, to: Any = UNKNOWN, condition: Any = None) -> Operation:
    return op(client, call, end, "put", value, condition, to=("ok", to) if isinstance(to, int) else to)


def get(client: str, call: int, end: int, *found: Any) -> Operation:
    return op(client, call, end, "get", to=found or None)


GOOD: dict[str, tuple[Model, list[Operation]]] = {
    "nothing": (Register(), []),
    "a read beside a write sees it": (Register(), [put("a", 0, 10, "x", 1), get("b", 5, 6, "x", 1)]),
    "a read beside a write does not see it": (Register(), [put("a", 0, 10, "x", 1), get("b", 5, 6)]),
    "writes take effect in another order than they were called": (
        Register(),
        [put("a", 0, 10, "x", 2), put("b", 1, 9, "y", 1), get("c", 11, 12, "x", 2)],
    ),
    "an unknown write is seen late": (
        Register(),
        [put("a", 0, 1, "x"), get("b", 5, 6), get("b", 7, 8, "x", 3), get("b", 9, 10, "x", 3)],
    ),
    "an unknown write never happens": (Register(), [put("a", 0, 1, "x"), get("b", 5, 6)]),
    "a compare-and-set on a version that only a read has told": (
        Register(),
        [put("a", 0, 1, "x"), get("b", 2, 3, "x", 5), put("b", 4, 5, "y", 6, condition=5)],
    ),
    "one of two compare-and-sets": (
        Register(),
        [put("a", 0, 1, "x", 1), put("a", 2, 9, "y", 2, condition=1), put("b", 2, 9, "z", ("conflict", 2), 1)],
    ),
    "delete, then missing": (
        Register(),
        [
            put("a", 0, 1, "x", 1),
            op("a", 2, 3, "delete", None, to=("ok", 2)),
            op("b", 4, 5, "delete", None, to=("missing",)),
            put("b", 6, 7, "y", 3, condition="nx"),
        ],
    ),
    "counting": (
        Counter(),
        [op("a", 0, 9, "incr", 1, to=(1, 1)), op("b", 0, 9, "incr", 2, to=(2, 3)), op("b", 10, 11, "get", to=3)],
    ),
    "an unknown increment in between": (
        Counter(),
        [op("a", 0, 9, "incr", 1), op("b", 0, 9, "incr", 2, to=(2, 2)), op("b", 10, 11, "incr", 1, to=(9, 4))],
    ),
    "messages by priority, then by seq": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 1), ("y", 0), ("z", 0)), to=(1, 2, 3)),
            op("a", 2, 3, "dequeue", 2, 100, to=((2, "y", 1, 1100), (3, "z", 1, 1100))),
            op("a", 4, 5, "dequeue", 2, 100, to=((1, "x", 1, 1101),)),
            op("a", 6, 7, "ack", (1, 2), to=(2, ())),
            op("a", 6, 7, "ack", (1,), to=(0, (1,))),
            op("a", 8, 9, "nack", (3,), to=(1, ())),
            op("a", 10, 11, "dequeue", 1, 100, to=((3, "z", 2, 1105),)),
        ],
    ),
    "a lease that is over": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)),
            op("a", 2, 3, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("b", 4, 5, "dequeue", 1, 100, to=()),
            op("b", 6, 7, "dequeue", 1, 100, to=((1, "x", 2, 1200),)),
        ],
    ),
    "an unknown dequeue that took a message, whose lease then ends": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)),
            op("a", 2, 3, "dequeue", 1, 100),
            op("b", 4, 5, "dequeue", 1, 100, to=()),
            op("b", 6, 7, "dequeue", 1, 100, to=((1, "x", 2, 300),)),
        ],
    ),
    "an unknown batch, seen in part and then in whole": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0), ("y", 0))),
            op("b", 2, 3, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("b", 4, 5, "dequeue", 1, 100, to=((2, "y", 1, 1100),)),
        ],
    ),
    "the fifth delivery is the last": (
        Queue(max_attempts=1),
        [
            op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)),
            op("a", 2, 3, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("a", 4, 5, "nack", (1,), to=(1, ())),
            op("a", 6, 7, "dequeue", 1, 100, to=()),
            op("a", 8, 9, "ack", (1,), to=(0, (1,))),
        ],
    ),
    "a group": (
        Group(),
        [
            op("a", 0, 1, "append", ("x", "y", "z"), to=0),
            op("b", 2, 3, "read", 2, to=(("x", 1), ("y", 1))),
            op("b", 4, 5, "nack", ("y",), to=1),
            op("c", 6, 7, "read", 5, to=(("y", 2), ("z", 1))),
            op("c", 8, 9, "ack", ("x", "y"), to=2),
            op("c", 8, 9, "ack", ("x",), to=0),
        ],
    ),
}

BAD: dict[str, tuple[Model, list[Operation]]] = {
    "a read of what nobody wrote": (Register(), [put("a", 0, 1, "x", 1), get("b", 2, 3, "y", 1)]),
    "a lost write": (Register(), [put("a", 0, 1, "x", 1), get("b", 2, 3)]),
    "a lost write among unknown ones": (Register(), [put("a", 0, 1, "x", 1), put("c", 0, 1, "y"), get("b", 2, 3)]),
    "a stale read": (Register(), [put("a", 0, 1, "x", 1), put("a", 2, 3, "y", 2), get("b", 4, 5, "x", 1)]),
    "two readers that disagree on the order": (
        Register(),
        [
            put("a", 0, 99, "x", 1),
            put("b", 0, 99, "y", 2),
            get("c", 1, 2, "y", 2),
            get("c", 3, 4, "x", 1),
        ],
    ),
    "an unknown write that is taken back": (
        Register(),
        [put("a", 0, 1, "x"), get("b", 5, 6, "x", 3), get("b", 7, 8)],
    ),
    "a version that repeats": (Register(), [put("a", 0, 1, "x", 1), put("a", 2, 3, "y", 1)]),
    "a version that goes back": (Register(), [put("a", 0, 1, "x", 7), put("a", 2, 3, "y", 6)]),
    "two compare-and-sets on one version": (
        Register(),
        [put("a", 0, 1, "x", 1), put("a", 2, 9, "y", 2, condition=1), put("b", 2, 9, "z", 3, condition=1)],
    ),
    "a lost delete": (
        Register(),
        [put("a", 0, 1, "x", 1), op("a", 2, 3, "delete", None, to=("ok", 2)), get("b", 4, 5, "x", 1)],
    ),
    "a lost increment": (
        Counter(),
        [op("a", 0, 9, "incr", 1, to=(1, 1)), op("b", 0, 9, "incr", 1, to=(2, 1))],
    ),
    "an increment that nobody made": (Counter(), [op("a", 0, 1, "incr", 1, to=(1, 2))]),
    "an unknown increment that happened twice": (
        Counter(),
        [op("a", 0, 1, "incr", 1), op("b", 2, 3, "get", to=1), op("b", 4, 5, "get", to=2)],
    ),
    "a message that two have": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)),
            op("a", 2, 9, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("b", 2, 9, "dequeue", 1, 100, to=((1, "x", 2, 1101),)),
        ],
    ),
    "a message that comes after its ack": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)),
            op("a", 2, 3, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("a", 4, 5, "ack", (1,), to=(1, ())),
            op("a", 6, 7, "dequeue", 1, 100, to=((1, "x", 2, 1400),)),
        ],
    ),
    "a seq that repeats": (
        Queue(),
        [op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)), op("a", 2, 3, "enqueue", (("y", 0),), to=(1,))],
    ),
    "half a batch": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0), ("y", 0))),
            op("b", 2, 3, "dequeue", 2, 100, to=((1, "x", 1, 1100),)),
        ],
    ),
    "a lost message": (
        Queue(),
        [op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)), op("a", 2, 3, "dequeue", 1, 100, to=())],
    ),
    "a lease that ended before its deadline": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0),), to=(1,)),
            op("a", 2, 3, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("b", 4, 5, "dequeue", 1, 100, to=((1, "x", 2, 1199),)),
        ],
    ),
    "time that goes back": (
        Queue(),
        [
            op("a", 0, 1, "enqueue", (("x", 0), ("y", 0)), to=(1, 2)),
            op("a", 2, 3, "dequeue", 1, 100, to=((1, "x", 1, 1100),)),
            op("a", 4, 5, "dequeue", 1, 100, to=((2, "y", 1, 1099),)),
        ],
    ),
    "a record that two have": (
        Group(),
        [
            op("a", 0, 1, "append", ("x",), to=0),
            op("b", 2, 9, "read", 1, to=(("x", 1),)),
            op("c", 2, 9, "read", 1, to=(("x", 1),)),
        ],
    ),
    "a record that comes after its ack": (
        Group(),
        [
            op("a", 0, 1, "append", ("x",), to=0),
            op("b", 2, 3, "read", 1, to=(("x", 1),)),
            op("b", 4, 5, "ack", ("x",), to=1),
            op("c", 6, 7, "read", 1, to=(("x", 2),)),
        ],
    ),
    "a record that is passed over": (
        Group(),
        [op("a", 0, 1, "append", ("x", "y"), to=0), op("b", 2, 3, "read", 1, to=(("y", 1),))],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_it_accepts(name: str):
    model, history = GOOD[name]
    verdict = check(model, history)

    assert verdict.ok, verdict


@pytest.mark.parametrize("name", BAD)
def test_it_refuses(name: str):
    model, history = BAD[name]
    verdict = check(model, history)

    assert not verdict.ok and not verdict.given_up
    assert "none of these can follow" in str(verdict)


def test_independent_objects_are_checked_apart():
    history = [put("a", 0, 1, "x", 1), put("b", 2, 3, "y", 2), get("b", 4, 5, "x", 1)]
    key = dict(zip(map(id, history), "one other one".split(), strict=True))

    verdicts = check_each(Register(), history, lambda operation: key[id(operation)])

    assert {name: verdict.ok for name, verdict in verdicts.items()} == {"one": True, "other": True}


def test_a_search_without_end_is_given_up_and_says_so():
    history = [op(f"c{n}", 0, 99, "incr", 1 << n, to=(n + 1, 0)) for n in range(3)]
    history += [op(f"u{n}", 0, 99, "incr", 8 << n) for n in range(14)]

    verdict = check(Counter(), [*history, op("z", 100, 101, "get", to=-1)], budget=1_000)

    assert verdict.given_up and not verdict.ok and "given up" in str(verdict)


# Histories of a simulated register


def simulated(seed: int, size: int = 40, clients: int = 4) -> list[Operation]:
    """What clients of a real register might see: each operation takes effect somewhere between its call and its end,
    unless its answer is lost: then perhaps, and perhaps long afterwards."""
    rng = random.Random(seed)
    moments: list[tuple[float, str, int, str, int, int]] = []
    for client in range(clients):
        time = 0.0
        for number in range(size // clients):
            call = time + rng.random()
            end = call + rng.expovariate(1.0)
            time = end + rng.random() / 10
            lost = rng.random() < 0.15
            acts = rng.uniform(call, end + 5 * rng.random()) if lost else rng.uniform(call, end)
            name = rng.choice(["put", "put", "get", "get", "delete", "cas"])
            if lost and rng.random() < 0.5:
                acts = float("inf")
            moments.append(
                (acts, name, client, f"{client}.{number}", int(call * 1e6), NEVER if lost else int(end * 1e6))
            )
    value: str | None = None
    version = count = 0
    history = []
    for acts, name, client, text, call, end in sorted(moments):
        arguments: tuple[Any, ...] = ()
        result: Any = None
        happens = acts != float("inf")
        if name == "get":
            result = None if value is None else (value, version)
        elif name == "delete":
            arguments = (None,)
            if value is None:
                result = ("missing",)
            elif happens:
                count += rng.randrange(1, 3)
                value, version, result = None, 0, ("ok", count)
        else:
            condition = rng.choice([version, version + 1]) if name == "cas" else None
            arguments, name = (text, condition), "put"
            if condition is not None and (value is None or condition != version):
                result = ("conflict", version)
            elif happens:
                count += rng.randrange(1, 3)
                value, version = text, count
                result = ("ok", count)
        if end == NEVER:
            result = UNKNOWN
        history.append(Operation(f"c{client}", name, arguments, result, call, end))
    return history


@given(st.integers(0, 1 << 30))
@settings(max_examples=150, deadline=None)
def test_what_a_register_did_is_accepted(seed: int):
    verdict = check(Register(), simulated(seed))

    assert verdict.ok, verdict


@given(st.integers(0, 1 << 30), st.sampled_from(["swapped", "lost", "stale", "invented"]))
@settings(max_examples=150, deadline=None)
def test_what_no_register_did_is_refused(seed: int, how: str):
    history = simulated(seed)
    broken = mutated(history, how, random.Random(seed))

    if broken is not None:
        verdict = check(Register(), broken)
        assert not verdict.ok and not verdict.given_up


def mutated(history: list[Operation], how: str, rng: random.Random) -> list[Operation] | None:
    """The history with something in it that cannot have been; None when there is no place for it."""
    puts = [o for o in history if o.name == "put" and o.known and o.result[0] == "ok"]
    reads = [o for o in history if o.name == "get" and o.known]
    if how == "swapped":  # the versions of two writes one after the other
        pairs = [(a, b) for a in puts for b in puts if a.end < b.call]
        if not pairs:
            return None
        one, other = rng.choice(pairs)
        return [
            replace(o, result=other.result) if o is one else replace(o, result=one.result) if o is other else o
            for o in history
        ]
    if how == "lost":  # a write that somebody has read
        read = [o for o in puts if any(r.result is not None and r.result[0] == o.arguments[0] for r in reads)]
        if not read:
            return None
        gone = rng.choice(read)
        return [o for o in history if o is not gone]
    if how == "stale":  # after everything, what an overwritten one wrote
        pairs = [(a, b) for a in puts for b in puts if a.end < b.call]
        if not pairs:
            return None
        old, _ = rng.choice(pairs)
        last = max(o.call if o.end == NEVER else o.end for o in history)
        return [*history, get("late", last + 1, last + 2, old.arguments[0], old.result[1])]
    if not reads:
        return None
    one = rng.choice(reads)
    return [replace(o, result=("invented", 1)) if o is one else o for o in history]


# All small histories, against all orders


SMALL = st.lists(
    st.tuples(
        st.sampled_from(["put", "get"]), st.sampled_from(["x", "y"]), st.integers(1, 3), st.integers(0, 6),
        st.integers(0, 4), st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@given(SMALL)
@settings(max_examples=400, deadline=None)
def test_it_agrees_with_trying_all_orders(drawn: list[tuple[str, str, int, int, int, bool]]):
    history = []
    for number, (name, value, version, call, length, lost) in enumerate(drawn):
        call, end = 10 * call, 10 * (call + length) + 5
        if name == "put":
            history.append(put(f"c{number}", call, end, value, UNKNOWN if lost else version))
        elif not lost:
            history.append(get(f"c{number}", call, end, value, version))

    assert check(Register(), history).ok == brute_force(Register(), history)


def brute_force(model: Model, history: list[Operation]) -> bool:
    known = [o for o in history if o.known]
    unknown = [o for o in history if not o.known]
    for chosen in range(1 << len(unknown)):
        operations = known + [o for n, o in enumerate(unknown) if chosen >> n & 1]
        for order in permutations(operations):
            if any(later.end < o.call for n, o in enumerate(order) for later in order[n + 1 :]):
                continue
            states = {model.initial}
            for operation in order:
                states = {after for state in states for after in model.step(state, operation)}
            if states:
                return True
    return False
