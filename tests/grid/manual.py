"""A node whose worker and connectors are the test itself: it acts by leases and answers jobs by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from flo.api.clock import FakeClock
from flo.api.grid import StartRequest
from flo.api.jobs import Job, JobCore
from flo.api.worker import Lease, RunCore
from flo.grid.node import Node
from flo.log.memory import MemoryBackend, MemoryStore
from flo.primitives.machines import Machines

BUNDLE = b"a bundle"
DIGEST = sha256(BUNDLE).digest()


class ManualWorker:
    """Keeps the leases that it gets; the test evaluates them."""

    def __init__(self, core: RunCore) -> None:
        self.core = core
        self.leases: dict[tuple[str, str], Lease] = {}
        self.woken: list[Lease] = []

    def start(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self.leases[lease.run, lease.task] = lease

    def wake(self, leases: Sequence[Lease]) -> None:
        self.woken += leases

    def stop(self, timeout_ms: int) -> None:
        self.leases.clear()


class ManualHost:
    """Keeps the jobs that it gets; the test answers them."""

    def __init__(self, slots: int = 4) -> None:
        self.core: JobCore
        self.jobs: list[Job] = []
        self.begun: list[tuple[str, str, int]] = []
        self.cancelled: list[Job] = []
        self._slots = slots

    def attach(self, core: JobCore) -> None:
        self.core = core

    def slots(self, kind: str) -> int:
        return 0 if kind == "unknown" else self._slots

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            key = (job.run, job.sid, job.attempt)
            assert key not in self.begun, f"{key} was begun twice"
            self.begun.append(key)
            self.jobs.append(job)

    def cancel(self, jobs: Sequence[Job]) -> None:
        self.cancelled += jobs

    def stop(self, timeout_ms: int) -> Sequence[Job] | None:
        return None


class Bench:
    """One node over a memory log that outlives it, with a clock that the test moves."""

    def __init__(
        self, store: MemoryStore | None = None, clock: FakeClock | None = None, slots: int = 4, *,
        threads: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        self.store = store or MemoryStore()
        self.clock = clock or FakeClock()
        self.backend = MemoryBackend(self.store)
        self.host = ManualHost(slots)
        self.worker: ManualWorker
        self._entropy = 0
        self.node = Node.open(
            self.backend, worker_factory=self._worker, host_factory=lambda: self.host, clock=self.clock,
            entropy=self._draw, threads=threads, **options,
        )  # fmt: skip
        self.node.put_bundle(DIGEST, BUNDLE)

    def _worker(self, core: RunCore) -> ManualWorker:
        self.worker = ManualWorker(core)
        return self.worker

    def _draw(self, size: int) -> bytes:
        self._entropy += 1
        return self._entropy.to_bytes(size, "big")

    @property
    def machines(self) -> Machines:
        return self.node.partition.machines

    def start(self, id: str = "r", flow: str = "x.flow::main", **fields: Any) -> Lease:
        """Starts a run and gives the lease of its root."""
        args = json.dumps(fields.pop("args", {}))
        options = json.dumps(fields.pop("options", {}))
        self.node.start(StartRequest(id=id, bundle=DIGEST, flow=flow, args=args, options=options, **fields))
        return self.worker.leases[id, "0"]

    def lease(self, id: str, task: str) -> Lease:
        return self.worker.leases[id, task]

    def act(
        self, lease: Lease, n: int, kind: str, params: Any = None, *, task: str = "", handle: bool = False
    ) -> str | None:
        core, params = self.worker.core, params or {}
        return core.act(lease, task or lease.task, n, kind, json.dumps(params), f"x.flow:{n}", handle=handle)

    def answer(self, job: Job, outcome: str) -> None:
        self.host.jobs.remove(job)
        self.host.core.answer([(job, outcome)])

    def advance(self, ms: int) -> None:
        self.clock.advance(ms)
        self.node.tick()
        self.node.pump()

    def crash(self) -> Bench:
        """The process dies: what is not durable is gone, another node opens the log."""
        return Bench(self.store, self.clock)

    def replayed(self) -> dict[str, bytes]:
        """The dump of machines that were rebuilt from the log alone."""
        from flo.grid.partition import replay

        self.node.pump()
        machines = Machines()
        replay(machines, self.backend.read(1), 1)
        machines.runs.rebuild_derived()
        return machines.dump()
