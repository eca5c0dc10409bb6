"""Handing out external actions and resources to connectors, and taking their answers.

Handing out is the claim (design.md §6 point 4): *claimed by this session* is in the log, and durable, before
the job leaves. What finds no free slot stays unclaimed and waits here; after a restart it is found again in
the state. What was claimed by a session that is gone is `interrupted`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import msgspec

from flo.api import limits
from flo.api.errors import FloError
from flo.api.jobs import ConnectorHost, Job
from flo.api.outcome import Outcome, error
from flo.grid.partition import Partition
from flo.grid.payloads import Payloads, size_of
from flo.grid.release import Releases
from flo.log.errors import LogError
from flo.primitives.machine import Event, Refused
from flo.primitives.run_decide import answer, claim, claim_resource, resource_answer
from flo.primitives.run_events import Claimed, ResourceChanged
from flo.primitives.run_state import Note, Resource, Run, Task

_Place = tuple[str, str, int]  # run, task prefix, number of the action or -1 - place of the resource


class Jobs:
    """Implements flo.api.jobs.JobCore."""

    def __init__(
        self,
        partition: Partition,
        payloads: Payloads,
        releases: Releases,
        session: str,
        node: str,
        executes: Callable[[Run], bool],
        after: Callable[[], None],
    ) -> None:
        self._partition = partition
        self._payloads = payloads
        self._releases = releases
        self._session = session
        self._node = node
        self._executes = executes
        self._after = after
        self.host: ConnectorHost | None = None
        self._in_use: dict[str, int] = defaultdict(int)
        self._held: dict[_Place, str] = {}  # claimed by us and not answered: the kind whose slot it takes
        self._waiting: dict[str, deque[tuple[Task, int]]] = defaultdict(deque)  # unclaimed, by kind
        self._outgoing: deque[tuple[int, _Place, Job]] = deque()  # claimed, not durable yet
        self._with_host: dict[_Place, Job] = {}
        self._unlogged: list[tuple[Job, Outcome]] = []  # answers that the partition has not taken yet
        self._closing = False

    # -- what the partition tells (with its lock held)

    def claim_for(self, kind: str) -> str:
        """The session that claims an action of this kind in the frame in which it is asked for, "" when there is no
        free slot. Raises Refused when no connector performs the kind."""
        if self.host is None:
            return ""
        slots = self.host.slots(kind)
        if slots == 0:
            raise Refused("not_found", f"no connector performs actions of kind {kind!r}")
        return "" if self._closing or self._in_use[kind] >= slots else self._session

    def note(self, note: Note) -> None:
        task, n = note.task, note.n
        assert task is not None
        if note.what == "job":
            self.want(task, n)
        elif note.what == "resource":
            self.want_resource(task, n)
        else:
            assert note.what == "unjob"
            self._unwanted(task, n)

    def want(self, task: Task, n: int) -> None:
        """An external action is open: hand it out when it is claimed, claim it when that is possible."""
        opened = (task.open or {}).get(n)
        if opened is None or opened.child is not None:
            return
        kind = opened.kind
        if opened.session:
            if opened.session == self._session:
                self._hand_out(task, n, kind)
            return
        if opened.due > self._partition.now() or not self._executes(task.run) or self.host is None:
            return
        if self._free(kind):
            self._partition.commit(claim(task, n, self._session), self._partition.now())
            self._hand_out(task, n, kind)
        else:
            self._waiting[kind].append((task, n))

    def want_resource(self, task: Task, place: int) -> None:
        assert task.resources is not None
        resource = task.resources[place]
        if resource.session or resource.state not in ("opening", "closing"):
            return
        if not self._executes(task.run) or self.host is None:
            return
        kind = _resource_kind(resource)
        if self._free(kind):
            self._partition.commit(claim_resource(task, place, self._session), self._partition.now())
            self._hand_out(task, -1 - place, kind)
        else:
            self._waiting[kind].append((task, -1 - place))

    def find(self, run: Run) -> None:
        """Derives from the state what the run wants of connectors; when this node begins to execute it."""
        for task in run.all_tasks():
            for n, opened in list((task.open or {}).items()):
                if opened.child is None and opened.kind not in self._partition.machines.actions.internal:
                    self.want(task, n)
            for place in range(len(task.resources or ())):
                self.want_resource(task, place)

    def _free(self, kind: str) -> bool:
        assert self.host is not None
        return not self._closing and self._in_use[kind] < self.host.slots(kind)

    def _hand_out(self, task: Task, n: int, kind: str) -> None:
        place = (task.run.id, task.prefix, n)
        if place in self._held:
            return
        self._held[place] = kind
        self._in_use[kind] += 1
        job = self._job(task, n)
        index = self._partition.last_index
        self._outgoing.append((index, place, job))
        self._releases.after(index, self._submit, self._lost)

    def _job(self, task: Task, n: int) -> Job:
        run, prefix = task.run.id, task.prefix
        if n < 0:
            assert task.resources is not None
            r = task.resources[-1 - n]
            params = msgspec.json.encode({
                "name": r.name, "kind": r.kind, "generation": r.generation, "params": msgspec.Raw(r.params.encode()),
                "mark": self._mark(task, r),
            })  # fmt: skip
            sid = f"{prefix}!{-1 - n}!{r.generation}!{r.state}"
            return Job(run=run, sid=sid, attempt=1, kind=_resource_kind(r), params=params.decode(), node=self._node)
        assert task.open is not None
        opened = task.open[n]
        return Job(
            run=run, sid=f"{prefix}.{n}", attempt=opened.attempt, kind=opened.kind, params=opened.params,
            node=self._node,
        )  # fmt: skip

    def _mark(self, task: Task, resource: Resource) -> str:
        """How a resource's thing is found again: the same for all its generations."""
        return f"{self._node}/{task.run.id}/{task.base}/{resource.name}"

    def _unwanted(self, task: Task, n: int) -> None:
        place = (task.run.id, task.prefix, n)
        kind = self._let_go(place)
        if kind is not None:
            self._next(kind)
        job = self._with_host.pop(place, None)
        if job is not None and self.host is not None:
            self.host.cancel([job])

    def _let_go(self, place: _Place) -> str | None:
        """The place's slot is free again; returns its kind, whose next job the caller sees to."""
        kind = self._held.pop(place, None)
        if kind is not None:
            self._in_use[kind] -= 1
        return kind

    def _next(self, kind: str) -> None:
        waiting = self._waiting.get(kind)
        while waiting and self._free(kind):
            task, n = waiting.popleft()
            if task.run.status != "running" or task.phase == "ended":
                continue
            if n < 0:
                if task.resources is not None and -1 - n < len(task.resources):
                    self.want_resource(task, -1 - n)
            else:
                self.want(task, n)

    # -- the way out and back (without the lock)

    def _submit(self) -> None:
        """Everything claimed that is durable now goes to the host, in one batch."""
        batch: list[Job] = []
        with self._partition.lock:
            durable = self._partition.commit_group.durable_index
            while self._outgoing and self._outgoing[0][0] <= durable:
                _, place, job = self._outgoing.popleft()
                if place in self._held:
                    self._with_host[place] = job
                    batch.append(job)
        if not batch or self.host is None:
            return
        whole: list[Job] = []
        unreadable: list[tuple[Job, Outcome]] = []
        for job in batch:
            try:
                whole.append(self._whole(job))
            except (KeyError, FloError) as fault:
                unreadable.append((job, error("connector", f"the parameters of {job.kind} cannot be read: {fault}")))
        if whole:
            self.host.submit(whole)
        if unreadable:
            self.answer(unreadable)

    def _lost(self, error: LogError) -> None:
        """The job stays here: its claim is in the log, or it never was claimed."""

    def restart(self) -> None:
        """The partition's memory was rebuilt, and what it wants of connectors will be found anew. What the host has
        stays with it: its answers belong to the same actions. With the lock held."""
        for _, place, _ in self._outgoing:
            self._let_go(place)
        self._outgoing.clear()
        self._waiting.clear()

    def _whole(self, job: Job) -> Job:
        """The job with its parameters as the connector gets them."""
        params = self._payloads.load_params(job.params)
        if job.kind == "process.wait":
            params = self._with_mark(job, params)
        return msgspec.structs.replace(job, params=params)

    def _with_mark(self, job: Job, params: str) -> str:
        prefix = job.sid.rpartition(".")[0]
        given = msgspec.json.decode(params)
        with self._partition.lock:
            run = self._partition.machines.runs.runs.get(job.run)
            task = run.task(prefix) if run is not None and run.status == "running" else None
            while task is not None:
                for resource in task.resources or ():
                    if resource.name == given["resource"]:
                        given["mark"] = self._mark(task, resource)
                        given["generation"] = resource.generation
                task = task.parent if "mark" not in given and task.inline else None
        return msgspec.json.encode(given).decode()

    def answer(self, results: Sequence[tuple[Job, Outcome]]) -> None:
        """Also tries again what could not be logged before."""
        stored = [(job, self._stored(job, outcome)) for job, outcome in results]
        logged: list[Outcome] = []
        with self._partition.lock:
            left, self._unlogged = deque([*self._unlogged, *stored]), []
            try:
                while left:
                    self._log(*left[0])
                    logged.append(left.popleft()[1])
            except FloError:
                pass  # the next incarnation takes it; if there is none, the next owner finds a dead session's claim
            finally:
                self._unlogged = list(left)
        for outcome in logged:
            self._payloads.unpin(outcome)
        self._after()

    def _stored(self, job: Job, outcome: Outcome) -> Outcome:
        if "!" in job.sid and size_of(outcome) > limits.PAYLOAD_SOFT_BYTES:  # what a script sees of a resource is small
            limit = limits.PAYLOAD_SOFT_BYTES
            return error("too_large", f"its value of {size_of(outcome)} bytes is over the limit of {limit} bytes")
        return self._payloads.outcome(outcome, f"the result of {job.kind}")

    def _log(self, job: Job, outcome: Outcome) -> None:
        now = self._partition.begin()
        place, events = self._decide(job, outcome, now)
        held = self._with_host.get(place)
        if held is None or held.sid != job.sid or held.attempt != job.attempt:
            return  # nobody waits for this attempt any more
        del self._with_host[place]
        kind = self._let_go(place)
        try:
            self._partition.commit(events, now)
        except FloError:
            self._with_host[place] = held
            if kind is not None:
                self._held[place] = kind
                self._in_use[kind] += 1
            raise
        if kind is not None:
            try:
                self._next(kind)
            except FloError:
                raise
            except Exception as fault:  # a job is off the line already, and only a rebuild puts it there again
                raise self._partition.broke(f"the next job of kind {kind} could not be claimed", fault) from fault

    def _decide(self, job: Job, outcome: str, now: int) -> tuple[_Place, list[Event]]:
        runs = self._partition.machines.runs
        run_id, prefix, n = place = _place(job)
        if n < 0:
            _, _, generation, state = job.sid.split("!")
            return place, resource_answer(runs, now, run_id, prefix, -1 - n, int(generation), state, outcome)
        return place, answer(runs, now, run_id, prefix, n, job.attempt, outcome)

    def close(self) -> None:
        """Planned stop, first step: nothing new is claimed, and what has not left is returned."""
        with self._partition.lock:
            self._closing = True
            outgoing, self._outgoing = self._outgoing, deque()
            for _, place, job in outgoing:
                if place in self._held:
                    self._return(job)

    def returned(self, jobs: Sequence[Job]) -> None:
        """Planned stop, second step: jobs that the host never began."""
        with self._partition.lock:
            for job in jobs:
                if self._with_host.pop(_place(job), None) is not None:
                    self._return(job)

    def _return(self, job: Job) -> None:
        """Takes the claim back: nothing was done for the job, and whoever comes next may do it."""
        place = run_id, prefix, n = _place(job)
        self._let_go(place)
        run = self._partition.machines.runs.runs.get(run_id)
        task = run.task(prefix) if run is not None and run.status == "running" else None
        if task is None:
            return
        event: Event | None = None
        if n >= 0 and task.open is not None and n in task.open:
            event = Claimed(run_id, prefix, n, job.attempt, "")
        elif n < 0 and task.resources is not None:
            r = task.resources[-1 - n]
            event = ResourceChanged(run_id, prefix, -1 - n, r.generation, r.state, "", "")
        if event is not None:
            self._partition.commit([event], self._partition.now())


def _place(job: Job) -> _Place:
    if "!" in job.sid:
        prefix, number, _, _ = job.sid.split("!")
        return job.run, prefix, -1 - int(number)
    prefix, _, n = job.sid.rpartition(".")
    return job.run, prefix, int(n)


def _resource_kind(resource: Resource) -> str:
    return "resource.close" if resource.state == "closing" else "resource.open"
