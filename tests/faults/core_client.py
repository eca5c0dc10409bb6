"""A client of the core service for tests: blocking, several calls in one write, and honest about what it does not know.

    client = CoreClient(port)
    client.call(calls.KV_PUT, key=b"k", value=b"v").version
    one, other = client.calls([(calls.KV_GET, {"key": b"k"}), (calls.KV_INCR, {"key": b"n"})])

A call that is refused gives Refused, one whose answer never came gives UNKNOWN. `call` raises them.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from flo.wire import opcodes
from flo.wire.calls import Call, decode_refusal, decode_result, encode
from flo.wire.frames import Reply, ReplyScanner, encode_request
from flo.wire.statuses import OK
from tests.faults.linearizability import UNKNOWN

HOST: Final = "127.0.0.1"
ANSWER_SECONDS: Final = 60.0  # within which a server that runs must answer
NOT_DONE: Final = frozenset({"overloaded", "no_space", "quota_exceeded"})  # refused before it was decided


class Refused(Exception):
    def __init__(self, code: str, message: str, details: Any, status: int) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.details = details
        self.status = status


class Lost(Exception):
    """The connection is gone: whether the call was performed is not known."""


class CoreClient:
    """One connection. Raises ConnectionError when there is no server."""

    def __init__(self, port: int, ns: str = "default") -> None:
        self._socket = socket.create_connection((HOST, port), timeout=ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._scanner = ReplyScanner()
        self._ns = ns
        self._last_id = 0
        self.lost = False

    def __enter__(self) -> CoreClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def calls(self, asked: Sequence[tuple[Call[Any, Any], dict[str, Any]]]) -> list[Any]:
        """The results in the order of the calls: of each its result, Refused or UNKNOWN."""
        frames: list[bytes] = []
        wanted: dict[int, int] = {}
        for place, (call, arguments) in enumerate(asked):
            self._last_id += 1
            wanted[self._last_id] = place
            body = encode(call.arguments(**arguments))
            frames.append(encode_request(opcodes.CALL, self._last_id, self._ns, call.name.encode(), body))
        results: list[Any] = [UNKNOWN] * len(asked)
        try:
            self._socket.sendall(b"".join(frames))
            while wanted:
                data = self._socket.recv(1 << 20)
                if not data:
                    self.lost = True
                    break
                for reply in self._scanner.feed(data):
                    place = wanted.pop(reply.request_id)
                    results[place] = _result(asked[place][0], reply)
                assert self._scanner.error is None, self._scanner.error
        except TimeoutError:
            raise AssertionError(f"no answer within {ANSWER_SECONDS} seconds to {asked}") from None
        except OSError:
            self.lost = True
        return results

    def call(self, call: Call[Any, Any], **arguments: Any) -> Any:
        """The result. Raises Refused, Lost."""
        (result,) = self.calls([(call, arguments)])
        if result is UNKNOWN:
            raise Lost(call.name)
        if isinstance(result, Refused):
            raise result
        return result


def _result(call: Call[Any, Any], reply: Reply) -> Any:
    if reply.status == OK:
        return decode_result(call, reply.body)
    refusal = decode_refusal(reply.body)
    if refusal.code == "unavailable":
        return UNKNOWN
    return Refused(refusal.code, refusal.message, refusal.details, reply.status)
