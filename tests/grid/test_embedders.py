"""The output-commit rule for embedders: `AsyncGrid.run(…)` and `.result()` with real scripts on threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flo.api.errors import Unavailable
from flo.client.aio import AsyncGrid
from flo.client.attach import Attachment
from flo.grid.node import Node
from flo.log.errors import LogFenced
from flo.log.memory import MemoryBackend
from flo.worker.pool import ThreadWorker

SCRIPT = """
load("flo/prelude/v1", "flow")

def _main(fctx):
    fctx.actions.signal("go")
    return fctx.actions.kv.incr("n")

main = flow(implementation = _main)
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "s.flow"
    path.write_text(SCRIPT)
    return f"{path}::main"


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[AsyncGrid, Node, MemoryBackend]]:
    backend = MemoryBackend()
    node = Node.open(backend, worker_factory=ThreadWorker)
    try:
        async with AsyncGrid(lambda stopping: Attachment(node, owner=True)) as grid:
            yield grid, node, backend
    finally:
        backend.release()


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if reached():
            return
        await asyncio.to_thread(threading.Event().wait, 0.005)
    raise AssertionError("it was not reached")


async def ended_in_memory(grid: AsyncGrid, node: Node, backend: MemoryBackend, script: str) -> asyncio.Task[object]:
    """The result of a run that has ended while the disk stands still."""
    run = await grid.run(script, id="r")
    result = asyncio.ensure_future(run.result())
    backend.hold()
    signal = asyncio.ensure_future(run.signal("go", 1))
    await until(lambda: node.partition.machines.runs.runs["r"].status == "completed")
    assert not result.done() and not signal.done()
    signal.add_done_callback(lambda done: done.exception())
    return result


def test_a_result_waits_for_the_disk(script: str) -> None:
    async def main() -> None:
        async with opened() as (grid, node, backend):
            result = await ended_in_memory(grid, node, backend, script)
            backend.release()
            assert await result == 1

    asyncio.run(main())


def test_a_result_never_comes_when_the_append_fails(script: str) -> None:
    async def main() -> None:
        async with opened() as (grid, node, backend):
            result = await ended_in_memory(grid, node, backend, script)
            backend.fail(1, LogFenced("another owner"))
            backend.release()
            with pytest.raises(Unavailable):
                await result

    asyncio.run(main())


def test_a_start_waits_for_the_disk(script: str) -> None:
    async def main() -> None:
        async with opened() as (grid, node, backend):
            backend.hold()
            start = asyncio.ensure_future(grid.run(script, id="r"))
            await until(lambda: "r" in node.partition.machines.runs.runs)
            assert not start.done()
            backend.release()
            assert (await start).id == "r"

    asyncio.run(main())
