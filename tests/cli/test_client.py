"""The commands' own client: connections that fail, waits, and going on."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from flo.api.clock import FakeClock
from flo.cli import _client
from flo.client.endpoint import Endpoint
from flo.client.sdk_errors import (
    ConnectionFailedError,
    FloTimeoutError,
    IncompleteResponseError,
    InvalidMagicError,
    NotFoundError,
    OverloadedError,
    UnexpectedEofError,
)
from flo.wire import calls
from flo.wire.frames import HEADER_BYTES, RequestScanner, encode_reply


@contextmanager
def by_hand(*answers):
    """A server that answers one request of each connection with what `answers` give for its id, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                scanner = RequestScanner()
                while not (requests := scanner.feed(connection.recv(65_536))):
                    pass
                reply = answer(requests[0].request_id)
                if reply is None:
                    connection.recv(1)  # until the client gives up
                else:
                    connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Endpoint("127.0.0.1", listener.getsockname()[1])
    finally:
        thread.join()
        listener.close()


def ask(endpoint, timeout_ms=10_000):
    client = _client.Client(endpoint, "default", timeout_ms=timeout_ms)
    try:
        return client.call(calls.NAMESPACE_LIST, calls.NoArguments())
    finally:
        client.close()


NAMES = calls.encode(calls.Namespaces(["default"]))


def test_an_answer_is_returned():
    with by_hand(lambda id: encode_reply(0, id, NAMES)) as endpoint:
        assert ask(endpoint).namespaces == ["default"]


def test_nobody_there_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConnectionFailedError, match="cannot connect to"):
        ask(Endpoint("127.0.0.1", port))


def test_a_server_that_does_not_answer_is_given_up():
    with by_hand(lambda id: None) as endpoint, pytest.raises(FloTimeoutError, match="no reply from"):
        ask(endpoint, timeout_ms=20)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda id: b"", UnexpectedEofError),
        (lambda id: encode_reply(0, id, NAMES)[: HEADER_BYTES + 1], UnexpectedEofError),
        (lambda id: b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(HEADER_BYTES), InvalidMagicError),
        (lambda id: encode_reply(0, id, b"\x93"), IncompleteResponseError),
        (lambda id: encode_reply(2, id, calls.encode(calls.Refusal("gone", "not_found"))), NotFoundError),
        (lambda id: encode_reply(10, id, b"a text"), OverloadedError),
        (lambda id: encode_reply(10, 0, b"too many connections"), OverloadedError),
    ],
)
def test_what_comes_back_wrong_is_told_by_its_kind(reply, error):
    with by_hand(reply) as endpoint, pytest.raises(error):
        ask(endpoint)


def test_a_client_connects_again_after_its_connection_broke():
    with by_hand(lambda id: b"", lambda id: encode_reply(0, id, NAMES)) as endpoint:
        client = _client.Client(endpoint, "default", timeout_ms=10_000)
        with pytest.raises(UnexpectedEofError):
            client.call(calls.NAMESPACE_LIST, calls.NoArguments())

        assert client.call(calls.NAMESPACE_LIST, calls.NoArguments()).namespaces == ["default"]
        client.close()


def taken(total_ms, each_takes, limit=5):
    clock = FakeClock()
    found = []
    for ms in _client.waits(total_ms, clock):
        found.append(ms)
        clock.advance(each_takes(ms))
        if len(found) == limit:
            break
    return found


def test_a_wait_is_cut_into_requests_that_together_last_as_long():
    assert taken(None, lambda ms: 0) == [0]
    assert taken(150_000, lambda ms: ms) == [60_000, 60_000, 30_000]
    assert taken(150_000, lambda ms: 70_000) == [60_000, 60_000, 10_000]
    assert taken(300, lambda ms: max(ms - 1, 1)) == [300, 1]
    assert taken(0, lambda ms: ms) == [60_000] * 5


def test_only_what_was_answered_once_is_tried_again(monkeypatch):
    waited = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, seconds: waited.append(seconds))
    passing, refused = UnexpectedEofError("lost"), NotFoundError(2, "gone")
    persistence = _client.Persistence()
    with pytest.raises(UnexpectedEofError):
        persistence.failed(passing)

    persistence.answered()
    for _ in range(7):
        persistence.failed(passing)
    assert waited == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    with pytest.raises(NotFoundError):
        persistence.failed(refused)


def test_exit_codes_tell_who_cannot_connect_from_who_is_refused(live, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    unreachable = live("--endpoint", f"127.0.0.1:{port}", "kv", "get", "a")

    assert unreachable.exit_code == 5 and "[connection_failed]" in unreachable.stderr
    with by_hand(lambda id: None) as endpoint:
        late = live("--endpoint", str(endpoint), "--timeout", "20", "kv", "get", "a")
    assert late.exit_code == 4 and "[timeout]" in late.stderr
    with by_hand(lambda id: b"") as endpoint:
        assert live("--endpoint", str(endpoint), "kv", "get", "a").exit_code == 5
    with by_hand(lambda id: encode_reply(9, id, b"oops")) as endpoint:
        broken = live("--endpoint", str(endpoint), "kv", "exists", "a")
    assert broken.exit_code == 3 and "Error: oops [internal_error]" in broken.stderr, "not 1, which would mean false"


def test_verbose_tells_whom_the_command_asks(live):
    done = live("kv", "exists", "none", "-v")

    assert f"{live.server.endpoint} (--endpoint), namespace default (the default)" in done.stderr
    assert "kv.exists: status 0" in done.stderr and done.stdout == "false\n"


@pytest.mark.parametrize(
    "words", [["kv", "get", "never", "--wait", "0"], ["queue", "dequeue", "never", "--block", "0"]]
)
def test_ctrl_c_ends_a_wait_with_130(live, words):
    waiting = live.process(*words)
    live.parked(1)
    waiting.send_signal(2)

    assert waiting.communicate(timeout=20) == (b"", b"") and waiting.returncode == 130


def test_a_reader_that_goes_away_ends_a_command_quietly(live):
    live.ok("kv", "set", "piped", "x" * 200_000)
    for form in ("table", "raw"):
        process = live.process("kv", "get", "piped", "-o", form)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(20) == 0
        process.stderr.close()
