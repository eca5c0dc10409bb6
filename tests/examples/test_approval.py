"""examples/approval.flow: a person decides, or a deadline does."""

from __future__ import annotations

from pathlib import Path

from tests.support.flo_command import FloCommand, arguments
from tests.support.http_server import Answer, HttpServer


def started(flo_command: FloCommand, server: HttpServer, **values: str) -> Path:
    """The script, with a run `deploy` that was started and waits."""
    server.answer("/deployments", Answer(status=201, json={"id": "d1"}))
    script = flo_command.example("approval.flow")
    words = ["run", f"{script}::main", "--id", "deploy", "--detach", "--format", "json"]
    assert flo_command(*words, *arguments(url=server.url, version="v1.4", **values)).exit_code == 0
    return script


def test_approval_deploys_after_a_signal_that_came_while_nobody_ran_it(flo_command: FloCommand, server: HttpServer):
    started(flo_command, server)

    signalled = flo_command("runs", "signal", "deploy", "decision", '{"approved": true, "by": "ann"}')

    assert signalled.exit_code == 0, str(signalled)
    assert flo_command.resumed("deploy") == {"deployed": True, "deployment": "d1", "by": "ann"}
    assert server.requests("/deployments")[0].json == {"version": "v1.4"}


def test_approval_that_is_refused_deploys_nothing(flo_command: FloCommand, server: HttpServer):
    started(flo_command, server)
    flo_command("runs", "signal", "deploy", "decision", '{"approved": false, "by": "ben"}')

    assert flo_command.resumed("deploy") == {"deployed": False, "why": "refused by ben"}
    assert server.count("/deployments") == 0


def test_approval_ends_at_its_deadline(flo_command: FloCommand, server: HttpServer):
    started(flo_command, server, within="200ms")

    assert flo_command.resumed("deploy") == {"deployed": False, "why": "nobody decided within 200ms"}
