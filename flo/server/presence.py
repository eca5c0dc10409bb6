"""Which server runs on a data directory: what it leaves there for `flo server status` and `stop`.

    flo.pid       its process id
    server.json   since when it serves, and where

Both are removed at a planned stop. After a crash they stay, so they count only while that process holds the
directory's lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from flo.log.file.directory import owner_of

PID_FILE: Final = "flo.pid"
ADDRESSES_FILE: Final = "server.json"


@dataclass(frozen=True)
class Presence:
    """A server that has become ready."""

    pid: int
    version: str
    started_at_ms: int
    durability: str
    shards: int
    partitions: int
    client: str  # host:port, as the others; "" for a port that is off
    metrics: str
    health: str


def write_pid(directory: str) -> None:
    """Names this process. Raises OSError."""
    _replace(os.path.join(directory, PID_FILE), f"{os.getpid()}\n")


def write(directory: str, presence: Presence) -> None:
    """Says where this process serves. Raises OSError."""
    write_pid(directory)
    _replace(os.path.join(directory, ADDRESSES_FILE), json.dumps(asdict(presence), indent=2) + "\n")


def remove(directory: str) -> None:
    """At the end of this process; what another one has left stays."""
    if pid_in(directory) == os.getpid():
        for name in (ADDRESSES_FILE, PID_FILE):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))


def pid_in(directory: str) -> int:
    """What flo.pid says; 0 when there is none."""
    try:
        with open(os.path.join(directory, PID_FILE), encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return 0


def running(directory: str) -> int:
    """The process id of the server on this directory; 0 when there is none."""
    pid = pid_in(directory)
    if pid <= 0 or not is_alive(pid) or not is_locked(directory):
        return 0
    owner = owner_of(directory)
    return pid if owner is not None and owner.pid == pid else 0


def ready(directory: str) -> Presence | None:
    """What the running server says of itself; None while it starts, and when there is none."""
    try:
        with open(os.path.join(directory, ADDRESSES_FILE), encoding="utf-8") as file:
            content: dict[str, Any] = json.load(file)
        presence = Presence(**content)
    except (OSError, ValueError, TypeError):
        return None
    return presence if presence.pid == running(directory) else None


def is_locked(directory: str) -> bool:
    """Whether some process, a server or not, holds the directory."""
    try:
        handle = os.open(os.path.join(directory, "lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def is_alive(pid: int) -> bool:
    """Whether the process is there and has not ended; one that has, and whose parent has not looked yet, is over."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(4_096).rpartition(b") ")[2][:1] != b"Z"
    except OSError:  # a system without /proc
        return True


def _replace(path: str, content: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(temporary, path)
