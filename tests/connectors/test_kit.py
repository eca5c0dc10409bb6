"""The kit that is shipped for tests."""

from __future__ import annotations

from typing import Any

import pytest

from flo.api.errors import Unavailable
from flo.connectors import Connector, ConnectorContext, ConnectorError, Job
from flo.connectors.http import HttpConnector
from flo.connectors.testing import (
    FakeCore,
    FakeHost,
    RecordingServer,
    check_connector,
    failure,
    job,
    never,
    value,
)


def hosted(*args: Any, **options: Any) -> tuple[FakeHost, FakeCore]:
    host, core = FakeHost(*args, **options), FakeCore()
    host.attach(core)
    return host, core


def outcomes(core: FakeCore) -> list[tuple[str, str]]:
    return [(one.sid, outcome) for one, outcome in core.answered]


def test_planned_replies_come_in_turn_and_the_last_stays():
    host, core = hosted()
    host.on("test.do", 1, failure("connector", "down", retryable=True), lambda job: job.input["n"])
    host.submit([job("test.do", {"n": n}, sid=f"0.{n}") for n in range(4)])

    assert core.answered == [], "nothing is answered inside submit"
    assert host.deliver() == 4 and len(core.batches) == 1
    got = outcomes(core)
    assert got[0] == ("0.0", "+1") and '"kind":"connector"' in got[1][1] and '"message":"down"' in got[1][1]
    assert got[2:] == [("0.2", "+2"), ("0.3", "+3")]


def test_time_is_virtual_and_moved_by_the_caller():
    host, core = hosted({"a.x": value("a", delay_ms=50), "b.x": value("b", delay_ms=20), "c.x": never()})
    host.submit([job("a.x", sid="0.1"), job("b.x", sid="0.2"), job("c.x", sid="0.3")])

    assert host.next_due_ms() == 20 and host.deliver() == 0
    host.advance(50)
    assert host.next_due_ms() == 0 and host.deliver() == 2
    assert outcomes(core) == [("0.2", '+"b"'), ("0.1", '+"a"')], "in the order in which they ended"
    assert host.next_due_ms() is None and [one.sid for one in host.pending()] == ["0.3"]


def test_a_job_begun_twice_is_an_assertion_even_after_a_crash():
    host, _ = hosted({"a.x": never()})
    host.submit([job("a.x")])
    host.crash()
    host.attach(FakeCore())

    host.submit([job("a.x", attempt=2)])
    with pytest.raises(AssertionError, match=r"begun twice: a\.x run/0\.1, attempt 1"):
        host.submit([job("a.x")])


def test_more_jobs_than_slots_are_an_assertion():
    host, _ = hosted({"a.x": 1}, slots=1)
    host.submit([job("a.x", sid="0.1")])

    with pytest.raises(AssertionError, match=r"2 jobs of a\.x at once, and 1 slots"):
        host.submit([job("a.x", sid="0.2")])


def test_what_nobody_planned_has_no_slots_unless_there_is_a_default():
    assert hosted({"a.x": 1})[0].slots("b.x") == 0
    host, core = hosted(default=lambda job: job.kind)
    host.submit([job("b.x")])
    host.deliver()
    assert host.slots("b.x") == 64 and outcomes(core) == [("0.1", '+"b.x"')]


def test_what_the_core_refuses_is_kept():
    host, core = hosted({"a.x": 1})

    def refuse() -> None:
        raise Unavailable("fenced")

    core.refuse = refuse
    host.submit([job("a.x")])
    assert host.deliver() == 0
    core.refuse = None
    assert host.deliver() == 1 and outcomes(core) == [("0.1", "+1")]


def test_cancel_and_stop_end_what_is_begun():
    host, core = hosted({"a.x": never()})
    jobs = [job("a.x", sid="0.1"), job("a.x", sid="0.2")]
    host.submit(jobs)
    host.cancel(jobs[:1])
    host.deliver()
    host.stop(10)

    assert ["cancelled" in o or "interrupted" in o for _, o in outcomes(core)] == [True, True]
    assert host.cancelled == jobs[:1] and host.pending() == []


def test_resources_are_played_and_counted():
    host, core = hosted()
    opening = {"name": "tmp", "kind": "tempdir", "mark": "n/r/0/tmp", "generation": 1, "params": {}}
    host.submit([job("resource.open", opening, sid="0.1")])
    host.deliver()
    assert outcomes(core) == [("0.1", '+{"path":"/fake/n/r/0/tmp"}')] and host.open_resources == {"n/r/0/tmp": 1}

    host.submit([job("resource.close", opening, sid="0.2")])
    host.deliver()
    assert host.open_resources == {}


# ---------------------------------------------------------------------------------------------- check_connector


class Good(Connector):
    kinds = ("good.echo", "good.fail")

    async def open(self, context: ConnectorContext) -> None:
        self.secrets = context.secrets

    async def perform(self, job: Job) -> Any:
        if job.kind == "good.fail":
            raise ConnectorError("not_found", "there is none")
        return {"length": len(self.secrets.get("KEY"))}


def test_a_good_connector_passes_and_gives_its_outcomes():
    done = check_connector(Good(), {"good.echo": {}, "good.fail": {}}, secrets={"KEY": "12345678"})

    assert done["good.echo"] == '+{"length":8}' and '"kind":"not_found"' in done["good.fail"]


def test_the_built_in_http_connector_passes():
    with RecordingServer() as web:
        done = check_connector(HttpConnector(), {"http.get": {"url": web.url}, "http.post": {"url": "ftp://x"}})

    assert done["http.get"][0] == "+" and "bad_argument" in done["http.post"]


def test_all_that_is_wrong_is_said_at_once():
    class Bad:
        kinds = ("bad",)
        slots = 0

        def perform(self, job: Job) -> Any:
            return 1

    with pytest.raises(AssertionError) as caught:
        check_connector(Bad())  # type: ignore[arg-type]

    for text in ("with a dot between", "`slots` must be a positive number, not 0", "`perform` must be a coroutine"):
        assert text in str(caught.value)


def test_what_a_job_does_wrong_is_said():
    class Leaky(Good):
        async def perform(self, job: Job) -> Any:
            if job.kind == "good.fail":
                raise KeyError("x")
            return self.secrets.get("KEY")

    with pytest.raises(AssertionError) as caught:
        check_connector(Leaky(), {"good.echo": {}, "good.fail": {}}, secrets={"KEY": "12345678"})

    assert "good.echo: a secret stands in the outcome" in str(caught.value)
    assert "good.fail: raised KeyError instead of ConnectorError: 'x'" in str(caught.value)
    with pytest.raises(AssertionError, match=r"good\.other is not one of its kinds"):
        check_connector(Good(), {"good.other": {}})
