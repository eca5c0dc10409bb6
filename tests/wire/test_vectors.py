"""Golden frames of the official clients (dialect D2): what they sent, and what they accepted as replies.

vectors.json holds one frame a line: name, opcode, bytes, and for replies what the client made of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flo.primitives.queue_pages import Message
from flo.primitives.stream_pages import Appended, PartitionInfo, Pending, Record, Retention, StreamInfo
from flo.wire import layouts_kv as kv
from flo.wire import layouts_queue as queue
from flo.wire import layouts_stream as stream
from flo.wire import opcodes
from flo.wire.frames import ReplyScanner, Request, RequestScanner, encode_reply, encode_request
from flo.wire.layouts import decode_paging, encode_paging
from flo.wire.statuses import OK

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors.json").read_text())
REQUESTS = [vector for vector in VECTORS if vector["name"].endswith(".request")]
REPLIES = [vector for vector in VECTORS if vector["name"].endswith(".response")]


def ids(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def decoded_request(vector: dict[str, Any]) -> Request:
    scanner = RequestScanner()
    (request,) = scanner.feed(bytes.fromhex(vector["hex"]))
    assert scanner.error is None
    return request


@pytest.mark.parametrize("vector", REQUESTS, ids=ids)
def test_a_request_of_an_official_client_is_read_and_written_identically(vector: dict[str, Any]):
    request = decoded_request(vector)

    again = encode_request(
        request.opcode, request.request_id, request.ns, request.key, request.value, request.options
    )  # fmt: skip
    assert again.hex() == vector["hex"]
    assert request.opcode == vector["opcode"]


@pytest.mark.parametrize("vector", REPLIES, ids=ids)
def test_a_reply_that_an_official_client_accepts_is_read_and_written_identically(vector: dict[str, Any]):
    scanner = ReplyScanner()

    (reply,) = scanner.feed(bytes.fromhex(vector["hex"]))

    assert scanner.error is None
    assert encode_reply(reply.status, reply.request_id, reply.body).hex() == vector["hex"]


VALUES: dict[int, Callable[[bytes], bytes]] = {
    opcodes.KV_MGET: lambda value: kv.encode_keys(kv.decode_keys(value)),
    opcodes.KV_SCAN: lambda value: encode_paging(*decode_paging(value)),
    opcodes.KV_INCR: lambda value: kv.encode_delta(kv.decode_delta(value)),
    opcodes.KV_TOUCH: lambda value: kv.decode_ttl_seconds(value).to_bytes(8, "little"),
    opcodes.KV_JSON_SET: lambda value: kv.encode_json_set(*kv.decode_json_set(value)),
    opcodes.GROUP_JOIN: lambda value: stream.encode_member(*stream.decode_member(value)),
    opcodes.GROUP_READ: lambda value: stream.encode_member(*stream.decode_member(value)),
    opcodes.GROUP_ACK: lambda value: stream.encode_ids(*stream.decode_ids(value)),
    opcodes.GROUP_NACK: lambda value: stream.encode_ids(*stream.decode_ids(value)),
    opcodes.GROUP_PENDING: lambda value: stream.encode_group(*stream.decode_group(value)),
    opcodes.GROUP_CLAIM: lambda value: stream.encode_claim(*stream.decode_claim(value)),
}


@pytest.mark.parametrize("vector", [v for v in REQUESTS if v["opcode"] in VALUES], ids=ids)
def test_the_value_of_a_request_is_decoded_and_encoded_identically(vector: dict[str, Any]):
    request = decoded_request(vector)

    assert VALUES[request.opcode](request.value) == request.value


def batch(value: bytes) -> bytes:
    records = stream.decode_batch(value)
    return value if records is None else stream.encode_batch(records)


@pytest.mark.parametrize("vector", [v for v in REQUESTS if v["opcode"] == opcodes.STREAM_APPEND], ids=ids)
def test_an_append_is_told_raw_from_batch(vector: dict[str, Any]):
    request = decoded_request(vector)

    records = stream.decode_batch(request.value)

    assert (records is None) == ("raw" in vector["name"])
    assert batch(request.value) == request.value


def message(seq: int, payload: bytes) -> Message:
    return Message(seq, payload, 0, 0, 1)


def pending(ms: int, seq: int, count: int, consumer: str) -> Pending:
    return Pending(ms, seq, 0, consumer, 0, 0, count, 0, 0, "pending")


def info(found: stream.Range) -> StreamInfo:
    partitions = [PartitionInfo(0, 0)] * found.partitions
    return StreamInfo("s", "default", found.first, found.last, found.count, found.bytes, Retention(), partitions)


def records(body: bytes) -> bytes:
    decoded = stream.decode_records(body)
    return stream.encode_records(decoded[0][0] if decoded else "", [record for _, record in decoded])


def claimed(body: bytes) -> bytes:
    decoded, following = stream.decode_claimed(body)
    return stream.encode_claimed(decoded[0][0] if decoded else "", [record for _, record in decoded], following)


def counted(body: bytes) -> bytes:
    if len(body) == 8:
        return kv.encode_counter(kv.decode_counted(body, True))
    return kv.encode_counted(int.from_bytes(body[:8], "little"), kv.decode_counted(body, False))


BODIES: dict[int, Callable[[bytes], bytes]] = {
    opcodes.KV_PUT: lambda body: kv.encode_version(kv.decode_version(body)),
    opcodes.KV_GET: lambda body: kv.encode_value(*kv.decode_value(body)),
    opcodes.KV_MGET: lambda body: kv.encode_many(kv.Many(kv.decode_many(body), False)),
    opcodes.KV_SCAN: lambda body: kv.encode_page(kv.decode_page(body)),
    opcodes.KV_HISTORY: lambda body: kv.encode_history(kv.decode_history(body)),
    opcodes.KV_INCR: counted,
    opcodes.KV_JSON_GET: lambda body: kv.encode_value(*kv.decode_value(body)),
    opcodes.KV_JSON_SET: lambda body: kv.encode_version(kv.decode_version(body)),
    opcodes.KV_JSON_DEL: lambda body: kv.encode_version(kv.decode_version(body)),
    opcodes.KV_BEGIN: lambda body: kv.encode_begun(*kv.decode_begun(body)),
    opcodes.KV_COMMIT: lambda body: kv.encode_committed(*kv.decode_committed(body)),
    opcodes.QUEUE_ENQUEUE: lambda body: queue.encode_seq(queue.decode_seq(body)),
    opcodes.QUEUE_DEQUEUE: lambda body: queue.encode_messages([message(*m) for m in queue.decode_messages(body)]),
    opcodes.STREAM_APPEND: lambda body: stream.encode_appended(stream.decode_appended(body)),
    opcodes.STREAM_READ: records,
    opcodes.STREAM_INFO: lambda body: stream.encode_info(info(stream.decode_info(body))),
    opcodes.GROUP_PENDING: lambda body: stream.encode_pending(
        [pending(*held.id, held.delivery_count, held.consumer) for held in stream.decode_pending(body)]
    ),
    opcodes.GROUP_CLAIM: claimed,
}


@pytest.mark.parametrize("vector", [v for v in REPLIES if v["opcode"] in BODIES], ids=ids)
def test_the_body_of_a_reply_is_decoded_and_encoded_identically(vector: dict[str, Any]):
    (reply,) = ReplyScanner().feed(bytes.fromhex(vector["hex"]))

    if reply.status == OK:
        assert BODIES[vector["opcode"]](reply.body) == reply.body


def body_of(name: str) -> bytes:
    vector = next(v for v in VECTORS if v["name"] == name)
    (reply,) = ReplyScanner().feed(bytes.fromhex(vector["hex"]))
    return reply.body


def test_bodies_made_from_values_are_what_the_clients_accepted():
    found = [kv.Found(b"user:1", True, 12, b"Ada"), kv.Found(b"nope", False, 0, b"")]
    record = Record(1_700_000_000_123, 1, 0, None, b"p", ((b"k", b"v"),), "hot")
    appended = Appended((1_700_000_000_123, 1), (1_700_000_000_123, 1), 1)

    assert kv.encode_value(12, b"Ada") == body_of("d2.python.kv_get_found.response")
    assert kv.encode_many(kv.Many(found, False)) == body_of("d2.go.kv_mget.response")
    assert kv.encode_counted(13, 7) == body_of("d2.python.kv_incr.response")
    assert kv.encode_counter(9) == body_of("d2.python.kv_txn_incr.response")
    assert kv.encode_exists(12, True) == body_of("d2.python.kv_exists.response")
    assert kv.encode_committed(90, 2) == body_of("d2.python.kv_txn_commit.response")
    assert queue.encode_messages([message(42, b"job")]) == body_of("d2.python.queue_dequeue.response")
    assert stream.encode_appended(appended.first) == body_of("d2.go.stream_append_raw.response")
    assert stream.encode_records("events", [record]) == body_of("d2.go.stream_read.response")
    assert stream.encode_trimmed(6, (0, 7)) == body_of("d2.python.stream_trim.response")
    assert stream.encode_pending([pending(1_700_000_000_123, 1, 2, "w1")]) == body_of(
        "d2.python.stream_group_pending.response"
    )
