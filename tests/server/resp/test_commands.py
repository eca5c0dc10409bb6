"""Commands on the real store over a real socket, where they differ from Redis or go beyond it (spec/redis.md)."""

from __future__ import annotations

import pytest

from flo.primitives.stream_pages import NewRecord
from flo.server.resp import keys, lists, streams
from tests.server.resp.support import RespClient, RespServer, encode


def test_a_value_of_eight_digits_stays_text(client: RespClient):
    assert client("SET", "k", "12345678") == "OK" and client("GET", "k") == b"12345678"


def test_keys_and_values_are_binary(client: RespClient):
    key, value = bytes(range(1, 256)), bytes(range(256)) * 100

    assert client("SET", key, value) == "OK" and client("GET", key) == value and client("KEYS", "*") == [key]


def test_counters_are_not_strings(client: RespClient):
    client("SET", "s", "5")
    client("INCR", "c")

    assert client.refused("INCR", "s") == "WRONGTYPE key holds a string, not a counter"
    assert client("GET", "s") == b"5" and client("GET", "c") == b"1"
    assert client.refused("DECRBY", "c", -(2**63)) == "ERR increment or decrement would overflow"
    assert client("SET", "c", "x") == "OK" and client.refused("INCR", "c").startswith("WRONGTYPE")


def test_a_value_over_the_limit_is_refused_and_the_connection_stays(client: RespClient):
    assert client("SET", "k", bytes(262_144)) == "OK"
    assert client.refused("SET", "k", bytes(262_145)).startswith("ERR value too large")
    assert client.refused("SET", "", "v") == "ERR key is required"
    assert client("STRLEN", "k") == 262_144


def test_large_values_of_many_keys_come_in_one_reply(client: RespClient):
    names = [f"k{n}" for n in range(600)]
    for name in names[::100]:
        client("SET", name, name.encode() * 40_000)

    assert client("MGET", *names) == [
        name.encode() * 40_000 if n % 100 == 0 else None for n, name in enumerate(names)
    ]  # fmt: skip


def test_values_of_many_keys_that_are_too_large_for_one_reply_are_refused(client: RespClient):
    assert client("SET", "k", bytes(262_144)) == "OK"
    assert len(client("MGET", *["k"] * 64)) == 64

    assert "over 16777216 bytes: ask for fewer keys" in client.refused("MGET", *["k"] * 65)
    assert client("PING") == "PONG"


def test_deleting_counts_every_key_once(client: RespClient):
    client("MSET", "a", 1, "c", 2)

    assert client("DEL", "a", "a", "b", "c") == 2
    assert client("EXISTS", "a", "b", "c") == 0


@pytest.mark.parametrize(
    "command",
    [
        "GET _sys:x",
        "SET _flo:x 1",
        "DEL k _sys:x",
        "EXISTS _action:a",
        "MGET k _worker:w",
        "INCR _internal:i",
        "TTL _sys:x",
    ],
)
def test_reserved_keys_are_no_business_of_clients(client: RespClient, command: str):
    client("SET", "k", "v")

    assert client.refused(*command.split()) == "NOPERM access to reserved key denied"
    assert client("GET", "k") == b"v"
    assert client("KEYS", "_sys:x") == [] and client("KEYS", "_s*") == []


def test_expiry_in_virtual_time(timed):
    clock, client = timed
    client("SET", "k", "v", "EX", 10)
    clock.advance(1)

    assert client("TTL", "k") == 10 and client("PTTL", "k") == 9_999
    clock.advance(9_500)
    assert client("TTL", "k") == 1 and client("PEXPIRE", "k", 200) == 1
    clock.advance(199)
    assert client("GET", "k") == b"v"
    clock.advance(1)
    assert client("GET", "k") is None and client("TTL", "k") == -2 and client("SET", "k", "w", "NX") == "OK"


def test_time_is_that_of_the_store(timed):
    clock, client = timed

    assert client("TIME") == [b"%d" % (clock.wall_ms() // 1_000), b"%d" % (clock.wall_ms() % 1_000 * 1_000)]


def test_json_documents(client: RespClient):
    assert client("JSON.SET", "o", "$", '{"status":"new","n":[1,2]}') == "OK"
    assert client("JSON.SET", "o", "$.status", '"shipped"') == "OK"

    assert client("JSON.GET", "o", "$.status") == b'"shipped"'
    assert client("JSON.GET", "o", ".n[1]") == b"2" and client("JSON.GET", "o", "$.zz") is None
    assert client("JSON.GET", "none") is None and client("JSON.DEL", "none") == 0
    assert client("JSON.DEL", "o", "$.status") == 1 and client("JSON.DEL", "o", "$.status") == 0
    assert client("JSON.GET", "o") == b'{"n":[1,2]}' and client("JSON.FORGET", "o") == 1
    assert client.refused("JSON.SET", "o", "$", "{bad") == "ERR invalid json value"
    assert client.refused("JSON.SET", "o", "$.a", "1") == "ERR key not found"
    assert client.refused("JSON.GET", "o", "$..a") == "ERR invalid json path"
    assert client.refused("JSON.SET", "o", "$", "1", "BOGUS") == "ERR syntax error"


def test_conditions_of_json(client: RespClient):
    assert client("JSON.SET", "o", "$", "{}", "XX") is None and client("JSON.SET", "o", "$", "{}", "NX") == "OK"
    assert client("JSON.SET", "o", "$", "1", "NX") is None
    assert client("JSON.SET", "o", "$.a", "1", "XX") is None and client("JSON.SET", "o", "$.a", "1", "NX") == "OK"
    assert client("JSON.SET", "o", "$.a", "2", "NX") is None and client("JSON.SET", "o", "$.a", "3", "XX") == "OK"
    assert client("JSON.GET", "o") == b'{"a":3}'


def test_a_scan_returns_each_key_once(client: RespClient):
    names = {b"user:%d" % n for n in range(250)}
    for name in [*names, *(b"other:%d" % n for n in range(10))]:
        client.send("SET", name, 1)
    assert [client.read() for _ in range(260)] == ["OK"] * 260

    for count in (7, 100, 5_000):
        found, cursor = [], b"0"
        while True:
            cursor, page = client("SCAN", cursor, "MATCH", "user:*", "COUNT", count)
            found += page
            if cursor == b"0":
                break
        assert sorted(found) == sorted(names)
    assert sorted(client("KEYS", "user:1?")) == [b"user:1%d" % n for n in range(10)]
    assert client("SCAN", 0, "TYPE", "list") == [b"0", []] and len(client("SCAN", 0, "TYPE", "string")[1]) == 100
    assert client("DBSIZE") == 260


def test_a_scan_goes_on_over_another_connection_but_not_in_another_namespace(client: RespClient, shared_server):
    client("MSET", *(word for n in range(20) for word in (f"k{n:02}", 1)))
    cursor, _ = client("SCAN", 0, "COUNT", 15)
    ns = client("CLIENT", "INFO").partition(b"ns=")[2].split()[0]
    other = RespClient(shared_server.port)

    assert other.refused("SCAN", cursor) == "ERR invalid cursor"
    other("USE", ns)
    assert other("SCAN", cursor) == [b"0", [b"k15", b"k16", b"k17", b"k18", b"k19"]]
    assert other.refused("SCAN", int(cursor) + 999) == "ERR invalid cursor"
    other.close()


def test_a_cursor_is_good_for_ten_minutes(timed):
    clock, client = timed
    client("MSET", "a", 1, "b", 2)
    cursor, _ = client("SCAN", 0, "COUNT", 1)
    clock.advance(599_999)

    assert client("SCAN", cursor) == [b"0", [b"b"]]
    clock.advance(1)
    assert client.refused("SCAN", cursor) == "ERR invalid cursor"


def test_a_long_walk_over_all_keys_goes_on_in_a_thread(client: RespClient, monkeypatch):
    monkeypatch.setattr(keys, "SCAN_LIMIT", 10)
    monkeypatch.setattr(keys, "KEYS_AT_ONCE", 20)
    names = [b"k%03d" % n for n in range(105)]
    client("MSET", *(word for name in names for word in (name, 1)))
    client.send("KEYS", "k*")
    client.send("PING")

    assert client.read() == names and client.read() == "PONG"
    assert client("KEYS", "k0?5") == [name for name in names if name.endswith(b"5") and name < b"k100"]


def test_a_pattern_over_the_limit_is_refused(client: RespClient):
    assert client.refused("KEYS", "*" * 4_097) == "ERR pattern over 4096 bytes"


# -- queues


def test_lists_are_queues_whose_pops_acknowledge(client: RespClient):
    assert [client("LPUSH", "q", "a"), client("RPUSH", "q", "b"), client("LPUSH", "q", "c", "d")] == [1, 2, 4]

    assert [client("RPOP", "q"), client("LPOP", "q")] == [b"a", b"b"]
    assert client("FLO.QACK", "q", 1) == 0, "it was acknowledged when it was handed out"
    assert client("LRANGE", "q", 0, -1) == [b"c", b"d"] and client("LRANGE", "q", 0, -2) == [b"c"]
    assert client.refused("LRANGE", "q", -2, -1) == "ERR LRANGE of a queue needs a start of 0 or more"
    assert client("RPOP", "q", 9) == [b"c", b"d"] and client("LLEN", "q") == 0 and client("RPOP", "q") is None


def test_a_push_of_more_than_one_batch(client: RespClient):
    payloads = [b"%d" % n for n in range(1_020)]

    assert client("LPUSH", "q", *payloads) == 1_020
    assert client("RPOP", "q", 5_000) == payloads[: lists.POP_MESSAGES]
    assert client("RPOP", "q", 5_000) == payloads[lists.POP_MESSAGES :]
    assert client("RPOP", "q", 5_000) is None


def test_one_pop_takes_no_more_bytes_than_a_reply_should_hold(client: RespClient, monkeypatch):
    monkeypatch.setattr(lists, "POP_BYTES", 150_000)
    for _ in range(3):
        client("LPUSH", "q", *[bytes(1_000)] * 100)

    assert len(client("RPOP", "q", 1_000)) == 200 and client("LLEN", "q") == 100


def test_leases_for_who_wants_them(timed):
    clock, client = timed
    client("LPUSH", "q", "job", "other")

    assert client("FLO.QPOP", "q", "VISIBILITY", 300) == [[1, b"job", 1]]
    assert client("FLO.QPOP", "q", "COUNT", 5) == [[2, b"other", 1]] and client("FLO.QPOP", "q") == []
    assert client("LLEN", "q") == 2
    clock.advance(300)
    assert client("FLO.QPOP", "q") == [[1, b"job", 2]]
    assert client("FLO.QNACK", "q", 1) == 1 and client("FLO.QPOP", "q") == [[1, b"job", 3]]
    assert client("FLO.QACK", "q", 1, 99) == 1 and client("FLO.QACK", "q", 1) == 0 and client("FLO.QNACK", "q", 1) == 0
    assert client("FLO.QNACK", "q", 2, "DLQ") == 1 and client("LLEN", "q") == 0


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("FLO.QPOP q COUNT", "ERR syntax error"),
        ("FLO.QPOP q BOGUS 1", "ERR syntax error"),
        ("FLO.QPOP q COUNT -1", "ERR value is out of range, must be positive"),
        ("FLO.QPOP q BLOCK -1", "ERR timeout is negative"),
        ("FLO.QACK q x", "ERR value is not an integer or out of range"),
        ("FLO.QACK q", "ERR wrong number of arguments for 'flo.qack' command"),
        ("FLO.QNACK q x DLQ", "ERR value is not an integer or out of range"),
    ],
)
def test_bad_words_to_the_lease_commands(client: RespClient, command: str, error: str):
    assert client.refused(*command.split()) == error


def test_names_of_queues_and_streams_are_text(client: RespClient):
    assert client.refused("LPUSH", b"\xff", "v") == "ERR queue name must be UTF-8"
    assert client.refused("XADD", b"\xff", "*", "f", "v") == "ERR stream name must be UTF-8"
    assert client.refused("LPUSH", "", "v") == "ERR queue name is required"
    assert client("TYPE", b"\xff") == "none"


def test_a_key_a_queue_and_a_stream_may_share_a_name(client: RespClient):
    client("LPUSH", "n", "q")
    client("XADD", "n", "*", "f", "v")

    assert client("TYPE", "n") == "list" and client("SET", "n", "v") == "OK" and client("TYPE", "n") == "string"
    assert client("LLEN", "n") == client("XLEN", "n") == 1


# -- streams


def test_pairs_come_back_exactly(client: RespClient):
    pairs = [b"f", b"v", b"f", b"w", b"\x00\xff", b"", b"", b"x"]
    first = client("XADD", "s", "*", *pairs)
    second = client("XADD", "s", "*", "f", "v", "f", "w")

    assert client("XRANGE", "s", "-", "+") == [[first, pairs], [second, [b"f", b"v", b"f", b"w"]]]


def test_records_of_other_surfaces_are_one_field(client: RespClient, shared_server: RespServer):
    ns = client("CLIENT", "INFO").partition(b"ns=")[2].split()[0].decode()
    store = shared_server.node.store
    with store.lock:
        store.begin(1)
        store.stream_append(ns, "s", [NewRecord(b"plain", ((b"h", b"x"),))])
        store.end()
    store.after()

    assert client("XREAD", "STREAMS", "s", "0")[0][1][0][1] == [b"data", b"plain"]


def test_the_payload_of_xadd_is_json_to_others(client: RespClient, shared_server: RespServer):
    ns = client("CLIENT", "INFO").partition(b"ns=")[2].split()[0].decode()
    client("XADD", "s", "*", "name", "Jané", "n", "1")
    store = shared_server.node.store
    with store.lock:
        store.begin(0)
        page = store.stream_read(ns, "s")
        store.end()

    assert store.records.load(page.records)[0].payload.decode() == '{"name":"Jané","n":"1"}'


@pytest.mark.parametrize("id", ["1-1", "0-1", "5", "5-*"])
def test_explicit_ids_are_refused(client: RespClient, id: str):
    assert client.refused("XADD", "s", id, "f", "v") == "ERR explicit ids are not supported"
    assert client("XLEN", "s") == 0


def test_a_range_of_several_pages_in_both_directions(client: RespClient, monkeypatch):
    monkeypatch.setattr(streams, "READ_LIMIT", 10)
    ids = []
    for n in range(75):
        client.send("XADD", "s", "*", "n", n)
    ids = [client.read() for _ in range(75)]
    client("XTRIM", "s", "MAXLEN", 70)
    ids = ids[5:]

    def found(*args: object) -> list[bytes]:
        return [id for id, _ in client(*args)]

    assert found("XRANGE", "s", "-", "+") == ids and found("XREVRANGE", "s", "+", "-") == ids[::-1]
    assert found("XRANGE", "s", ids[3], b"(" + ids[40]) == ids[3:40]
    assert found("XREVRANGE", "s", b"(" + ids[40], b"(" + ids[3]) == ids[39:3:-1]
    assert found("XREVRANGE", "s", ids[40], "-", "COUNT", 25) == ids[40:15:-1]
    assert found("XREVRANGE", "s", "+", ids[60], "COUNT", 25) == ids[:59:-1]
    assert found("XRANGE", "s", ids[0], "+", "COUNT", 33) == ids[:33]
    read = []
    while page := client("XREAD", "STREAMS", "s", read[-1] if read else "0"):
        read += [id for id, _ in page[0][1]]
    assert read == ids


def test_a_range_without_end_is_refused_rather_than_cut(client: RespClient, monkeypatch):
    monkeypatch.setattr(streams, "RANGE_RECORDS", 20)
    for n in range(21):
        client("XADD", "s", "*", "n", n)

    assert client.refused("XRANGE", "s", "-", "+").endswith("use COUNT")
    assert client.refused("XREVRANGE", "s", "+", "-", "COUNT", 21).endswith("use COUNT")
    assert len(client("XREVRANGE", "s", "+", "-", "COUNT", 20)) == 20
    monkeypatch.setattr(streams, "RANGE_BYTES", 100)
    assert client.refused("XRANGE", "s", "-", "+", "COUNT", 20).endswith("use COUNT")
    assert len(client("XRANGE", "s", "-", "+", "COUNT", 2)) == 2


# -- the connection


def test_namespaces_of_connections(client: RespClient, shared_server: RespServer):
    assert client("USE", "staging") == "OK" and client("SET", "a", 1) == "OK"
    assert client("USE", "production") == "OK" and client("GET", "a") is None and client("DBSIZE") == 0
    assert client("SELECT", 3) == "OK" and client("SET", "a", 3) == "OK"
    assert client("USE", "db3") == "OK" and client("GET", "a") == b"3"
    assert client.refused("USE", "-bad").startswith("ERR namespace name")
    assert client.refused("USE", b"\xff").startswith("ERR namespace name")
    assert client("GET", "a") == b"3"
    assert client("RESET") == "RESET" and b" ns=default " in client("CLIENT", "INFO")
    with shared_server.node.store.lock:
        assert not shared_server.node.store.namespace_exists("production"), "reading creates nothing"


def test_resp3_is_spoken_when_asked_for(client: RespClient):
    hello = client("HELLO", 3, "SETNAME", "me")
    stream = client("XADD", "s", "*", "f", "v")

    assert (hello[b"proto"], hello[b"mode"]) == (3, b"standalone") and client("CLIENT", "GETNAME") == b"me"
    assert client("GET", "none") is None and client.last_nil == b"_\r\n"
    assert client("RPOP", "none", 2) is None and client.last_nil == b"_\r\n"
    assert client("MGET", "none") == [None] and client.last_nil == b"_\r\n"
    assert client("XREAD", "STREAMS", "s", "0") == {b"s": [[stream, [b"f", b"v"]]]}
    assert client("CONFIG", "GET", "save") == {}
    assert client.refused("HELLO", 4) == "NOPROTO unsupported protocol version"
    assert client.refused("HELLO", 2, "BOGUS") == "ERR Syntax error in HELLO option 'BOGUS'"
    assert client("HELLO", 2)[4:6] == [b"proto", 2]
    assert client("GET", "none") is None and client.last_nil == b"$-1\r\n"
    assert client("CONFIG", "GET", "save") == []


@pytest.mark.parametrize(
    ("command", "error"),
    [
        *(
            (name, "ERR transactions are not supported over RESP")
            for name in ("MULTI", "EXEC", "discard", "WATCH", "UNWATCH")
        ),
        *((name, "ERR scripting is not supported") for name in ("EVAL", "EVALSHA", "SCRIPT", "FUNCTION", "FCALL")),
        *((name, "ERR pub/sub is not supported; use streams") for name in ("SUBSCRIBE", "PSUBSCRIBE", "PUBLISH")),
        *((name, "ERR not supported") for name in ("FLUSHDB", "FLUSHALL", "SAVE", "BGSAVE", "DEBUG", "INCRBYFLOAT")),
        *(
            (name, f"ERR unknown command '{name}'")
            for name in ("HSET", "SADD", "ZADD", "SETBIT", "GEOADD", "XGROUP", "foo")
        ),
        ("XDEL", "ERR XDEL is not supported; use XTRIM"),
        ("CONFIG SET a b", "ERR only CONFIG GET is supported"),
        ("AUTH x", "ERR AUTH called without any password configured"),
        ("HELLO 3 AUTH a b", "ERR AUTH called without any password configured"),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("CLIENT SETNAME a\tb", "ERR Client names cannot contain"),
        ("CLIENT KILL x", "ERR unknown subcommand"),
        ("CLUSTER FORGET x", "ERR unknown subcommand"),
    ],
)
def test_what_is_refused_on_purpose(client: RespClient, command: str, error: str):
    assert client.refused(*command.split(" ")).startswith(error)
    assert client("PING") == "PONG"


def test_an_unknown_command_cannot_break_the_line_of_its_error(client: RespClient):
    assert client.refused(b"a\r\nb\x00" + b"x" * 500).startswith("ERR unknown command 'a??b?xxx")
    assert client.refused("CLIENT", "SETINFO", b"a\r\nb", "c").startswith("ERR")
    assert client("PING") == "PONG"


def test_what_the_server_says_of_itself(client: RespClient, shared_server: RespServer):
    info = client("INFO")

    for line in (
        b"redis_version:7.0.0",
        b"role:master",
        b"uptime_in_seconds:",
        b"connected_clients:",
        b"cluster_enabled:0",
    ):
        assert line in info
    assert b"role:" not in client("INFO", "server") and b"role:" in client("INFO", "everything")
    assert client("COMMAND") == client("COMMAND", "DOCS") == [] and client("COMMAND", "COUNT") > 80
    assert client("CLIENT", "ID") > 0 and client("CLIENT", "SETINFO", "lib-name", "x") == "OK"
    assert b"lib-name=x" in client("CLIENT", "LIST")
    assert client("READONLY") == client("READWRITE") == "OK"


def test_a_cluster_of_one_node(client: RespClient, shared_server: RespServer):
    node = client("CLUSTER", "MYID")

    assert client("CLUSTER", "KEYSLOT", "foo") == 12_182 and client("CLUSTER", "KEYSLOT", "a{foo}b") == 12_182
    assert client("CLUSTER", "KEYSLOT", "{}foo") != 12_182
    assert client("CLUSTER", "SLOTS") == [[0, 16_383, [b"127.0.0.1", shared_server.port, node]]]
    assert b"cluster_state:ok" in client("CLUSTER", "INFO") and node in client("CLUSTER", "NODES")
    assert client("CLUSTER", "SHARDS")[0][1] == [0, 16_383]


def test_replies_come_in_the_order_of_requests(client: RespClient):
    client.socket.sendall(b"".join(encode("SET", f"k{n}", n) + encode("GET", f"k{n}") for n in range(1_000)))

    assert [client.read() for _ in range(2_000)] == [x for n in range(1_000) for x in ("OK", b"%d" % n)]


def test_quit_ends_the_connection_after_its_answer(client: RespClient):
    client.socket.sendall(encode("SET", "k", "v") + encode("QUIT") + encode("SET", "k", "w"))

    assert client.read() == "OK" and client.read() == "OK"
    with pytest.raises(ConnectionError):
        client.read()


@pytest.mark.parametrize(
    "junk", [b"*1\r\n$-5\r\n", b"*1000000000\r\n", b"*3\r\n:1\r\n", b"*1\r\n$99999999999\r\n", b"$1\r\n"]
)
def test_a_framing_error_ends_its_connection_alone(client: RespClient, resp_port: int, junk: bytes):
    broken = RespClient(resp_port)
    broken.socket.sendall(encode("PING") + junk + encode("PING"))

    assert broken.read() == "PONG"
    assert str(broken.read()).startswith("ERR Protocol error: ")
    with pytest.raises(ConnectionError):
        broken.read()
    assert client("PING") == "PONG"
    broken.close()


def test_inline_commands(resp_port: int):
    client = RespClient(resp_port)
    client.socket.sendall(b'PING\r\nset k "a b"\r\nGET k\r\n\r\nQUIT\r\n')

    assert [client.read() for _ in range(4)] == ["PONG", "OK", b"a b", "OK"]
    client.close()
