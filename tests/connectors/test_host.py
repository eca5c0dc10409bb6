"""The host: jobs begin once, within their slots, and are answered once, in batches."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flo.api import outcome as outcomes
from flo.api.errors import Unavailable
from flo.api.jobs import Job
from flo.connectors import Connector, ConnectorContext, ConnectorError, LocalHost, SecretStore
from flo.connectors.testing import FakeCore, job


class Gate(Connector):
    """Holds each job until it is told its result."""

    kinds = ("test.gate",)
    slots = 2

    def __init__(self) -> None:
        self.begun: list[Job] = []
        self.changed = threading.Condition()
        self.results: dict[str, asyncio.Future[Any]] = {}
        self.opened = self.closed = 0
        self.ended: list[str] = []

    async def open(self, context: ConnectorContext) -> None:
        self.opened += 1
        self.loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self.closed += 1

    async def perform(self, job: Job) -> Any:
        future = self.results[job.sid] = self.loop.create_future()
        with self.changed:
            self.begun.append(job)
            self.changed.notify_all()
        try:
            return await future
        finally:
            self.ended.append(job.sid)

    def wait_begun(self, count: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, 10)
        return [one.sid for one in self.begun]

    def let(self, *sids: str, value: Any = None) -> None:
        def settle() -> None:
            for sid in sids:
                self.results[sid].set_result(value)

        self.loop.call_soon_threadsafe(settle)


class Does(Connector):
    kinds = ("test.do",)

    def __init__(self, what: Any) -> None:
        self.what = what

    async def perform(self, job: Job) -> Any:
        return self.what(job)


@pytest.fixture
def make(tmp_path: Path):
    hosts: list[LocalHost] = []

    def build(*connectors: Connector, secrets: dict[str, str] | None = None) -> tuple[LocalHost, FakeCore]:
        environ = {f"FLO_SECRET_{name}": value for name, value in (secrets or {}).items()}
        host = LocalHost(connectors, directory=tmp_path, secrets=SecretStore(environ=environ, directory=tmp_path))
        hosts.append(host)
        core = FakeCore()
        host.attach(core)
        return host, core

    yield build
    for host in hosts:
        host.stop(0)


def gates(*numbers: int) -> list[Job]:
    return [job("test.gate", sid=f"0.{n}") for n in numbers]


def test_no_thread_starts_before_the_first_job(make):
    before = threading.active_count()

    host, _ = make(Gate())

    assert host.slots("test.gate") == 2 and threading.active_count() == before
    assert host.stop(0) == []


def test_importing_the_host_imports_nothing_slow(run_python):
    loaded = run_python(
        "import flo.connectors, sys, json; from pathlib import Path\n"
        "host = flo.connectors.LocalHost(directory=Path('x')); host.slots('http.get'); host.slots('resource.open')\n"
        "print(sorted({'asyncio', 'httpx', 'subprocess', 'ctypes', 'importlib.metadata'} & set(sys.modules)))"
    )

    assert loaded.strip() == "[]"


@pytest.fixture
def run_python():
    def run(code: str) -> str:
        import subprocess

        root = str(Path(__file__).parents[2])
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_slots_bound_what_runs_and_the_rest_follows_in_order(make):
    gate = Gate()
    host, core = make(gate)
    host.submit(gates(1, 2, 3, 4))

    assert gate.wait_begun(2) == ["0.1", "0.2"]
    gate.let("0.1")
    assert gate.wait_begun(3) == ["0.1", "0.2", "0.3"]
    gate.let("0.2", "0.3")
    gate.wait_begun(4)
    gate.let("0.4")

    assert [one.sid for one, _ in core.wait(4)] == ["0.1", "0.2", "0.3", "0.4"]
    assert gate.opened == 1


def test_what_ends_in_one_turn_is_answered_in_one_call(make):
    gate = Gate()
    host, core = make(gate)
    host.submit(gates(1, 2))
    gate.wait_begun(2)

    gate.let("0.1", "0.2", value=[1])

    core.wait(2)
    assert [[one.sid for one, _ in batch] for batch in core.batches] == [["0.1", "0.2"]]
    assert {outcome for _, outcome in core.answered} == {"+[1]"}


def test_a_job_handed_out_twice_is_begun_once(make):
    gate = Gate()
    host, core = make(gate)
    host.submit(gates(1, 2, 3))
    host.submit(gates(1, 3))
    gate.wait_begun(2)
    gate.let("0.1", "0.2")
    gate.wait_begun(3)
    gate.let("0.3")
    core.wait(3)

    host.submit(gates(1))

    again = core.wait(4)[-1][1]
    assert outcomes.error_kind(again) == "interrupted" and "was performed before" in outcomes.value(again)["message"]
    assert len(gate.begun) == 3


def test_a_repeatable_job_is_performed_again(make):
    does = Does(lambda job: 1)
    does.repeatable = True
    host, core = make(does)
    for count in (1, 2):
        host.submit([job("test.do")])
        assert core.wait(count)[-1][1] == "+1"

    assert host.repeatable("test.do") and not host.repeatable("http.get")


def test_another_attempt_is_another_job(make):
    host, core = make(Does(lambda job: job.attempt))

    host.submit([job("test.do", attempt=1), job("test.do", attempt=2)])

    assert [outcome for _, outcome in core.wait(2)] == ["+1", "+2"]


def test_a_result_that_the_core_refuses_is_kept_and_offered_again(make):
    host, core = make(Does(lambda job: job.sid))
    refusals: list[int] = []
    enough = threading.Event()

    def refuse() -> None:
        if not enough.is_set():
            refusals.append(1)
            if len(refusals) == 3:
                enough.set()
            raise Unavailable("fenced")

    core.refuse = refuse
    host.submit([job("test.do", sid="0.1")])
    assert enough.wait(10)
    host.submit([job("test.do", sid="0.2")])

    assert sorted(outcome for _, outcome in core.wait(2)) == ['+"0.1"', '+"0.2"']
    assert len(refusals) == 3


def test_a_kept_result_goes_to_the_next_incarnation(make):
    host, first = make(Does(lambda job: 5))
    refused = threading.Event()

    def refuse() -> None:
        refused.set()
        raise Unavailable("fenced")

    first.refuse = refuse
    one = job("test.do")
    host.submit([one])
    assert refused.wait(10)
    second = FakeCore()

    host.attach(second)

    assert second.outcome(one) == "+5" and first.answered == []


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ConnectorError("conflict", "taken", retryable=True, details={"by": 1}), "conflict", "taken"),
        (KeyError("x"), "connector", "test.do: 'x'"),
        (ValueError(), "connector", "test.do: ValueError"),
        (SystemExit(3), "connector", "test.do: 3"),
        (KeyboardInterrupt(), "connector", "test.do: KeyboardInterrupt"),
        (RuntimeError("\ud800" + "x" * 5_000), "connector", "test.do: ?" + "x" * 4_086 + " …"),
    ],
)
def test_what_a_connector_raises_becomes_an_error_without_traceback(make, raised, kind: str, message: str):
    def fail(job: Job) -> Any:
        raise raised

    host, core = make(Does(fail))
    one = job("test.do")
    host.submit([one])

    error = outcomes.value(core.outcome(one))
    assert (error["kind"], error["message"]) == (kind, message)
    assert "Traceback" not in str(error)
    host.submit([job("test.do", sid="0.2")])
    core.wait(2)  # the loop goes on


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "value is nan, and only finite numbers can be recorded"),
        ({"a": [1, float("inf")]}, "value['a'][1] is inf, and only finite numbers can be recorded"),
        (b"x", "value is a bytes, which is not JSON-like"),
        ([{"k": object()}], "value[0]['k'] is a object, which is not JSON-like"),
        ({"a": {1: 2}}, "value['a'] has a key that is no text: 1"),
        ("\ud800", "value is not JSON-like: 'utf-8' codec can't encode character"),
        ([10**5000], "value is not JSON-like: Exceeds the limit"),
    ],
    ids=["nan", "inf", "bytes", "object", "key", "surrogate", "digits"],
)
def test_a_value_that_is_not_json_like_is_a_clear_error(make, value: Any, message: str):
    host, core = make(Does(lambda job: value))
    one = job("test.do")
    host.submit([one])

    error = outcomes.value(core.outcome(one))
    assert error["kind"] == "connector" and error["message"].startswith(message), error


def test_a_value_may_be_nested_64_deep_and_have_16_mib(make):
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    values = [nested(64), nested(65), "x" * (16 * 1024 * 1024 - 2), "x" * (16 * 1024 * 1024 - 1), 10**40, (1, True)]
    host, core = make(Does(lambda job: values[int(job.sid[2:])]))
    jobs = [job("test.do", sid=f"0.{n}") for n in range(len(values))]
    host.submit(jobs)

    got = [core.outcome(one) for one in jobs]
    assert [outcomes.error_kind(one) for one in got] == [None, "connector", None, "too_large", None, None]
    assert "is nested deeper than 64 levels" in got[1]
    assert outcomes.value(got[3])["message"] == "the value has 16,777,217 bytes, over the limit of 16 MiB"
    assert got[4] == "+" + "1" + "0" * 40 and got[5] == "+[1,true]"


def test_secrets_are_masked_in_values_and_errors_of_every_connector(make):
    class Leaks(Connector):
        kinds = ("test.leak",)

        async def open(self, context: ConnectorContext) -> None:
            self.secrets = context.secrets

        async def perform(self, job: Job) -> Any:
            secret = self.secrets.get(job.input["name"])
            if job.input["fail"]:
                raise ConnectorError("failed", f"with {secret!r}", details={"key": [secret]})
            return {"a": [f"<{secret}>"], secret: 1, "n": 123456789}

    host, core = make(Leaks(), secrets={"QUOTED": 'se"cret\\x', "NUMBER": "123456789", "SHORT": "abc"})
    jobs = [
        job("test.leak", {"name": name, "fail": fail}, sid=f"0.{number}")
        for number, (name, fail) in enumerate([("QUOTED", 0), ("QUOTED", 1), ("NUMBER", 0), ("SHORT", 1), ("SHORT", 0)])
    ]
    for one in jobs:
        host.submit([one])
        core.outcome(one)

    got = [outcomes.value(core.outcome(one)) for one in jobs]
    assert got[0] == {"a": ["<[secret QUOTED]>"], "[secret QUOTED]": 1, "n": 123456789}
    assert got[1]["message"] == "with '[secret QUOTED]'" and got[1]["details"] == {"key": ["[secret QUOTED]"]}
    assert got[2]["n"] == "[secret NUMBER]"
    assert got[3]["message"] == "with '[secret SHORT]'"
    assert got[4]["a"] == ["<abc>"], "a short value is masked in errors only"


def test_an_unknown_kind_is_answered(make):
    host, core = make()
    one = job("test.nobody")
    host.submit([one])

    assert host.slots("test.nobody") == 0
    assert outcomes.value(core.outcome(one))["message"] == "no connector serves test.nobody"


def test_a_connector_that_cannot_open_fails_its_jobs_and_is_tried_again(make):
    class Late(Gate):
        async def open(self, context: ConnectorContext) -> None:
            self.opened += 1
            if self.opened == 1:
                raise ConnectorError("connector", "no engine at unix:///x")

        async def perform(self, job: Job) -> Any:
            return "open"

    late = Late()
    host, core = make(late)
    first, second = gates(1, 2)
    host.submit([first])
    assert outcomes.value(core.outcome(first))["message"] == "no engine at unix:///x"
    host.submit([second])

    assert core.outcome(second) == '+"open"' and late.opened == 2


def test_a_connector_can_be_opened_ahead_of_its_first_job(make):
    opened = threading.Event()

    class Slow(Gate):
        async def open(self, context: ConnectorContext) -> None:
            opened.set()

    host, _ = make(Slow())
    host.warm(["test.gate", "test.nobody"])

    assert opened.wait(10)


def test_cancel_ends_running_and_waiting_jobs(make):
    gate = Gate()
    host, core = make(gate)
    jobs = gates(1, 2, 3)
    host.submit(jobs)
    gate.wait_begun(2)

    host.cancel([jobs[0], jobs[2]])

    assert outcomes.error_kind(core.outcome(jobs[0])) == "cancelled"
    assert outcomes.value(core.outcome(jobs[2]))["message"] == "test.gate was cancelled before it was begun"
    assert [one.sid for one in gate.begun] == ["0.1", "0.2"]
    gate.let("0.2", value=2)
    assert core.outcome(jobs[1]) == "+2"
    host.cancel(jobs)  # of what has ended: nothing happens
    host.submit(gates(4))
    gate.wait_begun(3)
    gate.let("0.4")
    core.wait(4)


def test_a_job_that_must_not_be_cut_is_carried_to_its_end(make):
    gate = Gate()
    gate.cancellable = False
    host, core = make(gate)
    one = gates(1)[0]
    host.submit([one])
    gate.wait_begun(1)

    host.cancel([one])
    gate.let("0.1", value=1)

    assert core.outcome(one) == "+1"


def test_stop_waits_for_what_is_begun_and_returns_the_rest(make):
    gate = Gate()
    host, core = make(gate)
    jobs = gates(1, 2, 3, 4)
    host.submit(jobs)
    gate.wait_begun(2)
    stopping = threading.Thread(target=lambda: unbegun.extend(host.stop(10_000)))
    unbegun: list[Job] = []
    stopping.start()

    gate.let("0.1", "0.2", value=1)
    stopping.join(10)

    assert unbegun == jobs[2:] and sorted(o for _, o in core.answered) == ["+1", "+1"]
    assert gate.closed == 1 and len(gate.begun) == 2
    with pytest.raises(Unavailable, match="the connector host has stopped"):
        host.submit(gates(5))


def test_stop_interrupts_what_does_not_end_in_time(make):
    gate = Gate()
    host, core = make(gate)
    host.submit(gates(1))
    gate.wait_begun(1)

    assert host.stop(10) == []

    assert gate.ended == ["0.1"]
    error = outcomes.value(core.answered[0][1])
    assert (error["kind"], error["message"]) == ("interrupted", "test.gate was not done when its node stopped")


def test_many_jobs_at_once_are_all_answered_once(make):
    host, core = make(Does(lambda job: job.sid))
    jobs = [job("test.do", sid=f"0.{n}") for n in range(2_000)]

    for at in range(0, 2_000, 100):
        host.submit(jobs[at : at + 100])

    answered = core.wait(2_000)
    assert sorted(one.sid for one, _ in answered) == sorted(one.sid for one in jobs)
    assert all(outcome == f'+"{one.sid}"' for one, outcome in answered)
