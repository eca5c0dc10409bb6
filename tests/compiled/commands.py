"""The same commands for every build: prints what they left in the log and in memory, as hashes.

    PYTHONPATH=TREE python -P tests/compiled/commands.py SEED…

`TREE` holds the `flo` that performs them. Whatever build it is, the lines are the same but for the first.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))  # for `tests`, behind the tree whose `flo` is tried

from flo.api.clock import FakeClock
from flo.api.errors import FloError
from flo.grid.node import Node
from flo.grid.partition import replay
from flo.grid.store import Store
from flo.log import frame
from flo.log.file.backend import FileBackend
from flo.log.simdisk import SimDisk
from flo.primitives.machine import Refused
from flo.primitives.machines import Machines
from flo.primitives.queue_pages import NewMessage
from flo.primitives.stream_pages import GroupSettings, NewRecord, Retention
from tests.simulation.world import simulate

DIRECTORY = "/data"
BATCHES = 400
MODES = ["shared", "exclusive", "key_shared"]


class Commands:
    """One operation after another, drawn from a seed."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.store = store
        self.rng = rng
        self.ns = self.key = self.queue = self.stream = self.group = self.consumer = ""
        self.kinds = [self.keys, self.transactions, self.queues, self.messages, self.streams, self.groups]

    def perform(self) -> object:
        rng = self.rng
        self.ns = rng.choice(["default", "default", "other"])
        self.queue, self.stream = rng.choice(["jobs", "mail"]), rng.choice(["log", "audit"])
        self.group, self.consumer = rng.choice(MODES), rng.choice(["x", "y", "z"])
        operations = rng.choice(self.kinds)()
        return rng.choice(operations)()

    def keys(self) -> list[Callable[[], object]]:
        store, ns, rng = self.store, self.ns, self.rng
        key = b"key %d" % rng.randrange(50)
        counter = b"counter %d" % rng.randrange(5)
        value = rng.randbytes(rng.choice([0, 3, 31, 64, 255, 256, 65_536]))
        ttl = rng.choice([0, 1, 900, 5_000_000])
        return [
            lambda: store.put(ns, key, value),
            lambda: store.put(ns, key, value, ttl_ms=ttl),
            lambda: store.put(ns, key, value, nx=True),
            lambda: store.put(ns, key, value, cas=rng.randrange(200)),
            lambda: store.put(ns, key, value, keep_ttl=True, routing_key=b"r"),
            lambda: store.incr(ns, counter, rng.choice([1, -7, 2**40])),
            lambda: store.delete(ns, key),
            lambda: store.touch(ns, key, ttl),
            lambda: store.append(ns, key, value[:9]),
            lambda: store.jset(ns, b"json", rng.choice(["$", "$.a"]), b'{"a":[1,2]}'),
            lambda: store.jdel(ns, b"json", "$.a"),
            lambda: store.scan(ns, b"key", rng.randrange(9)).rows,
            lambda: store.history(ns, key),
            lambda: store.get(ns, key),
            lambda: store.namespace_delete("other", True),
        ]

    def transactions(self) -> list[Callable[[], object]]:
        store, ns, rng = self.store, self.ns, self.rng

        def commit() -> object:
            txn, _ = store.txn_begin(ns, b"r")
            store.put(ns, b"in %d" % rng.randrange(9), b"v", txn=txn, ttl_ms=rng.choice([0, 700]))
            store.incr(ns, b"sum", rng.randrange(9), txn=txn)
            return store.txn_commit(ns, txn)

        return [commit]

    def queues(self) -> list[Callable[[], object]]:
        store, ns, rng, queue = self.store, self.ns, self.rng, self.queue
        dedup = rng.choice([b"", b"", b"same"])
        messages = [NewMessage(rng.randbytes(n), n, rng.choice([0, 500]), dedup) for n in range(rng.randrange(1, 5))]
        return [
            lambda: store.enqueue(ns, queue, b"x", priority=rng.randrange(3)),
            lambda: store.enqueue_many(ns, queue, messages),
            lambda: store.dequeue(ns, queue, rng.randrange(1, 9), visibility_ms=rng.choice([50, 30_000])),
            lambda: store.dequeue(ns, queue, 2, ack=True),
            lambda: store.purge(ns, queue),
        ]

    def messages(self) -> list[Callable[[], object]]:
        store, ns, rng, queue = self.store, self.ns, self.rng, self.queue
        seqs = [message.seq for message in store.dequeue(ns, queue, 3)] + [rng.randrange(1, 99)]
        return [
            lambda: store.ack(ns, queue, seqs),
            lambda: store.nack(ns, queue, seqs, delay_ms=rng.choice([0, 300])),
            lambda: store.nack(ns, queue, seqs, dlq=True),
            lambda: store.touch_messages(ns, queue, seqs, extend_ms=100),
            lambda: store.dlq_requeue(ns, queue, seqs),
        ]

    def streams(self) -> list[Callable[[], object]]:
        store, ns, rng, stream = self.store, self.ns, self.rng, self.stream
        records = [NewRecord(rng.randbytes(n), ((b"h", b"v"),) * (n % 3)) for n in range(rng.randrange(1, 40))]
        return [
            lambda: store.stream_append(ns, stream, records[:1]),
            lambda: store.stream_append(ns, stream, records, key=rng.choice([None, b"k", b"l"])),
            lambda: store.stream_create(ns, stream, 3, Retention(max_records=rng.choice([0, 200]))),
            lambda: store.stream_trim(ns, stream, max_records=100),
            lambda: store.stream_read(ns, stream, limit=20).records,
        ]

    def groups(self) -> list[Callable[[], object]]:
        store, ns, rng = self.store, self.ns, self.rng
        at = (ns, self.stream, self.group)
        how = GroupSettings(mode=self.group, ack_timeout_ms=1_000, max_deliver=3, redeliver_delay_ms=50, slots=4)
        got = store.group_read(*at, self.consumer, rng.randrange(1, 6), settings=how, owner=self.consumer)
        ids = [(each.record.ms, each.record.seq) for each in got[:3]] or [(1, 0)]
        return [
            lambda: store.group_ack(*at, ids),
            lambda: store.group_nack(*at, ids, delay_ms=20),
            lambda: store.group_touch(*at, ids, self.consumer),
            lambda: store.group_claim(*at, self.consumer, 10),
            lambda: store.group_pending(*at).entries,
            lambda: store.owner_gone(self.consumer),
        ]


def stored(seed: int) -> str:
    """Clients' operations on a file log, over a restart."""
    rng = random.Random(seed)
    disk = SimDisk()
    clock = FakeClock()
    answers = sha256()

    def opened() -> Node:
        backend = FileBackend(DIRECTORY, disk=disk, segment_bytes=1 << 20, make_log_id=lambda: b"the same log id.")
        return Node.open(backend, clock=clock, entropy=rng.randbytes, threads=False, session="s")

    node = opened()
    for number in range(BATCHES):
        if number == BATCHES // 2:
            node.close()
            node = opened()
        store = node.store
        commands = Commands(store, rng)
        with store.lock:
            store.begin(100)
            for _ in range(rng.randrange(1, 12)):
                try:
                    answers.update(repr(commands.perform()).encode())
                except (Refused, FloError) as refused:
                    answers.update(f"{refused.kind if isinstance(refused, Refused) else ''} {refused}".encode())
            store.end()
        store.after()
        node.pump()
        clock.advance(rng.choice([0, 1, 40, 2_000, 700_000]))
        node.tick()
    node.pump()
    live = node.partition.machines.dump()
    again = Machines()
    replay(again, node._backend.read(1), 1)
    assert again.dump() == live, "replay differs from what lived"
    memory = node.partition.machines.memory_bytes
    node.close()
    return f"index {node.partition.last_index} memory {memory} answers {answers.hexdigest()} {digests(live, disk)}"


def digests(sections: dict[str, bytes], disk: SimDisk) -> str:
    state = " ".join(f"{name} {sha256(data).hexdigest()[:16]}" for name, data in sections.items())
    return f"{state} files {sha256(repr(sorted(files(disk, DIRECTORY))).encode()).hexdigest()}"


def files(disk: SimDisk, folder: str) -> list[tuple[str, bytes]]:
    """Everything on the disk but the pid of the owner."""
    found: list[tuple[str, bytes]] = []
    for name in disk.list_directory(folder):
        path = f"{folder}/{name}"
        if disk.is_directory(path):
            found += files(disk, path)
        elif name != "lock":
            handle = disk.open_to_read(path)
            found.append((path, disk.read(handle, disk.size(handle), 0)))
            disk.close(handle)
    return found


def simulated(seed: int) -> str:
    """A whole node that executes flows and loses power."""
    world = simulate(seed)
    trace: Any = (world.trace, sorted(world.begun.items()))
    return f"crashes {world.crashes} trace {sha256(repr(trace).encode()).hexdigest()}"


def main() -> None:
    print("compiled" if not frame.__file__.endswith(".py") else "interpreted")
    for seed in map(int, sys.argv[1:]):
        print(f"stored {seed}: {stored(seed)}")
        print(f"simulated {seed}: {simulated(seed)}")


if __name__ == "__main__":
    main()
