"""Consumers of a queue: `python benchmarks/core_consumers.py PORT COUNT` prints messages per second.

Eight tasks on two connections take and acknowledge in batches of a hundred what was put there before.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from flo import FloClient

BATCH = 100
PAYLOAD = b"p" * 64


async def run(port: int, count: int) -> float:
    clients = [FloClient(f"127.0.0.1:{port}") for _ in range(2)]
    for client in clients:
        await client.connect()
    for first in range(0, count, 1_000):
        await clients[0].queue.enqueue_many("work", [PAYLOAD] * min(1_000, count - first))
    left = count

    async def consume(client: FloClient) -> None:
        nonlocal left
        while left > 0:
            taken = await client.queue.dequeue("work", BATCH)
            if not taken.messages:
                return
            left -= len(taken.messages)
            await client.queue.ack("work", [message.seq for message in taken.messages])

    began = time.perf_counter()
    await asyncio.gather(*(consume(clients[number % 2]) for number in range(8)))
    rate = count / (time.perf_counter() - began)
    for client in clients:
        await client.close()
    return rate


print(uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]))))
