"""replay(log) equals the live state, at every index, whatever flows do."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flo.api.errors import Conflict, FloError
from flo.api.outcome import error
from flo.api.worker import Lease, Revoked
from flo.primitives.machines import Machines
from tests.grid.manual import Bench

IDS = st.sampled_from(["a", "b", "c"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "timeout": st.integers(1, 5_000),
        "retry": st.fixed_dictionaries(
            {}, optional={"max_attempts": st.integers(1, 3), "initial": st.integers(0, 500)}
        ),
        "exit": st.booleans(),
        "detached": st.booleans(),
    },
)  # fmt: skip


KINDS = (
    "kv.incr kv.put kv.get kv.delete clock.now uuid random clock.sleep clock.timer flow inline leave wait signal "
    "receive send cancel http.get resources continue print unknown"
).split()


class Flows(RuleBasedStateMachine):
    """Leases are used as a worker would: actions of one task are numbered from its history on."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(slots=2)
        self.bench.start("zero")
        self.numbers: dict[Lease, dict[str, int]] = {}

    def _usable(self) -> list[Lease]:
        worker = self.bench.worker
        return [lease for lease in worker.leases.values() if lease.alive and not lease.waiting]

    def _next(self, lease: Lease, task: str) -> int:
        counted = self.numbers.setdefault(lease, {})
        if task not in counted:
            history = lease.history[task]
            counted[task] = max([0, *history.records, *history.open])
        counted[task] += 1
        return counted[task]

    @rule(id=IDS, timeout=st.sampled_from([0, 0, 3_000]), options=OPTIONS)
    def start(self, id: str, timeout: int, options: dict[str, object]) -> None:
        options = {key: value for key, value in options.items() if key != "detached"}
        try:
            self.bench.start(id, timeout_ms=timeout, options=options)
        except (Conflict, KeyError):
            pass  # the id is taken by a run that is over or waits

    @precondition(lambda self: self._usable())
    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self._usable()))
        task = data.draw(st.sampled_from(sorted(lease.history)))
        kind = data.draw(st.sampled_from(KINDS))
        try:
            self._act(data, lease, task, kind)
        except Revoked:
            self.bench.worker.core.release(lease)

    def _act(self, data: st.DataObject, lease: Lease, task: str, kind: str) -> None:
        bench, core = self.bench, self.bench.worker.core
        if kind == "print":
            history = lease.history[task]
            history.outputs += 1
            core.output(lease, task, history.outputs, "print", "a line")
            return
        if kind == "leave":
            if task != lease.task:
                core.leave(lease, task, data.draw(st.sampled_from(["+1", error("failed", "no")])))
            return
        if kind == "continue":
            core.continue_as_new(lease, task, '{"again":1}')
            return
        if kind == "resources":
            if task == lease.task and 0 not in lease.history[task].records and not lease.history[task].open:
                names = data.draw(st.lists(st.sampled_from(["one", "two"]), unique=True, min_size=1))
                declared = [
                    {"name": n, "kind": k, "params": {"name": n}}
                    for n, k in zip(
                        names, data.draw(st.tuples(*[st.sampled_from(["lock", "tempdir"])] * 2)), strict=False
                    )
                ]
                self.numbers.setdefault(lease, {}).setdefault(task, 0)
                core.act(lease, task, 0, "resources.open", json.dumps(declared), "x.flow:1")
            return
        n = self._next(lease, task)
        handles = [f"{task}.{k}" for k in range(1, n)]
        handle = data.draw(st.booleans())
        params: dict[str, object] = {}
        if kind in ("kv.incr", "kv.get", "kv.delete"):
            params = {"key": data.draw(st.sampled_from(["k", "n"]))}
        elif kind == "kv.put":
            params = {"key": "k", "value": "v", "ttl": data.draw(st.sampled_from([0, 50]))}
        elif kind in ("clock.sleep", "clock.timer"):
            params = {"ms": data.draw(st.sampled_from([-1, 0, 10, 1_000]))}
        elif kind == "flow":
            params = {"flow": "x.flow::child", "args": {}, "options": data.draw(OPTIONS)}
        elif kind == "inline":
            core.enter(lease, task, n, '{"flow":"x.flow::in","args":{}}', "x.flow:2")
            return
        elif kind == "wait":
            some = data.draw(st.lists(st.sampled_from(handles or ["0.999"]), unique=True))
            params = {"handles": some, "count": data.draw(st.sampled_from([None, 1])), "timeout": 100}
        elif kind in ("signal", "receive"):
            params = {"type": "go", "timeout": data.draw(st.sampled_from([None, 0, 100]))}
        elif kind == "send":
            params = {"to": data.draw(st.sampled_from(["a", "zero", "zero/0.1", "b/0.2"])), "message": {"m": n}}
        elif kind == "cancel":
            params = {"handle": data.draw(st.sampled_from(handles or ["0.999"]))}
        elif kind == "http.get":
            params = {
                "url": "http://x",
                "retry": data.draw(st.sampled_from([None, {"max_attempts": 2, "initial": 10}])),
            }
        outcome = bench.act(lease, n, kind, params, task=task, handle=handle)
        assert outcome is None or outcome[0] in "+-"

    @precondition(lambda self: self._usable())
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data: st.DataObject, fails: bool) -> None:
        lease = data.draw(st.sampled_from(self._usable()))
        try:
            for inner in sorted(set(lease.history) - {lease.task}, reverse=True):
                self.bench.worker.core.leave(lease, inner, error("failed", "unwound"))
            self.bench.worker.core.finish(lease, error("failed", "no") if fails else '+{"done":true}')
        except Revoked:
            self.bench.worker.core.release(lease)

    @precondition(lambda self: self._usable())
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self._usable()))
        self.bench.worker.core.release(lease)

    @rule(id=IDS, type=st.sampled_from(["go", "other"]))
    def signal(self, id: str, type: str) -> None:
        try:
            self.bench.node.signal(id, type, '{"s":1}')
        except FloError:
            pass  # no such run, or it is over

    @rule(id=IDS)
    def cancel(self, id: str) -> None:
        try:
            self.bench.node.cancel(id)
        except FloError:
            pass  # no such run, or it is over

    @precondition(lambda self: self.bench.host.jobs)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        job = data.draw(st.sampled_from(self.bench.host.jobs))
        self.bench.answer(job, error("connector", "dropped") if fails else '+{"path":"/tmp/x"}')

    @rule(ms=st.sampled_from([1, 100, 5_000, 20_000]))
    def time_passes(self, ms: int) -> None:
        self.bench.advance(ms)

    @rule()
    def crash(self) -> None:
        self.bench.node.pump()
        self.bench = self.bench.crash()
        self.bench.node.execute(None)
        self.numbers.clear()

    @invariant()
    def replay_equals_live(self) -> None:
        live = self.bench.machines.dump()
        assert self.bench.replayed() == live
        loaded = Machines()
        loaded.load(live)
        assert loaded.dump() == live


Flows.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFlows = Flows.TestCase
