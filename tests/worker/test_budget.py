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


def test_only_what_grows_while_we_evaluate_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, resident = FakeClock(), 100
    monkeypatch.setattr(budget, "resident_bytes", lambda: resident)
    ours = Budget(memory=50, clock=clock)

    def spend(now: int) -> str:
        nonlocal resident
        resident = now
        clock.advance(1)
        return ours.spend()

    assert spend(1_000) == "", "what was there before"
    assert spend(1_040) == ""
    ours.resumed()
    assert spend(9_000) == "", "others have grown"
    assert spend(8_990) == "" == spend(9_010)
    assert spend(9_030) == "the memory budget of 50 bytes is used up"


def test_process_that_does_not_tell_its_memory_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert budget.resident_bytes() > MIB
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
