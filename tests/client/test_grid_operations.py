"""Keys, queues and streams of `flo.open`, for the owner of a directory and for its guests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import flo
from flo.client.attach import Attachment
from flo.client.grid_transport import GridTransport
from flo.client.kv import KV
from flo.client.queue import Queue
from flo.client.remote import OwnerLost
from tests.client.test_flo_client_calls import waiting


async def test_what_is_written_is_there_after_the_grid_was_opened_again(tmp_path: Path):
    async with flo.open(str(tmp_path)) as grid:
        version = (await grid.kv.put("k", b"1")).version
        await grid.queue.enqueue("q", b"m")
        id = (await grid.stream.append("s", b"r")).id

    async with flo.open(str(tmp_path)) as grid:
        assert await grid.kv.get("k") == flo.GetResult(b"1", version)
        assert [message.payload for message in await grid.queue.dequeue("q")] == [b"m"]
        assert [(record.id, record.payload) for record in await grid.stream.read("s")] == [(id, b"r")]


async def test_calls_of_many_tasks_are_few_batches():
    async with flo.open("memory:") as grid:
        await asyncio.gather(*(grid.kv.put(f"k{n}", b"v") for n in range(1_000)))
        transport = grid._transport
        assert isinstance(transport, GridTransport) and transport._local is not None

        assert transport._local._turns.requests == 1_000
        assert transport._local._turns.batches <= 5


async def test_closing_the_grid_ends_what_waits():
    async with flo.open("memory:") as grid:
        kv = grid.kv
        task = await waiting(kv.get("k", flo.GetOptions(block_ms=60_000)))

    with pytest.raises(flo.Unavailable, match="closed"):
        await task
    with pytest.raises(flo.Unavailable, match="closed"):
        await kv.get("k")


async def test_a_grid_that_is_not_open_has_no_keys():
    with pytest.raises(flo.Unavailable, match="not open"):
        _ = flo.open("memory:").kv


async def test_a_refusal_is_the_same_error_as_from_a_server():
    async with flo.open("memory:") as grid:
        with pytest.raises(flo.BadRequestError) as raised:
            await grid.kv.put("k", bytes(262_145))
        with pytest.raises(flo.UnauthorizedError):
            await grid.kv.put("_sys:x", b"")

    assert raised.value.status_code == 3 and isinstance(raised.value, flo.BadArgument)


class Guests:
    """Grids of one directory in this process: the first owns it, the others are its guests."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)

    def open(self) -> flo.AsyncGrid:
        return flo.open(self.directory)


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    return Guests(tmp_path)


async def test_a_guest_does_all_that_the_owner_does(guests: Guests):
    async with guests.open() as owner, guests.open() as guest:
        assert owner._owner and not guest._owner
        await guest.kv.put("k", {"from": "guest"})
        assert (await owner.kv.get("k")).json() == {"from": "guest"}  # type: ignore[union-attr]
        results = await asyncio.gather(*(guest.kv.incr("n") for _ in range(200)))
        assert sorted(results) == list(range(1, 201))
        with pytest.raises(flo.ConflictError):
            await guest.kv.put("k", b"", flo.PutOptions(if_not_exists=True))
        with pytest.raises(flo.NotFoundError):
            await guest.queue.stats("none")
        await owner.stream.append_many("s", [b"%d" % n for n in range(10)])
        assert len(await guest.stream.group_read("s", "g", "w", flo.StreamGroupReadOptions(details=True))) == 10
        async with await guest.kv.begin("t") as txn:
            await txn.put("t", b"1")
            assert (await txn.commit()).op_count == 1


async def test_a_guests_wait_holds_up_none_of_its_other_calls(guests: Guests):
    async with guests.open() as owner, guests.open() as guest:
        task = asyncio.create_task(guest.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=60_000)))
        for n in range(20):
            await guest.kv.put(f"k{n}", b"")
        assert not task.done()
        await owner.queue.enqueue("q", b"woken")

        assert [message.payload for message in await task] == [b"woken"]


async def test_the_waits_of_a_guest_that_has_gone_take_nothing(guests: Guests):
    async with guests.open() as owner:
        async with guests.open() as guest:
            task = asyncio.create_task(guest.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=60_000)))
            await guest.kv.put("k", b"")
        with pytest.raises(flo.Unavailable):
            await task
        # the owner notices the end of the connection in a thread of its own
        gateway = owner._attachment._gateway  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while gateway.guests:  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await owner.queue.enqueue("q", b"kept")

        (message,) = await owner.queue.peek("q", 1, flo.PeekOptions(details=True))
        assert message.delivery_count == 0


async def test_a_guest_goes_on_as_the_owner_when_that_leaves(guests: Guests):
    owner = guests.open()
    await owner.__aenter__()
    async with guests.open() as guest:
        await guest.kv.put("k", b"1")
        task = asyncio.create_task(guest.kv.get("later", flo.GetOptions(block_ms=60_000)))
        await guest.kv.put("k", b"2")
        await owner.close()
        await guest.kv.put("later", b"here")

        assert bytes(await task or b"") == b"here"
        assert guest._owner and bytes(await guest.kv.get("k") or b"") == b"2"


class LosingHands:
    """A guest whose owner dies with every call in its hands, `times` times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.sent: list[int] = []
        self.attachment: Attachment | None = None

    def have(self, work) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        job = work.__self__
        self.sent.append(job.arguments[0])
        if len(self.sent) <= self.times:
            job._transport.arrived(job, OwnerLost("the owner of the directory is gone"))
        else:
            header = bytearray(32)
            job._transport.arrived(job, bytes(header) + bytes(8) + b"v")
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        return done


async def test_a_call_that_may_be_repeated_outlives_the_owners_death():
    hands = LosingHands(times=2)
    transport = GridTransport(hands, asyncio.get_running_loop())

    assert await KV(transport).get("k") == flo.GetResult(b"v", 0)
    assert len(hands.sent) == 3


async def test_a_call_that_may_not_be_repeated_ends_with_its_outcome_unknown():
    hands = LosingHands(times=1)
    transport = GridTransport(hands, asyncio.get_running_loop())

    with pytest.raises(flo.Unavailable, match="outcome unknown"):
        await Queue(transport).enqueue("q", b"")
    assert len(hands.sent) == 1
