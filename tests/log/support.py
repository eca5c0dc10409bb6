"""Logs to test with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flo.log.contract import Frame, LoggedEvent
from flo.log.errors import LogError
from flo.log.file.backend import FileBackend
from flo.log.memory import MemoryBackend

LOG_ID = bytes(range(16))


def events(*payloads: bytes, kind: int = 7) -> list[LoggedEvent]:
    return [(kind, 1, payload) for payload in payloads]


def append(log: Any, *payloads: bytes, time_ms: int = 1_000) -> None:
    """One frame with these payloads."""
    log.append([Frame(log.last_index + 1, time_ms, log.epoch, events(*payloads))])


def payloads(log: Any, from_index: int = 1) -> list[bytes]:
    return [event[2] for frame in log.read(from_index) for event in frame.events]


def crash(log: Any) -> None:
    """The owner dies: its lock goes, nothing is written."""
    if isinstance(log, FileBackend):
        log._release()


def owned(log: Any) -> Any:
    log.open()
    log.claim()
    return log


class Watcher:
    """What a partition hears from its group commit."""

    def __init__(self) -> None:
        self.durable: list[int] = []
        self.lost: list[LogError] = []


def commit_parts(log: MemoryBackend) -> tuple[Watcher, Sequence[Any]]:
    watcher = Watcher()
    return watcher, (log, watcher.durable.append, watcher.lost.append)
