"""Finds and ends processes that bear a mark, whoever started them.

A process resource is started with `FLO_RESOURCE=<mark>#<generation>` in its environment, which its
descendants inherit. So they can be found after a crash of the process that started them, through /proc.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Iterable, Mapping

from flo.api.clock import SystemClock

VARIABLE = "FLO_RESOURCE"
KILL_MS = 2_000  # how long a round waits for killed processes to be gone
ROUNDS = 20  # processes that start others meanwhile are found in a later round


class StillAlive(Exception):
    """Processes that bear the mark could not be ended. `pids` are those of the last round."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(f"processes {', '.join(map(str, pids[:10]))} cannot be ended")
        self.pids = pids


def marked(mark: str, sessions: Collection[int] = ()) -> list[int]:
    """Pids of living processes that bear the mark in any generation, or belong to one of these sessions. Processes
    of other users are not seen."""
    needle = f"{VARIABLE}={mark}#".encode()
    own = os.getpid()
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own and (_bears(name, needle) or (sessions and _session(name) in sessions)):
            found.append(int(name))
    return found


def end_marked(mark: str, *, sessions: Collection[int] = (), grace_ms: int = 0) -> int:
    """Ends them all: SIGTERM and at most `grace_ms`, then SIGKILL, until none is left. Blocks. Returns how many
    were killed or ended. Raises StillAlive."""
    ended: set[int] = set()
    first, pids = True, marked(mark, sessions)
    for _ in range(ROUNDS):
        if not pids:
            return len(ended)
        handles = _handles(pids, mark, sessions)
        try:
            if first and grace_ms > 0:
                _signal(handles, signal.SIGTERM)
                _signal(handles, signal.SIGCONT)  # a stopped process ends only when it goes on
                _wait(handles, grace_ms)
            _signal(handles, signal.SIGKILL)
            _wait(handles, KILL_MS)
        finally:
            for handle in handles.values():
                os.close(handle)
        ended.update(handles)
        first, pids = False, marked(mark, sessions)
    raise StillAlive(pids)


def _bears(pid: str, needle: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(variable.startswith(needle) for variable in file.read().split(b"\0"))
    except OSError:  # gone meanwhile, or another user's
        return False


def _session(pid: str) -> int:
    """The session of a living process, 0 of one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[3])


def _handles(pids: Iterable[int], mark: str, sessions: Collection[int]) -> dict[int, int]:
    """Pid to pidfd. A pid may have gone to another process since it was found, so each is looked at once more
    under its pidfd, which stays with the process."""
    needle = f"{VARIABLE}={mark}#".encode()
    handles: dict[int, int] = {}
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if _bears(str(pid), needle) or (sessions and _session(str(pid)) in sessions):
            handles[pid] = handle
        else:
            os.close(handle)
    return handles


def _signal(handles: Mapping[int, int], number: signal.Signals) -> None:
    for handle in handles.values():
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            continue


def _wait(handles: Mapping[int, int], timeout_ms: int) -> None:
    """Until all have ended, or the time is over."""
    clock = SystemClock()
    deadline = clock.monotonic_ms() + timeout_ms
    poll = select.poll()
    left = set(handles.values())
    for handle in left:
        poll.register(handle, select.POLLIN)
    while left and (remaining := deadline - clock.monotonic_ms()) > 0:
        for handle, _ in poll.poll(remaining):
            poll.unregister(handle)
            left.discard(handle)
