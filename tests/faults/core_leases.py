"""A client of the kill loop that looks at leases only: they end at their logged deadline, not before and soon after.

    python -m tests.faults.core_leases PORT JOURNAL NAME SEED

It is alone on a queue and on a group of its own, and waits for what it has taken to come again. All times are the
server's: a hand-out tells its time by the lease it gives. A line of its journal is what was wrong, or figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from typing import Any, Final

from flo.wire import calls
from tests.faults.core_client import CoreClient, Lost

LATE_MS: Final = 1_500  # after its deadline a lease must have ended; a busy machine has some time for the timer
AGAIN_MS: Final = 2_000  # the lease of what came again, until it is acknowledged
WAIT_MS: Final = 3_000
ACK_TIMEOUT_MS: Final = 700
RETRY_SECONDS: Final = 0.02
Bounds = tuple[int, int]  # a deadline is not before the one and not after the other


class Leases:
    def __init__(self, port: int, journal: str, name: str, seed: str) -> None:
        self._port = port
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._queue = f"leases-{name}"
        self._stream = f"leases-{name}"
        self._random = random.Random(f"{seed}/{name}")
        self._stop = threading.Event()
        self._connection: CoreClient | None = None
        self._messages: dict[int, Bounds] = {}
        self._records: dict[str, Bounds] = {}
        self._ended = 0
        self._latest = 0
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())

    def run(self) -> None:
        while not self._stop.is_set():
            if self._connection is None:
                try:
                    self._connection = CoreClient(self._port)
                except ConnectionError:
                    self._stop.wait(RETRY_SECONDS)
                    continue
            try:
                self._random.choice([self._try_queue, self._try_group])(self._connection)
            except Lost:
                self._connection.close()
                self._connection = None
        self._write({"ended": self._ended, "latest": self._latest})

    # -- a queue

    def _try_queue(self, client: CoreClient) -> None:
        if not self._messages:
            messages = [{"payload": b"x"}] * 3
            client.call(calls.QUEUE_ENQUEUE_MANY, queue=self._queue, messages=messages)
            visibility = self._random.choice([200, 500, 1_200])
            self._take(client, visibility)
        begun = self._time(client)
        for seq, at in self._take(client, AGAIN_MS, wait_ms=WAIT_MS, begun=begun):
            del self._messages[seq]  # whatever becomes of the ack
            self._figure(at)
            client.call(calls.QUEUE_ACK, queue=self._queue, seqs=[seq])
        overdue = [seq for seq, (_, latest) in self._messages.items() if latest + LATE_MS + WAIT_MS < begun]
        if overdue:
            dead = {letter.seq for letter in client.call(calls.QUEUE_DLQ_LIST, queue=self._queue, limit=1_000).entries}
            for seq in overdue:
                latest = self._messages.pop(seq)[1]
                if seq not in dead:
                    self._wrong(f"message {seq} of {self._queue} did not come again: leased to {latest}, it is {begun}")

    def _take(
        self, client: CoreClient, visibility: int, *, wait_ms: int = 0, begun: int = 0
    ) -> list[tuple[int, int]]:  # fmt: skip
        """Seqs that came, and how late those are that came again."""
        try:
            found = client.call(
                calls.QUEUE_DEQUEUE, queue=self._queue, count=10, visibility_ms=visibility, wait_ms=wait_ms
            )
        except Lost:
            now = self._after_restart()
            self._messages = {seq: (low, max(high, now + visibility)) for seq, (low, high) in self._messages.items()}
            raise
        again = []
        for message in found.messages:
            at = message.lease_expires_at - visibility
            known = self._messages.get(message.seq)
            if known is not None:
                again.append((message.seq, self._judge(f"message {message.seq} of {self._queue}", known, at, begun)))
            self._messages[message.seq] = (message.lease_expires_at, message.lease_expires_at)
        return again

    # -- a group

    def _try_group(self, client: CoreClient) -> None:
        if not self._records:
            client.call(calls.STREAM_APPEND, stream=self._stream, records=[{"payload": b"x"}] * 3)
            self._read(client)
        begun = self._time(client)
        for id, at in self._read(client, wait_ms=WAIT_MS, begun=begun):
            del self._records[id]
            self._figure(at)
            client.call(calls.GROUP_ACK, stream=self._stream, group="g", ids=[id])
        overdue = [id for id, (_, latest) in self._records.items() if latest + LATE_MS + WAIT_MS < begun]
        for id in overdue:
            latest = self._records.pop(id)[1]
            self._wrong(f"record {id} of {self._stream} did not come again: leased to {latest}, it is {begun}")

    def _read(self, client: CoreClient, *, wait_ms: int = 0, begun: int = 0) -> list[tuple[str, int]]:
        try:
            found = client.call(
                calls.GROUP_READ, stream=self._stream, group="g", consumer="only", limit=10, wait_ms=wait_ms,
                ack_timeout_ms=ACK_TIMEOUT_MS, max_deliver=0,
            )  # fmt: skip
            page = client.call(calls.GROUP_PENDING, stream=self._stream, group="g")
        except Lost:
            now = self._after_restart()
            self._records = {id: (low, max(high, now + ACK_TIMEOUT_MS)) for id, (low, high) in self._records.items()}
            raise
        entries = {entry.id: entry for entry in page.entries}
        again = []
        for record in found.records:
            entry = entries[record.id]
            known = self._records.get(record.id)
            if known is not None and entry.delivery_count == record.delivery_count:
                what = f"record {record.id} of {self._stream}"
                again.append((record.id, self._judge(what, known, entry.last_delivery, begun)))
            deadline = entry.last_delivery + ACK_TIMEOUT_MS
            self._records[record.id] = (deadline, deadline)
        return again

    # -- what both have in common

    def _judge(self, what: str, known: Bounds, at: int, begun: int) -> int:
        """How late it came."""
        earliest, latest = known
        late = at - max(latest, begun)
        if at < earliest:
            self._wrong(f"{what} came again at {at}, before its lease ended at {earliest}")
        if late > LATE_MS:
            self._wrong(f"{what} came again at {at}, {late} ms after its lease had ended and somebody waited")
        return late

    def _time(self, client: CoreClient) -> int:
        status = client.call(calls.SERVER_STATUS)
        now: int = status.time_ms
        return now

    def _after_restart(self) -> int:
        """The server's time when it is there again, or when it is over."""
        while not self._stop.is_set():
            try:
                with CoreClient(self._port) as client:
                    return self._time(client)
            except (ConnectionError, Lost):
                self._stop.wait(RETRY_SECONDS)
        return 1 << 60

    def _figure(self, late: int) -> None:
        self._ended += 1
        self._latest = max(self._latest, late)

    def _wrong(self, text: str) -> None:
        self._write({"wrong": text})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._journal, (json.dumps(line) + "\n").encode())


if __name__ == "__main__":
    port, journal, name, seed = sys.argv[1:]
    Leases(int(port), journal, name, seed).run()
