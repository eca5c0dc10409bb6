"""Embedding: batches, waiting, events and taking over, on fake grids."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import flo
from flo.api.grid import StartRequest
from flo.client import aio
from flo.client.aio import AsyncGrid
from flo.client.attach import Attachment, attach
from flo.client.prepared import Prepared
from flo.client.remote import OwnerLost
from flo.worker.bundle import Bundle
from tests.client.fake_grid import FakeGrid
from tests.client.test_session import LosingGrid


def prepared(id: str, flow: str = "fake::hold", args: str = "{}") -> Prepared:
    return Prepared(b"bundle", StartRequest(id=id, bundle=bytes(32), flow=flow, args=args))


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 - a fake grid has no event for it
        await asyncio.sleep(0)


@pytest.fixture
def fake() -> FakeGrid:
    return FakeGrid()


@pytest.fixture
async def grid(fake: FakeGrid) -> AsyncIterator[AsyncGrid]:
    async with AsyncGrid(lambda stopping: Attachment(fake, owner=True)) as opened:
        yield opened


async def test_a_result_is_the_flows_value(grid: AsyncGrid) -> None:
    run = await grid.start(prepared("a", "fake::echo", '{"big":36893488147419103232}'))
    assert run.id == "a" and await run.result() == {"big": 2**65}
    assert await run.status() == "completed" and await run.output() == ['echo {"big":36893488147419103232}']
    assert len(await run.history()) == 1 and [line.channel for line in await run.logs()] == ["print"]


async def test_a_result_is_waited_for(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    waiting = [asyncio.ensure_future(run.result()) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(fake.watchers["a"]) == 1, "all wait for the one watch of the start"
    fake.print("a", "line")
    fake.finish("a", None)
    assert await asyncio.gather(*waiting) == [None] * 3


@pytest.mark.parametrize(
    ("status", "kind"), [("failed", "connector"), ("cancelled", "cancelled"), ("timed_out", "timeout")]
)
async def test_a_run_that_did_not_complete_raises_its_error(
    grid: AsyncGrid, fake: FakeGrid, status: str, kind: str
) -> None:
    run = await grid.start(prepared("a"))
    fake.fail("a", status, kind, "no luck")
    with pytest.raises(flo.RunFailed) as caught:
        await run.result()
    error = caught.value
    assert (error.id, error.status, error.kind) == ("a", status, kind)
    assert (error.message, error.where) == ("no luck", "x.flow:3:5")
    assert (await run.wait()).status == status


async def test_a_paused_run_raises_why(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    fake.pause("a", "NonDeterministic: expected http.get, got kv.put")
    with pytest.raises(flo.RunFailed) as caught:
        await run.result()
    assert (caught.value.status, caught.value.kind) == ("paused", "NonDeterministic")
    assert caught.value.message == "expected http.get, got kv.put"


async def test_starts_of_one_turn_of_the_loop_are_one_batch(grid: AsyncGrid, fake: FakeGrid) -> None:
    runs = await asyncio.gather(*(grid.start(prepared(f"r{n}", "fake::echo", str(n))) for n in range(1_000)))
    assert fake.batches == [1_000]
    assert await asyncio.gather(*(run.result() for run in runs)) == list(range(1_000))
    await asyncio.gather(*(grid.start(prepared(f"s{n}")) for n in range(aio.BATCH_MAX + 1)))
    assert fake.batches == [1_000, aio.BATCH_MAX, 1]


async def test_one_refused_start_of_a_batch_refuses_no_other(grid: AsyncGrid) -> None:
    answers = await asyncio.gather(
        *(grid.start(prepared(id, args=args)) for id, args in (("a", "{}"), ("a", "[]"), ("b", "{}"))),
        return_exceptions=True,
    )
    assert isinstance(answers[0], flo.Run) and isinstance(answers[1], flo.Conflict) and isinstance(answers[2], flo.Run)


async def test_signals_of_one_turn_arrive_in_order_and_each_has_its_answer(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    signals = [run.signal("go", {"n": n}) for n in range(10)]
    answers = await asyncio.gather(*signals, grid.signal("nobody", "go"), return_exceptions=True)
    assert answers[:10] == [None] * 10 and isinstance(answers[10], flo.NotFound)
    assert fake.signals == [("a", "go", f'{{"n":{n}}}') for n in range(10)]


async def test_what_is_no_json_is_refused_as_a_payload(grid: AsyncGrid) -> None:
    run = await grid.start(prepared("a"))
    for payload in (float("nan"), {1: 2}, object(), [[float("inf")]], "\ud800"):
        with pytest.raises(flo.BadArgument, match="payload"):
            await run.signal("go", payload)


async def test_cancelling_and_unknown_runs(grid: AsyncGrid) -> None:
    run = await grid.start(prepared("a"))
    await run.cancel("enough")
    with pytest.raises(flo.RunFailed, match="enough"):
        await run.result()
    with pytest.raises(flo.Conflict):
        await run.cancel()
    with pytest.raises(flo.NotFound):
        await grid.get("nobody")
    assert (await grid.get("a")).id == "a" and [view.id for view in await grid.list()] == ["a"]


async def test_resume_executes_and_gives_the_unfinished(grid: AsyncGrid, fake: FakeGrid) -> None:
    await asyncio.gather(grid.start(prepared("a", "fake::echo")), grid.start(prepared("b")))
    assert [run.id for run in await grid.resume()] == ["b"] and fake.executed == [None]
    with pytest.raises(flo.NotFound):
        await grid.resume(["nobody"])


async def test_events_are_all_output_then_what_is_new_and_last_the_end(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    fake.print("a", "before")
    texts: list[str] = []
    async for update in run.events():
        texts += [line.text for line in update.lines]
        if texts == ["before"]:
            fake.print("a", "after")
            fake.finish("a", 1)
    assert texts == ["before", "after"] and update.view is not None and update.view.status == "completed"
    assert [update.view and update.view.status async for update in run.events()] == ["completed"]


async def test_a_reader_of_events_that_leaves_ends_its_watch(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    events = run.events()
    await anext(events)
    assert len(fake.watchers["a"]) == 2
    await events.aclose()
    await grid.list()
    assert len(fake.watchers["a"]) == len(grid._follows) == 1, "what is left waits for the end"


async def test_events_that_nobody_takes_are_bounded(grid: AsyncGrid, fake: FakeGrid, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(aio, "EVENTS_KEPT_MAX", 3)
    run = await grid.start(prepared("a"))
    events = run.events()
    await anext(events)
    for n in range(9):
        fake.print("a", str(n))
    await grid.list()
    with pytest.raises(flo.Overloaded, match="over 3 updates"):
        assert [update async for update in events] == []


async def test_a_result_that_is_no_longer_wanted_is_not_watched(grid: AsyncGrid, fake: FakeGrid) -> None:
    await grid.start(prepared("a"))
    run = await grid.get("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run.result(), 0.01)
    await grid.list()
    assert len(fake.watchers["a"]) == 1, "that of the start"


async def test_who_gives_up_waiting_leaves_nothing_behind(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run.result(), 0.01)
    waiting = asyncio.ensure_future(run.result())
    await asyncio.sleep(0)
    assert run._ending is not None and len(run._ending._futures or ()) == 1
    fake.finish("a", 5)
    assert await waiting == 5


async def test_waiting_for_an_unknown_run_is_not_found(grid: AsyncGrid) -> None:
    with pytest.raises(flo.NotFound):
        await flo.Run(grid, "nobody").result()
    with pytest.raises(flo.NotFound):
        await anext(flo.Run(grid, "nobody").events())


async def test_a_lost_node_ends_all_waiting(grid: AsyncGrid, fake: FakeGrid) -> None:
    run = await grid.start(prepared("a"))
    waiting = asyncio.ensure_future(run.result())
    await until(lambda: fake.watchers.get("a"))
    fake.lose()
    with pytest.raises(flo.Unavailable, match="cannot be used any more"):
        await waiting


async def test_closing_ends_all_waiting_and_refuses_more(fake: FakeGrid) -> None:
    async with AsyncGrid(lambda stopping: Attachment(fake, owner=True)) as grid:
        run = await grid.start(prepared("a"))
        waiting = asyncio.ensure_future(run.result())
        await asyncio.sleep(0)
    with pytest.raises(flo.Unavailable, match="closed"):
        await waiting
    with pytest.raises(flo.Unavailable, match="closed"):
        await run.status()
    assert fake.closed
    await grid.close()


async def test_a_grid_is_used_with_async_with() -> None:
    with pytest.raises(flo.Unavailable, match="async with"):
        await flo.open("memory:").list()


async def test_what_cannot_be_opened_is_said_on_entering() -> None:
    with pytest.raises(flo.BadArgument, match="redis://x"):
        flo.open("redis://x")

    def refuse(stopping: threading.Event) -> Attachment:
        raise OwnerLost("no")

    with pytest.raises(flo.Unavailable, match="no"):
        async with AsyncGrid(refuse):
            pass


async def test_a_guest_goes_on_with_its_runs_when_the_owner_dies(short_folder: os.PathLike[str]) -> None:
    path = os.path.join(short_folder, "data")
    grids: list[FakeGrid] = []

    def open_owner(path: str) -> FakeGrid:
        grids.append(FakeGrid(path))
        return grids[-1]

    def attached(stopping: threading.Event) -> Attachment:
        return attach(path, open_owner=open_owner, stopping=stopping)

    owner = attached(threading.Event())
    async with AsyncGrid(attached) as grid:
        mine, other = await asyncio.gather(grid.start(prepared("mine")), grid.start(prepared("other", "fake::wait")))
        waiting = asyncio.ensure_future(mine.result())
        texts: list[str] = []

        async def read() -> None:
            async for update in other.events():
                texts.extend(line.text for line in update.lines)

        reading = asyncio.ensure_future(read())
        await until(lambda: texts and grids[0].watchers.get("mine"))
        await asyncio.to_thread(owner.close)
        await other.signal("go", 1)
        await reading
        assert texts == ["waiting"] and len(grids) == 2
        grids[1].finish("mine", "kept")
        assert await waiting == "kept"
        assert not grid._ours or set(grid._ours) <= {"other"}


async def test_what_a_lost_owner_still_tells_is_not_taken_for_the_next_ones_loss() -> None:
    attachments = iter([Attachment(LosingGrid(), owner=False), Attachment(FakeGrid(), owner=True)])
    async with AsyncGrid(lambda stopping: next(attachments)) as grid:
        run = await grid.start(prepared("a", "fake::echo", "7"))
        assert await run.result() == 7
        await grid.list()
        assert await run.result() == 7


async def test_starting_many_runs_of_a_script_reads_it_once(fake: FakeGrid, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    read: list[str] = []
    from_script = Bundle.from_script
    monkeypatch.setattr(Bundle, "from_script", lambda path: (read.append(path), from_script(path))[1])
    script = tmp_path / "s.flow"
    text = 'load("flo/prelude/v1", "flow", "args")\nmain = flow(lambda fctx: 1, args = {"n": args.int()})\n'
    script.write_text(text)
    os.utime(script, (1_000, 1_000))
    async with AsyncGrid(lambda stopping: Attachment(fake, owner=True)) as grid:
        await asyncio.gather(*(grid.run(f"{script}::main", {"n": n}) for n in range(50)))
        assert len(read) == 1 and len(fake.bundles) == 1
        script.write_text(text + "\n")
        await grid.run(f"{script}::main", {"n": 1})
        assert len(read) == 2 and len(fake.bundles) == 2
