"""A whole node in one thread under a seed: fake clock, simulated disk, simulated connectors, real scripts.

The seed chooses what happens next: an evaluation, a flush, an answer of a connector, time passing, a client's
call, a power loss at some change of the disk. An oracle outside remembers what was acknowledged and what was
performed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flo.api.clock import FakeClock
from flo.api.errors import FloError
from flo.api.grid import StartRequest
from flo.api.jobs import Job, JobCore
from flo.api.outcome import error, ok
from flo.api.worker import RunCore
from flo.grid.node import Node
from flo.grid.partition import replay
from flo.log.file.backend import FileBackend
from flo.log.inspect import verify
from flo.log.simdisk import PowerLoss, SimDisk
from flo.primitives.machines import Machines
from flo.worker.bundle import Bundle
from flo.worker.describe import check_args, describe
from flo.worker.inline import InlineWorker
from flo.worker.modules import Modules

SCRIPT = Path(__file__).with_name("flows.flow")
BUNDLE = Bundle.from_script(SCRIPT)
MODULES = Modules(4)
DIRECTORY = "/data"
SEGMENT_BYTES = 16 * 1024


def expected(flow: str, run: str, args: dict[str, Any]) -> Any:
    """What the flow must return, whatever happened on the way."""
    return {
        "steps": args.get("n", 6) + 1,
        "family": [[2, 3, 4], [0, 2, 4]],
        "attempts": True,
        "waits": [{"n": 1}, {"n": 2}],
        "pair": [[0, 1, 2, 3, 4], "sent"],
        "again": "4",
        "race": [True, ["cancelled", True, True]],
    }[flow]


class SimHost:
    """Connectors of one life of the process. What it has begun dies with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.core: JobCore
        self.jobs: list[Job] = []

    def attach(self, core: JobCore) -> None:
        self.core = core

    def slots(self, kind: str) -> int:
        return 3

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._world.began(job)
            self.jobs.append(job)

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.jobs = [other for other in self.jobs if other.sid != job.sid or other.run != job.run]

    def stop(self, timeout_ms: int) -> None:
        pass

    def answer(self, rng: random.Random) -> None:
        job = self.jobs.pop(rng.randrange(len(self.jobs)))
        self.core.answer([(job, self._world.perform(job, rng))])


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = SimDisk()
        self.clock = FakeClock()
        self.begun: Counter[tuple[str, str, int]] = Counter()
        self.open: set[str] = set()  # marks of resources that exist
        self.started: dict[str, tuple[str, dict[str, Any]]] = {}  # acknowledged runs
        self.unknown: tuple[str, str, dict[str, Any]] | None = None  # a start whose outcome nobody knows
        self.signalled: Counter[str] = Counter()
        self.crashes = 0
        self.trace: list[str] = []
        self.node: Node
        self.worker: InlineWorker
        self.host: SimHost
        self._boot()

    # -- one life of the process

    def _boot(self) -> None:
        while True:
            try:
                self._open()
                return
            except PowerLoss:
                self._lose_power()

    def _open(self) -> None:
        self.host = SimHost(self)
        backend = FileBackend(
            DIRECTORY, disk=self.disk, segment_bytes=SEGMENT_BYTES, make_log_id=lambda: b"simulated-log-id"[:16]
        )
        self.node = Node.open(
            backend, worker_factory=self._worker, host_factory=lambda: self.host, clock=self.clock,
            entropy=self.rng.randbytes, threads=False, session=f"s{self.crashes}",
        )  # fmt: skip
        self.node.put_bundle(BUNDLE.digest, BUNDLE.data)
        self.node.execute(None)

    def _worker(self, core: RunCore) -> InlineWorker:
        self.worker = InlineWorker(core, modules=MODULES)
        return self.worker

    def _lose_power(self) -> None:
        self.crashes += 1
        self.trace.append("power loss")
        self.disk.restart(seed=self.rng.randrange(1 << 30))
        self._plan_crash()

    def _plan_crash(self) -> None:
        if self.rng.random() < 0.9:
            self.disk.crash_after(self.rng.randrange(1, 40))

    # -- the world outside

    def began(self, job: Job) -> None:
        key = (job.run, job.sid, job.attempt)
        if not job.kind.startswith("resource."):
            assert self.begun[key] == 0, f"{key} was begun twice"
        self.begun[key] += 1
        if job.kind == "resource.open":
            self.open.add(job.input["mark"])

    def perform(self, job: Job, rng: random.Random) -> str:
        if job.kind == "resource.open":
            return ok({"path": "/tmp/" + job.input["mark"]})
        if job.kind == "resource.close":
            self.open.discard(job.input["mark"])
            return "+null"
        if rng.random() < 0.3:
            return error("connector", "dropped", retryable=True)
        return ok({"status": 200, "headers": {}, "body": "{}", "json": {}})

    # -- what happens

    def step(self) -> None:
        """One thing that the seed chooses; a power loss ends this life and begins the next."""
        try:
            self._step()
        except PowerLoss:
            self._lose_power()
            self._boot()

    def _step(self) -> None:
        choice = self.rng.random()
        if choice < 0.30:
            self.trace.append(f"drain {self._drain()}")
        elif choice < 0.50:
            self.node.pump()
        elif choice < 0.68 and self.host.jobs:
            self.host.answer(self.rng)
        elif choice < 0.80:
            self.clock.advance(self.rng.choice([1, 20, 100]))
            self.node.tick()
        elif choice < 0.92:
            self._client()
        elif choice < 0.93:
            self.clock.set_wall(self.clock.wall_ms() - 600_000)

    def _drain(self) -> int:
        return self.worker.drain() if hasattr(self, "worker") else 0

    def _client(self) -> None:
        if self.started and self.rng.random() < 0.4:
            waiting = sorted(id for id, (flow, _) in self.started.items() if flow == "waits" and self.signalled[id] < 2)
            if waiting:
                id = self.rng.choice(waiting)
                self.signalled[id] += 1  # before the call: it may be in the log when the power goes
                try:
                    self.node.signal(id, "go", json.dumps({"n": self.signalled[id]}))
                except PowerLoss:
                    self.signalled[id] -= 1
                    raise_again = self._landed(id)
                    self.signalled[id] += raise_again
                return
        if self.unknown is not None:
            self.start(*self.unknown)  # the power went in the middle of it: the same again is the same run
        elif len(self.started) < 6:
            flow = self.rng.choice(["steps", "family", "flaky", "attempts", "waits", "pair", "held", "again", "race"])
            number = len(
                self.started
            )  # a start that was not acknowledged may be in the log: its id keeps its arguments
            self.start(flow, f"{flow}-{number}", {"n": number + 2} if flow == "steps" else {})

    def _landed(self, id: str) -> int:
        """After a power loss in the middle of a signal: whether it is in the log."""
        self._lose_power()
        self._boot()
        run = self.node.partition.machines.runs.runs[id]
        taken = 2 if run.status != "running" else run.root.count
        return taken + len(run.signals or ()) - self.signalled[id]

    def start(self, flow: str, id: str, args: dict[str, Any]) -> None:
        spec = describe(BUNDLE, flow)
        given = check_args(BUNDLE, flow, json.dumps(args))
        request = StartRequest(
            id=id, bundle=BUNDLE.digest, flow=spec.symbol, args=given, options=spec.options_json, username="sim"
        )
        self.unknown = (flow, id, args)
        self.node.start(request)
        self.unknown = None
        self.started[id] = (flow, args)
        self.trace.append(f"start {id}")

    # -- the end

    def finish(self, rounds: int = 3_000) -> None:
        """No more failures: everything that was acknowledged must come to its end."""
        self.disk.crash_after(1 << 60)
        if self.unknown is not None:
            self.start(*self.unknown)
        for id, (flow, _) in self.started.items():
            while flow == "waits" and self.signalled[id] < 2:
                self.signalled[id] += 1
                self.node.signal(id, "go", json.dumps({"n": self.signalled[id]}))
        self.node.execute(None)
        for _ in range(rounds):
            self._drain()
            self.node.pump()
            while self.host.jobs:
                self.host.answer(self.rng)
            self._drain()
            if not self.node.partition.machines.live_runs():
                break
            due = self.node.next_due
            if due is not None and due > self.node.now():
                self.clock.advance(due - self.node.now())
            self.node.tick()
        self.node.pump()

    def check(self) -> None:
        views = {view.id: view for view in self.node.list()}
        for id, (flow, args) in self.started.items():
            assert id in views, f"the acknowledged run {id} is lost"
            view = views[id]
            assert view.status == "completed", f"{id}: {view}"
            result = json.loads(bytes(view.result or b"null"))
            if flow in ("flaky", "held"):
                continue  # any transport failure is a right result of flaky; held returns its path
            assert result == expected(flow, id, args), f"{id}: {result}"
        assert not self.open, f"resources are left: {self.open}"
        self.node.close()
        report = verify(DIRECTORY, disk=self.disk)
        assert report.ok, [str(problem) for problem in report.problems]

    def replay_equals_live(self) -> None:
        self.node.pump()
        live = self.node.partition.machines.dump()
        machines = Machines()
        backend = self.node._backend
        snapshot = backend.get_snapshot()
        from_index = 1
        if snapshot is not None:
            machines.load(snapshot[1])
            from_index = snapshot[0] + 1
        replay(machines, backend.read(from_index), from_index)
        assert machines.dump() == live


def simulate(seed: int, steps: int = 150) -> World:
    """One simulation; raises AssertionError when a promise was broken."""
    world = World(seed)
    world._plan_crash()
    for _ in range(steps):
        world.step()
    world.finish()
    try:
        world.replay_equals_live()
        world.check()
    except FloError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    return world
