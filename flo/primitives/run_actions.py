"""Decisions on the actions that the core performs itself: clock, children, waits, signals, messages, KV.

An action that is refused is recorded too, with its error as outcome, so that a replay sees the same. What
no handler here knows is an external action: it stays open until a connector answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import msgspec

from flo.primitives.flows import FlowParams
from flo.primitives.history import recorded_params
from flo.primitives.limits import INBOX_MESSAGES, OPEN_ACTIONS, SIGNAL_TYPE_BYTES
from flo.primitives.machine import Event, Refused
from flo.primitives.outcome import error
from flo.primitives.payload import is_reference
from flo.primitives.run import WAITING, RunMachine, delivered, signal_params, wait_params
from flo.primitives.run_decide import cancel, start, stop
from flo.primitives.run_events import Answered, Asked, Did, Sent, TaskStarted, Took
from flo.primitives.run_state import Task
from flo.primitives.run_storage import Load, StorageActions, named

Decided = tuple[list[Event], str | None]  # the events, and the outcome when the action is done at once

TIME_MAX_MS = 1 << 53  # the latest due time that stays exact in JSON


class Ask(NamedTuple):
    """One action that a flow asks for."""

    now: int
    first: int  # index that the first event will have
    task: Task
    n: int
    kind: str
    params: str  # whole
    stored: str  # as it stands in an event that keeps it: the same, or a reference
    where: str
    handle: bool
    session: str  # who claims an external action at once, "" = nobody
    entropy: Callable[[int], bytes]
    load: Load | None = None  # gives the payloads of stream records, None when they are not in memory


class _Ms(msgspec.Struct):
    ms: int


class SendParams(msgspec.Struct):
    to: str
    message: msgspec.Raw


class _Receive(msgspec.Struct):
    timeout: int | None = None


class _Cancel(msgspec.Struct):
    handle: str


_ms = msgspec.json.Decoder(_Ms).decode
_send = msgspec.json.Decoder(SendParams).decode
_receive = msgspec.json.Decoder(_Receive).decode
_cancel = msgspec.json.Decoder(_Cancel).decode
_flow = msgspec.json.Decoder(FlowParams).decode
_json = msgspec.json.Encoder().encode


class Actions:
    """Decides actions of flows on the machines of one partition."""

    def __init__(self, runs: RunMachine, storage: StorageActions, runtime: str) -> None:
        self._runs = runs
        self._runtime = runtime
        self.storage = storage
        self._handlers: dict[str, Callable[[Ask], Decided]] = {
            "clock.now": self._now,
            "clock.sleep": self._sleep,
            "clock.timer": self._sleep,
            "uuid": self._uuid,
            "random": self._random,
            "flow": self._flow,
            "wait": self._wait,
            "signal": self._signal,
            "receive": self._receive,
            "send": self._send,
            "cancel": self._cancel,
            "resources.open": self._asked,
        }
        for kind in storage.kinds:
            self._handlers[kind] = self._stored
        self.internal = frozenset(self._handlers)  # the kinds that no connector performs

    def decide(self, a: Ask) -> Decided:
        """The events of an action; never raises Refused, a refusal is an outcome."""
        handler = self._handlers.get(a.kind, self._asked)
        try:
            return handler(a)
        except Refused as refused:
            message = f"{named(a)}: {refused.message}" if a.kind in self.storage.kinds else refused.message
            return _did(a, error(refused.kind, message, details=refused.details, where=a.where or None))
        except msgspec.ValidationError as wrong:
            return _did(a, error("bad_argument", f"{a.kind}: {wrong}", where=a.where or None))

    # -- keys, queues, streams

    def _stored(self, a: Ask) -> Decided:
        storage = self.storage
        waits = a.kind in WAITING
        timeout = storage.timeout(a.kind, a.params) if waits else 0
        events, value = storage.perform(a)
        if timeout != 0 and storage.is_empty(a.kind, value):
            asked, _ = self._asked(a._replace(stored=storage.settled(a, value)), due=_due(a, timeout))
            return [*events, *asked], None
        outcome = storage.answer(a.kind, value)
        did = Did(a.task.run.id, a.task.prefix, a.n, a.kind, recorded_params(a.params), outcome, a.where)
        return [*events, did], outcome

    # -- time and chance

    def _now(self, a: Ask) -> Decided:
        return _did(a, f"+{a.now / 1000}")

    def _sleep(self, a: Ask) -> Decided:
        ms = _ms(a.params).ms
        if ms < 0:
            raise Refused("bad_argument", f"{a.kind}: a duration cannot be negative, got {ms} ms")
        if a.now + ms > TIME_MAX_MS:
            raise Refused("bad_argument", f"{a.kind}: the duration of {ms} ms is too long")
        if ms == 0 and a.kind == "clock.sleep":
            return _did(a, "+null")
        return self._asked(a, due=a.now + ms)

    def _uuid(self, a: Ask) -> Decided:
        return _did(a, f'+"{UUID(bytes=a.entropy(16), version=4)}"')

    def _random(self, a: Ask) -> Decided:
        return _did(a, f"+{(int.from_bytes(a.entropy(8), 'big') >> 11) / (1 << 53)!r}")

    # -- flows and waiting

    def _flow(self, a: Ask) -> Decided:
        head = a.stored.partition(" ")[2] if is_reference(a.stored) else a.params
        p = _flow(head)
        run = a.task.run
        if run.open_count >= OPEN_ACTIONS:
            raise Refused("quota_exceeded", f"the run has {OPEN_ACTIONS} open actions already")
        if p.options.detached:
            return self._detached(a, p)
        deadline = a.now + p.options.timeout if p.options.timeout is not None else 0
        recorded = recorded_params(a.params)
        event = TaskStarted(
            run.id, a.task.prefix, a.n, a.stored, "" if recorded == a.stored else recorded, a.where, not a.handle,
            False, deadline,
        )  # fmt: skip
        return [event], None

    def _detached(self, a: Ask, p: FlowParams) -> Decided:
        run = a.task.run
        args = a.stored.partition(" ")[0] if is_reference(a.stored) else bytes(p.args).decode()
        address = f"{run.id}/{a.task.prefix}.{a.n}"
        options = _json(msgspec.structs.replace(p.options, detached=False)).decode()
        started = start(
            self._runs, a.now, id=address, bundle=run.bundle, flow=p.flow, args=args, options=options, timeout_ms=0,
            username=run.username, script=run.script, parent=address, runtime=self._runtime,
        )  # fmt: skip
        asked, _ = self._asked(a)
        return [*started, *asked], None

    def _wait(self, a: Ask) -> Decided:
        p = wait_params(a.params)
        prefix = a.task.prefix + "."
        for sid in p.handles:
            if not sid.startswith(prefix) or not sid[len(prefix) :].isdigit() or int(sid[len(prefix) :]) >= a.n:
                raise Refused("bad_argument", f"wait: {sid} is no handle of this flow")
        still = a.task.open or {}
        done = [place for place, sid in enumerate(p.handles) if int(sid[len(prefix) :]) not in still]
        wanted = len(p.handles) if p.count is None else min(max(p.count, 0), len(p.handles))
        if len(done) >= wanted or p.timeout == 0:
            value = {"done": done, "timeout": len(done) < wanted}
            return _did(a, "+" + _json(value).decode())
        return self._asked(a, due=_due(a, p.timeout))

    def _signal(self, a: Ask) -> Decided:
        p = signal_params(a.params)
        if len(p.type.encode()) > SIGNAL_TYPE_BYTES:
            raise Refused(
                "bad_argument", f"signal: a type has at most {SIGNAL_TYPE_BYTES} bytes, got {p.type[:100]!r}…"
            )
        for type_, payload in a.task.run.signals or ():
            if type_ == p.type:
                return _took(a, "+" + payload, type_)
        if p.timeout == 0:
            return _did(a, error("timeout", f"no signal {p.type} has come", where=a.where or None))
        return self._asked(a, due=_due(a, p.timeout))

    def _receive(self, a: Ask) -> Decided:
        p = _receive(a.params)
        if a.task.inbox:
            return _took(a, delivered(a.task.inbox[0][1]), "")
        if p.timeout == 0:
            return _did(a, error("timeout", "no message has come", where=a.where or None))
        return self._asked(a, due=_due(a, p.timeout))

    def _send(self, a: Ask) -> Decided:
        p = _send(a.params)
        to = self._address(a.task, p.to)
        if to is None:
            raise Refused("not_found", f"send: no unfinished run or flow {p.to}")
        if to.inbox is not None and len(to.inbox) >= INBOX_MESSAGES:
            raise Refused("quota_exceeded", f"send: {p.to} has {INBOX_MESSAGES} messages that it has not taken")
        waiting = next((n for n, o in (to.open or {}).items() if o.kind == "receive"), 0)
        message = a.stored if is_reference(a.stored) else bytes(p.message).decode()
        sent = Sent(to.run.id, to.prefix, a.task.address(), message, waiting)
        return _effect(a, sent, "+null")

    def _address(self, sender: Task, to: str) -> Task | None:
        """The live task with this address: a run's id, or RUN/SID; a bare sid is one of the sender's run."""
        run = self._runs.runs.get(to)
        if run is not None:
            return run.root if run.status == "running" else None
        run_id, _, sid = to.rpartition("/")
        run = self._runs.runs.get(run_id) if run_id else sender.run
        if run is None or run.status != "running":
            return None
        task = run.task(sid)  # of the first generation, or the one that is named
        if task is not None:
            return task
        return next((task for task in run.all_tasks() if task.base == sid), None)

    def _cancel(self, a: Ask) -> Decided:
        p = _cancel(a.params)
        prefix, _, number = p.handle.rpartition(".")
        if prefix != a.task.prefix or not number.isdigit():
            raise Refused("bad_argument", f"cancel: {p.handle} is no handle of this flow")
        n = int(number)
        opened = a.task.open.get(n) if a.task.open is not None else None
        if opened is None:
            return _did(a, "+null")
        cancelled = error("cancelled", "cancelled by the flow that started it", where=a.where or None)
        if opened.child is not None:
            events = stop(opened.child, cancelled, "cancel")
        elif opened.kind == "flow":  # detached: a run of its own, whose end answers the handle
            events = cancel(self._runs, f"{a.task.run.id}/{p.handle}", "flow", "by the flow that started it")
        else:
            events = [Answered(a.task.run.id, prefix, n, cancelled)]
        did, outcome = _did(a, "+null")
        return [*events, *did], outcome

    def _asked(self, a: Ask, due: int = 0) -> Decided:
        run = a.task.run
        if run.open_count >= OPEN_ACTIONS:
            raise Refused("quota_exceeded", f"the run has {OPEN_ACTIONS} open actions already")
        recorded = recorded_params(a.params)
        event = Asked(
            run.id, a.task.prefix, a.n, a.kind, a.stored, "" if recorded == a.stored else recorded, a.where,
            not a.handle, due, a.session,
        )  # fmt: skip
        return [event], None


def _did(a: Ask, outcome: str) -> Decided:
    did = Did(a.task.run.id, a.task.prefix, a.n, a.kind, recorded_params(a.params), outcome, a.where)
    return [did], outcome


def _effect(a: Ask, effect: Event, outcome: str) -> Decided:
    did = Did(a.task.run.id, a.task.prefix, a.n, a.kind, recorded_params(a.params), outcome, a.where)
    return [effect, did], outcome


def _took(a: Ask, outcome: str, type: str) -> Decided:
    took = Took(a.task.run.id, a.task.prefix, a.n, a.kind, recorded_params(a.params), outcome, a.where, type)
    return [took], outcome


def _due(a: Ask, timeout: int | None) -> int:
    if timeout is None:
        return 0
    if timeout < 0 or a.now + timeout > TIME_MAX_MS:
        what = "" if a.kind in WAITING else f"{a.kind}: "  # those are named with what they wait for
        raise Refused("bad_argument", f"{what}a timeout of {timeout} ms is out of bounds")
    return a.now + timeout
