"""A run that acts on keys, queues and streams, beside clients of the same node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flo.api.outcome import is_ok, value
from flo.api.worker import Lease
from flo.grid.store import Store
from flo.primitives.run_state import Record
from tests.grid.manual import Bench

NS = "default"

T = TypeVar("T")


class Failed(Exception):
    """An action that was refused; `args` are the error's kind and message."""


class ActingRun:
    """Numbers the actions of one run as a worker would."""

    def __init__(self, bench: Bench, id: str = "r", lease: Lease | None = None) -> None:
        self.bench = bench
        self.id = id
        self.lease = lease or bench.start(id)
        history = self.lease.history["0"]
        self.n = max([0, *history.records, *history.open])

    def outcome(self, kind: str, *, begin: bool = False, **params: Any) -> str | None:
        """The outcome, None while the action waits."""
        self.n += 1
        return self.bench.act(self.lease, self.n, kind, params, handle=begin)

    def do(self, kind: str, **params: Any) -> Any:
        """The value of an action that is answered at once. Raises Failed."""
        outcome = self.outcome(kind, **params)
        assert outcome is not None, f"{kind} waits"
        return value_of(outcome)

    def waits(self, kind: str, **params: Any) -> int:
        """The number of an action that waits."""
        assert self.outcome(kind, **params) is None
        return self.n

    def begins(self, kind: str, **params: Any) -> int:
        """The number of an action that is begun with a handle."""
        self.outcome(kind, begin=True, **params)
        return self.n

    def answer(self, n: int) -> Any:
        """The value of an action that has waited. Raises Failed, and KeyError while it waits."""
        return value_of(self.record(n).outcome)

    def record(self, n: int) -> Record:
        """As the log has it, wherever this run's lease went."""
        return {record.n: record for record in self.bench.machines.runs.runs[self.id].root.records()}[n]


def value_of(outcome: str) -> Any:
    found = value(outcome)
    if not is_ok(outcome):
        raise Failed(found["kind"], found["message"])
    return found


def batch(bench: Bench, work: Callable[[Store], T]) -> T:
    """What a client does in one batch."""
    store = bench.node.store
    with store.lock:
        store.begin()
        try:
            done = work(store)
        finally:
            store.end()
    store.after()
    return done
