"""What one evaluation may use."""

from __future__ import annotations

import pytest

from flo.api.clock import FakeClock
from flo.api.outcome import value
from flo.worker import budget
from flo.worker.budget import Budget
from flo.worker.host import CHECK_STEPS
from tests.worker.engine import body
from tests.worker.test_pool import Core, leases, pool

MIB = 1024 * 1024


def test_steps_are_counted_over_waits() -> None:
    spent = Budget(2 * CHECK_STEPS)
    assert spent.spend() == "" == spent.spend()
    spent.resumed()
    assert spent.spend() == "the step budget of 2,000 is used up"


class Memory:
    """What the process holds, and how often this thread has touched new pages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
        self._clock = FakeClock()
        self._faults = 0
        self._resident = 1_000
        monkeypatch.setattr(budget, "resident_bytes", lambda: self._resident)
        monkeypatch.setattr(budget, "page_faults", lambda: self._faults)
        monkeypatch.setattr(budget, "_touched", 10)
        self.budget = Budget(memory=memory, clock=self._clock)

    def grows(self, size: int, *, faults: int = 100) -> str:
        self._resident += size
        self._faults += faults
        self._clock.advance(1)
        return self.budget.spend()


def test_memory_that_the_process_gains_while_we_evaluate_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 50)
    assert memory.grows(5_000) == "", "what was there before"
    assert memory.grows(40) == "" == memory.grows(10)
    assert memory.grows(1) == "the memory budget of 50 bytes is used up"


def test_memory_that_others_take_and_what_is_given_back_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 50)
    assert memory.grows(0) == "" == memory.grows(40)
    memory.budget.resumed()
    assert memory.grows(9_000) == "", "others were evaluated"
    assert memory.grows(9_000, faults=1) == "", "another thread grew: we have touched one page"
    assert memory.grows(-30) == "" == memory.grows(30)
    assert memory.grows(1) == "the memory budget of 50 bytes is used up"


def test_process_that_does_not_tell_its_memory_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert budget.resident_bytes() > MIB and budget.page_faults() > 0
    monkeypatch.setattr(budget, "_statm", None)
    assert budget.resident_bytes() == 0
    clock, unbounded = FakeClock(), Budget(memory=1)
    for _ in range(3):
        clock.advance(1)
        assert unbounded.spend() == ""


@pytest.mark.parametrize(
    ("loop", "what"),
    [("pass", "the step budget of 3,000,000"), ("x.append('a' * 10000)", f"the memory budget of {64 * MIB:,} bytes")],
)
def test_runaway_loop_ends_with_its_line_while_others_go_on(loop: str, what: str) -> None:
    core = Core()
    with pool(core, steps=3_000_000, memory=64 * MIB) as worker:
        runaway = leases(core, body(f"x = []\nfor i in range(1000000000):\n    {loop}"), 1)
        others = leases(core, body("return len(list(range(1000)))"), 5)[1:]
        worker.start([*runaway, *others])
        core.until(lambda: len(core.finished) == 5)
    assert [core.finished[f"run-{n}"] for n in range(1, 5)] == ["+1000"] * 4
    failure = value(core.finished["run-0"])
    assert (failure["kind"], failure["message"]) == ("quota_exceeded", f"{what} is used up")
    assert failure["where"].startswith("main.flow:"), failure
