"""The thread of the timers: a node that cannot run them any more says so, for its runs would wait for ever."""

from __future__ import annotations

import pytest

from flo.api.errors import Unavailable
from flo.api.grid import Update
from tests.grid.manual import Bench


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
    monkeypatch.setattr(bench.node, "_archivist", Faulty())
    bench.act(root, 1, "clock.sleep", {"ms": 60_000})
    ticker = bench.node._ticker
    assert ticker is not None
    ticker.join(10)
    assert not ticker.is_alive() and not root.alive
    assert updates == [Update(lines=[], view=None)]  # what watchers of a lost node get
    with pytest.raises(Unavailable, match="the timers of the node stopped: RuntimeError: injected"):
        bench.node.show("r")
    bench.node.close()
