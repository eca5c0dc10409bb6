"""The Redis protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.parity.surface import Refused, json_of
from tests.server.resp.support import RespClient, RespError


class RespDriver:
    name = "resp"

    def __init__(self, port: int) -> None:
        self._client = RespClient(port)
        self._ns = "default"

    @property
    def ns(self) -> str:
        return self._ns

    @ns.setter
    def ns(self, name: str) -> None:
        self._ns = name

    def close(self) -> None:
        self._client.close()

    def _do(self, *words: object) -> Any:
        used = self._client("USE", self._ns)
        reply = used if isinstance(used, RespError) else self._client(*words)
        if not isinstance(reply, RespError):
            return reply
        text = str(reply)
        if text.startswith("WRONGTYPE"):
            raise Refused("conflict")
        if text.startswith("NOPERM"):
            raise Refused("unauthorized")
        assert text.startswith("ERR"), text
        raise Refused("bad_request")

    def _found(self, *words: object) -> None:
        """A command that answers 0 for what is not there."""
        if self._do(*words) == 0:
            raise Refused("not_found")

    # -- keys

    def kv_put(self, key: str, value: str, *, ttl_s: int = 0, nx: bool = False, xx: bool = False) -> None:
        words = [*(["EX", ttl_s] if ttl_s else []), *(["NX"] if nx else []), *(["XX"] if xx else [])]
        if self._do("SET", key, value, *words) is None:
            raise Refused("conflict")

    def kv_get(self, key: str) -> str | None:
        return _text(self._do("GET", key))

    def kv_delete(self, key: str) -> None:
        self._found("DEL", key)

    def kv_incr(self, key: str, by: int = 1) -> int:
        return int(self._do("INCRBY", key, by))

    def kv_exists(self, key: str) -> bool:
        return bool(self._do("EXISTS", key))

    def kv_mget(self, keys: Sequence[str]) -> list[str | None]:
        return [_text(value) for value in self._do("MGET", *keys)]

    def kv_scan(self, prefix: str, limit: int) -> dict[str, Any]:
        cursor, keys = self._do("SCAN", 0, "MATCH", f"{prefix}*", "COUNT", limit)
        names = [key.decode() for key in keys]
        return {"entries": [[name, self.kv_get(name)] for name in names], "more": cursor != b"0"}

    def kv_touch(self, key: str, ttl_s: int) -> None:
        self._found("EXPIRE", key, ttl_s)

    def kv_persist(self, key: str) -> None:
        self._found("PERSIST", key)

    def kv_json_set(self, key: str, path: str, json: str) -> None:
        self._do("JSON.SET", key, path, json)

    def kv_json_get(self, key: str, path: str) -> Any:
        found = self._do("JSON.GET", key, path)
        return None if found is None else json_of(found)

    def kv_json_del(self, key: str, path: str) -> None:
        self._found("JSON.DEL", key, path)

    # -- queues

    def queue_enqueue(self, queue: str, payload: str) -> int:
        return int(self._do("LPUSH", queue, payload))

    def queue_dequeue(self, queue: str, count: int = 1, *, visibility_ms: int = 30_000) -> list[list[Any]]:
        found = self._do("FLO.QPOP", queue, "COUNT", count, "VISIBILITY", visibility_ms)
        return [[seq, payload.decode()] for seq, payload, _ in found]

    def queue_ack(self, queue: str, seqs: Sequence[int]) -> None:
        self._found("FLO.QACK", queue, *seqs)

    def queue_nack(self, queue: str, seqs: Sequence[int], *, dlq: bool = False) -> None:
        self._found("FLO.QNACK", queue, *seqs, *(["DLQ"] if dlq else []))

    # -- streams

    def stream_append(self, stream: str, payload: str) -> str:
        return str(self._do("XADD", stream, "*", "data", payload).decode())

    def stream_read(
        self, stream: str, *, start: str = "-", end: str = "+", after: str = "", tail: bool = False, count: int = 10
    ) -> list[list[Any]]:
        if tail:
            found = self._do("XREAD", "COUNT", count, "STREAMS", stream, "$") or []
            return [[_payload(fields), {}] for _, records in found for _, fields in records]
        found = self._do("XRANGE", stream, f"({after}" if after else start, end, "COUNT", count)
        return [[_payload(fields), {}] for _, fields in found]

    def stream_info(self, stream: str) -> int:
        return int(self._do("XLEN", stream))

    def stream_trim(self, stream: str, max_len: int) -> int:
        return int(self._do("XTRIM", stream, "MAXLEN", max_len))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _payload(fields: list[bytes]) -> str:
    """The one field `data`."""
    assert fields[::2] == [b"data"]
    return fields[1].decode()
