"""Archiving: histories that nobody evaluates any more leave memory for blobs, many in one blob.

What is archived: the inner histories of finished flows, and finished runs' own histories and output.
First the blob is stored and synced, then *archived* is logged; only then the state lets go.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from flo.api.errors import FloError
from flo.grid.partition import Partition
from flo.grid.payloads import Payloads
from flo.grid.views import ArchivePart
from flo.primitives.history import unpack
from flo.primitives.payload import is_reference
from flo.primitives.run_events import Archived
from flo.primitives.run_state import Run

ARCHIVE_RUNS = 1_000  # finished runs in memory before their histories move out
ARCHIVE_MEMORY = 16 * 1024 * 1024  # and their bytes
ARCHIVE_BYTES = 1024 * 1024  # of one blob, about

_encode = msgspec.msgpack.Encoder().encode


class Archivist:
    def __init__(self, partition: Partition, payloads: Payloads, await_durable: Callable[[int], bool]) -> None:
        self._partition = partition
        self._payloads = payloads
        self._await_durable = await_durable  # False when it is never known
        self._bound, self._bound_bytes = ARCHIVE_RUNS, ARCHIVE_MEMORY

    @property
    def wanted(self) -> bool:
        runs = self._partition.machines.runs
        return len(runs.attics) > self._bound or runs.attics_bytes > self._bound_bytes

    def step(self) -> None:
        """Moves one blob's worth out. What cannot be written now is tried again when there is much more of it."""
        try:
            self.archive()
        except FloError:
            runs = self._partition.machines.runs
            self._bound = len(runs.attics) + ARCHIVE_RUNS
            self._bound_bytes = runs.attics_bytes + ARCHIVE_MEMORY
        else:
            self._bound, self._bound_bytes = ARCHIVE_RUNS, ARCHIVE_MEMORY

    def archive(self) -> None:
        """Moves one blob's worth out. Called from the node's own thread, without the lock."""
        parts: list[ArchivePart] = []
        taken: list[tuple[Run, int, bool, list[str]]] = []
        size = 0
        with self._partition.lock:
            for run in list(self._partition.machines.runs.attics.values()):
                if size > ARCHIVE_BYTES or len(taken) == ARCHIVE_RUNS:
                    break
                whole = run.status != "running"
                mine = [ArchivePart(run.id, prefix, count, packed) for prefix, count, packed in run.attic or ()]
                attic = len(mine)
                if whole:
                    root = run.root
                    mine.append(
                        ArchivePart(
                            run.id, root.prefix, root.count, bytes(root.packed), bytes(run.output), run.output_count
                        )
                    )
                parts += mine
                taken.append((run, attic, whole, [name for part in mine for name in _named(part)]))
                size += sum(len(part.packed) + len(part.output) + 64 for part in mine)
            index = self._partition.last_index
        if not self._await_durable(index):
            return
        blob = self._payloads.put(_encode(parts))
        try:
            with self._partition.lock:
                now = self._partition.begin()
                runs = self._partition.machines.runs.runs
                for run, attic, whole, named in taken:
                    if runs.get(run.id) is run:  # else memory was rebuilt meanwhile
                        self._partition.commit([Archived(run.id, attic, blob, whole, named)], now)
        finally:
            self._payloads.unpin(blob)


def _named(part: ArchivePart) -> list[str]:
    """The references that a history holds: their blobs live as long as it."""
    if b"@" not in part.packed:
        return []
    return [record.outcome for record in unpack(part.packed, part.count) if is_reference(record.outcome)]
