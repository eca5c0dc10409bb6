"""Archiving: histories that nobody evaluates any more leave memory for blobs, many in one blob.

What is archived: the inner histories of finished flows, and finished runs' own histories and output.
First the blob is stored and synced, then *archived* is logged; only then the state lets go.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from flo.api.grid import LogLine
from flo.grid.partition import Partition
from flo.grid.views import ArchivePart, archive_parts
from flo.log.contract import LogBackend
from flo.primitives.payload import digest_of, reference
from flo.primitives.run_events import Archived
from flo.primitives.run_state import Run

ARCHIVE_RUNS = 1_000  # finished runs in memory before their histories move out
ARCHIVE_BYTES = 1024 * 1024  # of one blob, about

_encode = msgspec.msgpack.Encoder().encode


class Archivist:
    def __init__(self, partition: Partition, backend: LogBackend) -> None:
        self._partition = partition
        self._backend = backend

    @property
    def wanted(self) -> bool:
        return len(self._partition.machines.runs.attics) > ARCHIVE_RUNS

    def archive(self) -> None:
        """Moves one blob's worth out. Called from the node's own thread, without the lock."""
        parts: list[ArchivePart] = []
        taken: list[tuple[str, int, bool]] = []
        size = 0
        with self._partition.lock:
            for run in list(self._partition.machines.runs.attics.values()):
                if size > ARCHIVE_BYTES:
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
                taken.append((run.id, attic, whole))
                size += sum(len(part.packed) + len(part.output) + 64 for part in mine)
        data = _encode(parts)
        digest = self._backend.put_blob(data)
        name = reference(digest, "@")
        with self._partition.lock:
            now = self._partition.begin()
            for run_id, attic, whole in taken:
                self._partition.commit([Archived(run_id, attic, name, whole)], now)
        self._backend.unpin(digest)

    def load(self, name: str) -> bytes:
        return self._backend.get_blob(digest_of(name))

    def lines(self, run: Run, log_lines: Callable[[Run], list[LogLine]]) -> list[LogLine]:
        """The output of a run, wherever it is."""
        if run.output or not run.output_count or not run.archives:
            return log_lines(run)
        for part in archive_parts(self.load(run.archives[-1])):
            if part.run == run.id and part.output_count:
                packed = b"\xdd" + part.output_count.to_bytes(4, "big") + part.output
                return [LogLine(*line) for line in msgspec.msgpack.decode(packed, type=list[tuple[int, str, str, str]])]
        return []
