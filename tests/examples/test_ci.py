"""examples/ci.flow: process steps, a matrix, artefacts in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.flo_command import FloCommand, Process, arguments
from tests.support.http_server import HttpServer


def run_words(script: Path, *words: str) -> list[str]:
    return ["run", f"{script}::main", *words, "--format", "json"]


def test_ci_runs_its_steps_and_collects_the_artefacts_of_the_matrix(flo_command: FloCommand):
    kept = flo_command.folder / "kept"

    done = flo_command(*run_words(flo_command.example("ci.flow")), *arguments(keep=str(kept)))

    assert done.completed() == ["report-3.11.txt", "report-3.12.txt", "report-3.13.txt"]
    assert (kept / "report-3.12.txt").read_text() == "report of 3.12\n"
    assert done.json["output"] == ["lint: no findings", *(f"test on 3.{n}: 12 passed" for n in (11, 12, 13))]


def test_ci_fails_with_the_output_of_the_step_that_failed_and_finishes_the_others(flo_command: FloCommand):
    test = 'test "$VERSION" != 3.12 && echo fine || { echo boom; exit 3; }'

    done = flo_command(*run_words(flo_command.example("ci.flow")), *arguments(test=test))

    assert done.exit_code == 1, str(done)
    assert done.json["error"]["message"].endswith("test on 3.12 ended with exit code 3: boom")
    assert done.json["output"][1:] == ["test on 3.11: fine", "test on 3.12: FAILED", "test on 3.13: fine"]


@pytest.mark.slow
def test_ci_killed_during_a_step_goes_on_with_that_step(flo_command: FloCommand, server: HttpServer):
    script = flo_command.example("ci.flow")
    kept, begun = flo_command.folder / "kept", flo_command.folder / "begun"
    curl = 'python3 -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"'
    test = f'echo "$VERSION" >> {begun}; {curl} {server.url}/$VERSION; echo ok > "$ARTEFACTS/$VERSION"'
    server.hold("/3.12")
    running: Process = flo_command.start(
        *run_words(script, "--id", "ci"), *arguments(test=test, keep=str(kept), lint=f"{curl} {server.url}/lint")
    )
    server.wait("/3.12")
    server.wait("/3.11")
    server.wait("/3.13")

    running.kill()

    assert flo_command.resumed("ci") == ["3.11", "3.12", "3.13"]
    assert server.count("/lint") == 1, "a finished step is not repeated"
    assert (kept / "3.12").exists()
