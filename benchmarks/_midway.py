"""The process that benchmarks/flows.py kills (`begin`), and the one that goes on (`end`)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

import flo

SCRIPT = str(Path(__file__).with_name("flows.flow"))


async def begin(directory: str, url: str, count: int) -> None:
    async with flo.open(f"file:{directory}") as grid:
        await asyncio.gather(
            *(grid.run(f"{SCRIPT}::midway", args={"url": url}, id=f"mid-{i}") for i in range(count))
        )  # fmt: skip
        await asyncio.Event().wait()


async def end(directory: str, url: str, count: int) -> None:
    async with flo.open(f"file:{directory}") as grid:
        runs = await grid.resume()
        assert len(runs) == count, f"{len(runs)} of {count} runs are there"
        await asyncio.gather(*(run.signal("go") for run in runs))
        results = await asyncio.gather(*(run.result() for run in runs))
        assert results == [11] * count, results


if __name__ == "__main__":
    what, directory, url, count = sys.argv[1:]
    uvloop.run((begin if what == "begin" else end)(directory, url, int(count)))
