"""What is measured while the server works: plain numbers, read when somebody asks for metrics.

How long an operation takes is measured for one of SAMPLED; how long a flush of the log takes, for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from flo.api.clock import elapsed_ns
from flo.log.contract import Frame
from flo.server.resp.commands import find
from flo.wire import opcodes
from flo.wire.calls import CALLS
from flo.wire.frames import Request

OPERATION_SECONDS: Final = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0
)  # fmt: skip
COMMIT_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
NAMES: Final[dict[int, str]] = {
    number: name.lower() for name, number in vars(opcodes).items() if name.isupper() and isinstance(number, int)
}


class Histogram:
    """Counts by upper bounds, in seconds. One thread at a time observes; any reads."""

    __slots__ = ("bounds", "counts", "total_ns")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_ns = 0

    def observe(self, ns: int) -> None:
        self.counts[bisect_left(self.bounds, ns / 1e9)] += 1
        self.total_ns += ns

    def buckets(self) -> list[tuple[str, int]]:
        """Cumulative counts by their bounds as text."""
        found: list[tuple[str, int]] = []
        count = 0
        for bound, more in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += more
            found.append(("+Inf" if bound == float("inf") else repr(bound), count))
        return found


class Flushes:
    """The log's appends, flush included (flo.log.commit.FlushMeter)."""

    def __init__(self) -> None:
        self.seconds = Histogram(COMMIT_SECONDS)
        self.frames = 0
        self.events = 0
        self.bytes = 0

    def begin(self) -> int:
        return elapsed_ns()

    def end(self, begun: int, frames: Sequence[Frame], size: int) -> None:
        self.seconds.observe(elapsed_ns() - begun)
        self.frames += len(frames)
        self.events += sum(len(frame.events) for frame in frames)
        self.bytes += size


class Operations:
    """The times of sampled operations, by their names."""

    def __init__(self) -> None:
        self.seconds: dict[str, Histogram] = {}

    def sampled(self, request: Any, ns: int) -> None:
        name = operation(request)
        histogram = self.seconds.get(name)
        if histogram is None:
            histogram = self.seconds[name] = Histogram(OPERATION_SECONDS)
        histogram.observe(ns)


def operation(request: Any) -> str:
    """What the request asks for, by a name of a bounded set."""
    if isinstance(request, Request):
        if request.opcode == opcodes.CALL:
            name = request.key.decode("utf-8", "replace")
            return name if name in CALLS else "unknown"
        return NAMES.get(request.opcode, "unknown")
    if isinstance(request, list) and request:
        command = find(request[0])
        return f"resp_{command.name}" if command is not None else "unknown"
    return "unknown"
