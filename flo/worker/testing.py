"""A core for tests of workers: it remembers what it was asked, and answers at once, later or never.

core = FakeCore()
core.answer("kv.incr", "+1", "+2")          # outcomes of the next two, the last one stays
core.answer("http.get", None)               # open until core.complete(lease, "0.2", outcome)
lease = core.lease(bundle, "main.flow::main", args={"n": 1})
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flo.api.ids import base_of, split_sid, task_prefix
from flo.api.outcome import Outcome, ok
from flo.api.worker import Lease, OpenAction, Record, Revoked, RunInfo, TaskHistory, Worker, recorded_params
from flo.worker.bundle import Bundle
from flo.worker.values import decode, encode

Answer = Outcome | None | Callable[[str], Outcome | None]


class Act:
    """One action that was asked for."""

    __slots__ = ("run", "sid", "kind", "params", "where", "handle")

    def __init__(self, run: str, sid: str, kind: str, params: str, where: str, handle: bool) -> None:
        self.run = run
        self.sid = sid
        self.kind = kind
        self.params = params
        self.where = where
        self.handle = handle

    @property
    def input(self) -> Any:
        return decode(self.params)


class FakeCore:
    """Implements flo.api.worker.RunCore with dicts. Not safe for threads that act at the same time."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.acts: list[Act] = []
        self.entered: list[Act] = []
        self.outputs: list[tuple[str, int, str, str]] = []
        self.finished: dict[str, Outcome] = {}  # by run, or run/task for others than the root
        self.paused: dict[str, str] = {}
        self.released: list[str] = []
        self.continued: list[tuple[str, str]] = []
        self.texts: dict[str, str] = {}
        self.on_finish: Callable[[Lease, Outcome], None] = lambda lease, outcome: None
        self.on_release: Callable[[Lease], None] = lambda lease: None
        self._answers: dict[str, list[Answer]] = {}
        self._bundles: dict[bytes, bytes] = {}

    # -- for tests

    def answer(self, kind: str, *answers: Answer) -> None:
        self._answers[kind] = list(answers)

    def add(self, bundle: Bundle) -> bytes:
        self._bundles[bundle.digest] = bundle.data
        return bundle.digest

    def lease(
        self, bundle: Bundle, flow: str, *, run: str = "run-1", task: str = "0", phase: str = "body", args: Any = None,
        history: dict[str, TaskHistory] | None = None, outcome: Outcome | None = None,
    ) -> Lease:  # fmt: skip
        info = RunInfo(
            id=run if task == "0" else f"{run}/{task}", name=flow.rpartition("::")[2], parent=None, attempt=1,
            started_at=1_750_000_000_000, username="ada", quota_path="/ada", limits={}, outcome=outcome,
        )  # fmt: skip
        return Lease(
            run=run, task=task, phase=phase, bundle=self.add(bundle), flow=flow, args=encode(args or {}), info=info,
            history={task: TaskHistory()} if history is None else history,
        )  # fmt: skip

    def again(self, lease: Lease) -> Lease:
        """A new lease of the same strand, with the history that the first one left."""
        return Lease(
            run=lease.run, task=lease.task, phase=lease.phase, bundle=lease.bundle, flow=lease.flow, args=lease.args,
            info=lease.info, history=lease.history,
        )  # fmt: skip

    def complete(self, lease: Lease, sid: str, outcome: Outcome) -> None:
        """Ends an open action and wakes its strand."""
        prefix, n = split_sid(sid)
        history = lease.history[prefix]
        opened = history.open[n]
        history.records[n] = Record(n, opened.kind, opened.params, outcome, 0, 0, "")
        del history.open[n]
        if self.worker is not None:
            self.worker.wake([lease])

    def revoke(self, lease: Lease, reason: str = "cancelled") -> None:
        lease.alive = False
        lease.reason = reason
        if self.worker is not None:
            self.worker.wake([lease])

    def kinds(self) -> list[str]:
        return [act.kind for act in self.acts]

    # -- RunCore

    def act(
        self, lease: Lease, task: str, n: int, kind: str, params: str, where: str, *, handle: bool = False
    ) -> Outcome | None:
        self._check(lease)
        self.acts.append(Act(lease.run, f"{task}.{n}", kind, params, where, handle))
        history = lease.history[task]
        assert n not in history.records and n not in history.open, "an action is asked for once"
        outcome = self._wait(history, params) if kind == "wait" else self._next(kind, params)
        if outcome is None:
            history.open[n] = OpenAction(kind, recorded_params(params))
        else:
            history.records[n] = Record(n, kind, recorded_params(params), outcome, 0, 0, where)
        return outcome

    def enter(self, lease: Lease, task: str, n: int, params: str, where: str) -> None:
        self._check(lease)
        self.entered.append(Act(lease.run, f"{task}.{n}", "flow", params, where, False))
        lease.history[task].open[n] = OpenAction("flow", recorded_params(params))
        lease.history[f"{task}.{n}"] = TaskHistory()

    def leave(self, lease: Lease, prefix: str, outcome: Outcome) -> Outcome:
        self._check(lease)
        parent, n = split_sid(base_of(prefix)[0])
        opened = lease.history[parent].open.pop(n)
        lease.history[parent].records[n] = Record(n, "flow", opened.params, outcome, 0, 0, "")
        del lease.history[prefix]
        return outcome

    def continue_as_new(self, lease: Lease, prefix: str, args: str) -> None:
        self._check(lease)
        self.continued.append((prefix, args))
        if prefix == lease.task:
            lease.alive = False
            return
        del lease.history[prefix]
        base, generation = base_of(prefix)
        fresh = lease.history[task_prefix(base, generation + 1)] = TaskHistory()
        fresh.args = args

    def output(self, lease: Lease, task: str, k: int, channel: str, text: str) -> None:
        self._check(lease)
        self.outputs.append((task, k, channel, text))
        lease.history[task].outputs += 1

    def finish(self, lease: Lease, outcome: Outcome) -> None:
        self._check(lease)
        lease.alive = False
        self.finished[lease.run if lease.task == "0" else f"{lease.run}/{lease.task}"] = outcome
        self.on_finish(lease, outcome)

    def pause(self, lease: Lease, kind: str, message: str) -> None:
        self._check(lease)
        lease.alive = False
        self.paused[lease.run] = f"{kind}: {message}"

    def release(self, lease: Lease) -> None:
        lease.alive = False
        self.released.append(lease.run)
        self.on_release(lease)

    def load_bundle(self, digest: bytes) -> bytes:
        return self._bundles[digest]

    def load_text(self, reference: str) -> str:
        return self.texts[reference]

    # -- shared

    def _check(self, lease: Lease) -> None:
        if not lease.alive:
            raise Revoked

    def _next(self, kind: str, params: str) -> Outcome | None:
        answers = self._answers.get(kind)
        if not answers:
            return ok(None)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(params) if callable(answer) else answer

    @staticmethod
    def _wait(history: TaskHistory, params: str) -> Outcome | None:
        wanted = decode(params)
        done = [i for i, sid in enumerate(wanted["handles"]) if split_sid(sid)[1] in history.records]
        count = wanted["count"] or len(wanted["handles"])
        return ok({"done": done}) if len(done) >= count else None
