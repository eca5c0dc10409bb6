"""`flo stream …` against a server."""

from __future__ import annotations

import json
import re

import pytest


def ids(rows):
    return [row["id"] for row in rows]


def test_records_are_appended_and_read(live):
    said = live.ok("stream", "append", "s1", "a", "b", "c", "-H", "k=v,w=1,2", "-H", "k=x")
    assert re.fullmatch(r"Appended 3 records starting at \d+-\d+\n", said)
    assert re.fullmatch(r"Appended at \d+-\d+\n", live.ok("stream", "append", "s1", "-", stdin=b"\xff\n"))

    rows = live.json("stream", "read", "s1")
    assert [row.get("payload") for row in rows] == ["a", "b", "c", None] and rows[3]["payload_b64"] == "/wo="
    assert rows[0]["headers"] == [["k", "v"], ["w", "1,2"], ["k", "x"]]
    assert (rows[0]["partition"], rows[0]["tier"]) == (0, "hot")
    assert f"{rows[0]['timestamp_ms']}-" in rows[0]["id"]
    assert "k=v,w=1,2,k=x" in live.ok("stream", "read", "s1")
    assert live("stream", "read", "s1", "--limit", 2, "-o", "raw").stdout_bytes == b"a\nb"


def test_ranges_limits_and_where_to_go_on(live):
    live.ok("stream", "append", "s2", *"abcde")
    found = ids(live.json("stream", "read", "s2"))

    def payloads(*words):
        return [row["payload"] for row in live.json("stream", "read", "s2", *words)]

    assert payloads("--start", found[1], "--end", found[3]) == ["b", "c", "d"]
    assert payloads("--after", found[1], "--count", 1) == ["c"]
    assert payloads("--offset", 3) == ["d", "e"]
    assert f"more: --after {found[1]}\n" == live("stream", "read", "s2", "--limit", 2).stderr
    assert live.ok("stream", "read", "s2", "--start", "$") == "(no records)\n"
    assert live.refused(3, "stream", "read", "s2", "--start", "nonsense").endswith("invalid stream id [bad_request]\n")


def test_a_stream_is_created_described_altered_and_deleted(live):
    live.ok("stream", "create", "s3", "--partitions", 4, "--retention", "72", "--max-size", 1000)
    live.ok("stream", "create", "s3", "--partitions", 4, "--retention", "3d", "--max-size", 1000)
    assert "[conflict]" in live.refused(3, "stream", "create", "s3")
    live.ok("stream", "append", "s3", "x", "--partition-key", "ann")
    text = live.ok("stream", "info", "s3")
    assert "Records: 1\n" in text and "Retention: 3 d, 1000 bytes" in text

    live.ok("stream", "alter", "s3", "--retention", "0", "--max-records", 5)
    assert live.json("stream", "info", "s3")["retention"] == {"max_age_ms": 0, "max_records": 5, "max_bytes": 1000}
    assert [each["name"] for each in live.json("stream", "list", "--all")["streams"] if each["name"] == "s3"] == ["s3"]
    assert live.refused(3, "stream", "delete", "s3") == "Error: stream is not empty [conflict]\n"
    live.ok("stream", "rm", "s3", "--force")
    live.ok("stream", "delete", "s3")
    assert live.refused(1, "stream", "info", "s3").endswith("[not_found]\n")


@pytest.mark.parametrize(("bound", "left"), [("--maxlen=2", "de"), ("--before", "cde"), ("--maxbytes=1", "e")])
def test_a_stream_is_trimmed_by_one_bound(live, bound, left):
    name = f"s4{bound}"
    live.ok("stream", "append", name, *"abcde")
    words = [bound, ids(live.json("stream", "read", name))[2]] if bound == "--before" else [bound]

    assert live.ok("stream", "trim", name, *words, "--dry-run") == f"Would trim {5 - len(left)} records\n"
    assert live.json("stream", "trim", name, *words)["trimmed"] == 5 - len(left)
    assert "".join(row["payload"] for row in live.json("stream", "read", name)) == left


def test_a_read_waits_for_what_is_appended_after_it(live):
    live.ok("stream", "append", "s5", "old")
    short = "import flo.cli._client; flo.cli._client.WAIT_MS = 30"
    before = live.requests
    waiting = live.process("stream", "read", "s5", "--start", "$", "--block", "0", "-o", "raw", set_first=short)
    live.until(lambda: live.requests >= before + 3)
    live.ok("stream", "append", "s5", "new")

    assert waiting.communicate(timeout=20) == (b"new", b"") and waiting.returncode == 0


def test_following_goes_on_over_a_restart_and_ends_with_ctrl_c(live):
    live.ok("stream", "append", "s6", "first")
    following = live.process("stream", "read", "s6", "--start", "0", "--follow", "--json")
    seen = [json.loads(following.stdout.readline())]
    live.parked(1)
    live.within(live.server.stop)
    said = following.stderr.readline()
    live.within(live.server.start)
    live.ok("stream", "append", "s6", "second")
    seen.append(json.loads(following.stdout.readline()))
    live.ok("stream", "append", "s6", "third")
    seen.append(json.loads(following.stdout.readline()))
    following.send_signal(2)
    out, err = following.communicate(timeout=20)

    assert [row["payload"] for row in seen] == ["first", "second", "third"]
    assert (following.returncode, out, err) == (0, b"", b"connected again\n") and said.endswith(b"; trying again\n")


def test_following_begins_at_the_end(live):
    live.ok("stream", "append", "s7", "old")
    following = live.process("stream", "read", "s7", "-f")
    live.parked(1)
    live.ok("stream", "append", "s7", "new", "-H", "k=v")
    line = following.stdout.readline()
    following.send_signal(2)
    following.communicate(timeout=20)

    assert re.fullmatch(rb"\d+-\d+  k=v  new\n", line)


def test_a_group_hands_out_acknowledges_and_takes_back(live):
    live.ok("stream", "append", "s8", *"abcd")
    group = ("s8", "-g", "g")
    rows = live.json("stream", "group", "read", *group, "-c", "w1", "--limit", 3)
    assert [(row["payload"], row["delivery_count"]) for row in rows] == [("a", 1), ("b", 1), ("c", 1)]
    a, b, c = ids(rows)

    assert live.ok("stream", "group", "ack", *group, "--ids", f"{a},1-1") == "Acknowledged: 1\n"
    assert live.ok("stream", "group", "touch", *group, "-c", "w1", "--ids", b, "--extend", "1h") == "Touched: 1\n"
    assert live.ok("stream", "group", "nack", *group, "--ids", c, "--delay", "1h") == "Given back: 1\n"
    pending = live.json("stream", "group", "pending", *group, "-c", "w1")["entries"]
    assert [(each["id"], each["state"]) for each in pending] == [(b, "pending"), (c, "delayed")]
    info = live.json("stream", "group", "info", *group)
    assert (info["mode"], info["pending"], info["lag"]) == ("shared", 2, 1)
    assert "Mode: shared\n" in live.ok("stream", "group", "info", *group)
    assert [each["group"] for each in live.json("stream", "group", "list", "s8")] == ["g"]
    live.ok("stream", "group", "delete", *group)
    assert live.refused(1, "stream", "group", "delete", *group).endswith("[not_found]\n")


def test_a_group_is_created_with_settings_joined_and_left(live):
    create = ("stream", "group", "create", "s9", "-g", "g", "--mode", "exclusive", "--ack-timeout")
    live.ok(*create, "5000", "--max-standbys", 0)
    assert "[conflict]" in live.refused(3, *create, "6s", "--max-standbys", 0)
    live.ok("stream", "group", "join", "s9", "g", "w1")
    assert "[group_locked]" in live.refused(3, "stream", "group", "join", "s9", "-g", "g", "-c", "w2")
    live.ok("stream", "group", "leave", "s9", "-g", "g", "-c", "w1")
    live.ok("stream", "group", "join", "s9", "-g", "g", "-c", "w2")

    assert [each["consumer"] for each in live.json("stream", "group", "info", "s9", "-g", "g")["members"]] == ["w2"]


def test_records_are_claimed(live):
    live.ok("stream", "append", "s10", "a", "b")
    first, second = ids(live.json("stream", "group", "read", "s10", "-g", "g", "-c", "w1"))
    mine = ("s10", "-g", "g", "-c", "w1")

    assert ids(live.json("stream", "group", "claim", *mine, "--ids", first)) == [first]
    assert ids(live.json("stream", "group", "autoclaim", *mine, "--limit", 10)) == [first, second]
    other = live.ok("stream", "group", "autoclaim", "s10", "-g", "g", "-c", "w2", "--min-idle", "1h")
    assert other == "(no records)\n"


def test_a_group_read_waits(live):
    waiting = live.process("stream", "group", "read", "s11", "-g", "g", "-c", "w", "--block", "0", "--no-ack")
    live.parked(1)
    live.ok("stream", "append", "s11", "come")

    assert b"come" in waiting.communicate(timeout=20)[0] and waiting.returncode == 0
    assert live.ok("stream", "group", "pending", "s11", "-g", "g") == "nothing pending\n"
