"""StreamWorker against a real server: acknowledging, giving back, stopping, reconnecting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import flo
from flo import FloClient, StreamContext, StreamWorker
from tests.client.real_server import RealServer, real_server


@pytest.fixture
async def server() -> AsyncIterator[RealServer]:
    async with real_server() as running:
        yield running


@pytest.fixture
async def client(server: RealServer) -> AsyncIterator[FloClient]:
    async with FloClient(server.endpoint) as connected:
        yield connected


class Running:
    """A worker in a task; `until` waits for a condition that its handlers bring about."""

    def __init__(self, client: FloClient, handler: Callable[[StreamContext], Any], **options: Any) -> None:
        self.changed = asyncio.Event()

        async def told(ctx: StreamContext) -> None:
            try:
                await handler(ctx)
            finally:
                self.changed.set()

        self.worker: StreamWorker = client.new_stream_worker(handler=told, **{"stream": "s", "group": "g", **options})
        self.task = asyncio.create_task(self.worker.start())

    async def __aenter__(self) -> Running:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.close()
        await self.task

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await self.changed.wait()
                self.changed.clear()


async def settled(check: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something that the server comes to by itself soon."""
    async with asyncio.timeout(20):
        while not await check():  # noqa: ASYNC110 - it happens in the server
            await asyncio.sleep(0.005)


async def pending(client: FloClient) -> int:
    return (await client.stream.group_info("s", "g")).pending


async def test_records_are_handled_and_acknowledged(client: FloClient):
    seen: list[tuple[int, str, dict[str, str]]] = []

    async def handle(ctx: StreamContext) -> None:
        assert ctx.stream == "s" and ctx.group == "g" and ctx.namespace == "default" and ctx.record.id == ctx.stream_id
        seen.append((ctx.json()["n"], ctx.text(), ctx.headers))

    await client.stream.append("s", {"n": 0}, flo.StreamAppendOptions({"h": "v"}))
    async with Running(client, handle, concurrency=2) as running:
        await client.stream.append_many("s", [{"n": n} for n in range(1, 30)])
        await running.until(lambda: len(seen) == 30)
        await settled(lambda: _is(pending(client), 0))

    assert sorted(n for n, _, _ in seen) == list(range(30))
    assert seen[0] == (0, '{"n":0}', {"h": "v"})


async def _is(value: Awaitable[int], wanted: int) -> bool:
    return await value == wanted


async def test_a_record_whose_handler_fails_comes_again(client: FloClient):
    tries: list[bytes] = []

    async def handle(ctx: StreamContext) -> None:
        tries.append(ctx.payload)
        if len(tries) == 1:
            raise RuntimeError("once")

    await client.stream.append("s", b"x")
    async with Running(client, handle) as running:
        await running.until(lambda: len(tries) == 2)
        await settled(lambda: _is(pending(client), 0))


async def test_a_handler_that_takes_too_long_is_cancelled_and_its_record_comes_again(client: FloClient):
    tries = 0

    async def handle(ctx: StreamContext) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()

    await client.stream.append("s", b"x")
    async with Running(client, handle, message_timeout=0.05) as running:
        await running.until(lambda: tries == 2)
        await settled(lambda: _is(pending(client), 0))


async def test_no_more_handlers_run_at_a_time_than_allowed(client: FloClient):
    now = most = done = 0

    async def handle(ctx: StreamContext) -> None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        done += 1

    await client.stream.append_many("s", [b"x"] * 50)
    await client.stream.append_many("t", [b"x"] * 50)
    async with Running(client, handle, streams=["t", "s"], concurrency=3, batch_size=10) as running:
        assert running.worker.streams == ["s", "t"]
        await running.until(lambda: done == 100)

    assert most <= 3


async def test_a_plain_function_runs_in_a_thread(client: FloClient):
    loop = asyncio.get_running_loop()
    seen: asyncio.Queue[str] = asyncio.Queue()

    def handle(ctx: StreamContext) -> None:
        loop.call_soon_threadsafe(seen.put_nowait, threading.current_thread().name)

    worker = client.new_stream_worker(stream="s", handler=handle)
    task = asyncio.create_task(worker.start())
    await client.stream.append("s", b"x")

    assert await asyncio.wait_for(seen.get(), 20) != threading.current_thread().name
    await worker.stop()
    await task


async def test_stop_ends_a_long_wait_at_once_and_leaves_the_group(client: FloClient):
    worker = client.new_stream_worker(stream="s", group="g", handler=print, block_ms=30_000)
    task = asyncio.create_task(worker.start())

    async def member() -> bool:
        try:
            return bool((await client.stream.group_info("s", "g")).members)
        except flo.NotFoundError:
            return False

    await settled(member)
    async with asyncio.timeout(1):
        await worker.stop()
        await task

    assert (await client.stream.group_info("s", "g")).members == []


async def test_stop_waits_for_handlers_that_run(client: FloClient):
    begun, go = asyncio.Event(), asyncio.Event()

    async def handle(ctx: StreamContext) -> None:
        begun.set()
        await go.wait()

    await client.stream.append("s", b"x")
    worker = client.new_stream_worker(stream="s", group="g", handler=handle)
    task = asyncio.create_task(worker.start())
    await begun.wait()
    stopped = worker.stop()
    await client.stream.append("s", b"too late")
    assert not stopped.done()
    go.set()
    await stopped
    await task

    info = await client.stream.group_info("s", "g")
    assert (info.pending, info.lag) == (0, 1)


async def test_close_cancels_handlers_and_gives_their_records_back(client: FloClient):
    begun = asyncio.Event()

    async def handle(ctx: StreamContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    await client.stream.append("s", b"x")
    worker = client.new_stream_worker(stream="s", group="g", handler=handle)
    task = asyncio.create_task(worker.start())
    await begun.wait()
    await worker.close()
    await task

    assert [record.payload for record in await client.stream.group_read("s", "g", "other")] == [b"x"]


async def test_a_worker_that_lost_its_connections_goes_on(
    server: RealServer, client: FloClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flo.client.flo_client.RECONNECT_FIRST", 0.01)
    seen: list[bytes] = []

    async def handle(ctx: StreamContext) -> None:
        seen.append(ctx.payload)

    async with Running(client, handle) as running:
        await client.stream.append("s", b"before")
        await running.until(lambda: seen == [b"before"])
        await server.stop()
        await server.start()
        await client.reconnect(20)
        await client.stream.append("s", b"after")
        await running.until(lambda: b"after" in seen)
        await settled(lambda: _is(pending(client), 0))


async def test_a_record_that_was_handed_to_a_lost_connection_is_claimed(client: FloClient, server: RealServer):
    seen: list[bytes] = []

    async def handle(ctx: StreamContext) -> None:
        seen.append(ctx.payload)

    await client.stream.append("s", b"lost")
    await client.stream.group_read("s", "g", "w")  # as a connection of this consumer whose reply never came
    async with Running(client, handle, consumer="w") as running:
        await client.stream.append("s", b"new")
        await running.until(lambda: seen == [b"new"])
        server.drop_connections()
        await running.until(lambda: seen == [b"new", b"lost"])


async def test_a_handler_that_runs_long_keeps_its_record(client: FloClient):
    tries = 0
    go = asyncio.Event()

    async def handle(ctx: StreamContext) -> None:
        nonlocal tries
        tries += 1
        await go.wait()

    await client.stream.group_create("s", "g", flo.StreamGroupCreateOptions(ack_timeout_ms=300))
    await client.stream.append("s", b"x")
    async with Running(client, handle):
        info = flo.StreamGroupPendingOptions(details=True)
        deadlines = set()

        async def extended() -> bool:
            deadlines.update(entry.deadline for entry in await client.stream.group_pending("s", "g", info))
            return len(deadlines) >= 5

        await settled(extended)
        assert tries == 1
        go.set()
        await settled(lambda: _is(pending(client), 0))


async def test_what_makes_no_worker_is_refused(client: FloClient):
    for wrong in ({"streams": []}, {"stream": "s", "concurrency": 0}, {"stream": "s", "message_timeout": 0}):
        with pytest.raises(flo.ValidationError):
            client.new_stream_worker(handler=print, **wrong)  # type: ignore[arg-type]
    with pytest.raises(flo.BlockTooLongError):
        client.new_stream_worker(handler=print, stream="s", block_ms=300_001)
    worker = client.new_stream_worker(handler=print, stream="s")
    await worker.stop()
    with pytest.raises(flo.ValidationError):
        await worker.start()


async def test_a_worker_without_a_server_says_so():
    worker = FloClient("127.0.0.1:1").new_stream_worker(handler=print, stream="s")

    with pytest.raises(flo.ConnectionFailedError):
        await worker.start()
