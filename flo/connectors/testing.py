"""The kit for tests: hosts and cores that do as they are told, checks for connectors, a recording HTTP server.

    def test_shout():
        check_connector(Shout(), {"shout.echo": {"text": "a"}})

`FakeHost` stands in for every connector in simulations and in `flo test`: outcomes are planned by kind,
time is virtual, and nothing happens but when the caller says so.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from flo.api import outcome as outcomes
from flo.api.clock import SystemClock
from flo.api.errors import FloError
from flo.api.jobs import Job, JobCore
from flo.api.outcome import ERROR_KINDS, Outcome
from flo.connectors._recording_server import Answer, Recorded, RecordingServer
from flo.connectors._values import encode_value
from flo.connectors.contract import Connector, ConnectorContext, ConnectorError
from flo.connectors.secrets import SecretStore

__all__ = [
    "Answer",
    "FakeCore",
    "FakeHost",
    "Recorded",
    "RecordingServer",
    "Reply",
    "check_connector",
    "failure",
    "job",
    "never",
    "value",
]

WAIT_MS = 30_000


class Reply:
    """How one job ends: with an outcome after a virtual delay, or never (None)."""

    __slots__ = ("outcome", "delay_ms")

    def __init__(self, outcome: Outcome | None, delay_ms: int = 0) -> None:
        self.outcome = outcome
        self.delay_ms = delay_ms


Plan: TypeAlias = Any  # a Reply, a callable that takes the job and returns a Plan, or a plain value


def value(value: Any, *, delay_ms: int = 0) -> Reply:
    return Reply("+" + encode_value(value), delay_ms)


def failure(kind: str, message: str = "planned", *, delay_ms: int = 0, retryable: bool = False) -> Reply:
    return Reply(outcomes.error(kind, message, retryable=retryable), delay_ms)


def never() -> Reply:
    """The job is begun and does not end: what a hanging server looks like."""
    return Reply(None)


def job(kind: str, input: Any = None, *, run: str = "run", sid: str = "0.1", attempt: int = 1) -> Job:
    """A job made by hand."""
    params = msgspec.json.encode({} if input is None else input, order="sorted").decode()
    return Job(run=run, sid=sid, attempt=attempt, kind=kind, params=params, node="node")


class FakeHost:
    """A deterministic ConnectorHost, with no thread and no I/O.

    1. `on(kind, …)` plans replies; the last one of a kind stays. Resources of every kind are played already.
    2. The core submits; jobs are begun at once and recorded in `begun`.
    3. `advance(ms)` moves the virtual time; `deliver()` answers what is due, in one batch. Nothing is answered
       inside `submit`.
    4. `crash()` plays the death of the process: what was begun and not answered is lost. The host goes on for the
       next incarnation (`attach`) and asserts over all of them that nothing is begun twice.
    """

    def __init__(self, plans: Mapping[str, Plan] | None = None, *, slots: int = 64, default: Plan = None) -> None:
        self._plans: dict[str, list[Plan]] = {
            "resource.open": [_fake_resource],
            "resource.close": [value(None)],
            "process.wait": [value({"exit_code": 0, "stdout": "", "stderr": "", "output": ""})],
        }
        for kind, plan in (plans or {}).items():
            self.on(kind, plan)
        self._default = default  # for kinds without a plan; None: nobody serves them
        self._slots = slots
        self._core: JobCore | None = None
        self._pending: list[tuple[int, int, Job, Outcome | None]] = []  # due, order, job, outcome
        self._keys: set[tuple[str, str, int]] = set()
        self.now_ms = 0
        self.begun: list[Job] = []
        self.cancelled: list[Job] = []
        self.open_resources: dict[str, int] = {}  # mark to generation, as delivered

    def on(self, kind: str, *plans: Plan) -> None:
        assert plans, "at least one reply"
        self._plans[kind] = list(plans)

    # -- the contract

    def attach(self, core: JobCore) -> None:
        self._core = core

    def slots(self, kind: str) -> int:
        return self._slots if kind in self._plans or self._default is not None else 0

    def submit(self, jobs: Sequence[Job]) -> None:
        assert self._core is not None, "submit before attach"
        for one in jobs:
            key = (one.run, one.sid, one.attempt)
            assert key not in self._keys, f"begun twice: {one.kind} {one.key}, attempt {one.attempt}"
            self._keys.add(key)
            self.begun.append(one)
            reply = self._reply(one)
            self._pending.append((self.now_ms + reply.delay_ms, len(self.begun), one, reply.outcome))
            having = sum(1 for *_, other, _ in self._pending if other.kind == one.kind)
            assert having <= self._slots, f"{having} jobs of {one.kind} at once, and {self._slots} slots"

    def cancel(self, jobs: Sequence[Job]) -> None:
        self.cancelled.extend(jobs)
        keys = {(one.run, one.sid, one.attempt) for one in jobs}
        for at, (_, order, one, _) in enumerate(self._pending):
            if (one.run, one.sid, one.attempt) in keys and not one.kind.startswith("resource."):
                self._pending[at] = (self.now_ms, order, one, outcomes.error("cancelled", f"{one.kind} was cancelled"))

    def stop(self, timeout_ms: int) -> list[Job]:
        """Lets the virtual time pass, delivers what ends in it, and answers the rest as `interrupted`."""
        self.advance(timeout_ms)
        self.deliver()
        interrupted = outcomes.error("interrupted", "not done when its node stopped")
        self._pending = [(self.now_ms, order, one, interrupted) for _, order, one, _ in self._pending]
        self.deliver()
        self._core = None
        return []

    # -- the caller's side

    def advance(self, ms: int) -> None:
        assert ms >= 0
        self.now_ms += ms

    def next_due_ms(self) -> int | None:
        """Virtual ms until a job ends, 0 when `deliver` has something to do now, None when none will."""
        due = [at for at, _, _, outcome in self._pending if outcome is not None]
        return max(0, min(due) - self.now_ms) if due else None

    def deliver(self) -> int:
        """Answers what is due, in the order in which it ended. Returns how many. Keeps what the core refuses."""
        assert self._core is not None, "deliver before attach"
        due = sorted(
            (entry for entry in self._pending if entry[3] is not None and entry[0] <= self.now_ms),
            key=lambda entry: entry[:2],
        )
        if not due:
            return 0
        batch = [(one, outcome) for _, _, one, outcome in due if outcome is not None]
        try:
            self._core.answer(batch)
        except FloError:
            return 0
        done = {order for _, order, _, _ in due}
        self._pending = [entry for entry in self._pending if entry[1] not in done]
        for one, outcome in batch:
            self._note_resource(one, outcome)
        return len(batch)

    def crash(self) -> None:
        self._pending.clear()
        self._core = None

    def pending(self) -> list[Job]:
        """Begun and not answered."""
        return [one for _, _, one, _ in self._pending]

    def _reply(self, one: Job) -> Reply:
        plans = self._plans.get(one.kind)
        if plans is None:
            assert self._default is not None, f"no reply is planned for {one.kind}"
            plan = self._default
        else:
            plan = plans.pop(0) if len(plans) > 1 else plans[0]
        try:
            while callable(plan):
                plan = plan(one)
        except ConnectorError as bad:
            error = outcomes.error(bad.kind, bad.message, retryable=bad.retryable, details=bad.details)
            return Reply(error)
        return plan if isinstance(plan, Reply) else value(plan)

    def _note_resource(self, one: Job, outcome: Outcome) -> None:
        if one.kind == "resource.open" and outcomes.is_ok(outcome):
            self.open_resources[one.input["mark"]] = one.input["generation"]
        elif one.kind == "resource.close" and outcomes.is_ok(outcome):
            self.open_resources.pop(one.input["mark"], None)


def _fake_resource(one: Job) -> Any:
    opening = one.input
    return {"path": f"/fake/{opening['mark']}"} if opening["kind"] == "tempdir" else {"name": opening["name"]}


class FakeCore:
    """A JobCore that keeps what it is told, for tests of a host. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.batches: list[list[tuple[Job, Outcome]]] = []
        self.refuse: Callable[[], None] | None = None  # called before each batch; what it raises refuses the batch

    def answer(self, results: Sequence[tuple[Job, Outcome]]) -> None:
        if self.refuse is not None:
            self.refuse()
        with self._changed:
            self.batches.append(list(results))
            self._changed.notify_all()

    @property
    def answered(self) -> list[tuple[Job, Outcome]]:
        with self._changed:
            return [result for batch in self.batches for result in batch]

    def wait(self, count: int = 1) -> list[tuple[Job, Outcome]]:
        """Waits for so many answers and returns all of them."""
        with self._changed:
            there = self._changed.wait_for(lambda: sum(map(len, self.batches)) >= count, WAIT_MS / 1_000)
        assert there, f"{len(self.answered)} answers within {WAIT_MS} ms, not {count}"
        return self.answered

    def outcome(self, one: Job) -> Outcome:
        """Waits for the outcome of this job."""
        with self._changed:
            there = self._changed.wait_for(lambda: self._find(one) is not None, WAIT_MS / 1_000)
            found = self._find(one)
        assert there and found is not None, f"{one.kind} {one.key} was not answered within {WAIT_MS} ms"
        return found

    def _find(self, one: Job) -> Outcome | None:
        for batch in self.batches:
            for answered, outcome in batch:
                if (answered.run, answered.sid, answered.attempt) == (one.run, one.sid, one.attempt):
                    return outcome
        return None


def check_connector(
    connector: Connector, inputs: Mapping[str, Any] | None = None, *, secrets: Mapping[str, str] | None = None
) -> dict[str, Outcome]:
    """Checks that a connector keeps its contract, and performs one job of each kind in `inputs` (kind to input).
    Returns the outcomes by kind. Raises AssertionError with everything that is wrong."""
    problems = _declared_wrong(connector)
    done: dict[str, Outcome] = {}
    if not problems:
        problems += [f"{kind} is not one of its kinds" for kind in inputs or {} if kind not in connector.kinds]
    if not problems:
        asyncio.run(_perform_all(connector, inputs or {}, secrets or {}, done, problems))
    assert not problems, f"{type(connector).__name__}:\n" + "\n".join(f"- {problem}" for problem in problems)
    return done


def _declared_wrong(connector: Any) -> list[str]:
    problems: list[str] = []
    kinds = getattr(connector, "kinds", ())
    if isinstance(kinds, str) or not kinds or not all(isinstance(kind, str) and kind for kind in kinds):
        problems.append("`kinds` must be a tuple of texts such as ('shout.echo',)")
    elif any("." not in kind for kind in kinds):
        problems.append("a kind is a group and a name with a dot between, such as shout.echo")
    slots = getattr(connector, "slots", 1)
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        problems.append(f"`slots` must be a positive number, not {slots!r}")
    for name in ("perform", "open", "close"):
        method = getattr(connector, name, None)
        if method is None and name != "perform":
            continue
        if not inspect.iscoroutinefunction(method):
            problems.append(f"`{name}` must be a coroutine function (async def)")
    return problems


async def _perform_all(
    connector: Any, inputs: Mapping[str, Any], secrets: Mapping[str, str], done: dict[str, Outcome], problems: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SecretStore(environ={f"FLO_SECRET_{name}": text for name, text in secrets.items()},
                            directory=Path(folder, "secrets"))  # fmt: skip
        context = ConnectorContext(clock=SystemClock(), secrets=store, directory=Path(folder, "files"))
        if hasattr(connector, "open"):
            await connector.open(context)
        for number, (kind, given) in enumerate(inputs.items(), 1):
            one = job(kind, given, sid=f"0.{number}")
            try:
                done[kind] = "+" + encode_value(await connector.perform(one))
            except ConnectorError as bad:
                done[kind] = outcomes.error(bad.kind, bad.message, retryable=bad.retryable)
                if bad.kind not in ERROR_KINDS or not bad.message:
                    problems.append(f"{kind}: an error needs a known kind and a message, not {bad.kind!r}")
            except Exception as bad:  # noqa: BLE001 - a report of everything that is wrong is what was asked for
                problems.append(f"{kind}: raised {type(bad).__name__} instead of ConnectorError: {bad}")
            if kind in done and store.mask_outcome(done[kind]) != done[kind]:
                problems.append(f"{kind}: a secret stands in the outcome")
        if hasattr(connector, "close"):
            await connector.close()
