"""The form of every benchmark of the project: what was measured, beside whom, against which aim."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

SYNCS = 300


class Figure(msgspec.Struct):
    """One line. `met` compares the value with the aim in the direction that `better` names."""

    work: str
    value: float
    unit: str
    peer: str
    aim: float
    better: str = "less"  # or "more"

    @property
    def met(self) -> bool:
        return self.value <= self.aim if self.better == "less" else self.value >= self.aim


def median_of(samples: Sequence[float]) -> float:
    assert len(samples) >= 5, "a median of at least five repetitions"
    return statistics.median(samples)


def sync_ms(folder: str | None = None) -> float:
    """The median of one small write and fdatasync into preallocated room, in ms: what any durable step waits for."""
    with tempfile.TemporaryFile(dir=folder) as file:
        fd = file.fileno()
        os.posix_fallocate(fd, 0, 1 << 20)
        os.pwrite(fd, bytes(1 << 20), 0)
        os.fsync(fd)
        times = []
        for i in range(SYNCS):
            os.pwrite(fd, b"x" * 400, i * 400)
            began = time.perf_counter()
            os.fdatasync(fd)
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def show(figures: Sequence[Figure], *, sync: float, json_file: str | None) -> None:
    """Prints the table, and with a file writes the list of {work, value, unit, peer, aim, met}."""
    width = max(len(f.work) for f in figures)
    print(f"fdatasync here: {sync:.3f} ms (median of {SYNCS})\n")
    print(f"{'work':{width}}  {'value':>12}  {'aim':>12}  met  best peer")
    for f in figures:
        sign = "≤" if f.better == "less" else "≥"
        value = f"{f.value:,.3f}" if f.value < 100 else f"{f.value:,.0f}"
        aim, met = f"{sign} {f.aim:,g}", "yes" if f.met else "NO"
        print(f"{f.work:{width}}  {value:>12}  {aim:>12}  {met:3}  {f.peer}  [{f.unit}]")
    if json_file is not None:
        rows = [
            {"work": f.work, "value": f.value, "unit": f.unit, "peer": f.peer, "aim": f.aim, "met": f.met}
            for f in figures
        ]
        Path(json_file).write_text(json.dumps(rows, indent=2) + "\n")
