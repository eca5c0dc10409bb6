"""One client process of the kill loop: a mixed load, and a journal of what it asked for and what was acknowledged.

    python -m tests.faults.core_load PORT JOURNAL NAME SEED

It ends with SIGTERM, after the round that is going on. A line of the journal is an intent, written before the request
leaves, or what became of it:

    {"n": 7, "op": "put", "a": {"key": "…", "value": "…"}, "t": 123}      t: ns of the clock that all processes share
    {"n": 7, "s": "ok", "r": {"version": 9}, "t": 456}                    s: ok, refused or unknown
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any, Final, TypeAlias

from flo.wire import calls
from flo.wire.calls import Call
from tests.faults.core_client import NOT_DONE, CoreClient, Refused
from tests.faults.linearizability import UNKNOWN

RETRY_SECONDS: Final = 0.02
PERIOD_NS: Final = 3_000_000_000  # after which all clients go on to other keys
KEYS: Final = 3  # of one period
QUEUE: Final = "jobs"
STREAM: Final = "events"
GROUP: Final = "readers"
ACK_TIMEOUT_MS: Final = 1_500
FILLER: Final = "0123456789abcdef" * 256
GROUP_SETTINGS: Final[dict[str, Any]] = {"ack_timeout_ms": ACK_TIMEOUT_MS, "max_deliver": 0}

Request: TypeAlias = tuple[str, dict[str, Any], Call[Any, Any], dict[str, Any]]
"""What the journal calls it, with its arguments; the call, with its own."""


def content(name: str, size: int) -> bytes:
    """A payload that tells who made it and shows whether it is whole."""
    return f"{name}|{FILLER[:size]}|".encode()


def name_of(payload: bytes) -> str:
    """Of a whole payload. Raises AssertionError."""
    name, filler, end = payload.decode().split("|")
    assert end == "" and filler == FILLER[: len(filler)], payload[:100]
    return name


class Journal:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, lines: list[dict[str, Any]]) -> None:
        """Before it returns the lines are on stable storage."""
        os.write(self._file, "".join(json.dumps(line) + "\n" for line in lines).encode())
        os.fdatasync(self._file)


class Load:
    def __init__(self, port: int, journal: str, name: str, seed: str) -> None:
        self._port = port
        self._journal = Journal(journal)
        self._name = name
        self._random = random.Random(f"{seed}/{name}")
        self._stop = threading.Event()
        self._connection: CoreClient | None = None
        self._number = 0
        self._versions: dict[str, int] = {}
        self._leased: list[int] = []
        self._held: list[str] = []
        self._outcomes: list[dict[str, Any]] = []  # to be written with the next intents
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())

    def run(self) -> None:
        while not self._stop.is_set():
            connection = self._connected()
            if connection is None:
                self._stop.wait(RETRY_SECONDS)
            elif self._random.random() < 0.15:
                self._transaction(connection)
            else:
                self._round(connection, [self._request() for _ in range(self._random.randrange(1, 7))])
        self._journal.write(self._outcomes)

    def _connected(self) -> CoreClient | None:
        if self._connection is not None and not self._connection.lost:
            return self._connection
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        try:
            self._connection = CoreClient(self._port)
        except ConnectionError:
            return None  # there is no server now
        return self._connection

    def _round(self, connection: CoreClient, requests: list[Request]) -> list[Any]:
        """Sends all of them together."""
        intents = []
        for name, arguments, _, _ in requests:
            self._number += 1
            intents.append({"n": self._number, "op": name, "a": arguments, "t": time.monotonic_ns()})
        self._journal.write([*self._outcomes, *intents])
        begun = time.monotonic_ns()
        results = connection.calls([(call, given) for _, _, call, given in requests])
        end = time.monotonic_ns()
        self._outcomes = []
        for intent, (name, arguments, _, _), result in zip(intents, requests, results, strict=True):
            line: dict[str, Any] = {"n": intent["n"], "t": end, "b": begun}
            if result is UNKNOWN:
                line |= {"s": "unknown"}
            elif isinstance(result, Refused):
                details = result.details if isinstance(result.details, dict) else {}
                line |= {"s": "refused", "r": {"code": result.code, "current": details.get("current_version")}}
                assert result.code in {"not_found", "conflict", *NOT_DONE}, (name, arguments, result)
            else:
                line |= {"s": "ok", "r": getattr(self, f"_on_{name}")(arguments, result)}
            self._outcomes.append(line)
        return results

    # -- what is asked for

    def _request(self) -> Request:
        what = self._random.choices(
            ["put", "get", "delete", "incr", "enqueue", "dequeue", "ack", "nack", "touch", "append", "read", "done",
             "back"],
            [4, 3, 1, 4, 3, 5, 6, 1, 1, 3, 4, 5, 1],
        )[0]  # fmt: skip
        if what in ("ack", "nack", "touch") and not self._leased and self._random.random() < 0.9:
            what = "dequeue"
        request: Request = getattr(self, f"_ask_{what}")()
        return request

    def _unique(self) -> str:
        self._number += 1
        return f"{self._name}.{self._number}"

    def _payload(self, name: str) -> bytes:
        return content(name, self._random.choice([0, 10, 100, 4_000]))

    def _period(self) -> int:
        return time.monotonic_ns() // PERIOD_NS

    def _ask_put(self) -> Request:
        key, value = f"r-{self._period()}-{self._random.randrange(KEYS)}", self._unique()
        how = self._random.choice([None, None, "nx", "xx", "cas"])
        given: dict[str, Any] = {} if how is None else {how: True}
        condition: Any = how
        if how == "cas":
            condition = self._versions.get(key, 1)
            given = {"cas": condition}
        body = {"key": key.encode(), "value": self._payload(value), **given}
        return "put", {"key": key, "value": value, "if": condition}, calls.KV_PUT, body

    def _on_put(self, arguments: dict[str, Any], result: Any) -> Any:
        self._versions[arguments["key"]] = result.version
        return {"version": result.version}

    def _ask_get(self) -> Request:
        key = self._random.choice([f"r-{self._period()}-{self._random.randrange(KEYS)}", f"p-{self._period()}"])
        return "get", {"key": key}, calls.KV_GET, {"key": key.encode()}

    def _on_get(self, arguments: dict[str, Any], result: Any) -> Any:
        self._versions[arguments["key"]] = result.version
        return {"value": name_of(result.value), "version": result.version}

    def _ask_delete(self) -> Request:
        key = f"r-{self._period()}-{self._random.randrange(KEYS)}"
        return "delete", {"key": key}, calls.KV_DELETE, {"key": key.encode()}

    def _on_delete(self, arguments: dict[str, Any], result: Any) -> Any:
        return {"version": result.version}

    def _ask_incr(self) -> Request:
        key, delta = self._random.choice(["c-all", f"c-{self._period()}"]), self._random.randrange(1, 5)
        return "incr", {"key": key, "delta": delta}, calls.KV_INCR, {"key": key.encode(), "delta": delta}

    def _on_incr(self, arguments: dict[str, Any], result: Any) -> Any:
        return {"value": result.value, "version": result.version}

    def _transaction(self, connection: CoreClient) -> None:
        """Writes one value under two keys and counts it."""
        key, value = f"p-{self._period()}", self._unique()
        (begun,) = connection.calls([(calls.KV_BEGIN, {"routing_key": key.encode()})])
        if begun is UNKNOWN or isinstance(begun, Refused):
            return
        txn = begun.txn_id
        payload = self._payload(value)
        writes: list[tuple[Call[Any, Any], dict[str, Any]]] = [
            (calls.KV_PUT, {"key": key.encode(), "value": payload, "txn": txn}),
            (calls.KV_PUT, {"key": f"{key}-other".encode(), "value": payload, "txn": txn}),
            (calls.KV_INCR, {"key": f"{key}-count".encode(), "txn": txn}),
        ]
        results = connection.calls(writes)
        if any(result is UNKNOWN or isinstance(result, Refused) for result in results):
            return
        self._round(connection, [("txn", {"key": key, "value": value}, calls.KV_COMMIT, {"txn_id": txn})])

    def _on_txn(self, arguments: dict[str, Any], result: Any) -> Any:
        assert result.op_count == 3
        return {"version": result.commit_index}

    def _ask_enqueue(self) -> Request:
        names = [self._unique() for _ in range(self._random.choice([1, 1, 2, 8]))]
        delays = [self._random.choice([0, 0, 0, 300]) for _ in names]
        messages = [
            {"payload": self._payload(name), "priority": self._random.randrange(3), "delay_ms": delay}
            for name, delay in zip(names, delays, strict=True)
        ]
        return "enqueue", {"names": names}, calls.QUEUE_ENQUEUE_MANY, {"queue": QUEUE, "messages": messages}

    def _on_enqueue(self, arguments: dict[str, Any], result: Any) -> Any:
        return {"seqs": [message.seq for message in result.messages]}

    def _ask_dequeue(self) -> Request:
        visibility, count = self._random.choice([150, 500, 2_000]), self._random.choice([1, 5, 20])
        given = {"queue": QUEUE, "count": count, "visibility_ms": visibility}
        return "dequeue", {"visibility": visibility, "count": count}, calls.QUEUE_DEQUEUE, given

    def _on_dequeue(self, arguments: dict[str, Any], result: Any) -> Any:
        self._leased += [message.seq for message in result.messages]
        return {
            "got": [(m.seq, name_of(m.payload), m.delivery_count, m.lease_expires_at) for m in result.messages]
        }  # fmt: skip

    def _seqs(self) -> list[int]:
        """Some of those that were handed out here; each is settled once."""
        self._random.shuffle(self._leased)
        taken = self._leased[: self._random.choice([1, 3, 20])] or [1]
        del self._leased[: len(taken)]
        return taken

    def _ask_ack(self) -> Request:
        seqs = self._seqs()
        return "ack", {"seqs": seqs}, calls.QUEUE_ACK, {"queue": QUEUE, "seqs": seqs}

    def _on_ack(self, arguments: dict[str, Any], result: Any) -> Any:
        return {"missing": result.missing}

    def _ask_nack(self) -> Request:
        seqs, dlq = self._seqs(), self._random.random() < 0.1
        return "nack", {"seqs": seqs}, calls.QUEUE_NACK, {"queue": QUEUE, "seqs": seqs, "dlq": dlq}

    _on_nack = _on_ack

    def _ask_touch(self) -> Request:
        seqs = self._leased[:5] or [1]
        return "touch", {"seqs": seqs}, calls.QUEUE_TOUCH, {"queue": QUEUE, "seqs": seqs, "extend_ms": 2_500}

    _on_touch = _on_ack

    def _ask_append(self) -> Request:
        names = [self._unique() for _ in range(self._random.choice([1, 1, 3, 10]))]
        records = [{"payload": self._payload(name)} for name in names]
        return "append", {"names": names}, calls.STREAM_APPEND, {"stream": STREAM, "records": records}

    def _on_append(self, arguments: dict[str, Any], result: Any) -> Any:
        return {"first": result.first_id, "last": result.last_id}

    def _ask_read(self) -> Request:
        given = {
            "stream": STREAM, "group": GROUP, "consumer": self._name, "limit": self._random.choice([1, 10, 40]),
            **GROUP_SETTINGS,
        }  # fmt: skip
        return "read", {}, calls.GROUP_READ, given

    def _on_read(self, arguments: dict[str, Any], result: Any) -> Any:
        self._held += [record.id for record in result.records]
        return {"got": [(record.id, name_of(record.payload), record.delivery_count) for record in result.records]}

    def _ids(self) -> list[str]:
        self._random.shuffle(self._held)
        taken = self._held[: self._random.choice([1, 10, 40])] or ["1-0"]
        del self._held[: len(taken)]
        return taken

    def _ask_done(self) -> Request:
        ids = self._ids()
        return "done", {"ids": ids}, calls.GROUP_ACK, {"stream": STREAM, "group": GROUP, "ids": ids}

    def _on_done(self, arguments: dict[str, Any], result: Any) -> Any:
        return {"count": result.count}

    def _ask_back(self) -> Request:
        ids = self._ids()
        return "back", {"ids": ids}, calls.GROUP_NACK, {"stream": STREAM, "group": GROUP, "ids": ids}

    _on_back = _on_done


if __name__ == "__main__":
    port, journal, name, seed = sys.argv[1:]
    Load(int(port), journal, name, seed).run()
