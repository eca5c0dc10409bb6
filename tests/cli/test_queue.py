"""`flo queue …` against a server."""

from __future__ import annotations

import json


def test_a_message_is_taken_acknowledged_and_gone(live):
    assert live.ok("queue", "enqueue", "q1", "x") == "Enqueued: 1\n"

    (message,) = live.json("queue", "dequeue", "q1")
    assert (message["seq"], message["payload"], message["delivery_count"]) == (1, "x", 1)
    assert live.ok("queue", "dequeue", "q1") == "(no messages)\n"
    assert live.ok("queue", "ack", "q1", 1) == "Acknowledged: 1\n"
    assert live.refused(1, "queue", "ack", "q1", 1) == "Error: message not found in this queue [not_found]\n"


def test_those_of_several_that_are_not_found_are_named(live):
    live.ok("queue", "push", "q2", "x")
    live.ok("queue", "pop", "q2")
    done = live("queue", "complete", "q2", 1, 7, 8)

    assert (done.exit_code, done.stdout, done.stderr) == (0, "Acknowledged: 1\n", "not in this queue: 7, 8\n")


def test_priority_delay_and_deduplication(live):
    live.ok("queue", "enqueue", "q3", "later", "--delay", "1h")
    live.ok("queue", "enqueue", "q3", "low", "--priority", 9)
    live.ok("queue", "enqueue", "q3", "high", "--dedup-key", "k")

    again = live.json("queue", "enqueue", "q3", "high again", "--dedup-key", "k")
    assert again == {"seq": 3, "deduplicated": True}
    assert [each["payload"] for each in live.json("queue", "peek", "q3", "--limit", 9)] == ["high", "low"]
    assert live("queue", "dequeue", "q3", "-c", 2, "-o", "raw").stdout_bytes == b"high\nlow"
    stats = live.json("queue", "stats", "q3")
    assert (stats["pending"], stats["available"], stats["inflight"], stats["delayed"]) == (3, 0, 2, 1)


def test_timeout_behind_dequeue_is_the_visibility_and_before_it_that_of_the_request(live):
    live.ok("queue", "enqueue", "q4", "x")
    before = live.json("queue", "peek", "q4")[0]["enqueued_at"]

    (message,) = live.json("--timeout", "5000", "queue", "dequeue", "q4", "--timeout", "2h")
    assert message["lease_expires_at"] - before >= 2 * 3_600_000


def test_messages_are_touched_and_given_back(live):
    live.ok("queue", "enqueue", "q5", "x")
    live.ok("queue", "dequeue", "q5")

    assert live.ok("queue", "touch", "q5", 1, "--extend", "90s") == "Touched: 1\n"
    assert live.ok("queue", "nack", "q5", 1) == "Given back: 1\n"
    assert live.json("queue", "dequeue", "q5", "--ack")[0]["delivery_count"] == 2
    assert live.refused(1, "queue", "touch", "q5", 1).endswith("[not_found]\n")


def test_dead_letters_are_listed_requeued_deleted_and_purged(live):
    for word in "abc":
        live.ok("queue", "enqueue", "q6", word)
    live.ok("queue", "dequeue", "q6", "-c", 3)
    live.ok("queue", "fail", "q6", 1, 2, 3, "--dlq")

    page = live.json("queue", "dlq", "list", "q6", "--limit", 2)
    assert [(each["seq"], each["attempts"], each["reason"]) for each in page["messages"]] == [
        (1, 1, "explicit"),
        (2, 1, "explicit"),
    ]
    assert page["has_more"] and len(live.json("queue", "dlq", "list", "q6", "--all", "--limit", 1)["messages"]) == 3
    assert live.json("queue", "dlq", "stats", "q6")["count"] == 3
    assert live.ok("queue", "dlq", "requeue", "q6", 1) == "Requeued: 1\n"
    assert live.ok("queue", "dlq", "delete", "q6", 2) == "Deleted: 1\n"
    assert live.ok("queue", "dlq", "purge", "q6") == "Purged: 1\n"
    assert live.ok("queue", "dlq", "ls", "q6") == "(no messages)\n"
    assert live.ok("queue", "purge", "q6") == "Purged: 1\n"


def test_queues_are_listed_and_deleted(live):
    live.ok("-n", "queues", "queue", "enqueue", "one", "x")

    assert [each["name"] for each in live.json("-n", "queues", "queue", "list")["queues"]] == ["one"]
    assert live.ok("-n", "queues", "queue", "ls").splitlines()[1].split() == ["one", "1", "1", "1", "0", "0"]
    assert "[conflict]" in live.refused(3, "-n", "queues", "queue", "delete", "one")
    live.ok("-n", "queues", "queue", "rm", "one", "--force")
    assert live.ok("-n", "queues", "queue", "list") == "no queues\n"
    assert live.refused(1, "queue", "stats", "none").endswith("[not_found]\n")


def test_a_waiting_dequeue_gets_what_comes(live):
    waiting = live.process("queue", "dequeue", "q7", "--block", "0")
    live.parked(1)
    live.ok("queue", "enqueue", "q7", "at last")

    out, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 0 and b"at last" in out and err == b""


def test_a_dequeue_whose_wait_ends_prints_that_there_is_none(live):
    assert live.ok("queue", "dequeue", "nobody-sends", "--block", 30) == "(no messages)\n"


def test_watching_prints_each_message_once_and_takes_none(live):
    live.ok("queue", "enqueue", "q8", "one")
    fast = "import flo.cli._queue; flo.cli._queue.WATCH_SECONDS = 0.01"
    watching = live.process("queue", "watch", "q8", "--json", set_first=fast)
    first = json.loads(watching.stdout.readline())
    live.ok("queue", "enqueue", "q8", "two")
    second = json.loads(watching.stdout.readline())
    before = live.requests
    live.until(lambda: live.requests >= before + 3)
    watching.send_signal(2)

    assert watching.communicate(timeout=20) == (b"", b"") and watching.returncode == 0
    assert [first["payload"], second["payload"]] == ["one", "two"]
    assert live.json("queue", "stats", "q8")["inflight"] == 0
