"""`flo kv …` against a server."""

from __future__ import annotations

import base64
import json
import re

import pytest


def test_a_missing_key_is_nil_and_exit_1(live):
    done = live("kv", "get", "missing")

    assert (done.exit_code, done.stdout, done.stderr) == (1, "(nil)\n", "")
    assert live("kv", "get", "missing", "--json").stdout == "null\n"
    assert live("kv", "get", "missing", "-o", "raw").stdout == ""


def test_a_value_comes_back_as_a_line_as_json_and_as_exact_bytes(live):
    assert re.fullmatch(r"OK \(version \d+\)\n", live.ok("kv", "set", "g", "hello"))

    version = live.json("kv", "history", "g")[0]["version"]
    assert live.ok("kv", "get", "g") == "hello\n"
    assert live.json("kv", "get", "g") == {"key": "g", "value": "hello", "version": version}
    assert live("kv", "get", "g", "-o", "raw").stdout_bytes == b"hello"


def test_bytes_that_are_no_text_are_stored_from_stdin_and_shown_as_base64(live):
    raw = bytes(range(256))
    live.ok("kv", "put", "binary", "-", stdin=raw)

    assert live("kv", "get", "binary", "--output", "raw").stdout_bytes == raw
    assert base64.b64decode(live.json("kv", "get", "binary")["value_b64"]) == raw
    assert "\\x00\\x01" in live.ok("kv", "list", "binary"), "a table holds no control characters"


def test_two_dashes_end_the_options(live):
    live.ok("kv", "set", "dashed", "--", "--value")

    assert live.ok("kv", "get", "dashed") == "--value\n"


def test_conditions_that_fail_are_conflicts_with_exit_3(live):
    live.ok("kv", "set", "c", "1")

    stale = live.refused(3, "kv", "set", "c", "2", "--cas", 999_999_999)
    assert stale.startswith("Error: Version mismatch: current version ") and stale.endswith(" [conflict]\n")
    assert "already exists" in live.refused(3, "kv", "set", "c", "2", "--if-not-exists")
    assert "does not exist" in live.refused(3, "kv", "set", "absent", "2", "--xx")
    assert live.ok("kv", "get", "c") == "1\n"


def test_in_json_a_refusal_is_also_an_object_on_stderr(live):
    live.ok("kv", "set", "c", "1")
    text, last = live.refused(3, "kv", "set", "c", "2", "--nx", "--json").splitlines()

    assert text.startswith("Error: ") and text.endswith(" [conflict]")
    assert json.loads(last)["status"] == "conflict" and "already exists" in json.loads(last)["error"]


@pytest.mark.parametrize("ttl", ["30", "30s", "30000ms", "0.5m"])
def test_a_ttl_is_seconds_or_a_duration(live, ttl):
    live.ok("kv", "set", "t", "v", "--ttl", ttl)
    store = live.server.node.store

    with store.lock:
        store.begin(0)
        left = store.get("default", b"t").expires_at - store.now
        store.end()
    assert 20_000 < left <= 30_000


def test_touch_persist_and_exists(live):
    live.ok("kv", "set", "e", "v")

    assert live.ok("kv", "touch", "e", "--ttl", "1h") == "OK\n"
    assert live.json("kv", "persist", "e") == {"key": "e", "had_ttl": True}
    assert live.ok("kv", "exists", "e") == "true\n"
    assert live("kv", "exists", "none").exit_code == 1
    assert "[not_found]" in live.refused(1, "kv", "touch", "none", "--ttl", "5")


def test_deleting_what_is_not_there_is_exit_1(live):
    live.ok("kv", "set", "d", "1")

    live.ok("kv", "delete", "d")
    assert live.refused(1, "kv", "del", "d") == "Error: key not found [not_found]\n"


def test_history_shows_what_was_deleted(live):
    live.ok("kv", "set", "h", "one")
    live.ok("kv", "delete", "h")

    found = live.json("kv", "hist", "h")
    assert [(each["tombstone"], each["value"]) for each in found] == [(True, None), (False, "one")]
    table = live.ok("kv", "history", "h")
    assert "(deleted)" in table and "one" in table


def test_counters_are_added_to(live):
    assert [live.ok("kv", "incr", "n").strip(), live.ok("kv", "incr", "n", "--by", "-5").strip()] == ["1", "-4"]
    assert live.json("kv", "incr", "n", "-d", "10")["value"] == 6
    live.ok("kv", "set", "word", "7")
    assert "not a counter" in live.refused(3, "kv", "incr", "word")


def test_a_list_has_pages_and_a_footer(live):
    for n in range(5):
        live.ok("kv", "set", f"page:{n}", n)

    first = live("kv", "list", "page:", "--limit", 2)
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["KEY", "page:0", "page:1"]
    cursor = re.search(r"--cursor (\S+),", first.stderr)[1]
    second = live.json("kv", "list", "-p", "page:", "--limit", 2, "--cursor", cursor)
    assert [row["key"] for row in second["keys"]] == ["page:2", "page:3"] and second["has_more"]
    assert live.ok("kv", "scan", "page:", "--limit", 2, "--all", "--keys-only", "-o", "raw").split() == [
        f"page:{n}" for n in range(5)
    ]
    assert live.ok("kv", "ls", "nothing-begins-so") == "no keys\n"


def test_several_keys_at_once_even_more_than_fit_one_reply(live):
    for name in "abcdef":
        live.ok("kv", "set", f"big:{name}", "-", stdin=name.encode() * 250_000)

    found = live.json("kv", "mget", *(f"big:{name}" for name in "abcdef"), "gone")
    assert [each["found"] for each in found] == [True] * 6 + [False] and found[5]["value"] == "f" * 250_000
    assert live.ok("kv", "mget", "gone").splitlines()[1].split() == ["gone", "-", "(nil)"]


def test_parts_of_json_documents(live):
    live.ok("kv", "jset", "doc", "$", '{"status": "new", "n": [1, 2]}')
    live.ok("kv", "json-set", "doc", "$.status", '"paid"')

    assert live.ok("kv", "jget", "doc", "$.status") == '"paid"\n'
    assert live.json("kv", "jget", "doc", "--path", "$.n")["value"] == [1, 2]
    live.ok("kv", "jdel", "doc", "$.n[0]")
    assert live.json("kv", "jget", "doc")["value"] == {"status": "paid", "n": [2]}
    assert "[not_found]" in live.refused(1, "kv", "jget", "doc", "$.zz")


def test_a_transaction_is_applied_whole_and_once(live):
    txn = live.json("kv", "begin", "u")["txn_id"]

    assert live.ok("kv", "set", "u", "x", "--txn", txn) == "OK (with the commit)\n"
    live.ok("kv", "incr", "u:n", "-t", txn)
    assert live("kv", "get", "u").exit_code == 1
    assert live.ok("kv", "get", "u", "--txn", txn) == "x\n"
    assert live.json("kv", "commit", txn)["op_count"] == 2
    assert live.ok("kv", "get", "u") == "x\n"
    assert "transaction not found" in (said := live.refused(3, "kv", "commit", txn)) and "[no_active_trans" in said
    assert live.ok("kv", "rollback", txn) == "Rolled back\n"


def test_a_wait_ends_with_nil_when_nobody_writes(live):
    live.ok("kv", "set", "w", "old")

    assert live("kv", "get", "w2", "--wait", 50).exit_code == 1
    assert live("kv", "get", "w", "--block", "50ms").exit_code == 1
    assert live.ok("kv", "get", "w", "--wait", 0) == "old\n"


def test_a_wait_longer_than_one_request_misses_nothing(live):
    live.ok("kv", "set", "slow", "old")
    before = live.requests
    short = "import flo.cli._client; flo.cli._client.WAIT_MS = 30"
    waiting = live.process("kv", "get", "slow", "--block", "0", set_first=short)
    live.until(lambda: live.requests >= before + 3)
    live.ok("kv", "set", "slow", "new")
    out, err = waiting.communicate(timeout=20)

    assert (waiting.returncode, out, err) == (0, b"new\n", b"")


def test_a_delete_ends_a_block_with_nil(live):
    live.ok("kv", "set", "ends", "old")
    waiting = live.process("kv", "get", "ends", "--block", "0")
    live.parked(1)
    live.ok("kv", "delete", "ends")

    assert waiting.communicate(timeout=20) == (b"(nil)\n", b"") and waiting.returncode == 1


def test_reserved_keys_are_unauthorized(live):
    assert live.refused(3, "kv", "set", "_sys:x", "1") == "Error: access to reserved key denied [unauthorized]\n"


def test_namespaces_are_apart_and_come_from_the_environment(live, monkeypatch):
    monkeypatch.setenv("FLO_NAMESPACE", "elsewhere")
    live.ok("kv", "set", "ns-key", "v")
    monkeypatch.delenv("FLO_NAMESPACE")

    assert (
        live.ok("-n", "elsewhere", "kv", "get", "ns-key") == live.ok("kv", "get", "ns-key", "-n", "elsewhere") == "v\n"
    )
    assert live("kv", "get", "ns-key").exit_code == 1
