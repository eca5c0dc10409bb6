"""A data directory: its lock, its owner, its topology record."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final, NamedTuple

from flo.log.disk import Disk, SystemDisk, make_folder, read_file, replace_file, write_errors
from flo.log.errors import DirectoryLocked, DirectoryUnusable, LogFenced, TopologyMismatch

VERSION: Final = 1  # of the directory's layout
SHARDS_MAX: Final = 256
PARTITIONS_MIN: Final = 4096  # unless configured otherwise
PARTITIONS_PER_SHARD: Final = 32  # at least, unless configured otherwise
PARTITIONS_MAX: Final = 16_384
LOG_ID_BYTES: Final = 16
OWNER_BYTES_MAX: Final = 65_536
_SHARD_FOLDER: Final = re.compile(r"\d{5}")


class Owner(NamedTuple):
    """Who holds a directory; `socket` is empty until it listens."""

    pid: int
    socket: str


class System(NamedTuple):
    shards: int
    partitions: int
    created_at: int  # unix seconds
    version: int
    log_id: str  # hex; empty until there is a log

    def encode(self) -> bytes:
        return (json.dumps(self._asdict(), indent=2) + "\n").encode()


class Directory:
    """The locked directory. `open` raises DirectoryLocked, DirectoryUnusable, TopologyMismatch, NoSpace."""

    def __init__(self, disk: Disk, path: str, *, shards: int = 0, partitions: int = 0) -> None:
        self.disk = disk
        self.path = path
        self.shard = os.path.join(path, "00000")
        self._shards = shards
        self._partitions = partitions
        self._lock: int | None = None
        self.system = System(1, auto_partitions(1), 0, VERSION, "")
        self.recorded = False  # whether SYSTEM is on the disk

    def open(self) -> None:
        """Locks the directory, checks its topology and removes leftover temporary files at its top."""
        disk = self.disk
        if disk.exists(self.path) and not disk.is_directory(self.path):
            raise DirectoryUnusable(f"{self.path} is not a directory", hint="choose another data directory")
        make_folder(disk, self.path)
        self._take_lock()
        try:
            remove_temporary(disk, self.path)
            self._check_topology()
        except BaseException:
            self.close()
            raise

    def record(self, log_id: str = "") -> None:
        """Writes SYSTEM when it does not say so yet."""
        if self.recorded and self.system.log_id == log_id:
            return
        created_at = self.system.created_at or self.disk.modified_s(os.path.join(self.path, "lock"))
        self.system = self.system._replace(created_at=created_at, log_id=log_id)
        replace_file(self.disk, os.path.join(self.path, "SYSTEM"), [self.system.encode()])
        self.recorded = True

    def publish_owner(self, socket: str = "") -> None:
        """Tells others who owns the directory and where it listens."""
        assert self._lock is not None, "the owner holds the lock"
        content = json.dumps({"pid": os.getpid(), "socket": socket}).encode()
        path = os.path.join(self.path, "lock")
        with write_errors(path):
            self.disk.write(self._lock, content + b"\n", 0)
            self.disk.truncate(self._lock, len(content) + 1)

    def check_lock(self) -> None:
        """Raises LogFenced when the lock file was taken away: another process may own the directory by now."""
        path = os.path.join(self.path, "lock")
        if self._lock is None or not self.disk.holds(self._lock, path):
            raise LogFenced(
                f"{path} was removed or replaced while this process owned the directory",
                hint="leave the lock file alone: it never blocks a start after its owner has gone",
            )

    def close(self) -> None:
        if self._lock is not None:
            self.disk.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        path = os.path.join(self.path, "lock")
        with write_errors(self.path):
            self._lock = self.disk.lock(path)
        if self._lock is None:
            owner = owner_of(self.path, self.disk)
            raise DirectoryLocked(
                f"{self.path} is in use by another flo server" + (f" (pid {owner.pid})" if owner else ""),
                socket=owner.socket if owner else "",
                hint="stop it, or attach to it",
            )
        try:
            self.publish_owner()
        except BaseException:
            self.close()
            raise

    def _check_topology(self) -> None:
        for name, value, limit in (
            ("shards", self._shards, SHARDS_MAX),
            ("partitions", self._partitions, PARTITIONS_MAX),
        ):
            if not 0 <= value <= limit:
                raise DirectoryUnusable(f"{name} {value} is not in 1..{limit}", hint=f"0 leaves {name} as they are")
        path = os.path.join(self.path, "SYSTEM")
        if self.disk.exists(path):
            self.system = read_system(self.disk, path)
            self.recorded = True
            stored = self.system
            self._adopt("shards", stored.shards, self._shards)
            if stored.partitions:
                self._adopt("partitions", stored.partitions, self._partitions)
            else:
                self.system = stored._replace(partitions=self._partitions_for(stored.shards))
            return
        folders = [name for name in self.disk.list_directory(self.path) if _SHARD_FOLDER.fullmatch(name)]
        if folders not in ([], ["00000"]):
            raise DirectoryUnusable(
                f"{self.path} holds the data folders {', '.join(folders)} but no SYSTEM file",
                hint="restore SYSTEM from a backup of this directory: it says how the data is spread",
            )
        if folders:
            self._adopt("shards", 1, self._shards)
        shards = self._shards or 1
        self.system = System(shards, self._partitions_for(shards), 0, VERSION, "")

    def _partitions_for(self, shards: int) -> int:
        partitions = self._partitions or auto_partitions(shards)
        if partitions < shards:
            raise DirectoryUnusable(
                f"partitions {partitions} are fewer than shards {shards}", hint="each shard needs at least one"
            )
        return partitions

    def _adopt(self, name: str, stored: int, asked: int) -> None:
        if asked and asked != stored:
            raise TopologyMismatch(
                f"TopologyMismatch: {self.path} was made with {name} {stored}, not {asked}",
                hint=f"start with {name} 0 (as it is) or {stored}",
            )


def auto_partitions(shards: int) -> int:
    """How many there are when nobody says."""
    return min(max(PARTITIONS_MIN, PARTITIONS_PER_SHARD * shards), PARTITIONS_MAX)


def owner_of(path: str, disk: Disk | None = None) -> Owner | None:
    """Who wrote the lock file last, or None. Only a lock that is held makes them the owner."""
    try:
        content = json.loads(read_file(disk or SystemDisk(), os.path.join(path, "lock"))[:OWNER_BYTES_MAX])
        return Owner(int(content["pid"]), str(content.get("socket", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or one that is being written
        return None


def read_system(disk: Disk, path: str) -> System:
    """Raises DirectoryUnusable when SYSTEM is not readable, inconsistent, or of a newer release."""
    try:
        raw: Any = json.loads(read_file(disk, path))
        version = int(raw["version"])
        system = System(
            int(raw["shards"]),
            int(raw.get("partitions", 0)),
            int(raw.get("created_at", 0)),
            version,
            str(raw.get("log_id", "")),
        )
        log_id = bytes.fromhex(system.log_id)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DirectoryUnusable(
            f"{path} is unreadable: {error}", hint="restore it from a backup of this directory"
        ) from error
    if version > VERSION:
        raise DirectoryUnusable(
            f"{path} has version {version}; this release knows version {VERSION}", hint="use a newer release of flo"
        )
    fits = 1 <= system.shards <= SHARDS_MAX and 0 <= system.partitions <= PARTITIONS_MAX and version >= 1
    if not fits or (system.partitions and system.partitions < system.shards) or len(log_id) not in (0, LOG_ID_BYTES):
        raise DirectoryUnusable(
            f"{path} is inconsistent: shards {system.shards}, partitions {system.partitions}, version {version}",
            hint="restore it from a backup of this directory",
        )
    return system


def remove_temporary(disk: Disk, folder: str) -> None:
    """Removes what an interrupted replacement has left."""
    for name in disk.list_directory(folder):
        if name.endswith(".tmp"):
            path = os.path.join(folder, name)
            with write_errors(path):
                disk.unlink(path)
