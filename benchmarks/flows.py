"""Durable flows, measured: `python benchmarks/flows.py [--json FILE] [--repeat N] [--only WORD]`.

Every figure is of durable work: the run is reported complete only when all of its steps are on the disk.
Peers' figures were measured on a machine of this kind (2 cores, fdatasync about 0.1 ms), all of them syncing
before they acknowledge.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import uvloop

import flo
from flo.connectors.testing import RecordingServer

sys.path.insert(0, str(Path(__file__).parent))

from report import Figure, median_of, show, sync_ms  # a script's own folder

HERE = Path(__file__).parent
SCRIPT = str(HERE / "flows.flow")
HELLO = HERE.parent / "examples" / "hello.flow"
REPEAT = 5


async def in_directory(work: Callable[[flo.AsyncGrid, str], Awaitable[float]]) -> float:
    """One measurement in a fresh data directory."""
    folder = tempfile.mkdtemp(prefix="flo-bench-")
    try:
        async with flo.open(f"file:{folder}/data") as grid:
            await (await grid.run(f"{SCRIPT}::child", args={"n": 1})).result()  # bundle and modules are loaded
            return await work(grid, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def alone(flow: str, count: int) -> float:
    """Median ms of one run after another."""

    async def work(grid: flo.AsyncGrid, folder: str) -> float:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            await (await grid.run(f"{SCRIPT}::{flow}")).result()
            times.append(time.perf_counter() - began)
        return median_of(times) * 1e3

    return await in_directory(work)


async def at_once(flow: str, width: int, total: int) -> float:
    """Runs per second with `width` of them under way at any time."""

    async def work(grid: flo.AsyncGrid, folder: str) -> float:
        left = total

        async def client() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await (await grid.run(f"{SCRIPT}::{flow}")).result()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(width)))
        return total / (time.perf_counter() - began)

    return await in_directory(work)


def resident_bytes() -> int:
    """Private memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise OSError("no Private_Dirty in smaps_rollup")


async def park(count: int) -> tuple[float, float, float]:
    """Bytes of memory for each parked run, seconds to wake all, and the share of a core that they cost meanwhile."""
    figures: list[tuple[float, float]] = []

    async def work(grid: flo.AsyncGrid, folder: str) -> float:
        # What a first batch needs comes partly from memory that start-up has freed, so the second one is measured.
        first = await asyncio.gather(*(grid.run(f"{SCRIPT}::parked") for _ in range(count)))
        await parked_all(grid, len(first))
        before = resident_bytes()
        runs = await asyncio.gather(*(grid.run(f"{SCRIPT}::parked") for _ in range(count)))
        await parked_all(grid, len(first) + len(runs))
        each = (resident_bytes() - before) / count
        used = time.process_time()
        await asyncio.sleep(2)
        idle = (time.process_time() - used) / 2
        began = time.perf_counter()
        await asyncio.gather(*(run.signal("go", 1) for run in runs), *(run.result() for run in runs))
        figures.append((each, idle))
        return time.perf_counter() - began

    seconds = await in_directory(work)
    return figures[0][0], seconds, figures[0][1]


def parked(count: int) -> tuple[float, float, float]:
    """One measurement of `park`; in a process of its own, for freed memory of others would make runs look small."""
    return uvloop.run(park(count))


async def parked_all(grid: flo.AsyncGrid, count: int) -> None:
    """Waits until no run is being evaluated any more."""
    while True:
        await asyncio.sleep(0.5)
        running = [view for view in await grid.list() if view.status == "running"]
        if len(running) == count and all(w.on.startswith("signal") for view in running for w in view.waiting):
            return


async def gather(count: int) -> float:
    async def work(grid: flo.AsyncGrid, folder: str) -> float:
        began = time.perf_counter()
        await (await grid.run(f"{SCRIPT}::gather", args={"n": count})).result()
        return count / (time.perf_counter() - began)

    return await in_directory(work)


async def replay(count: int) -> float:
    """Actions per second of a replay: the run is evicted, then woken; its whole history is gone through again."""
    folder = tempfile.mkdtemp(prefix="flo-bench-")
    try:
        async with flo.open(f"file:{folder}/data") as grid:
            run = await grid.run(f"{SCRIPT}::long", args={"n": count}, id="long")
            await parked_all(grid, 1)
        async with flo.open(f"file:{folder}/data") as grid:
            run = await grid.get("long")
            await run.signal("go", 1)
            began = time.perf_counter()
            await grid.resume(["long"])
            await run.result()
            return count / (time.perf_counter() - began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def crash(count: int) -> tuple[float, int]:
    """Seconds from the start of the second process to the end of all runs, and requests that were repeated."""
    folder = tempfile.mkdtemp(prefix="flo-bench-")
    server = RecordingServer()
    try:
        program = HERE / "_midway.py"
        first = subprocess.Popen([sys.executable, str(program), "begin", f"{folder}/data", server.url, str(count)])
        deadline = time.monotonic() + 60
        while len(server.seen()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # the answers become durable
        first.send_signal(signal.SIGKILL)
        first.wait()
        began = time.perf_counter()
        subprocess.run([sys.executable, str(program), "end", f"{folder}/data", server.url, str(count)], check=True)
        seconds = time.perf_counter() - began
        paths = [request.path for request in server.seen()]
        return seconds, len(paths) - len(set(paths))
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def cold_start() -> float:
    """Seconds of `flo run examples/hello.flow`, from process start to exit."""
    folder = tempfile.mkdtemp(prefix="flo-bench-")
    command = [sys.executable, "-m", "flo", "run", str(HELLO), "--data-dir", f"{folder}/data"]
    try:
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(repeat: int, only: str) -> list[Figure]:
    """All figures whose name holds `only`, each the median of `repeat` repetitions."""
    figures: list[Figure] = []

    def figure(work: str, unit: str, peer: str, aim: float, once: Callable[[], float], better: str = "less") -> None:
        if only in work:
            print(f"… {work}", file=sys.stderr)
            figures.append(Figure(work, median_of([once() for _ in range(repeat)]), unit, peer, aim, better))

    figure("ten internal steps alone, p50", "ms", "Restate 11.6 (DBOS 16)", 0.6, lambda: uvloop.run(alone("ten", 300)))
    figure("ten internal steps, 100 at once", "steps/s", "Restate 5,940", 60_000,
           lambda: 10 * uvloop.run(at_once("ten", 100, 3_000)), "more")  # fmt: skip
    figure("one step alone, p50", "ms", "DBOS 3.5", 0.4, lambda: uvloop.run(alone("one", 300)))
    figure("one step, 100 at once", "runs/s", "Restate 990", 10_000,
           lambda: uvloop.run(at_once("one", 100, 5_000)), "more")  # fmt: skip
    parks: list[tuple[float, float, float]] = []
    if any(only in name for name in ("10,000 parked: memory each", "10,000 parked: wake all", "10,000 parked: idle")):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh:
            parks = [fresh.submit(parked, 10_000).result() for _ in range(repeat)]
    takes = [iter([p[place] for p in parks]) for place in range(3)]
    if parks:
        figure("10,000 parked: memory each", "KiB", "DBOS 15.5", 2, lambda: next(takes[0]) / 1024)
        figure("10,000 parked: wake all", "s", "Restate 10.9", 1, lambda: next(takes[1]))
        figure("10,000 parked: idle", "% of a core", "–", 1, lambda: next(takes[2]) * 100)
    crashes: list[tuple[float, int]] = []
    if only in "200 mid-flow, kill -9: all done" or only in "200 mid-flow, kill -9: repeated":
        crashes = [crash(200) for _ in range(repeat)]
        times, repeats = iter(crashes), iter(crashes)
        figure("200 mid-flow, kill -9: all done", "s", "Restate 1.06", 0.7, lambda: next(times)[0])
        figure("200 mid-flow, kill -9: repeated", "effects", "Restate 190", 0, lambda: float(next(repeats)[1]))
    figure("1,000 children gathered", "children/s", "Restate 1,170", 20_000, lambda: uvloop.run(gather(1_000)), "more")
    figure("replay of 100,000 actions", "actions/s", "–", 200_000, lambda: uvloop.run(replay(100_000)), "more")
    figure("flo run examples/hello.flow", "s", "–", 0.4, cold_start)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures as a list of objects")
    parser.add_argument("--repeat", type=int, default=REPEAT, help="repetitions of each measurement (at least 5)")
    parser.add_argument("--only", default="", metavar="WORD", help="only the works whose name holds WORD")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    os.environ.setdefault("PYTHONPATH", str(HERE.parent))
    show(measure(options.repeat, options.only), sync=sync_ms(), json_file=options.json)


if __name__ == "__main__":
    main()
