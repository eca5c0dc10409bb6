"""Concurrent clients of a real server, killed at times: their histories must be linearizable.

    FLO_KILLS=20 FLO_SEED=7 python -m tests.faults.histories

Each client is a thread with a connection of its own. All work on one object of each kind, then on the next ones, so
that the history of each is short enough to be searched. Payloads are unique.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter as Counts
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flo.wire import calls
from flo.wire.calls import Call
from tests.faults.core_client import CoreClient, Refused
from tests.faults.core_server import CoreServer
from tests.faults.linearizability import NEVER, UNKNOWN, Model, Operation, check_each
from tests.faults.models import Counter, Group, Queue, Register

CLIENTS: Final = 6
PER_OBJECT: Final = 150  # operations, about, before the clients go on to the next object
LEASE_MS: Final = 3_600_000  # longer than any test: what comes again was given back
BETWEEN_KILLS_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.02
MODELS: Final[dict[str, Model]] = {"key": Register(), "count": Counter(), "queue": Queue(), "group": Group()}

Outcome = tuple[str, tuple[Any, ...], Any]  # name, arguments and result for the model


class Histories:
    """One run: `run` raises AssertionError with what is not linearizable."""

    def __init__(self, folder: Path, seed: int, *, seconds: float = 0.0, kills: int = 0) -> None:
        self.server = CoreServer(folder)
        self.seed = seed
        self.figures: Counts[str] = Counts()
        self._seconds = seconds
        self._kills = kills
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._begun: Counts[str] = Counts()
        self._history: list[tuple[str, Operation]] = []  # with the object's name
        self._faults: list[BaseException] = []

    def run(self) -> Counts[str]:
        self.server.start()
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        rng = random.Random(self.seed)
        try:
            for _ in range(self._kills):
                self._stop.wait(rng.uniform(0.5, 1.5) * BETWEEN_KILLS_SECONDS)
                self.server.kill()
                self.server.start()
                self.figures["kills"] += 1
            self._stop.wait(self._seconds)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            try:
                if not self._faults:
                    self._look_at_the_end()
            finally:
                self.server.close()
        if self._faults:
            raise self._faults[0]
        self._check()
        return self.figures

    # -- clients

    def _client(self, number: int) -> None:
        client = Client(f"c{number}", random.Random(f"{self.seed}/{number}"), self)
        try:
            while not self._stop.is_set():
                client.act()
        except BaseException as fault:  # noqa: BLE001  # of a thread: told by `run`
            self._faults.append(fault)
            self._stop.set()
        finally:
            client.close()

    def next_object(self, kind: str) -> str:
        with self._lock:
            self._begun[kind] += 1
            return f"{kind}-{self._begun[kind] // PER_OBJECT}"

    def objects(self, kind: str) -> list[str]:
        return [f"{kind}-{n}" for n in range(self._begun[kind] // PER_OBJECT + 1)]

    def saw(self, name: str, operation: Operation) -> None:
        with self._lock:
            self._history.append((name, operation))
            self.figures["operations"] += 1
            self.figures["unknown"] += not operation.known

    def pause(self) -> None:
        self._stop.wait(RETRY_SECONDS)

    # -- the end

    def _look_at_the_end(self) -> None:
        """What is there when all is quiet belongs to the histories."""
        client = Client("end", random.Random(0), self)
        for name in self.objects("key"):
            client.get(name)
        for name in self.objects("count"):
            client.count(name)
        for name in self.objects("queue"):
            client.dequeue(name, 100)
        for name in self.objects("group"):
            client.group_read(name, 1_000)
        client.close()

    def _check(self) -> None:
        names = {id(operation): name for name, operation in self._history}
        wrong: list[str] = []
        for kind, model in MODELS.items():
            history = [operation for name, operation in self._history if name.startswith(f"{kind}-")]
            verdicts = check_each(model, history, lambda operation: names[id(operation)])
            self.figures["objects"] += len(verdicts)
            self.figures["states"] += sum(verdict.looked for verdict in verdicts.values())
            wrong += [f"{name}: {verdict}" for name, verdict in verdicts.items() if not verdict.ok]
        assert not wrong, f"seed {self.seed}:\n" + "\n".join(wrong)


class Client:
    """One of the clients; what it asks for is drawn from its seed."""

    def __init__(self, name: str, rng: random.Random, histories: Histories) -> None:
        self._name = name
        self._random = rng
        self._histories = histories
        self._connection: CoreClient | None = None
        self._number = 0
        self._versions: dict[str, int] = {}  # of keys, as last seen
        self._leased: dict[str, list[int]] = {}  # seqs
        self._held: dict[str, dict[str, str]] = {}  # ids of records by payload
        self._groups: set[str] = set()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def act(self) -> None:
        kind = self._random.choice(list(MODELS))
        name = self._histories.next_object(kind)
        if kind == "key":
            self._random.choice([self.get, self.get, self.put, self.put, self.put_if, self.delete])(name)
        elif kind == "count":
            self._random.choice([self.incr, self.incr, self.count])(name)
        elif kind == "queue":
            self._random.choice([self.enqueue, self.dequeue, self.dequeue, self.ack, self.nack])(name)
        else:
            self._random.choice([self.append, self.group_read, self.group_read, self.group_ack, self.group_nack])(name)

    # -- keys

    def get(self, name: str) -> None:
        def answer(result: Any) -> Outcome:
            if isinstance(result, Refused):
                assert result.code == "not_found", result
                return "get", (), None
            if result is not UNKNOWN:
                self._versions[name] = result.version
            return "get", (), result if result is UNKNOWN else (result.value, result.version)

        self._ask(name, answer, calls.KV_GET, key=name.encode())

    def put(self, name: str, condition: str | int | None = None) -> None:
        value = self._unique()
        conditions: dict[str, Any] = {"nx": {"nx": True}, "xx": {"xx": True}, None: {}}
        how = conditions.get(condition, {"cas": condition})

        def answer(result: Any) -> Outcome:
            return "put", (value, condition), self._written(name, result)

        self._ask(name, answer, calls.KV_PUT, key=name.encode(), value=value, **how)

    def put_if(self, name: str) -> None:
        self.put(name, self._random.choice(["nx", "xx", self._versions.get(name, 0) or 1]))

    def delete(self, name: str) -> None:
        condition = self._versions.get(name) if self._random.random() < 0.5 else None

        def answer(result: Any) -> Outcome:
            return "delete", (condition,), self._written(name, result)

        self._ask(name, answer, calls.KV_DELETE, key=name.encode(), if_match=condition)

    def _written(self, name: str, result: Any) -> Any:
        if result is UNKNOWN:
            return UNKNOWN
        if not isinstance(result, Refused):
            self._versions[name] = result.version
            return ("ok", result.version)
        if result.code == "not_found":
            return ("missing",)
        assert result.code == "conflict", result
        return ("conflict", (result.details or {}).get("current_version"))

    def incr(self, name: str) -> None:
        delta = self._random.randrange(1, 4)

        def answer(result: Any) -> Outcome:
            return "incr", (delta,), result if result is UNKNOWN else (result.version, result.value)

        self._ask(name, answer, calls.KV_INCR, key=name.encode(), delta=delta)

    def count(self, name: str) -> None:
        def answer(result: Any) -> Outcome:
            if isinstance(result, Refused):
                assert result.code == "not_found", result
                return "get", (), 0
            return "get", (), result if result is UNKNOWN else int(result.value)

        self._ask(name, answer, calls.KV_GET, key=name.encode())

    # -- queues

    def enqueue(self, name: str) -> None:
        messages = tuple((self._unique(), self._random.randrange(2)) for _ in range(self._random.randrange(1, 4)))

        def answer(result: Any) -> Outcome:
            seqs = result if result is UNKNOWN else tuple(message.seq for message in result.messages)
            return "enqueue", (messages,), seqs

        batch = [{"payload": payload, "priority": priority} for payload, priority in messages]
        self._ask(name, answer, calls.QUEUE_ENQUEUE_MANY, queue=name, messages=batch)

    def dequeue(self, name: str, count: int = 2) -> None:
        def answer(result: Any) -> Outcome:
            if result is UNKNOWN:
                return "dequeue", (count, LEASE_MS), UNKNOWN
            self._leased.setdefault(name, []).extend(message.seq for message in result.messages)
            found = tuple((m.seq, m.payload, m.delivery_count, m.lease_expires_at) for m in result.messages)
            return "dequeue", (count, LEASE_MS), found

        self._ask(name, answer, calls.QUEUE_DEQUEUE, queue=name, count=count, visibility_ms=LEASE_MS)

    def ack(self, name: str) -> None:
        self._settle(name, "ack", calls.QUEUE_ACK)

    def nack(self, name: str) -> None:
        self._settle(name, "nack", calls.QUEUE_NACK)

    def _settle(self, name: str, what: str, call: Call[Any, Any]) -> None:
        leased = self._leased.get(name) or [self._random.randrange(1, 20)]
        seqs = tuple({leased.pop(self._random.randrange(len(leased))) for _ in range(min(len(leased), 2))})

        def answer(result: Any) -> Outcome:
            if result is UNKNOWN:
                return what, (seqs,), UNKNOWN
            if isinstance(result, Refused):
                assert result.code == "not_found", result
                return what, (seqs,), (0, seqs)
            return what, (seqs,), (result.count, tuple(result.missing))

        self._ask(name, answer, call, queue=name, seqs=list(seqs))

    # -- groups

    def append(self, name: str) -> None:
        payloads = tuple(self._unique() for _ in range(self._random.randrange(1, 4)))

        def answer(result: Any) -> Outcome:
            return "append", (payloads,), result if result is UNKNOWN else result.last_id

        records = [{"payload": payload} for payload in payloads]
        self._ask(name, answer, calls.STREAM_APPEND, stream=name, records=records)

    def group_read(self, name: str, limit: int = 2) -> None:
        def answer(result: Any) -> Outcome:
            if result is UNKNOWN:
                return "read", (limit,), UNKNOWN
            held = self._held.setdefault(name, {})
            held.update({record.payload: record.id for record in result.records})
            return "read", (limit,), tuple((record.payload, record.delivery_count) for record in result.records)

        self._ask(
            name, answer, calls.GROUP_READ, stream=name, group="g", consumer=self._name, limit=limit,
            ack_timeout_ms=LEASE_MS, max_deliver=0,
        )  # fmt: skip

    def group_ack(self, name: str) -> None:
        self._settle_records(name, "ack", calls.GROUP_ACK)

    def group_nack(self, name: str) -> None:
        self._settle_records(name, "nack", calls.GROUP_NACK)

    def _settle_records(self, name: str, what: str, call: Call[Any, Any]) -> None:
        held = self._held.get(name)
        if not held:
            self.group_read(name)
            return
        payloads = tuple(self._random.sample(sorted(held), min(len(held), 2)))

        def answer(result: Any) -> Outcome:
            return what, (payloads,), result if result is UNKNOWN else result.count

        self._ask(name, answer, call, stream=name, group="g", ids=[held.pop(payload) for payload in payloads])

    # -- what all have in common

    def _unique(self) -> bytes:
        self._number += 1
        return f"{self._name}.{self._number}".encode()

    def _ask(self, name: str, answer: Callable[[Any], Outcome], call: Call[Any, Any], **arguments: Any) -> None:
        connection = self._connected()
        if connection is None:
            return
        begun = time.monotonic_ns()
        (result,) = connection.calls([(call, arguments)])
        end = time.monotonic_ns()
        what, given, seen = answer(result)
        if seen is UNKNOWN:
            end = NEVER
        self._histories.saw(name, Operation(self._name, what, given, seen, begun, end))

    def _connected(self) -> CoreClient | None:
        """None while there is no server."""
        if self._connection is not None and not self._connection.lost:
            return self._connection
        self.close()
        self._connection = None
        try:
            self._connection = self._histories.server.connect()
        except ConnectionError:
            self._histories.pause()
        return self._connection


def main() -> None:
    kills = int(os.environ.get("FLO_KILLS", "20"))
    seed = int(os.environ.get("FLO_SEED") or random.SystemRandom().randrange(1_000_000))
    sys.stderr.write(f"seed {seed}\n")
    with tempfile.TemporaryDirectory(prefix="flo-") as folder:
        figures = Histories(Path(folder), seed, seconds=1.0, kills=kills).run()
    sys.stderr.write(f"{dict(figures)}\n")


if __name__ == "__main__":
    main()
