"""`flo namespace …` and `flo status` against a server."""

from __future__ import annotations


def test_a_namespace_is_created_by_command_or_by_writing_and_listed(live):
    assert live.ok("namespace", "create", "made") == "Created\n"
    assert live.json("ns", "create", "made") == {"name": "made", "created": False}
    live.ok("-n", "written", "kv", "set", "k", "v")

    assert {"default", "made", "written"} <= set(live.json("ns", "list"))
    assert "written\n" in live.ok("ns", "ls")
    assert live.json("ns", "info", "written") == {"name": "written", "keys": 1, "queues": 0, "streams": 0}
    assert live.refused(1, "ns", "info", "absent").endswith("[not_found]\n")


def test_deleting_needs_force_for_what_is_not_empty_and_leaves_others(live):
    for name in ("full", "other"):
        live.ok("-n", name, "kv", "set", "k", name)

    assert "[conflict]" in live.refused(3, "ns", "delete", "default")
    assert "[conflict]" in live.refused(3, "ns", "delete", "full")
    live.ok("ns", "remove", "full", "-f")
    assert live("-n", "full", "kv", "get", "k").exit_code == 1
    assert live.ok("-n", "other", "kv", "get", "k") == "other\n"


def test_a_bad_name_is_refused(live):
    assert "namespace name" in live.refused(3, "-n", "1abc", "kv", "set", "k", "v")


def test_status_tells_what_answers(live):
    status = live.json("status")

    assert status["endpoint"] == live.server.endpoint and status["version"].count(".") >= 1
    assert f"Endpoint: {live.server.endpoint}\n" in live.ok("status")
