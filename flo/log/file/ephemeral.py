"""`ephemeral`: the directory is locked and knows its topology, but no log is written to it."""

from __future__ import annotations

import os

from flo.log.contract import LogInfo
from flo.log.disk import Disk, SystemDisk
from flo.log.file.backend import new_log_id
from flo.log.file.directory import Directory
from flo.log.memory import MemoryBackend, MemoryStore


class EphemeralBackend(MemoryBackend):
    """A memory log behind a directory's lock. Every start begins empty."""

    def __init__(self, path: str, *, disk: Disk | None = None, shards: int = 0, partitions: int = 0) -> None:
        super().__init__(MemoryStore(new_log_id().hex()))
        self._disk = disk if disk is not None else SystemDisk()
        self.directory = Directory(self._disk, path, shards=shards, partitions=partitions)

    def open(self) -> LogInfo:
        self.directory.open()
        try:
            self.directory.record(self.directory.system.log_id)
            info = super().open()._replace(partitions=self.directory.system.partitions)
            if self._disk.exists(os.path.join(self.directory.shard, "segs")):
                warning = f"{self.directory.path} holds a log, which durability ephemeral neither reads nor changes"
                return info._replace(warnings=(warning,))
            return info
        except BaseException:
            self.directory.close()
            raise

    def publish_socket(self, socket: str) -> None:
        """Writes into the lock file where this owner listens; others find it in DirectoryLocked."""
        self.directory.publish_owner(socket)

    def close(self) -> None:
        super().close()
        self.directory.close()
