"""The machines as the log tells them: at every start, and again when memory can no longer be trusted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from flo.grid.partition import replay
from flo.log.contract import LogBackend
from flo.log.errors import LogDamaged
from flo.primitives.machines import Machines


def rebuilt(backend: LogBackend, machines: Machines) -> tuple[Machines, int]:
    """These new machines, as the newest snapshot and the log after it make them, and the snapshot's index (0 without
    one). What is derived from their state is not set yet: `runs.rebuild_derived()`. Raises LogDamaged."""
    with _no_collection():
        index = _load(machines, backend)
        replay(machines, backend.read(index + 1), index + 1)
    return machines, index


def _load(machines: Machines, backend: LogBackend) -> int:
    snapshot = backend.get_snapshot()
    if snapshot is None:
        return 0
    index, sections = snapshot
    try:
        machines.load(sections)
    except (ValueError, msgspec.MsgspecError) as wrong:
        raise LogDamaged(
            f"the snapshot at index {index} cannot be read: {wrong}",
            hint="it was written by a newer release: use that or a newer one",
        ) from wrong
    return index


@contextmanager
def _no_collection() -> Iterator[None]:
    """The garbage collector would visit what is being loaded again and again, and find nothing: half of the time of
    a million keys."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
