"""No room on the disk, or no memory left: what grows is refused for now, the rest goes on, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from flo.log.file.backend import RESERVE_BYTES
from flo.wire import calls
from flo.wire.statuses import OVERLOADED
from tests.faults.core_client import CoreClient, Refused
from tests.faults.core_server import CoreServer
from tests.simulation.storage import StorageWorld

MIB: Final = 1024 * 1024
RESUME_TRIES: Final = 100  # of RETRY_SECONDS each: five seconds
RETRY_SECONDS: Final = 0.05
GROWING: Final = ("put", "incr", "txn", "enqueue", "append")


# On the simulated disk


def filled(world: StorageWorld) -> None:
    """Until every operation that grows something is refused."""
    for _ in range(20):
        world.batch(8, *["enqueue", "append", "put", "incr"] * 2)
        world.flush()
    world.batch(14, *["dequeue"] * 4, *["read"] * 10)  # by both consumers: a new one would be refused afterwards
    world.flush()
    world.fill(RESERVE_BYTES + 100_000)
    for _ in range(3_000):
        (asked,) = world.batch(1, "append")
        world.flush()
        if asked.result == {"code": "overloaded"}:
            return
    raise AssertionError("nothing was ever refused")


@pytest.mark.parametrize("seed", range(5))
def test_on_a_full_disk_what_grows_is_refused_and_the_rest_goes_on(seed: int):
    world = StorageWorld(seed)
    filled(world)
    world.clock.advance(1_000)

    for name in GROWING:
        (asked,) = world.batch(1, name)
        assert asked.result == {"code": "overloaded"}, name
    before = len(world.told)
    settled = world.batch(6, "get", "ack", "done", "delete", "dequeue", "read")
    assert [asked.op for asked in settled if asked.result.get("code") == "overloaded"] == [] and len(settled) == 6
    world.flush()
    assert len(world.told) >= before + 6, "they are answered although the disk is full"

    world.fill(None)
    for name in GROWING:
        (asked,) = world.batch(1, name)
        assert asked.result.get("code") in (None, "conflict"), (name, asked.result)
    world.flush()
    world.restart()
    world.finish()


def test_what_waits_on_a_disk_without_any_room_is_answered_when_there_is_some():
    world = StorageWorld(3)
    filled(world)
    world.fill(0)
    while not world.node.store.stalled:  # there is still some room in the file of the log
        world.batch(1, "touch")
        world.batch(1, "dequeue")
        world.flush()
        world.clock.advance(6_000)
    answered = len(world.told)
    world.batch(2, "dequeue", "read")
    world.flush()
    assert len(world.told) == answered, "what is not stored is not told"

    world.fill(None)
    world.flush()

    assert len(world.told) >= answered + 2 and not world.node.store.stalled
    world.restart()
    world.finish()


# On a real one


@pytest.fixture
def small_disk(short_folder: Path) -> Iterator[Path]:
    """A file system of 32 MiB; only root may make one."""
    folder = short_folder / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )  # fmt: skip
    if mounted.returncode:
        reason = f"a small file system cannot be mounted here: {mounted.stderr.strip()}"
        sys.stderr.write(reason + "\n")
        pytest.skip(reason)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def tried(client: CoreClient, call: calls.Call[Any, Any], **arguments: Any) -> Any:
    """The result, or None when it was refused as something to be tried again."""
    try:
        return client.call(call, **arguments)
    except Refused as refused:
        if refused.status != OVERLOADED:
            raise
        return None


def resumes(client: CoreClient, call: calls.Call[Any, Any], **arguments: Any) -> bool:
    """Whether the call works again within seconds."""
    pause = threading.Event()
    for _ in range(RESUME_TRIES):
        if tried(client, call, **arguments) is not None:
            return True
        pause.wait(RETRY_SECONDS)
    return False


@pytest.mark.slow
def test_a_server_on_a_full_disk_goes_on_and_has_everything_after_a_kill(short_folder: Path, small_disk: Path):
    server = CoreServer(short_folder, data=small_disk / "data")
    try:
        server.start()
        acknowledged = fill_up(server, small_disk)
        server.kill()
        server.start()
        with server.connect() as client:
            assert {key: client.call(calls.KV_GET, key=key).value for key in acknowledged} == acknowledged
            with pytest.raises(Refused, match="not_found"):
                client.call(calls.KV_GET, key=b"k1")
            left = client.call(calls.QUEUE_DEQUEUE, queue="q", count=100, visibility_ms=60_000).messages
            assert [message.payload for message in left] == [b"%d" % number for number in range(10, 20)]
            assert client.call(calls.STREAM_INFO, stream="s").records == 20
        assert server.stop() == 0
    finally:
        server.close()


def fill_up(server: CoreServer, disk: Path) -> dict[bytes, bytes]:
    """What is there when it is full, was full to the last byte, and has room again."""
    acknowledged: dict[bytes, bytes] = {}
    with server.connect() as client:
        client.call(
            calls.QUEUE_ENQUEUE_MANY, queue="q", messages=[{"payload": b"%d" % number} for number in range(20)]
        )  # fmt: skip
        client.call(calls.STREAM_APPEND, stream="s", records=[{"payload": b"r"}] * 20)
        taken = client.call(calls.QUEUE_DEQUEUE, queue="q", count=10, visibility_ms=600_000).messages
        for number in range(1_000):
            value = os.urandom(100_000)
            if tried(client, calls.KV_PUT, key=b"k%d" % number, value=value) is None:
                break
            acknowledged[b"k%d" % number] = value
        assert 50 < len(acknowledged) < 1_000
        for ballast in (None, disk / "ballast"):
            if ballast is not None:
                fill_to_the_last_byte(ballast)
            for call, arguments in (
                (calls.KV_PUT, {"key": b"new", "value": b"x" * 100_000}),
                (calls.QUEUE_ENQUEUE, {"queue": "q", "payload": b"x" * 100_000}),
                (calls.STREAM_APPEND, {"stream": "s", "records": [{"payload": b"x" * 100_000}]}),
            ):
                assert tried(client, call, **arguments) is None, call.name
            for key in list(acknowledged)[2:20]:
                assert client.call(calls.KV_GET, key=key).value == acknowledged[key]
            client.call(calls.KV_DELETE, key=b"k0" if ballast is None else b"k1")
            some = taken[:5] if ballast is None else taken[5:]
            assert client.call(calls.QUEUE_ACK, queue="q", seqs=[m.seq for m in some]).count == 5
            assert client.call(calls.STREAM_READ, stream="s").records[0].payload == b"r"
        acknowledged.pop(b"k0")
        acknowledged.pop(b"k1")
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=96m", str(disk)], check=True)
        assert resumes(client, calls.KV_PUT, key=b"after", value=b"y")
        acknowledged[b"after"] = b"y"
    return acknowledged


def fill_to_the_last_byte(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4_096, 1):
            try:
                while file.write(bytes(size)) == size:
                    continue
            except OSError:
                continue


# Memory


@pytest.mark.slow
def test_a_server_with_no_memory_left_refuses_what_grows_until_something_is_deleted(short_folder: Path):
    server = CoreServer(short_folder, storage=f"memory_budget = {64 * MIB}")
    try:
        server.start()
        with server.connect() as client:
            client.call(calls.QUEUE_ENQUEUE, queue="q", payload=b"x")
            taken = client.call(calls.QUEUE_DEQUEUE, queue="q", visibility_ms=600_000).messages
            keys = endless_writes(client)
            assert 60 * MIB > len(keys) * 50_000 > 30 * MIB
            for call, arguments in (
                (calls.KV_PUT, {"key": b"new", "value": b"x"}),
                (calls.KV_INCR, {"key": b"count"}),
                (calls.QUEUE_ENQUEUE, {"queue": "q", "payload": b"x"}),
                (calls.STREAM_APPEND, {"stream": "s", "records": [{"payload": b"x"}]}),
            ):
                assert tried(client, call, **arguments) is None, call.name
            assert client.call(calls.KV_GET, key=keys[0]).value[:4] == b"0000"
            assert client.call(calls.QUEUE_ACK, queue="q", seqs=[taken[0].seq]).count == 1
            for key in keys[: len(keys) // 2]:
                client.call(calls.KV_DELETE, key=key)
            assert resumes(client, calls.KV_PUT, key=b"after", value=b"y")
            assert client.call(calls.KV_GET, key=keys[-1]).value[:4] == b"%04d" % (len(keys) - 1)
        assert server.process is not None and server.process.poll() is None
        assert server.stop() == 0
    finally:
        server.close()


def endless_writes(client: CoreClient) -> list[bytes]:
    """The keys that were written before the first refusal."""
    keys: list[bytes] = []
    for number in range(10_000):
        key = b"k%d" % number
        if tried(client, calls.KV_PUT, key=key, value=b"%04d" % number + bytes(50_000)) is None:
            return keys
        keys.append(key)
    raise AssertionError("nothing was ever refused")
