"""Commands that wait hold back the later commands of their connection, of no other; who has gone takes nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.resp.support import RespClient, RespServer, encode, resp_server


@pytest.fixture
def other(shared_server: RespServer, client: RespClient):
    """A second connection to the same namespace."""
    made = RespClient(shared_server.port)
    made("USE", client("CLIENT", "INFO").partition(b"ns=")[2].split()[0])
    yield made
    made.close()


def parked(server: RespServer, count: int) -> None:
    """Waits until so many waits of clients stand in the store."""
    until(server, lambda: server.node.partition.waiters.count == count)


def until(server: RespServer, condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        async with asyncio.timeout(10):
            while True:
                with server.node.store.lock:
                    if condition():
                        return
                await asyncio.sleep(0)

    asyncio.run(poll())


def test_a_pop_waits_for_a_push(client: RespClient, other: RespClient, shared_server: RespServer):
    client.send("BRPOP", "a", "b", 20)
    parked(shared_server, 1)
    assert other("LPUSH", "b", "late") == 1

    assert client.read() == [b"b", b"late"] and other("LLEN", "b") == 0


def test_the_first_queue_that_has_something_is_popped_at_once(client: RespClient):
    client("LPUSH", "b", "1")
    client("LPUSH", "c", "2")

    assert client("BLPOP", "a", "b", "c", "a", 0) == [b"b", b"1"]


def test_a_wait_ends_at_its_time_with_nothing(client: RespClient):
    assert client("BRPOP", "a", "0.01") is None and client.last_nil == b"*-1\r\n"
    assert client("FLO.QPOP", "a", "BLOCK", 10) == []
    assert client("XREAD", "BLOCK", 10, "STREAMS", "s", "t", "$", 0) is None
    assert client("HELLO", 3)[b"proto"] == 3
    assert client("BRPOP", "a", "0.01") is None and client.last_nil == b"_\r\n"


def test_a_waiting_command_holds_back_its_own_connection_alone(
    client: RespClient, other: RespClient, shared_server: RespServer
):
    client.socket.sendall(
        encode("SET", "k", 1) + encode("BRPOP", "q", 20) + encode("GET", "k") + encode("BLPOP", "r", 20)
    )
    client.socket.sendall(encode("GET", "k"))
    assert client.read() == "OK", "what came before is answered"
    parked(shared_server, 1)

    assert other("SET", "k", 2) == "OK"
    other("LPUSH", "q", "x")
    assert client.read() == [b"q", b"x"] and client.read() == b"2"
    parked(shared_server, 1)
    other("SET", "k", 3)
    other("LPUSH", "r", "y")
    assert client.read() == [b"r", b"y"] and client.read() == b"3"


def test_a_lease_can_be_waited_for(client: RespClient, other: RespClient, shared_server: RespServer):
    client.send("FLO.QPOP", "q", "COUNT", 3, "BLOCK", 0)
    parked(shared_server, 1)
    other("LPUSH", "q", "a", "b")

    assert client.read() == [[1, b"a", 1], [2, b"b", 1]]
    assert other("FLO.QPOP", "q") == [] and other("FLO.QACK", "q", 1, 2) == 2


def test_a_read_waits_for_what_comes_later_and_gives_only_that(
    client: RespClient, other: RespClient, shared_server: RespServer
):
    other("XADD", "s", "*", "n", 1)
    client.send("XREAD", "BLOCK", 0, "STREAMS", "s", "t", "$", "$")
    parked(shared_server, 2)
    second = other("XADD", "t", "*", "n", 2)

    assert client.read() == [[b"t", [[second, [b"n", b"2"]]]]]
    parked(shared_server, 0)
    assert client("XREAD", "BLOCK", 0, "STREAMS", "t", "0") == [[b"t", [[second, [b"n", b"2"]]]]]


def test_resp3_gets_a_map_from_a_waiting_read(client: RespClient, other: RespClient, shared_server: RespServer):
    client("HELLO", 3)
    client.send("XREAD", "BLOCK", 0, "STREAMS", "s", "$")
    parked(shared_server, 1)
    id = other("XADD", "s", "*", "f", "v")

    assert client.read() == {b"s": [[id, [b"f", b"v"]]]}


def test_who_has_gone_takes_no_message(client: RespClient, other: RespClient, shared_server: RespServer):
    client.send("BRPOP", "q", 0)
    parked(shared_server, 1)
    client.close()
    parked(shared_server, 0)
    other("LPUSH", "q", "x")

    assert other("FLO.QPOP", "q") == [[1, b"x", 1]], "the first delivery"


def test_who_sends_nothing_more_is_answered_and_its_waits_end(client: RespClient):
    client.socket.sendall(
        encode("SET", "k", 1) + encode("BRPOP", "q", 0) + encode("XREAD", "BLOCK", 0, "STREAMS", "s", "$")
    )
    client.socket.sendall(encode("GET", "k"))
    client.socket.shutdown(socket.SHUT_WR)

    assert [client.read() for _ in range(4)] == ["OK", None, None, b"1"]
    with pytest.raises(ConnectionError):
        client.read()


def test_many_wait_and_each_message_goes_to_one(shared_server: RespServer, client: RespClient, other: RespClient):
    ns = client("CLIENT", "INFO").partition(b"ns=")[2].split()[0]
    waiting = [RespClient(shared_server.port) for _ in range(20)]
    for one in waiting:
        one("USE", ns)
        one.send("BRPOP", "q", 0)
    parked(shared_server, 20)
    assert other("LPUSH", "q", *range(20)) == 20

    with ThreadPoolExecutor(20) as pool:
        assert sorted(reply[1] for reply in pool.map(RespClient.read, waiting)) == sorted(b"%d" % n for n in range(20))
    for one in waiting:
        one.close()


def test_a_reply_that_is_loaded_keeps_its_place_when_the_client_sends_nothing_more(tmp_path):
    with resp_server(url=f"file:{tmp_path}", hot_bytes=1) as server:
        server.client()("XADD", "s", "*", "f", "x" * 1_000)
        for _ in range(20):
            client = server.client()
            words = ("XRANGE s - +", "BLPOP q 0", "PING", "XRANGE s - +", "PING")
            client.socket.sendall(b"".join(encode(*line.split()) for line in words))
            client.socket.shutdown(socket.SHUT_WR)
            replies = [client.read() for _ in words]

            assert replies == [replies[0], None, "PONG", replies[0], "PONG"] and len(replies[0]) == 1


def test_records_that_left_memory_are_read_from_the_log(tmp_path):
    with resp_server(url=f"file:{tmp_path}", hot_bytes=1) as server:
        client = server.client()
        ids = [client("XADD", "s", "*", "n", n, "fill", "x" * 100) for n in range(50)]
        client.socket.sendall(encode("XRANGE", "s", "-", "+") + encode("PING"))
        records = client.read()

        assert [(id, fields[1]) for id, fields in records] == [(id, b"%d" % n) for n, id in enumerate(ids)]
        assert client.read() == "PONG", "in order"
        assert client("XREVRANGE", "s", "+", "-", "COUNT", 1)[0][0] == ids[-1]
        assert client("XREAD", "COUNT", 1, "STREAMS", "s", "0") == [[b"s", records[:1]]]
        client.send("XREAD", "BLOCK", 0, "STREAMS", "s", "$")
        parked(server, 1)
        last = server.client()("XADD", "s", "*", "n", "last")
        assert client.read() == [[b"s", [[last, [b"n", b"last"]]]]]


def test_a_read_of_many_streams_over_the_limit_of_waits_is_refused_and_waits_nowhere(
    client: RespClient, shared_server: RespServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shared_server.node.partition.waiters, "_limit", 2)
    assert "too many waiters" in client.refused("XREAD", "BLOCK", 0, "STREAMS", "s", "t", "u", "$", "$", "$")
    assert client("PING") == "PONG"
    parked(shared_server, 0)
    client("XADD", "s", "*", "f", "v")
    assert client("XLEN", "s") == 1
