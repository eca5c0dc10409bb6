"""What one evaluation may use: steps of the interpreter, and memory.

The interpreter frees nothing before the outermost call returns (design.md §6.1), so a loop that only adds numbers can
fill the machine long before its steps are used up. It does not say how much it holds. What the process grows by is its
doing as far as its thread was the one that touched new pages: the program that embeds us may grow meanwhile, too.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from flo.api.clock import Clock, SystemClock
from flo.api.limits import EVALUATION_BYTES, STARLARK_STEPS
from flo.worker.host import CHECK_STEPS

_STATM = "/proc/self/statm"
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGE = 2 * 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")
_statm = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC) if os.path.exists(_STATM) else None


def _touched_bytes() -> int:
    """The most that one page fault can bring."""
    return _HUGE if _HUGE_PAGES.exists() and "[always]" in _HUGE_PAGES.read_text() else _PAGE


_touched = _touched_bytes()
_WHOSE: int = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class Budget:
    """Of one evaluation, used by the thread that evaluates. Memory is bounded where the system tells what it is."""

    __slots__ = ("_clock", "_faults", "_grown", "_looked", "_memory", "_resident", "_spent", "_steps")

    def __init__(
        self, steps: int = STARLARK_STEPS, memory: int = EVALUATION_BYTES, *, clock: Clock | None = None
    ) -> None:
        self._steps = steps
        self._memory = memory
        self._clock = clock or SystemClock()
        self._spent = 0
        self._grown = 0
        self._resident = 0  # of the process when it was last looked at; 0: what it was before is not ours
        self._faults = 0  # of this thread, at that time
        self._looked = 0  # when that was

    def resumed(self) -> None:
        """Others may have been evaluated before: what they took is not ours."""
        self._resident = 0

    def spend(self) -> str:
        """Counts another CHECK_STEPS. Says which budget is used up, or ""."""
        self._spent += CHECK_STEPS
        if self._spent > self._steps:
            return f"the step budget of {self._steps:,} is used up"
        now = self._clock.monotonic_ms()
        if now == self._looked:
            return ""
        self._looked = now
        before, self._resident = self._resident, resident_bytes()
        faults, self._faults = self._faults, page_faults()
        if before:
            self._grown = max(0, self._grown + min(self._resident - before, (self._faults - faults) * _touched))
        return f"the memory budget of {self._memory:,} bytes is used up" if self._grown > self._memory else ""


def resident_bytes() -> int:
    """The memory that this process has in use; 0 where the system does not say."""
    return 0 if _statm is None else int(os.pread(_statm, 128, 0).split(b" ", 2)[1]) * _PAGE


def page_faults() -> int:
    """How often this thread has touched memory that it had not touched before; where it is not told, of the process."""
    return resource.getrusage(_WHOSE).ru_minflt
