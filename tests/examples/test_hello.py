"""examples/hello.flow: the first thing that a newcomer runs."""

from __future__ import annotations

import getpass

from tests.support.flo_command import FloCommand


def test_hello_greets_the_user_and_is_a_completed_run_afterwards(flo_command: FloCommand):
    done = flo_command("run", flo_command.example("hello.flow"))

    assert done.exit_code == 0, str(done)
    assert done.out.splitlines() == [f"Hello from Flowmetal, {getpass.getuser()}!"]
    assert [run["status"] for run in flo_command("runs", "list", "--format", "json").json] == ["completed"]
