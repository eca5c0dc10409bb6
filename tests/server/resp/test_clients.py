"""Clients that people use: redis-py in both protocols, redis-cli."""

from __future__ import annotations

import shutil
import subprocess
from itertools import count
from typing import Any

import pytest

from tests.server.resp.support import encode

_numbers = count(1)


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}], ids=["defaults", "RESP2", "RESP3"])
def test_redis_py(resp_port: int, options: dict[str, Any]):
    redis = pytest.importorskip("redis", reason="redis-py is not installed; the other tests cover the same commands")
    r = redis.Redis(port=resp_port, socket_timeout=15, client_name="me", **options)
    k = f"py{next(_numbers)}"

    assert r.ping() and r.client_getname() in ("me", b"me") and r.echo("e") == b"e"
    assert r.set(k, "v", ex=30, nx=True) and r.get(k) == b"v" and r.ttl(k) == 30 and not r.set(k, "w", nx=True)
    assert r.incr(k + "c", 5) == 5 and r.mget(k, "none" + k) == [b"v", None] and r.delete(k, k + "c") == 2
    with r.pipeline(transaction=False) as p:
        for n in range(200):
            p.set(f"{k}:{n}", n).get(f"{k}:{n}")
        assert p.execute()[1::2] == [str(n).encode() for n in range(200)]
    assert len(set(r.scan_iter(match=f"{k}:*"))) == 200 == len(r.keys(f"{k}:*"))
    assert r.lpush(k + "q", "a", "b") == 2 and tuple(r.brpop([k + "q"], 5)) == ((k + "q").encode(), b"a")
    assert r.rpop(k + "q", 3) == [b"b"] and r.llen(k + "q") == 0 and r.brpop([k + "none"], 0.01) is None
    id = r.xadd(k + "s", {"f": "v", "g": b"\xff"}, maxlen=10)
    assert r.xrange(k + "s") == r.xrevrange(k + "s") == [(id, {b"f": b"v", b"g": b"\xff"})]
    assert r.xread({k + "s": "0"}) and not r.xread({k + "s": "$"}, block=10)
    assert r.info()["redis_version"] == "7.0.0" and r.config_get("save") == {} and r.command_count() > 80
    assert r.json().set(k + "j", "$", {"a": [1]}) and r.execute_command("JSON.GET", k + "j", "$.a[0]") in (b"1", "1", 1)
    assert isinstance(r.cluster("keyslot", "x"), int) and r.time()[0] > 0 and r.dbsize() >= 200
    with pytest.raises(redis.ResponseError, match="transactions are not supported"):
        r.execute_command("MULTI")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        r.incr(k + ":1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        r.get("_sys:x")
    r.close()


def test_redis_cli(resp_port: int):
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed; the other tests cover the same commands")
    key = f"cli{next(_numbers)}"

    def run(*words: str, text: str | None = None) -> str:
        command = ["redis-cli", "-p", str(resp_port), *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=20).stdout

    assert run("SET", key, "world") == "OK\n" and run("GET", key) == "world\n" and run("GET", "none" + key) == "\n"
    assert run("-3", "HELLO", "3").count("proto") == 1
    assert run("--scan", "--pattern", key + "*") == key + "\n"
    assert run(text=f"GET {key}\nMULTI\nPING\n").splitlines()[::2] == ["world", ""]
    assert run("-x", "SET", key, text="from stdin") == "OK\n" and run("STRLEN", key) == "10\n"
    assert run("--pipe", text=(encode("SET", key, 1) + encode("INCR", key + "c")).decode()).endswith(
        "errors: 0, replies: 2\n"
    )
