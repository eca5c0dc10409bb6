"""Log backends by URL."""

from __future__ import annotations

import os

from flo.log.contract import LogBackend
from flo.log.errors import LogError
from flo.log.memory import MemoryBackend

SYNC = "sync"
ASYNC_FLUSH = "async_flush"
EPHEMERAL = "ephemeral"
_MODES = {SYNC: SYNC, ASYNC_FLUSH: ASYNC_FLUSH, "async": ASYNC_FLUSH, EPHEMERAL: EPHEMERAL, "none": EPHEMERAL}


def durability_mode(name: str) -> str:
    """The mode by its name or alias. Raises LogError."""
    if name not in _MODES:
        raise LogError(f"unknown durability mode {name!r}", hint="one of sync, async_flush, ephemeral")
    return _MODES[name]


def open_log(url: str, *, durability: str = SYNC, shards: int = 0, partitions: int = 0) -> LogBackend:
    """The backend for `memory:` or `file:DIR` (also a plain path), not opened yet. `shards` and `partitions` are the
    configured topology of a directory, 0 = as it is. Raises LogError for any other URL or mode."""
    mode = durability_mode(durability)
    scheme, colon, rest = url.partition(":")
    if not colon or "/" in scheme:
        scheme, rest = "file", url
    if scheme == "memory" and not rest:
        return MemoryBackend()
    if scheme == "file" and rest:
        path = os.path.abspath(os.path.expanduser(rest.removeprefix("//")))
        if mode == EPHEMERAL:
            from flo.log.file.ephemeral import EphemeralBackend

            return EphemeralBackend(path, shards=shards, partitions=partitions)
        from flo.log.file.backend import FileBackend

        return FileBackend(path, background=mode == ASYNC_FLUSH, shards=shards, partitions=partitions)
    raise LogError(f"no log backend for {url!r}", hint="memory: or file:DIR")


def directory_of(url: str) -> str | None:
    """The folder of a `file:` log, as a path that another process understands."""
    if url == "memory:":
        return None
    return os.path.abspath(os.path.expanduser(url.removeprefix("file:").removeprefix("//")))
