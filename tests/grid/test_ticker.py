"""The thread of the timers: a node that cannot run them any more says so, for its runs would wait for ever."""

from __future__ import annotations

import threading

import pytest

from flo.api.errors import Unavailable
from flo.api.grid import Update
from flo.grid import partition as partition_module
from flo.grid.ticker import TICK_GAP_SECONDS
from flo.primitives.queue_pages import NewMessage
from tests.grid.manual import Bench
from tests.grid.storage import NS, batch


class Faulty:
    wanted = True

    def step(self) -> None:
        raise RuntimeError("injected")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_the_thread_of_the_timers_ends_the_node_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(threads=True)
    root = bench.start("r")
    updates: list[Update] = []
    bench.node.watch_end("r", updates.append)
    monkeypatch.setattr(bench.node._ticker, "clerk", Faulty())
    bench.act(root, 1, "clock.sleep", {"ms": 60_000})
    ticker = bench.node._ticker.thread
    assert ticker is not None
    ticker.join(10)
    assert not ticker.is_alive() and not root.alive
    assert updates == [Update(lines=[], view=None)]  # what watchers of a lost node get
    with pytest.raises(Unavailable, match="the timers of the node stopped: RuntimeError: injected"):
        bench.node.show("r")
    bench.node.close()


def test_one_command_runs_a_bounded_part_of_the_timers_that_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_module, "TIMER_BYTES", 8 * 1024)
    bench = Bench()
    for _ in range(10):
        batch(bench, lambda s: s.enqueue_many(NS, "q", [NewMessage(b"", delay_ms=1_000)] * 1_000))
    bench.clock.advance(1_000)
    batch(bench, lambda s: None)

    stats = batch(bench, lambda s: s.queue_stats(NS, "q"))
    assert stats is not None and 0 < stats.available < 10_000
    while bench.node.next_due is not None:
        bench.node.tick()
    stats = batch(bench, lambda s: s.queue_stats(NS, "q"))
    assert stats is not None and stats.available == 10_000
    assert bench.replayed() == bench.machines.dump()


def test_between_rounds_of_timers_others_get_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(threads=True)
    gaps = threading.Semaphore(0)
    changed = bench.node._ticker.changed
    wait = changed.wait

    def waited(seconds: float) -> bool:
        if seconds == TICK_GAP_SECONDS:
            gaps.release()
        return wait(seconds)

    def always_due() -> None:
        bench.node.partition.next_due = 1

    monkeypatch.setattr(changed, "wait", waited)
    monkeypatch.setattr(bench.node._ticker, "_tick", always_due)
    always_due()
    bench.node._after()
    assert all(gaps.acquire(timeout=10) for _ in range(3))
    bench.node.close()
