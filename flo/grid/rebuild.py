"""The machines as the log tells them: at every start, and again when memory can no longer be trusted."""

from __future__ import annotations

import msgspec

from flo.grid.partition import replay
from flo.log.contract import LogBackend
from flo.log.errors import LogDamaged
from flo.primitives.machines import Machines


def rebuilt(backend: LogBackend, runtime: str) -> tuple[Machines, int]:
    """Machines from the newest snapshot and the log after it, with the snapshot's index (0 without one). What is
    derived from their state is not set yet: `runs.rebuild_derived()`. Raises LogDamaged."""
    machines = Machines(runtime)
    snapshot = backend.get_snapshot()
    index = 0
    if snapshot is not None:
        index = snapshot[0]
        try:
            machines.load(snapshot[1])
        except (ValueError, msgspec.MsgspecError) as wrong:
            raise LogDamaged(
                f"the snapshot at index {index} cannot be read: {wrong}",
                hint="it was written by a newer release: use that or a newer one",
            ) from wrong
    replay(machines, backend.read(index + 1), index + 1)
    return machines, index
