"""HTTP on the client port: WebSocket connections of browsers, and the redirect to the dashboard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from flo.api.clock import FakeClock
from flo.server import websocket
from flo.server.link import Connections, WebSocketSettings
from flo.server.operations.session import WireSession
from flo.wire.frames import Reply, ReplyScanner, encode_request
from tests.server.support import ECHO, PUT, WAIT, Client, LittleSession, only_link, served, until

pytestmark = pytest.mark.usefixtures("little")


class Browser:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.connection = WSConnection(ConnectionType.CLIENT)
        self.events: list[Event] = []
        self.scanner = ReplyScanner()

    @classmethod
    async def to(cls, connections: Connections, *, subprotocols: Any = ("flo-proto",)) -> Browser:
        browser = cls(await Client.to(connections))
        browser.send(Request(host="localhost", target="/ws?token=abc", subprotocols=list(subprotocols)))
        return browser

    def send(self, event: Event) -> None:
        self.client.send(self.connection.send(event))

    def ask(self, request: bytes) -> None:
        self.send(BytesMessage(data=request))

    async def event(self) -> Event:
        async with asyncio.timeout(10):
            while not self.events:
                data = await self.client.reader.read(65_536)
                self.connection.receive_data(data or None)
                self.events += self.connection.events()
        return self.events.pop(0)

    async def reply(self) -> Reply:
        event = await self.event()
        assert isinstance(event, BytesMessage), event
        (reply,) = self.scanner.feed(bytes(event.data))
        return reply

    @classmethod
    async def opened(cls, connections: Connections) -> Browser:
        browser = await cls.to(connections)
        assert isinstance(await browser.event(), AcceptConnection)
        return browser


def echo(id: int, value: bytes = b"v") -> bytes:
    return encode_request(ECHO, id, "default", b"", value)


async def test_an_upgrade_selects_the_sub_protocol_and_requests_are_answered(store):
    async with served(store) as connections:
        browser = await Browser.to(connections)
        accepted = await browser.event()
        assert isinstance(accepted, AcceptConnection) and accepted.subprotocol == "flo-proto"

        browser.ask(echo(5, b"hello"))
        reply = await browser.reply()
        assert (reply.status, reply.request_id, reply.body) == (0, 5, b"hello")
        assert connections.by_protocol["websocket"] == 1


async def test_a_request_may_come_in_fragments_and_byte_by_byte(store):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        frame = echo(5, b"hello")
        browser.send(BytesMessage(data=frame[:10], message_finished=False))
        for byte in browser.connection.send(BytesMessage(data=frame[10:])):
            seen = connections.bytes_in
            browser.client.send(bytes((byte,)))
            await until(lambda: connections.bytes_in > seen)  # noqa: B023
        assert (await browser.reply()).body == b"hello"


async def test_an_upgrade_that_is_one_is_required_to_be_whole(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_another_sub_protocol_is_refused(store):
    async with served(store) as connections:
        browser = await Browser.to(connections, subprotocols=["mqtt"])
        refused = await browser.event()
        assert isinstance(refused, RejectConnection) and refused.status_code == 400


async def test_text_messages_are_ignored_and_pings_answered(store):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        browser.send(TextMessage(data="hello"))
        browser.send(Ping(payload=b"abc"))
        browser.ask(echo(1))
        pong = await browser.event()
        assert isinstance(pong, Pong) and pong.payload == b"abc"
        assert (await browser.reply()).request_id == 1


@pytest.mark.parametrize(
    "message", [echo(1) + echo(2), echo(1)[:-1], b"", b"hello world, this is no frame at all, but long enough"]
)
async def test_a_message_that_is_not_exactly_one_request_ends_the_connection(store, message):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        browser.ask(message)
        reply = await browser.reply()
        assert (reply.status, reply.request_id) == (3, 0)
        closed = await browser.event()
        assert isinstance(closed, CloseConnection) and closed.code == 1002
        await until(lambda: not connections.links)


async def test_a_message_over_the_limit_ends_the_connection(store, monkeypatch):
    monkeypatch.setattr(websocket, "MESSAGE_BYTES", 1_000)
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        for _ in range(2):
            browser.send(BytesMessage(data=bytes(600), message_finished=False))
        closed = await browser.event()
        assert isinstance(closed, CloseConnection) and closed.code == 1009


async def test_clients_of_the_compact_dialect_are_told(store):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        browser.ask(bytes.fromhex("464c4f001a0000006500000000000000a746bcab01300000070064656661756c74"))
        told = await browser.event()
        assert isinstance(told, BytesMessage) and told.data[20:22] == b"\x01\x03"


async def test_requests_over_the_rate_are_refused_until_the_window_is_over(store):
    clock = FakeClock()
    settings = WebSocketSettings(rate_limit_requests=3, rate_limit_window_ms=1_000)
    async with served(store, websocket=settings, clock=clock) as connections:
        browser = await Browser.opened(connections)
        statuses = []
        for number in range(5):
            browser.ask(echo(number))
            reply = await browser.reply()
            assert reply.request_id == number
            statuses.append(reply.status)
        assert statuses == [0, 0, 0, 11, 11]
        clock.advance(1_000)
        browser.ask(echo(9))
        assert (await browser.reply()).status == 0


async def test_operations_that_browsers_may_not_ask_for_are_refused(store, monkeypatch):
    allowed: list[Any] = []

    class Session(LittleSession):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args)
            allowed.append(options["allowed"])

    monkeypatch.setattr(websocket, "WireSession", Session)
    async with served(store) as connections:
        await Browser.opened(connections)

    assert PUT not in allowed[0] and len(allowed[0]) == 15
    session = WireSession(print, object(), connections.turns, allowed=allowed[0])
    scanner = websocket.RequestScanner()
    for opcode in (0x100, 0x103, 0x170, 0x0F0, 0x132):
        refused = session.execute(store, scanner.feed(encode_request(opcode, 1))[0])
        assert refused is not None and refused[21] == 7


async def test_a_client_that_answers_no_ping_is_closed_and_one_that_does_is_not(store):
    settings = WebSocketSettings(ping_interval_ms=5, pong_timeout_ms=40)
    async with served(store, websocket=settings) as connections:
        browser, silent = await Browser.opened(connections), await Browser.opened(connections)
        for _ in range(5):
            ping = await browser.event()
            assert isinstance(ping, Ping)
            browser.send(ping.response())
        while len(connections.links) == 2:
            ping = await browser.event()
            assert isinstance(ping, Ping)
            browser.send(ping.response())
        assert isinstance(await silent.event(), Ping)
        assert await silent.client.rest() == b""


async def test_a_close_is_answered_and_waits_are_cancelled(store):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        browser.ask(encode_request(WAIT, 1, "default", b"k"))
        await until(lambda: store.waits.get(b"k"))
        browser.send(CloseConnection(code=1000))
        closed = await browser.event()
        assert isinstance(closed, CloseConnection) and closed.code == 1000
        assert store.waits[b"k"] == []
        await until(lambda: not connections.links)


async def test_frames_against_the_rules_of_websocket_end_the_connection(store):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        browser.client.send(b"\x82\x05hello")  # a client must mask
        closed = await browser.event()
        assert isinstance(closed, CloseConnection) and closed.code == 1002
        await until(lambda: not connections.links)


async def test_a_server_that_stops_says_so(store):
    async with served(store) as connections:
        browser = await Browser.opened(connections)
        await connections.listener.close()
        closed = await browser.event()
        assert isinstance(closed, CloseConnection)


# --- plain HTTP


@pytest.mark.parametrize(
    ("host", "location"),
    [
        (b"Host: flo.example:9000\r\n", b"http://flo.example:8080/"),
        (b"Host: [::1]:9000\r\n", b"http://[::1]:8080/"),
        (b"", b"http://127.0.0.1:8080/"),
        (b"Host: evil/\r\n", b"http://127.0.0.1:8080/"),
    ],
)
async def test_plain_http_is_sent_to_the_dashboard(store, host, location):
    async with served(store, dashboard_port=8080) as connections:
        client = await Client.to(connections)
        client.send(b"GET /runs HTTP/1.1\r\n" + host + b"Accept: */*\r\n\r\n")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 307 ")
        assert b"Location: " + location + b"\r\n" in answer


async def test_without_a_dashboard_plain_http_finds_nothing_and_other_methods_are_refused(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 404 ")
        client = await Client.to(connections)
        client.send(b"POST / HTTP/1.1\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 405 ")


async def test_an_endless_head_is_refused(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 20_000)
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_does_not_come_to_its_end_is_waited_for_only_so_long(store, monkeypatch):
    monkeypatch.setattr(websocket, "HEAD_SECONDS", 0.001)
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(b"GET / HTTP/1.1\r\n")
        assert await client.rest() == b""


async def test_replies_that_a_browser_does_not_read_are_bounded(store):
    async with served(store, websocket=WebSocketSettings(rate_limit_requests=0)) as connections:
        browser = await Browser.opened(connections)
        browser.client.writer.transport.pause_reading()
        for number in range(100):
            browser.ask(encode_request(0x103, number, "default", b"", (1 << 20).to_bytes(8, "little")))
        await until(lambda: only_link(connections).full)
        assert sum(store.batches) < 40
