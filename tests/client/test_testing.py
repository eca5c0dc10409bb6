"""The kit for people who test their flows: virtual time, mocks, always-replay."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

import flo
from flo.client.testing import FlowStuck, TestGrid, UnmockedAction

HEADER = 'load("flo/prelude/v1", "flow", "FlowContext", "args", "unwrap", "retry", "process", "tempdir")\n'


@pytest.fixture
def grid():
    with TestGrid() as opened:
        yield opened


@pytest.fixture
def script(tmp_path: Path):
    def write(body: str, name: str = "s.flow") -> str:
        path = tmp_path / name
        path.write_text(HEADER + dedent(body))
        return str(path)

    return write


FETCH = """
    def _main(fctx: FlowContext):
        r = fctx.actions.http.get(fctx.args.url, headers = {"accept": "text/plain"})
        return [r.value.status, r.value.body, r.value.json] if r.ok else r.error.kind
    main = flow(implementation = _main, args = {"url": args.string(default = "https://api.example/x")})
"""


def test_days_pass_in_no_time(grid, script):
    run = grid.run(
        script("""
        def _main(fctx: FlowContext):
            a = fctx.actions.now()
            fctx.actions.sleep("36h")
            print("awake")
            return fctx.actions.now() - a >= 36 * 3600
        main = flow(implementation = _main)
    """)
        + "::main"
    )

    assert run.result() is True and run.output == ["awake"] and run.status == "completed"
    assert len(run.history) >= 3


def test_a_mocked_request_answers(grid, script):
    grid.mock("http.get", url="https://api.example/*", returns={"json": {"n": 1}})
    run = grid.run(script(FETCH) + "::main")

    assert run.result() == [200, '{"n":1}', {"n": 1}]
    assert [call.input["url"] for call in grid.calls("http.*")] == ["https://api.example/x"]


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, True),
        ({"url": "https://api.example/x"}, True),
        ({"url": "https://other/*"}, False),
        ({"url": re.compile("/x$")}, True),
        ({"url": lambda url: url.endswith("y")}, False),
        ({"headers": {"accept": "text/plain"}}, True),
        ({"headers": {"accept": "text/plain", "x": "y"}}, False),
        ({"json": None}, False),
    ],
)
def test_a_mock_answers_what_it_matches(grid, script, match, fits):
    grid.mock("http.*", returns={"status": 201}, **match)
    grid.mock("http.get", returns={"status": 404, "body": "no"})

    assert grid.run(script(FETCH) + "::main").result() == ([201, "", None] if fits else [404, "no", None])


def test_mocks_answer_one_after_another(grid, script):
    grid.mock("http.get", fails="timeout", times=1)
    grid.mock("http.get", fails={"kind": "connector", "message": "down"}, times=1)
    grid.mock("http.get", returns=lambda input: {"body": input["url"]})
    path = script(FETCH) + "::main"

    got = [grid.run(path, {"url": "https://a"}).result() for _ in range(3)]
    assert got == ["timeout", "connector", [200, "https://a", None]]


def test_a_declared_retry_waits_in_virtual_time(grid, script):
    grid.mock("http.get", fails={"kind": "connector", "retryable": True}, times=2)
    grid.mock("http.get", returns={}, delay="3s")
    run = grid.run(
        script("""
        def _main(fctx: FlowContext):
            a = fctx.actions.now()
            policy = retry(max_attempts = 5, backoff = "constant", initial = 60)
            unwrap(fctx.actions.http.get("https://x", retry = policy))
            return int(fctx.actions.now() - a)
        main = flow(implementation = _main)
    """)
        + "::main"
    )

    assert run.result() == 123 and [call.attempt for call in grid.calls()] == [1, 2, 3]


def test_what_is_not_mocked_fails_the_test_whatever_the_flow_does_with_it(grid, script):
    run = grid.run(script(FETCH) + "::main")

    with pytest.raises(UnmockedAction, match=r"http\.get https://api\.example/x is not mocked, at s\.flow:4"):
        run.result()


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"returns": {}, "fails": "timeout"}, {"fails": "bad luck"}, {"returns": 7}, {"returns": {"code": 1}},
        {"returns": {}, "times": 0}, {"returns": {}, "delay": "soon"},
    ],
)  # fmt: skip
def test_a_mock_that_cannot_be_is_refused(grid, wrong):
    with pytest.raises(flo.BadArgument):
        grid.mock("http.get", **wrong)


def test_flows_mock_by_an_action(grid, script):
    run = grid.run(
        script("""
        def _main(fctx: FlowContext):
            unwrap(fctx.actions.connector("test.mock", action = "http.get", match = {"url": "https://a/*"},
                                          returns = {"status": 204}))
            unwrap(fctx.actions.connector("test.mock", action = "http.get", fails = "timeout"))
            bad = fctx.actions.connector("test.mock", action = "http.get", answers = 1)
            return [fctx.actions.http.get("https://a/b").value.status, fctx.actions.http.get("https://b").error.kind,
                    bad.error.message]
        main = flow(implementation = _main)
    """)
        + "::main"
    )

    assert run.result()[:2] == [204, "timeout"]
    assert run.result()[2] == "test.mock takes action, match, returns, fails, times, delay, and not answers"


def test_signals_and_what_a_run_waits_for(grid, script):
    path = (
        script("""
        def _main(fctx: FlowContext):
            return unwrap(fctx.actions.signal("approve"))
        main = flow(implementation = _main)
    """)
        + "::main"
    )
    run = grid.run(path)

    assert run.status == "running" and "approve" in run.waits_for[0]
    with pytest.raises(FlowStuck, match=r"waits for .*approve.* nothing is left"):
        run.result()
    run.signal("approve", {"by": "ann"})
    assert run.result() == {"by": "ann"}

    other = grid.run(path)
    other.cancel("enough")
    with pytest.raises(flo.RunFailed) as caught:
        other.result()
    assert caught.value.status == "cancelled"


def test_time_passes_as_far_as_it_is_told(grid, script):
    run = grid.run(
        script("""
        def _main(fctx: FlowContext):
            for n in range(3):
                fctx.actions.sleep("1h")
                print(n)
        main = flow(implementation = _main)
    """)
        + "::main"
    )

    grid.advance("2h30m")
    assert run.output == ["0", "1"] and run.status == "running"
    grid.advance("30m")
    assert run.status == "completed"


def test_a_failed_flow_says_where(grid, script):
    path = script("""
        def _main(fctx: FlowContext):
            fail("sorry")
        main = flow(implementation = _main)
    """)
    with pytest.raises(flo.RunFailed, match="sorry") as caught:
        grid.run(path + "::main").result()
    assert caught.value.kind == "failed" and "s.flow:4" in (caught.value.where or "")


def test_a_run_without_an_end_is_given_up(grid, script, monkeypatch):
    monkeypatch.setattr("flo.client.testing.JUMPS_MAX", 20)
    run = grid.run(
        script("""
        def _main(fctx: FlowContext):
            fctx.actions.sleep(60)
            fctx.actions.continue_as_new()
        main = flow(implementation = _main)
    """)
        + "::main"
    )

    with pytest.raises(FlowStuck, match="not ended after 20 timers"):
        run.result()


def test_resources_are_played(grid, script):
    grid.mock("process.wait", returns={"exit_code": 3, "stdout": "", "stderr": "", "output": "red"}, times=1)
    path = (
        script("""
        def _main(fctx: FlowContext):
            done = unwrap(fctx.actions.process.wait(fctx.resources.job))
            return [done.exit_code, done.output, fctx.resources.folder.path != ""]
        main = flow(implementation = _main, resources = {
            "job": lambda fctx: process(["make"]), "folder": lambda fctx: tempdir()})
    """)
        + "::main"
    )

    assert grid.run(path).result() == [3, "red", True]
    assert grid.run(path).result() == [0, "", True]


def test_random_and_uuid_depend_on_the_seed_alone(script):
    path = (
        script("""
        def _main(fctx: FlowContext):
            return [fctx.actions.uuid(), fctx.actions.random(), int(fctx.actions.now()), fctx.quota.username]
        main = flow(implementation = _main)
    """)
        + "::main"
    )

    def once(seed: int) -> object:
        with TestGrid(seed=seed) as grid:
            return grid.run(path, id="a").result()

    assert once(1) == once(1) != once(2)


def test_the_fixture_is_there_for_who_has_flo_installed(flo_grid, script):
    flo_grid.mock("http.get", returns={"status": 204})

    assert flo_grid.run(script(FETCH) + "::main").result()[0] == 204
