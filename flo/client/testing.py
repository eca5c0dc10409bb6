"""Running flows in tests: in this process, in virtual time, with mocks for what goes outside.

    def test_an_order_is_paid(flo_grid):                      # a fixture of flo.pytest_plugin
        flo_grid.mock("http.post", url="https://pay.example/*", returns={"status": 201, "json": {"id": 7}})
        run = flo_grid.run("order.flow::main", {"amount": 30})
        assert run.result() == 7
        assert flo_grid.calls("http.post")[0].input["json"] == {"amount": 30}

Nothing happens in the background: a flow goes on while the test asks for something, and time jumps to the
next timer when nothing else can happen. At every wait the evaluation is thrown away and replayed, so that
a flow that passes here survives a crash at any point. Flows mock too, by an action that does nothing
outside of tests but fail:

    fctx.actions.connector("test.mock", action = "http.get", match = {"url": "https://…"}, returns = {"status": 200})
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import msgspec

from flo.api.clock import FakeClock
from flo.api.errors import BadArgument
from flo.api.grid import FINAL, HistoryEntry, LogLine, RunView
from flo.api.jobs import Job
from flo.api.outcome import ERROR_KINDS
from flo.client.prepared import put_bundle
from flo.client.results import result_of
from flo.client.start import ScriptCache
from flo.client.values import duration_ms, json_text
from flo.connectors.testing import FakeHost, Reply, failure, value
from flo.grid.node import Node
from flo.worker.dialect import on_large_stack
from flo.worker.inline import InlineWorker
from flo.worker.modules import Modules

MOCK_KIND: Final = "test.mock"
JUMPS_MAX: Final = 100_000  # of the time, until a run that is waited for must have ended
USERNAME: Final = "tester"
_HTTP: Final = {"status": 200, "headers": {}, "body": "", "json": None}
_UNSET: Final = object()


class FlowStuck(AssertionError):
    """The run waits for something that nothing in the test will bring, or goes on for ever."""


class UnmockedAction(AssertionError):
    """A flow asked for something outside that no mock answers."""


class Call(NamedTuple):
    """An external action that a flow has asked for."""

    kind: str
    input: Any  # the action's parameters
    run: str
    sid: str
    attempt: int


class TestRun:
    """A run of a TestGrid."""

    __test__ = False  # to pytest this looks like a class of tests

    def __init__(self, grid: TestGrid, id: str) -> None:
        self._grid = grid
        self.id = id

    def result(self) -> Any:
        """Goes on to the run's end, in virtual time, and gives its value. Raises RunFailed, FlowStuck,
        UnmockedAction."""
        return result_of(self.wait())

    def wait(self) -> RunView:
        """Goes on to the run's end and gives everything about it, however it ended."""
        return self._grid._finish(self.id)

    @property
    def view(self) -> RunView:
        """Everything about the run as it is now, after all that can happen without time passing."""
        self._grid.settle()
        return self._grid.node.show(self.id)

    @property
    def status(self) -> str:
        return self.view.status

    @property
    def output(self) -> list[str]:
        """What was printed, one text per print."""
        return self.view.output

    @property
    def history(self) -> list[HistoryEntry]:
        self._grid.settle()
        return self._grid.node.history(self.id)

    @property
    def logs(self) -> list[LogLine]:
        """Prints, logs, progress and what the run has published."""
        self._grid.settle()
        return self._grid.node.logs(self.id)

    @property
    def waits_for(self) -> list[str]:
        """What the run waits for now, in words: `signal approve`, `sleep until 12:00:03` …"""
        return [waiting.on for waiting in self.view.waiting]

    def signal(self, type: str, payload: Any = None) -> None:
        self._grid.settle()
        self._grid.node.signal(self.id, type, json_text(payload, "payload"))

    def cancel(self, reason: str = "") -> None:
        self._grid.settle()
        self._grid.node.cancel(self.id, reason)


class TestGrid:
    """A grid of its own for one test: nothing in it outlives it, and nothing of it depends on the machine.

    `seed` decides what `uuid()` and `random()` give, `wall_ms` what `now()` begins with.
    """

    __test__ = False

    def __init__(
        self,
        *,
        seed: int = 0,
        wall_ms: int = 1_750_000_000_000,
        username: str = USERNAME,
        modules: Modules | None = None,
    ) -> None:
        self._scripts = ScriptCache()
        self._username = username
        self._mocks: list[_Mock] = []
        self._calls: list[Call] = []
        self._unmocked: list[Job] = []
        self._workers: list[InlineWorker] = []
        self._modules = modules or Modules()
        self._host = FakeHost(default=self._answer)
        self._host.on("process.wait", self._answer)
        self.clock = FakeClock(wall_ms)
        self.node = Node.open(
            "memory:",
            worker_factory=self._worker,
            host_factory=lambda: self._host,
            clock=self.clock,
            entropy=random.Random(seed).randbytes,
            threads=False,
            session="test",
        )

    def __enter__(self) -> TestGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mock(
        self,
        kind: str,
        *,
        returns: Any = _UNSET,
        fails: Any = None,
        times: int | None = None,
        delay: float | str = 0,
        **match: Any,
    ) -> None:
        """Answers external actions of this kind (`http.get`, `http.*`, `call`, `process.wait`, that of a plug-in).

        `match` names parameters of the action and what they must be: a value, a text with `*`, a compiled
        pattern, or a function of the value; of a mapping only the keys that are given. `returns` is the action's
        value, or a function of its parameters that gives it; for `http.*` some of status, headers, body, json.
        `fails` is an error kind, or a mapping with kind, message, retryable. `delay` is in virtual time.

        The first mock that fits answers, the next one after it has done so `times` times.
        """
        self._mocks.append(_Mock.checked(kind, match, returns, fails, times, delay))

    def run(
        self,
        script: str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        timeout: float | str | None = None,
    ) -> TestRun:
        """Starts "PATH::FLOW", or "PATH" for the module itself. Raises ScriptError, BadArgument, Conflict."""
        prepared = self._scripts.prepare(
            script, args, id=id, timeout_ms=0 if timeout is None else duration_ms(timeout), username=self._username
        )
        put_bundle(self.node, prepared)
        return TestRun(self, self.node.start(prepared.request).id)

    def calls(self, kind: str = "*") -> list[Call]:
        """The external actions that flows have asked for so far, in order; each attempt is one."""
        return [call for call in self._calls if fnmatchcase(call.kind, kind)]

    def settle(self) -> None:
        """Lets everything happen that can without time passing."""
        while True:
            self.node.pump()
            went_on = sum(on_large_stack(worker.drain) for worker in self._workers)
            self.node.pump()
            if self._unmocked:
                raise UnmockedAction("\n".join(map(self._told, self._unmocked)))
            if not went_on and not self._deliver():
                return

    def advance(self, duration: float | str) -> None:
        """Lets this much time pass, and everything happen that falls into it."""
        self.settle()
        left = duration_ms(duration, "duration")
        while (step := self._next_ms()) is not None and step <= left:
            left -= step
            self._jump(step)
            self.settle()
        self._jump(left)
        self.settle()

    def close(self) -> None:
        self.node.close()

    def _finish(self, id: str) -> RunView:
        for _ in range(JUMPS_MAX):
            self.settle()
            view = self.node.show(id)
            if view.status in FINAL or view.paused is not None:
                return view
            step = self._next_ms()
            if step is None:
                waits = ", ".join(f"{waiting.on} (in {waiting.flow})" for waiting in view.waiting) or "nothing"
                raise FlowStuck(f"run {id} waits for {waits}, and nothing is left that could happen")
            self._jump(step)
        raise FlowStuck(f"run {id} has not ended after {JUMPS_MAX} timers")

    def _next_ms(self) -> int | None:
        """Time until something is due, None when nothing ever will be."""
        steps = []
        if (due := self.node.next_due) is not None:
            steps.append(max(0, due - self.node.now()))
        if (host := self._host.next_due_ms()) is not None:
            steps.append(host)
        return min(steps, default=None)

    def _jump(self, ms: int) -> None:
        self.clock.advance(ms)
        self._host.advance(ms)
        self.node.tick()

    def _deliver(self) -> int:
        return self._host.deliver() if self._host.next_due_ms() == 0 else 0

    def _worker(self, core: Any) -> InlineWorker:
        worker = InlineWorker(core, modules=self._modules)
        self._workers.append(worker)
        return worker

    def _answer(self, job: Job) -> Any:
        """The plan for one job of a connector."""
        if job.kind == MOCK_KIND:
            return self._mock_by_flow(job)
        call = Call(job.kind, job.input, job.run, job.sid, job.attempt)
        self._calls.append(call)
        for mock in self._mocks:
            if mock.fits(call):
                return mock.reply(call)
        if job.kind == "process.wait":
            return {"exit_code": 0, "stdout": "", "stderr": "", "output": ""}
        self._unmocked.append(job)
        return failure("connector", "not mocked")

    def _told(self, job: Job) -> str:
        target = job.input.get("url", "") if isinstance(job.input, dict) else ""
        where = next((entry.where for entry in self.node.history(job.run) if entry.id == job.sid), "")
        return (
            f"{job.kind} {target}".strip() + " is not mocked" + (f", at {where}" if where else "")
            + f" (run {job.run}, action {job.sid}): {job.params[:500]}"
        )  # fmt: skip

    def _mock_by_flow(self, job: Job) -> Reply:
        try:
            given = dict(job.input)
            kind = given.pop("action", "")
            match = given.pop("match", {})
            wrong = given.keys() - {"returns", "fails", "times", "delay"}
            if not isinstance(kind, str) or not isinstance(match, dict) or not kind or wrong:
                raise BadArgument(
                    "test.mock takes action, match, returns, fails, times, delay"
                    + (f", and not {', '.join(sorted(wrong))}" if wrong else "")
                )
            answer = (given.get("returns", _UNSET), given.get("fails"), given.get("times"), given.get("delay", 0))
            self._mocks.append(_Mock.checked(kind, match, *answer))
        except BadArgument as error:
            return failure("bad_argument", error.message)
        return value(None)


class _Mock:
    def __init__(self, kind: str, match: Mapping[str, Any], answer: Callable[[Call], Reply], times: int | None) -> None:
        self._kind = kind
        self._match = match
        self._answer = answer
        self._left = times

    @classmethod
    def checked(
        cls, kind: str, match: Mapping[str, Any], returns: Any, fails: Any, times: Any, delay: float | str
    ) -> _Mock:
        """Raises BadArgument."""
        delay_ms = duration_ms(delay, "delay")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise BadArgument(f"times: a number from 1 on is wanted, not {times!r}")
        if (returns is _UNSET) == (fails is None):
            raise BadArgument(f"a mock of {kind} has either returns or fails")
        if fails is not None:
            error: dict[str, Any] = {"kind": fails} if isinstance(fails, str) else dict(fails)
            if error.get("kind") not in ERROR_KINDS:
                raise BadArgument(f"fails: {error.get('kind')!r} is none of {', '.join(sorted(ERROR_KINDS))}")
            message, retryable = error.get("message", "mocked"), bool(error.get("retryable", False))
            failed = failure(error["kind"], message, delay_ms=delay_ms, retryable=retryable)
            return cls(kind, match, lambda call: failed, times)
        if not callable(returns):
            _shaped(kind, returns)

        def answer(call: Call) -> Reply:
            return value(_shaped(call.kind, returns(call.input) if callable(returns) else returns), delay_ms=delay_ms)

        return cls(kind, match, answer, times)

    def fits(self, call: Call) -> bool:
        return (
            self._left != 0 and fnmatchcase(call.kind, self._kind)
            and (not self._match or (isinstance(call.input, dict) and _fits(self._match, call.input)))
        )  # fmt: skip

    def reply(self, call: Call) -> Reply:
        if self._left is not None:
            self._left -= 1
        return self._answer(call)


def _fits(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, dict) and all(key in found and _fits(wanted[key], found[key]) for key in wanted)
    if isinstance(wanted, re.Pattern):
        return isinstance(found, str) and wanted.search(found) is not None
    if isinstance(wanted, str) and isinstance(found, str) and "*" in wanted:
        return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), found, re.DOTALL) is not None
    if callable(wanted):
        return bool(wanted(found))
    return bool(wanted == found)


def _shaped(kind: str, returns: Any) -> Any:
    """An action's value as its connector would give it. Raises BadArgument."""
    if not kind.startswith("http."):
        return returns
    if not isinstance(returns, Mapping) or returns.keys() - _HTTP.keys():
        raise BadArgument(f"returns: for {kind} a mapping with some of {', '.join(_HTTP)} is wanted, not {returns!r}")
    shaped = {**_HTTP, **returns}
    if "json" in returns and "body" not in returns:
        shaped["body"] = msgspec.json.encode(returns["json"]).decode()
    elif "body" in returns and "json" not in returns:
        try:
            shaped["json"] = msgspec.json.decode(returns["body"])
        except (msgspec.DecodeError, TypeError):
            shaped["json"] = None
    return shaped
