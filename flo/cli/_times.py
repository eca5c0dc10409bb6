"""Times as people read them. All input is in milliseconds."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Final

from flo.api.clock import SystemClock

_STEPS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def now_ms() -> int:
    return SystemClock().wall_ms()


def span(ms: int) -> str:
    """`340 ms`, `2.5 s`, `3 min 5 s`, `2 d 4 h`: two units at most."""
    if ms < 1_000:
        return f"{max(ms, 0)} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f}".removesuffix(".0") + " s"
    for (size, unit), (next_size, next_unit) in pairwise(_STEPS):
        if ms >= size:
            rest = ms % size // next_size
            return f"{ms // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    raise AssertionError("everything over a minute has a unit")


def rough(ms: int) -> str:
    """The largest unit only, for ages and for what changes once a second."""
    if ms < 1_000:
        return "now"
    size, unit = next((size, unit) for size, unit in _STEPS if ms >= size)
    return f"{ms // size} {unit}"


def local(ms: int) -> str:
    """Date and time in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1_000))
