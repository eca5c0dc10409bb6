"""A worker without threads: deterministic, and every wait throws the evaluation away."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from flo.api.worker import Lease, RunCore
from flo.worker.modules import Modules
from flo.worker.strand import End, Strand, allow_nesting


class InlineWorker:
    """Implements flo.api.worker.Worker. Strands are evaluated one after another, in the caller's thread, by `drain`.

    A strand is evicted at every wait, so that it is replayed from its beginning when it goes on: what works
    here works after any crash. For simulation and `flo test`.
    """

    def __init__(self, core: RunCore, *, modules: Modules | None = None) -> None:
        self._core = core
        self._modules = modules or Modules()
        self._ready: deque[Strand] = deque()
        allow_nesting()

    def start(self, leases: Sequence[Lease]) -> None:
        self._ready.extend(Strand(lease, self._core, self._modules, self) for lease in leases)

    def wake(self, leases: Sequence[Lease]) -> None:
        """No strand ever waits here; what is revoked notices by itself."""

    def stop(self, timeout_ms: int) -> None:
        while self._ready:
            self._core.release(self._ready.popleft().lease)

    def drain(self) -> int:
        """Evaluates what is ready, and what becomes ready meanwhile; returns how many evaluations that took."""
        evaluations = 0
        while self._ready:
            strand = self._ready.popleft()
            evaluations += 1
            if strand.evaluate() is End.LEFT:
                self._core.release(strand.lease)
        return evaluations

    def wait(self, strand: Strand) -> bool:
        return False

    def passes(self, strand: Strand) -> bool:
        return True
