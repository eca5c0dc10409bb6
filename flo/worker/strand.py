"""The evaluation of one lease: replay where the log has an answer, an action where it has none.

A strand is evaluated from its beginning each time. It answers the prelude's crossings (flo.worker.host) on
the thread that evaluates it. Flows that it calls directly are evaluated inside it, each as a task with
numbers of its own.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from starlark import StarlarkError

from flo.api.errors import ScriptError
from flo.api.ids import base_of, split_sid, task_prefix
from flo.api.limits import CALL_DEPTH, NESTED_FLOWS
from flo.api.outcome import Outcome, error, is_ok
from flo.api.outcome import value as value_of
from flo.api.worker import Lease, OpenAction, Record, Revoked, RunCore, TaskHistory, recorded_params
from flo.worker.budget import Budget
from flo.worker.bundle import Bundle
from flo.worker.errors import explain, place
from flo.worker.host import HostError, entered, options
from flo.worker.modules import TOKEN, Flow, Keys, Loaded, LoadFailed, Modules
from flo.worker.values import crossing, decode, encode, is_simple

FRAMES = 5_000  # of all flows that call each other directly; 16 MiB of stack take 40,000 (design.md §6.1)
FRAMES_LEFT = 50  # what a directly called flow must find at least

_RECURSION = 4_000

_FRAME = "\n  * "


class End(enum.Enum):
    """How an evaluation left."""

    OVER = "over"  # finished, paused or continued: the core has been told
    LEFT = "left"  # revoked or evicted: the lease is to be released


class _Unwinding(enum.Enum):
    REVOKED = "revoked"
    EVICTED = "evicted"
    OVER = "over"
    CONTINUED = "continued"  # an inline task begins its next generation
    BROKEN = "broken"


class Waiter(Protocol):
    """What the pool does for a strand."""

    def wait(self, strand: Strand) -> bool:
        """Waits until the strand is woken; False evicts it."""
        ...

    def passes(self, strand: Strand) -> bool:
        """Called now and then during an evaluation, to let others go first; False evicts it."""
        ...


class _Left(Exception):
    """The evaluation was unwound; `Strand._unwinding` says why."""


class _Task:
    """One task of the strand: its counters and what the log holds of it."""

    __slots__ = (
        "prefix", "id", "flow", "args", "info", "n", "k", "records", "open", "outputs", "finished", "describing",
        "resources",
    )  # fmt: skip

    def __init__(self, prefix: str, id: str, flow: Flow | None, args: str, info: str, history: TaskHistory) -> None:
        self.prefix = prefix
        self.id = id
        self.flow = flow  # None for the module as root flow
        self.args = args
        self.info = info
        self.n = 0
        self.k = 0
        self.records = history.records
        self.open = history.open
        self.outputs = history.outputs
        self.finished: dict[int, Outcome] = {}  # of handles whose action was done at once
        self.describing = False
        self.resources = "null"


class Strand:
    """Evaluates one lease, once; also the context of its thread (flo.worker.host.Context)."""

    def __init__(
        self, lease: Lease, core: RunCore, modules: Modules, waiter: Waiter, budget: Budget | None = None
    ) -> None:
        self.lease = lease
        self.budget = budget or Budget()
        self.thread: Any = None  # the pool's own
        self.woken = False  # the pool's own
        self._core = core
        self._modules = modules
        self._waiter = waiter
        self._act = core.act
        self._loaded: Loaded
        self._sources: Mapping[str, str] = {}
        self._task: _Task
        self._depth = 0
        self._frames = 0
        self._exceeded = ""  # which budget is used up
        self._unwinding: _Unwinding | None = None
        self._broken: BaseException | None = None
        self._continuing: tuple[_Task, str] | None = None
        self._failure: dict[str, Any] | None = None
        self._constant = ""  # what all tasks show alike
        self._keys: Keys | None = None  # while the entry module is evaluated as root flow

    @property
    def actions(self) -> int:
        """How many actions of the log an evaluation from the beginning would meet now."""
        return sum(len(history.records) for history in self.lease.history.values())

    def evaluate(self) -> End:
        """Evaluates to the end, or until it is unwound. Raises what no script can be blamed for."""
        lease = self.lease
        if not lease.alive:
            return End.LEFT
        try:
            with entered(self):
                try:
                    outcome = self._body()
                    self._all_reached(self._task)
                    self._core.finish(lease, outcome)
                except Revoked:
                    self._unwinding = _Unwinding.REVOKED
                    raise _Left from None
        except (_Left, HostError):
            if self._unwinding is _Unwinding.BROKEN:
                assert self._broken is not None
                raise self._broken from None
            return End.OVER if self._unwinding is _Unwinding.OVER else End.LEFT
        return End.OVER

    def _body(self) -> Outcome:
        lease = self.lease
        history = lease.history.setdefault(lease.task, TaskHistory())
        self._task = _Task(lease.task, lease.info.id, None, lease.args, "", history)
        try:
            loaded = self._loaded = self._modules.get(lease.bundle, self._read_bundle, self.tick)
        except LoadFailed as failed:
            if self._unwinding is not None:
                raise _Left from None
            return self._explained(failed, failed.kind, failed.message)
        except ScriptError as wrong:
            return error("failed", str(wrong), where=wrong.where or None)
        self._sources = loaded.sources
        self._task.info = self._info(lease.info.id, lease.info.name, lease.info.parent, lease.info.outcome)
        if "::" not in lease.flow:
            self._keys = Keys(loaded.entry)
            return self._guarded(self._root)
        flow = self._task.flow = loaded.by_symbol.get(lease.flow)
        if flow is None:
            if loaded.error is not None:
                return self._explained(loaded.error, loaded.error.kind, loaded.error.message)
            return error("not_found", f"the bundle has no flow {lease.flow}")
        return self._evaluate(flow, "exit" if lease.phase == "exit" else "body", self._task, CALL_DEPTH)

    def _root(self) -> Outcome:
        self._loaded.evaluate_entry()
        return "+null"

    def _read_bundle(self, digest: bytes) -> Bundle:
        bundle = Bundle.from_bytes(self._core.load_bundle(digest), digest=digest)
        self._sources = bundle.scripts
        return bundle

    # -- evaluating a flow

    def _evaluate(self, flow: Flow, part: str, task: _Task, call_depth: int) -> Outcome:
        args = task.args if is_simple(task.args) else decode(task.args)

        def call() -> Outcome:
            found: Any = flow.module.call_with(options(call_depth), flow.export, TOKEN, part, self._shown(task), args)
            return str(found.value)

        return self._guarded(call)

    def _guarded(self, call: Callable[[], Outcome]) -> Outcome:
        """The outcome of an evaluation, its failure included. Raises _Left when it was unwound."""
        try:
            return str(call())
        except StarlarkError as failed:
            if self._unwinding is not None:
                raise _Left from None
            return self._explained(failed, "", "")
        except _Left:
            raise
        except BaseException as panic:
            # The interpreter's panics (out of memory, mostly) are no Exceptions, and end only this evaluation.
            if type(panic).__name__ != "PanicException":
                raise
            return error("quota_exceeded", f"the interpreter gave up: {panic}")

    def _explained(self, failed: Exception, kind: str, message: str) -> Outcome:
        failure, self._failure = self._failure, None
        if failure is None and kind:
            failure = {"kind": kind, "message": message}
        if self._exceeded:
            failure = {"kind": "quota_exceeded", "message": self._exceeded}
        return explain(str(failed), failure, self._sources)

    def _info(self, id: str, name: str, parent: str | None, outcome: Outcome | None) -> str:
        """What `fctx` shows of a task, without its resources: a JSON object but for its last brace."""
        info = self.lease.info
        if not self._constant:
            quota = {"username": info.username, "path": info.quota_path, "limits": info.limits}
            self._constant = f'"quota":{encode(quota)},"secrets":{encode(self._loaded.secrets)}'
        run = {"id": id, "name": name, "parent": parent, "attempt": info.attempt, "started_at": info.started_at}
        return f'{{"run":{encode(run)},"outcome":{encode(outcome)},{self._constant}'

    @staticmethod
    def _shown(task: _Task) -> str:
        return f'{task.info},"resources":{task.resources}}}'

    # -- crossings

    def act(self, text: str) -> str:
        task = self._task
        n = task.n = task.n + 1
        record = task.records.get(n)
        if record is not None and _is_same(text, record.kind, record.params):
            outcome = record.outcome
            return crossing(outcome if outcome[0] != "@" else self._core.load_text(outcome))
        head, _, stack = text.partition("\n")
        kind, _, params = head.partition(" ")
        if record is None:
            return crossing(self._ask(task, n, kind, params, stack))
        if record.kind != kind or (record.params != params and record.params != recorded_params(params)):
            self._differs(task, n, record, kind, params, stack)
        outcome = record.outcome
        return crossing(outcome if outcome[0] != "@" else self._core.load_text(outcome))

    def act_int(self, text: str) -> int:
        outcome = self.act(text)
        if outcome[0] in "+*":
            return int(outcome[1:])
        self._fail(decode(outcome[1:]))

    def begin(self, text: str) -> str:
        head, _, stack = text.partition("\n")
        kind, _, params = head.partition(" ")
        return self._begin(kind, params, stack)

    def wait_for(self, text: str) -> str:
        params, _, stack = text.partition("\n")
        task = self._task
        task.n += 1
        outcome = self._answer(task, task.n, "wait", params, stack)
        if not is_ok(outcome):
            self._fail(value_of(outcome))
        sids = value_of("+" + params)["handles"]
        outcomes: list[str | None] = [None] * len(sids)
        for place_of_handle in value_of(outcome)["done"]:
            outcomes[place_of_handle] = crossing(self._ended(sids[place_of_handle]))
        return encode(outcomes)

    def call(self, text: str) -> str:
        params, stack = self._flow_params(text)
        task = self._task
        task.n += 1
        outcome = self._answer(task, task.n, "flow", params, stack)
        if not is_ok(outcome):
            self._fail(value_of(outcome))
        return crossing(outcome)

    def run(self, text: str) -> str:
        params, stack = self._flow_params(text)
        return self._begin("flow", params, stack)

    def enter(self, text: str) -> str:
        key, args, stack = text.split("\n", 2)
        flow = self._flow(key)
        task = self._task
        n = task.n = task.n + 1
        self._may_act(task)
        params = f'{{"flow":{flow.quoted},"args":{args}}}'
        record = task.records.get(n)
        opened = task.open.get(n) if record is None else None
        if record is None and opened is None:
            record = task.records.get(n)  # it may have ended between the two looks
        found = record or opened
        if found is not None:
            if found.kind != "flow" or (found.params != params and found.params != recorded_params(params)):
                self._differs(task, n, found, "flow", params, stack)
        elif f"{task.prefix}.{n}" not in self.lease.history:
            self._core.enter(self.lease, task.prefix, n, params, place(stack))
        outcome = (
            self._inline(flow, f"{task.prefix}.{n}", args, stack) if record is None else self._text(record.outcome)
        )
        if not is_ok(outcome):
            self._fail(value_of(outcome))
        return crossing(outcome)

    def open(self, text: str) -> str:
        task = self._task
        task.describing = False
        return crossing(self._answer(task, 0, "resources.open", text, ""))

    def describing(self, text: str) -> None:
        task = self._task
        task.describing = text == "begin"
        if not task.describing:
            task.resources = text

    def continue_as_new(self, text: str) -> NoReturn:
        task = self._task
        self._may_act(task)
        if task.flow is None:
            args = "{}"
            if text != args:
                self._bad("continue_as_new: the module as a flow has no arguments")
        else:
            found = check(task.flow, text)
            if found[0] == "-":
                self._bad(f"continue_as_new: {found[1:]}")
            args = found[1:]
        self._all_reached(task)
        self._core.continue_as_new(self.lease, task.prefix, args)
        if self._depth == 0:
            self._unwind(_Unwinding.OVER)
        self._continuing = (task, args)
        self._unwind(_Unwinding.CONTINUED)

    def output(self, text: str) -> None:
        task = self._task
        k = task.k = task.k + 1
        if k > task.outputs:
            channel, _, body = text.partition(" ")
            self._core.output(self.lease, task.prefix, k, channel, body)

    def context(self, text: str) -> str:
        task = self._task
        return f"{self._shown(task)}\n{crossing('+' + task.args)}"

    def run_id(self, text: str) -> str:
        return self.lease.run

    def new(self, text: str) -> str:
        # Only what the root makes while its module is evaluated has a name that children can be found by.
        return self._keys.new(text) if self._keys is not None and self._depth == 0 else ""

    def fail(self, text: str) -> NoReturn:
        self._fail(decode(text))

    def tick(self) -> bool:
        self._exceeded = self.budget.spend()
        if self._exceeded:
            return True
        if not self.lease.alive:
            self._unwinding = _Unwinding.REVOKED
            return True
        if not self._waiter.passes(self):
            self._unwinding = _Unwinding.EVICTED
            return True
        return False

    def broke(self, error: BaseException) -> None:
        if self._unwinding is None:
            if isinstance(error, Revoked):
                self._unwinding = _Unwinding.REVOKED
            else:
                self._unwinding = _Unwinding.BROKEN
                self._broken = error

    # -- actions

    def _answer(self, task: _Task, n: int, kind: str, params: str, stack: str) -> Outcome:
        """The outcome of action n, waiting for it if need be."""
        record = task.records.get(n)
        if record is None:
            return self._ask(task, n, kind, params, stack)
        if record.kind != kind or (record.params != params and record.params != recorded_params(params)):
            self._differs(task, n, record, kind, params, stack)
        return self._text(record.outcome)

    def _ask(self, task: _Task, n: int, kind: str, params: str, stack: str) -> Outcome:
        self._may_act(task)
        opened = task.open.get(n)
        if opened is None:
            record = task.records.get(n)  # the core may have moved it between the two looks
            if record is None:
                outcome = self._act(self.lease, task.prefix, n, kind, params, place(stack))
                return outcome if outcome is not None else self._await(task, n)
            return self._answer(task, n, kind, params, stack)
        if opened.kind != kind or (opened.params != params and opened.params != recorded_params(params)):
            self._differs(task, n, opened, kind, params, stack)
        return self._await(task, n)

    def _begin(self, kind: str, params: str, stack: str) -> str:
        """Asks for an action and does not wait for it; returns its sid."""
        task = self._task
        self._may_act(task)
        n = task.n = task.n + 1
        found: Record | OpenAction | None = task.records.get(n) or task.open.get(n) or task.records.get(n)
        if found is None:
            outcome = self._act(self.lease, task.prefix, n, kind, params, place(stack), handle=True)
            if outcome is not None:
                task.finished[n] = outcome
        elif found.kind != kind or (found.params != params and found.params != recorded_params(params)):
            self._differs(task, n, found, kind, params, stack)
        return f"{task.prefix}.{n}"

    def _await(self, task: _Task, n: int) -> Outcome:
        while True:
            record = task.records.get(n)
            if record is not None:
                return self._text(record.outcome)
            if not self.lease.alive:
                self._unwind(_Unwinding.REVOKED)
            if not self._waiter.wait(self):
                self._unwind(_Unwinding.EVICTED)

    def _ended(self, sid: str) -> Outcome:
        """The outcome of a handle that a wait found ended."""
        task = self._task
        prefix, n = split_sid(sid)
        assert prefix == task.prefix, f"{sid} is no handle of {task.prefix}"
        record = task.records.get(n)
        return self._text(record.outcome) if record is not None else task.finished[n]

    def _text(self, outcome: Outcome) -> Outcome:
        return outcome if outcome[0] != "@" else self._core.load_text(outcome)

    def _may_act(self, task: _Task) -> None:
        if task.describing:
            self._bad("a resource's function only describes it and cannot act")

    # -- flows

    def _flow(self, key: str) -> Flow:
        flow = self._loaded.by_key.get(key)
        if flow is None:
            implementation = key.partition("|")[2].partition(" ")[0]
            message = f"the flow {implementation}".rstrip()
            message += " is not bound to a top-level name of its module, as a flow that is called or run must be"
            if self._loaded.stopped:
                message += ' before its first action: put what acts under `if __name__ == "__flow__":`'
            self._bad(message)
        return flow

    def _flow_params(self, text: str) -> tuple[str, str]:
        key, args, chosen, stack = text.split("\n", 3)
        head = f'{{"flow":{self._flow(key).quoted},"args":{args}'
        return f"{head}}}" if chosen == "{}" else f'{head},"options":{chosen}}}', stack

    def _inline(self, flow: Flow, base: str, args: str, stack: str) -> Outcome:
        """Evaluates a flow that is called directly, through all its generations."""
        parent = self._task
        frames = stack.count(_FRAME)
        call_depth = min(CALL_DEPTH, FRAMES - self._frames - frames)
        if self._depth >= NESTED_FLOWS or call_depth < FRAMES_LEFT:
            self._fail(
                {
                    "kind": "quota_exceeded",
                    "message": f"flows call each other directly more than {NESTED_FLOWS} deep, or with too many frames",
                }
            )
        id = f"{self.lease.run}/{base}"
        prefix = self._latest(base)
        if prefix != base:
            args = self._text(self.lease.history[prefix].args)
        self._depth += 1
        self._frames += frames
        try:
            info = self._info(id, flow.name, parent.id, None)
            while True:
                history = self.lease.history.setdefault(prefix, TaskHistory())
                task = self._task = _Task(prefix, id, flow, args, info, history)
                try:
                    outcome = self._evaluate(flow, "body", task, call_depth)
                except _Left:
                    if self._continuing is None or self._continuing[0] is not task:
                        raise HostError from None
                    args, self._continuing, self._unwinding = self._continuing[1], None, None
                    prefix = task_prefix(base, base_of(prefix)[1] + 1)
                    continue
                self._all_reached(task)
                return self._core.leave(self.lease, prefix, outcome)
        finally:
            self._depth -= 1
            self._frames -= frames
            self._task = parent

    def _latest(self, base: str) -> str:
        """The prefix of the newest generation of an inline task."""
        best = 1
        for prefix in self.lease.history:
            if prefix.startswith(base + "~"):
                found, generation = base_of(prefix)
                if found == base:
                    best = max(best, generation)
        return task_prefix(base, best)

    # -- ends

    def _fail(self, failure: dict[str, Any]) -> NoReturn:
        """Fails the flow with this error."""
        self._failure = failure
        raise HostError(failure["message"])

    def _bad(self, message: str) -> NoReturn:
        self._fail({"kind": "bad_argument", "message": message})

    def _unwind(self, why: _Unwinding) -> NoReturn:
        self._unwinding = why
        raise HostError(why.value)

    def _differs(self, task: _Task, n: int, found: Record | OpenAction, kind: str, params: str, stack: str) -> NoReturn:
        where = found.where if isinstance(found, Record) else ""
        expected = f"{found.kind} {_short(found.params)}" + (f" at {where}" if where else "")
        actual = f"{kind} {_short(recorded_params(params))}" + (f" at {at}" if (at := place(stack)) else "")
        self._pause(f"{task.prefix}.{n}: the log holds {expected}, but the script asked for {actual}")

    def _all_reached(self, task: _Task) -> None:
        """What the log holds beyond the script's end was done by another script than this."""
        if self._exceeded:
            return
        beyond = [n for n in (*task.records, *task.open) if n > task.n]
        if beyond:
            n = min(beyond)
            found = task.records.get(n) or task.open[n]
            where = found.where if isinstance(found, Record) else ""
            expected = f"{found.kind} {_short(found.params)}" + (f" at {where}" if where else "")
            self._pause(f"{task.prefix}.{n}: the log holds {expected}, but the script ended before it")

    def _pause(self, message: str) -> NoReturn:
        self._core.pause(self.lease, "NonDeterministic", f"{message}; see: flo runs history {self.lease.run}")
        self._unwinding = _Unwinding.OVER
        raise HostError("NonDeterministic")


def allow_nesting() -> None:
    """Lets flows nest as deep as NESTED_FLOWS says: each level takes a few calls of Python's own."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION))


def check(flow: Flow, args: str) -> str:
    """`+` and the JSON of the arguments with defaults filled in, or `-` and why they do not fit."""
    return str(flow.module.call(flow.export, TOKEN, "check", decode(args)))


def describe_flow(flow: Flow) -> Any:
    """What a flow declares: {"args": …, "options": …}."""
    return decode(str(flow.module.call(flow.export, TOKEN, "describe")))


def _is_same(text: str, kind: str, params: str) -> bool:
    """Whether a crossing asks for what is recorded, without cutting it into pieces."""
    start = len(kind) + 1
    return text.startswith(params, start) and text.startswith(kind) and text.startswith("\n", start + len(params))


def _short(text: str, bound: int = 300) -> str:
    return text if len(text) <= bound else text[:bound] + "…"
