"""A connection's requests: unknown and malformed ones, waits and their end, the rights of browsers."""

from __future__ import annotations

import logging

import pytest

from flo.api.errors import Overloaded
from flo.server.operations import session
from flo.server.operations.session import WAITS, operations, refuse
from flo.wire import opcodes, tlv
from flo.wire.frames import ReplyScanner, Request
from flo.wire.layouts import u32
from flo.wire.layouts_queue import decode_messages
from flo.wire.statuses import BAD_REQUEST, INTERNAL, OK, OVERLOADED, UNAUTHORIZED
from tests.server.wire_service import Service


@pytest.fixture
def service() -> Service:
    return Service()


def test_every_opcode_has_its_operation():
    served = {number for name, number in vars(opcodes).items() if name.isupper() and isinstance(number, int)}

    assert operations().keys() == served


def test_an_unknown_operation_is_a_bad_request(service: Service):
    wire = service.connect()

    for opcode, said in ((0xFFF, b"0xfff is not known"), (0x300, b"(actions) is not supported by this server yet")):
        reply = wire.reply(opcode, "k")
        assert reply.status == BAD_REQUEST
        assert said in reply.body
    assert wire.put("k", b"v")


@pytest.mark.parametrize(
    ("opcode", "value", "options"),
    [
        (opcodes.KV_MGET, b"\5\0", None),
        (opcodes.KV_TOUCH, b"", None),
        (opcodes.QUEUE_ACK, b"\1\0\0\0", None),
        (opcodes.GROUP_READ, b"\1", None),
        (opcodes.GROUP_CLAIM, b"", None),
        (opcodes.QUEUE_PEEK, b"", {tlv.COUNT: b"\1\2\3"}),
        (opcodes.STREAM_READ, b"", {tlv.STREAM_START: b"short"}),
    ],
)
def test_a_malformed_request_is_a_bad_request(
    service: Service, opcode: int, value: bytes, options: dict[int, bytes] | None
):
    wire = service.connect()

    reply = wire.reply(opcode, "k", value, options)

    assert reply.status == BAD_REQUEST
    assert reply.body.startswith(b"malformed request: ")
    assert wire.put("k", b"v")


def test_ping(service: Service):
    assert service.connect().body(opcodes.PING) == b""


def test_a_wait_holds_back_no_later_request(service: Service):
    wire = service.connect()
    waiting = [
        wire.send(opcodes.KV_GET, "k", b"", {tlv.BLOCK_MS: u32(5_000)}),
        wire.send(opcodes.QUEUE_DEQUEUE, "q", b"", {tlv.BLOCK_MS: u32(5_000)}),
    ]

    assert wire.put("other", b"x")
    assert wire.late == {}
    wire.enqueue("q", b"job")
    wire.put("k", b"here")
    assert wire.late.keys() == set(waiting)


def test_a_connection_that_closes_takes_nothing(service: Service):
    gone, other = service.connect(), service.connect()
    gone.send(opcodes.QUEUE_DEQUEUE, "q", b"", {tlv.BLOCK_MS: u32(5_000)})

    gone.close()
    other.enqueue("q", b"m")

    assert gone.late == {}
    assert decode_messages(other.body(opcodes.QUEUE_PEEK, "q")) == [(1, b"m")]
    service.advance(10_000)
    assert gone.late == {}


def test_so_many_waits_may_be_parked_on_one_connection(service: Service):
    wire = service.connect()
    for number in range(WAITS):
        wire.send(opcodes.KV_GET, f"k{number}", b"", {tlv.BLOCK_MS: u32(5_000)})

    reply = wire.reply(opcodes.KV_GET, "one-more", b"", {tlv.BLOCK_MS: u32(5_000)})

    assert reply.status == OVERLOADED
    assert b"max 1024" in reply.body
    wire.put("k7", b"x")
    assert len(wire.session.waits) == WAITS - 1


def test_browsers_may_read_keys_and_use_streams(service: Service):
    wire = service.connect(opcodes.WEB_OPCODES)

    assert wire.append("s", b"x")
    assert wire.reply(opcodes.KV_PUT, "k", b"v").status == UNAUTHORIZED
    assert wire.reply(opcodes.CALL, "kv.put").status == UNAUTHORIZED
    assert wire.reply(opcodes.QUEUE_ENQUEUE, "q", b"v").status == UNAUTHORIZED
    assert wire.get("k") is None


def test_an_error_of_the_node_says_to_try_again():
    request = Request(opcodes.KV_PUT, 5, "default", b"k", b"v", {})

    (reply,) = ReplyScanner().feed(refuse(request, Overloaded("no space", hint="free some")))

    assert (reply.status, reply.request_id, reply.body) == (OVERLOADED, 5, b"no space (free some)")


def test_a_fault_in_an_answer_that_waited_is_told_and_breaks_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    wire = service.connect()
    waiting = wire.send(opcodes.KV_GET, "k", b"", {tlv.BLOCK_MS: u32(5_000)})
    (wait,) = wire.session.waits
    monkeypatch.setattr(wait, "answer", lambda *_: 1 // 0)

    with caplog.at_level(logging.ERROR, session.__name__):
        assert service.connect().put("k", b"v")

    assert wire.late[waiting].status == INTERNAL
    assert "ZeroDivisionError" in caplog.text
    assert wire.reply(opcodes.KV_GET, "k").status == OK
