"""The contract between the core and connectors in the same process.

The core hands out a job only after *claimed by session S* is durable (design.md §6 point 4). A connector
host performs it and answers with its outcome, in batches. What a job asks is performed at most once by
this contract: a host must never begin a job twice, and a job begun in a process that died is answered by
the core itself, with `interrupted`. A job is (run, sid, attempt): an answer to another attempt is noted
and dropped by the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from flo.api.outcome import Outcome

_decode = msgspec.json.Decoder().decode


class Job(msgspec.Struct, frozen=True):
    """An action as its connector sees it."""

    run: str
    sid: str  # structural id of the action in its run
    attempt: int  # 1-based
    kind: str  # "http.request", "resource.open" …
    params: str  # canonical JSON text of the parameters, always whole
    node: str  # id of the data directory, for marks on things that must be found again

    @property
    def input(self) -> Any:
        """The parameters, parsed."""
        return _decode(self.params.encode())

    @property
    def key(self) -> str:
        """The idempotency key: one for all attempts of the action."""
        return f"{self.run}/{self.sid}"


class JobCore(Protocol):
    """What a connector host may ask of the core. Thread-safe."""

    def answer(self, results: Sequence[tuple[Job, Outcome]]) -> None:
        """Reports ended jobs. Keeps what it cannot log now; raises nothing for late or unknown jobs."""
        ...


class ConnectorHost(Protocol):
    """Performs jobs. `submit` never blocks; slots bound what runs at once, the core keeps the rest."""

    def attach(self, core: JobCore) -> None:
        """Called once, before the first job."""
        ...

    def slots(self, kind: str) -> int:
        """How many jobs of this kind may be with the host at once; 0 when no connector knows the kind."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None: ...

    def cancel(self, jobs: Sequence[Job]) -> None:
        """The jobs' results are of no interest any more; a best effort, they may still be answered."""
        ...

    def stop(self, timeout_ms: int) -> Sequence[Job] | None:
        """Waits for begun jobs, at most this long, and ends. Returns the jobs that it never began, whose claims the
        core may return: nothing was done for them and they are not answered. None stands for none."""
        ...
