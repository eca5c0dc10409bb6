"""The same commands give the same replies here and from a real Redis, byte for byte, where spec/redis.md names no
difference. Without a redis-server on the machine only the replies that are written here are checked."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.server.resp.support import RespClient, RespError, RespServer

_numbers = count(1)

# Words with K are keys: fresh names in every run.
SCRIPTS = {
    "set and get": """
        SET K1 v | GET K1 | GET K2 | SET K1 w NX | SET K2 w XX | SET K1 w XX GET | GET K1 | SET K3 x NX GET | GET K3
        SET K3 y NX GET | GET K3 | STRLEN K1 | STRLEN K9 | SETNX K4 a | SETNX K4 b | GETSET K4 c | GETSET K5 d
        GETDEL K4 | GETDEL K4 | APPEND K6 ab | APPEND K6 cd | GET K6 | MSET K7 1 K8 2 | MGET K7 K0 K8 K7
        DEL K7 K7 K8 K0 | EXISTS K1 K1 K0 | UNLINK K1 K2 | TYPE K0 | TYPE K6 | ECHO hello | PING | PING hi
        SELECT 0
    """,
    "errors of strings": """
        GET | GET K1 K2 | SET K1 | SET K1 v NX XX | SET K1 v EX | SET K1 v EX 10 PX 10 | SET K1 v EX 10 KEEPTTL
        SET K1 v BOGUS | SET K1 v EX 0 | SET K1 v EX -1 | SET K1 v EX x | SET K1 v EX 9223372036854775807
        SET K1 v PX 9223372036854775807 | SETEX K1 0 v | SETEX K1 x v | PSETEX K1 -5 v | SETEX K1 v | MSET K1
        MSET K1 a K2 | EXISTS K1 | MGET | DEL | STRLEN | SELECT x | SELECT 16 | SELECT -1
    """,
    "expiry": """
        SET K1 v | TTL K1 | PTTL K1 | TTL K0 | PTTL K0 | EXPIRETIME K1 | PEXPIRETIME K0 | EXPIRE K0 10
        EXPIRE K1 100 | TTL K1 | PERSIST K1 | PERSIST K1 | PERSIST K0 | EXPIREAT K1 4102444800 | EXPIRETIME K1
        PEXPIRETIME K1 | PEXPIREAT K1 4102444800123 | PEXPIRETIME K1 | SET K1 w KEEPTTL | PEXPIRETIME K1
        APPEND K1 x | PEXPIRETIME K1 | SET K1 v | PEXPIRETIME K1 | EXPIRE K1 100 NX | EXPIRE K1 200 NX
        EXPIRE K1 50 GT | EXPIRE K1 150 GT | EXPIRE K1 200 LT | EXPIRE K1 90 LT | EXPIRE K1 300 XX | TTL K1
        EXPIRE K1 10 NX XX | EXPIRE K1 10 GT LT | EXPIRE K1 10 BOGUS | EXPIRE K1 x | EXPIRE K1 9223372036854775807
        PEXPIRE K1 9223372036854775807 | EXPIRE K1 0 | EXISTS K1 | SET K1 v EX 100 | TTL K1 | GETSET K1 w | TTL K1
        SET K2 v EXAT 1 | EXISTS K2 | SET K2 v PXAT 4102444800000 | EXPIRETIME K2 | EXPIRE K2 -1 | EXISTS K2
        SETEX K3 100 v | TTL K3 | PSETEX K3 100000 v | TTL K3 | SET K3 w EX 5 GET
    """,
    "counters": """
        INCR K1 | INCRBY K1 9 | DECRBY K1 3 | DECR K1 | GET K1 | INCRBY K1 x | INCRBY K1 1.5 | INCRBY K1 01
        INCRBY K1 +1 | INCRBY K1 9223372036854775808 | INCRBY K1 9223372036854775801 | INCR K1 | GET K1
        DECRBY K2 9223372036854775807 | DECR K2 | DECR K2 | GET K2 | INCRBY K1 | STRLEN K1 | TYPE K1 | APPEND K1 0
        EXPIRE K2 100 | INCR K2 | TTL K2
    """,
    "scan": """
        SET user:K1 1 | SCAN 0 MATCH user:K1 COUNT 1000 | SCAN x | SCAN 0 COUNT x | SCAN 0 COUNT 0 | SCAN 0 MATCH
        SCAN 0 BOGUS 1 | KEYS user:K1 | KEYS none:K1* | KEYS user:K[1]
        SCAN 0 TYPE stream MATCH none COUNT 1000 | SCAN -1
    """,
    "lists": """
        LPUSH K1 a | LLEN K1 | RPOP K1 | RPOP K1 | RPOP K1 3 | LPUSH K1 a b c | RPOP K1 2 | RPOP K1 0 | RPOP K1 9
        LLEN K1 | RPUSH K2 a b c | LPOP K2 | LRANGE K2 0 -1 | LRANGE K2 0 0 | LRANGE K2 1 9 | LRANGE K2 5 9
        LRANGE K2 1 0 | LPOP K2 5 | RPOP K1 -1 | RPOP K1 x | LRANGE K1 x 1 | BRPOP K1 x | BRPOP K1 -1 | BLPOP K1 nan
        BRPOP K1 0.01 | LPUSH K3 v | BRPOP K1 K3 1 | LPUSH K1 | BRPOP K1 | LLEN | RPOP K1 1 2 | LPUSH K4 a
        BLPOP K4 K5 0
    """,
    "streams": """
        XADD K1 * f v | XLEN K1 | XLEN K0 | TYPE K1 | XADD K1 * f v f w | XADD K1 * g | XADD K1 NOMKSTREAM * f v
        XADD K0 NOMKSTREAM * f v | XRANGE K1 - + | XRANGE K1 - + COUNT 2 | XREVRANGE K1 + -
        XREVRANGE K1 + - COUNT 2 | XRANGE K0 - + | XRANGE K1 + - | XRANGE K1 - + COUNT 0 | XRANGE K1 - + COUNT -5
        XRANGE K1 x + | XRANGE K1 (x + | XRANGE K1 - + COUNT | XRANGE K1 - + BOGUS 1 | XREAD STREAMS K1 0
        XREAD COUNT 1 STREAMS K1 0 | XREAD COUNT 0 STREAMS K1 0-0 | XREAD STREAMS K1 $ | XREAD STREAMS K0 0
        XREAD STREAMS K1 K0 0 0 | XREAD STREAMS K1 | XREAD STREAMS K1 K0 0 | XREAD STREAMS K1 x
        XREAD COUNT x STREAMS K1 0 | XREAD BLOCK x STREAMS K1 0 | XREAD BLOCK -1 STREAMS K1 0
        XREAD BLOCK 10 STREAMS K1 $ | XREAD BLOCK 0 STREAMS K1 0 | XREAD BOGUS 1 STREAMS K1 0 | XTRIM K1 MAXLEN 2
        XLEN K1 | XTRIM K1 MAXLEN = 1 | XTRIM K1 MAXLEN x | XTRIM K1 MAXLEN -1 | XTRIM K1 MINID 0
        XTRIM K1 MINID 99999999999999 | XLEN K1 | XTRIM K0 MAXLEN 1 | XTRIM K1 BOGUS 1 | XTRIM K1 MAXLEN 5 LIMIT 1
        XADD K2 MAXLEN 2 * a 1 | XADD K2 MAXLEN = 2 * a 2 | XADD K2 MAXLEN 2 * a 3 | XRANGE K2 - +
        XADD K2 MAXLEN 0 * a 4 | XLEN K2 | XADD K2 x f v | XADD K2 MAXLEN x * f v | XADD K2 MAXLEN -1 * f v
        XADD K2 | XADD K2 * f | XLEN
    """,
    "connection": """
        CLIENT GETNAME | CLIENT SETNAME me | CLIENT GETNAME | CLIENT SETINFO lib-name x | READONLY x | RESET
        CLIENT GETNAME | HELLO 4 | HELLO x | PING a b | ECHO | QUIT
    """,
}

# Replies of Redis 7.0 that differ by intent, and what they are here.
DIFFERENCES = {
    "HELLO x": "-NOPROTO unsupported protocol version",
    "SCAN -1": "-ERR invalid cursor",
    "CLIENT SETINFO lib-name x": "OK",
}


@pytest.fixture(scope="module")
def redis_socket() -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed: nothing to compare with")
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", f"{folder}/s", "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert any("ready to accept connections" in line.lower() for line in process.stdout)
        yield f"{folder}/s"
        process.kill()
        process.communicate()


def commands(script: str) -> list[str]:
    return [command.strip() for line in script.splitlines() for command in line.split("|") if command.strip()]


def shown(reply: Any, ids: dict[bytes, str]) -> Any:
    """A reply in which ids of streams are numbered as they come, and errors can be compared."""
    if isinstance(reply, list):
        return [shown(part, ids) for part in reply]
    if isinstance(reply, dict):
        return {key: shown(part, ids) for key, part in reply.items()}
    if isinstance(reply, bytes) and re.fullmatch(rb"\d{13}-\d+", reply):
        return ids.setdefault(reply, f"id {len(ids) + 1}")
    return f"-{reply}" if isinstance(reply, RespError) else reply


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS)
def test_replies_are_those_of_redis(script: str, protocol: int, shared_server: RespServer, redis_socket: str):
    number = next(_numbers)
    ours, theirs = RespClient(shared_server.port), RespClient(redis_socket)
    our_ids: dict[bytes, str] = {}
    their_ids: dict[bytes, str] = {}
    if protocol == 3:
        assert ours("HELLO", 3).keys() == theirs("HELLO", 3).keys()
    found = []
    for command in commands(SCRIPTS[script]):
        words = re.sub(r"\bK(\d)", rf"oracle{number}:\1", command).split()
        reply = shown(ours(*words), our_ids)
        expected = DIFFERENCES.get(command) or shown(theirs(*words), their_ids)
        if (reply, ours.last_nil if reply is None else b"") != (expected, theirs.last_nil if expected is None else b""):
            found.append((command, reply, expected))
    ours.close()
    theirs.close()

    assert found == []
