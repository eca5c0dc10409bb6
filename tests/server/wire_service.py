"""A node with a clock that the test moves, and connections to it that have no sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flo.grid.store import Store
from flo.server.operations.session import WireSession
from flo.wire import opcodes, tlv
from flo.wire.calls import Arguments, Call, Refusal, decode_refusal, decode_result, encode
from flo.wire.frames import Reply, ReplyScanner, RequestScanner, encode_request
from flo.wire.layouts import str16, u32, u64
from flo.wire.layouts_kv import decode_version
from flo.wire.layouts_queue import decode_messages, encode_seqs
from flo.wire.layouts_stream import decode_records, encode_ids, encode_member
from flo.wire.statuses import OK
from tests.grid.manual import Bench

R = TypeVar("R")

Options = dict[int, bytes]


class WireRefused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class CallRefused(Exception):
    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(f"{status}: {refusal}")
        self.status = status
        self.refusal = refusal


class Service:
    """The node."""

    def __init__(self, bench: Bench | None = None) -> None:
        self.bench = bench or Bench()
        self.store: Store = self.bench.node.store

    def connect(self, allowed: frozenset[int] | None = None) -> Wire:
        return Wire(self, allowed)

    @contextmanager
    def batch(self) -> Iterator[Store]:
        with self.store.lock:
            self.store.begin(0)
            try:
                yield self.store
            finally:
                self.store.end()
        self.store.after()

    def advance(self, ms: int) -> None:
        """Time passes, and what is due happens."""
        self.bench.advance(ms)
        with self.batch():
            pass


class Wire:
    """A connection: frames go in as bytes, replies are read from bytes."""

    def __init__(self, service: Service, allowed: frozenset[int] | None) -> None:
        self.service = service
        self.session = WireSession(self._later, self, self, allowed=allowed)
        self.late: dict[int, Reply] = {}
        self.loads: list[int] = []
        self._requests = RequestScanner()
        self._replies = ReplyScanner()
        self._id = 0

    def load(self, link: Any, size: int, work: Callable[[], bytes]) -> None:
        assert link is self
        self.loads.append(size)
        self._later(work())

    def _later(self, frame: bytes) -> None:
        (reply,) = self._replies.feed(frame)
        assert reply.request_id not in self.late, "answered twice"
        self.late[reply.request_id] = reply

    def send(
        self,
        opcode: int,
        key: str | bytes = b"",
        value: bytes = b"",
        options: Options | None = None,
        ns: str = "default",
    ) -> int:
        """Performs a request; its id."""
        self._id += 1
        data = key.encode() if isinstance(key, str) else key
        (request,) = self._requests.feed(encode_request(opcode, self._id, ns, data, value, options))
        with self.service.batch() as store:
            frame = self.session.execute(store, request)
        if frame is not None:
            self._later(frame)
        return self._id

    def reply(self, *args: Any, **fields: Any) -> Reply:
        request_id = self.send(*args, **fields)
        return self.late.pop(request_id)

    def body(self, *args: Any, **fields: Any) -> bytes:
        reply = self.reply(*args, **fields)
        if reply.status != OK:
            raise WireRefused(reply.status, reply.body.decode())
        return reply.body

    def close(self) -> None:
        with self.service.batch() as store:
            self.session.close(store)

    # our own calls

    def send_call(self, call: Call[Any, R], arguments: Arguments, ns: str = "default") -> int:
        return self.send(opcodes.CALL, call.name, encode(arguments), ns=ns)

    def call(self, call: Call[Any, R], arguments: Arguments, ns: str = "default") -> R:
        return self.called(call, self.send_call(call, arguments, ns))

    def called(self, call: Call[Any, R], request_id: int) -> R:
        reply = self.late.pop(request_id)
        if reply.status != OK:
            raise CallRefused(reply.status, decode_refusal(reply.body))
        return decode_result(call, reply.body)

    # what tests do often

    def put(self, key: str, value: bytes, options: Options | None = None, ns: str = "default") -> int:
        return decode_version(self.body(opcodes.KV_PUT, key, value, options, ns))

    def get(self, key: str, options: Options | None = None, ns: str = "default") -> bytes | None:
        reply = self.reply(opcodes.KV_GET, key, b"", options, ns)
        return reply.body[8:] if reply.status == OK else None

    def enqueue(self, queue: str, payload: bytes, options: Options | None = None, ns: str = "default") -> int:
        return decode_version(self.body(opcodes.QUEUE_ENQUEUE, queue, payload, options, ns))

    def dequeue(self, queue: str, count: int = 1, **options: int) -> list[tuple[int, bytes]]:
        tags = {tlv.COUNT: u32(count)}
        if "visibility_ms" in options:
            tags[tlv.VISIBILITY_MS] = u32(options["visibility_ms"])
        return decode_messages(self.body(opcodes.QUEUE_DEQUEUE, queue, b"", tags))

    def settle(self, opcode: int, queue: str, seqs: list[int], options: Options | None = None) -> bytes:
        return self.body(opcode, queue, encode_seqs(seqs), options)

    def append(self, stream: str, payload: bytes, options: Options | None = None) -> tuple[int, int]:
        body = self.body(opcodes.STREAM_APPEND, stream, payload, options)
        return int.from_bytes(body[8:16], "little"), int.from_bytes(body[:8], "little")

    def read(self, stream: str, options: Options | None = None, ns: str = "default") -> list[bytes]:
        return [
            record.payload for _, record in decode_records(self.body(opcodes.STREAM_READ, stream, b"", options, ns))
        ]

    def group_read(
        self, stream: str, group: str, consumer: str, count: int = 10
    ) -> list[tuple[tuple[int, int], bytes]]:
        value = encode_member(group, consumer)
        body = self.body(opcodes.GROUP_READ, stream, value, {tlv.COUNT: u32(count)})
        return [((record.ms, record.seq), record.payload) for _, record in decode_records(body)]

    def group_settle(
        self, opcode: int, stream: str, group: str, consumer: str, ids: list[tuple[int, int]],
        options: Options | None = None,
    ) -> bytes:  # fmt: skip
        return self.body(opcode, stream, encode_ids(group, consumer, ids), options)


def keys(*names: str) -> bytes:
    return len(names).to_bytes(2, "little") + b"".join(str16(name.encode()) for name in names)


def transaction(txn: int) -> Options:
    return {tlv.TRANSACTION: u64(txn)}
