"""Measurements of the core in one process: `python benchmarks/core_rows.py ROW [NUMBER]` prints them as JSON.

benchmarks/core.py runs each in a fresh process of each build. Values are per operation.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

VALUE = b"v" * 64
BATCH = 100
ROUNDS = 5


def key(number: int) -> bytes:
    return b"key:%012d" % number


def each(count: int, work: Callable[[], object]) -> float:
    """Nanoseconds of each of `count` things that one call of `work` does."""
    gc.collect()
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / count * 1e9


def log_append(count: int) -> float:
    """Events of 64 bytes, in batches of a hundred, put in line and encoded as frames of the log's format."""
    from flo.log.commit import GroupCommit
    from flo.log.contract import Frame
    from flo.log.frame import encode_batch, frame_crc
    from flo.log.memory import MemoryBackend

    class Encoding(MemoryBackend):
        previous = 0

        def append(self, frames: list[Frame]) -> None:  # type: ignore[override]
            for frame in frames:
                encoded = encode_batch(frame, log_id=bytes(16), previous=self.previous, synced=0)
                self.previous = frame_crc(encoded[-1])

    backend = Encoding()
    backend.open()
    backend.claim()
    commit = GroupCommit(backend, lambda index: None, lambda error: None, thread=False)
    batch = [(100, 1, VALUE)] * BATCH

    def work() -> None:
        for _ in range(count // BATCH):
            commit.add(batch, 1_700_000_000_000)
            commit.pump()

    return each(count, work)


def kv(count: int) -> dict[str, float]:
    """The machine of keys: put of new keys (decided, applied and encoded for the log, as the store has it), get, and
    scans of a thousand entries."""
    from flo.primitives.kv import KV

    keys = [key(number) for number in range(count)]
    now = 1_700_000_000_000

    def once() -> dict[str, float]:
        machine = KV()

        def put() -> None:
            index = 1
            for name in keys:
                machine.put(now, index, "default", name, VALUE)
                index += 1

        def get() -> None:
            for name in keys:
                machine.get(now, "default", name)

        def scan() -> None:
            cursor = ""
            for _ in range(count // 1_000):
                page = machine.scan(now, "default", b"", 1_000, cursor)
                cursor = page.cursor

        return {"put": each(count, put), "get": each(count, get), "scan": each(count // 1_000 * 1_000, scan)}

    return warm(once)


def warm(once: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Medians of a process that has its memory and its caches already."""
    rounds = [once() for _ in range(ROUNDS)]
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def store(count: int) -> dict[str, float]:
    """What every surface calls, in batches of a hundred, logged to memory."""
    from flo.grid.node import Node

    keys = [key(number) for number in range(count)]

    def once() -> dict[str, float]:
        node = Node.open("memory:", threads=False)
        store = node.store

        def put(names: list[bytes]) -> None:
            for name in names:
                store.put("default", name, VALUE)

        def get(names: list[bytes]) -> None:
            for name in names:
                store.get("default", name)

        def batches(operation: Callable[[list[bytes]], None]) -> None:
            for first in range(0, count, BATCH):
                with store.lock:
                    store.begin(100 * BATCH)
                    operation(keys[first : first + BATCH])
                    store.end()
                node.pump()

        taken = {"put": each(count, lambda: batches(put)), "get": each(count, lambda: batches(get))}
        node.close()
        return taken

    return warm(once)


def message(count: int) -> float:
    """From one thread to another and back as batches of a thousand, as commits and their releases travel."""
    there: SimpleQueue[list[int] | None] = SimpleQueue()
    back: SimpleQueue[int] = SimpleQueue()

    def receive() -> None:
        while (batch := there.get()) is not None:
            for _ in batch:
                pass
            back.put(len(batch))

    thread = threading.Thread(target=receive)
    thread.start()

    def work() -> None:
        left = count
        while left > 0:
            batch: list[int] = []
            add = batch.append
            for number in range(1_000):
                add(number)
            there.put(batch)
            left -= 1_000
        for _ in range(count // 1_000):
            back.get()

    taken = each(count, work)
    there.put(None)
    thread.join()
    return taken


def memory(count: int) -> float:
    """Bytes of resident memory for a 64-byte value under a 16-byte key."""
    from flo.primitives.kv import KV

    machine = KV()
    now = 1_700_000_000_000
    machine.apply(machine.decide_put(now, 1, "default", b"warm", VALUE), 1, now)
    gc.collect()
    before = resident()
    for number in range(count):
        index = number + 2
        event = machine.decide_put(now, index, "default", key(number), b"%064d" % number)
        machine.apply(event, index, now)
        del event
    gc.collect()
    return (resident() - before) / count


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def writers(count: int) -> float:
    """Durable puts per second of 64 tasks on an embedded grid."""
    import uvloop

    import flo

    async def run() -> float:
        folder = tempfile.mkdtemp(prefix="flo-bench-")
        try:
            async with flo.open(f"file:{folder}/data") as grid:
                await grid.kv.put(b"warm", VALUE)
                numbers = iter(range(count))

                async def writer() -> None:
                    for number in numbers:
                        await grid.kv.put(key(number), VALUE)

                began = time.perf_counter()
                await asyncio.gather(*(writer() for _ in range(64)))
                return count / (time.perf_counter() - began)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    rate: float = uvloop.run(run())
    return rate


def fill(count: int, folder: str, *, snapshot: bool) -> None:
    """A directory with `count` writes: of as many keys and a snapshot, or of 1,000 keys and none."""
    from flo.grid.node import Node

    endless = 1 << 60
    node = Node.open(f"file:{folder}", snapshot_bytes_min=endless, durability="async_flush")
    store = node.store
    for first in range(0, count, 1_000):
        with store.lock:
            store.begin(0)
            for number in range(first, first + 1_000):
                store.put("default", key(number if snapshot else number % 1_000), VALUE)
            index = store.end()
        store.after()
        if first % 100_000 == 0:
            node.commit_group.wait(index)
    node.commit_group.wait(index)
    if snapshot:
        node.close()
    else:
        os._exit(0)  # a planned stop would make a snapshot


def restart(folder: str) -> dict[str, float]:
    """Seconds to open a directory, and the bytes of log that were read for it."""
    from flo.grid.node import Node

    began = time.perf_counter()
    node = Node.open(f"file:{folder}")
    taken = time.perf_counter() - began
    bytes_read = sum(file.stat().st_size for file in Path(folder).glob("*/segs/*"))
    replayed = node.replayed
    os.write(1, json.dumps({"seconds": taken, "bytes": bytes_read, "entries": replayed}).encode())
    os._exit(0)  # without the snapshot of a planned stop, so that the directory can be measured again


ROWS: dict[str, Callable[[int], object]] = {
    "log": log_append, "kv": kv, "store": store, "message": message, "memory": memory, "writers": writers,
}  # fmt: skip


def main(words: list[str]) -> None:
    row, *arguments = words
    if row == "fill":
        fill(int(arguments[0]), arguments[1], snapshot=arguments[2] == "snapshot")
    elif row == "restart":
        restart(arguments[0])
    else:
        os.write(1, json.dumps(ROWS[row](int(arguments[0]))).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
