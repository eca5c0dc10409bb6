"""The pool: who evaluates when, who waits, and who has to leave."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from flo.api.errors import FloError, Unavailable
from flo.api.outcome import ok
from flo.api.worker import Lease
from flo.worker.bundle import Bundle
from flo.worker.crashguard import CrashGuard, strand_name
from flo.worker.dialect import large_thread
from flo.worker.modules import Modules
from flo.worker.pool import ThreadWorker
from flo.worker.strand import End, Strand, Waiter
from flo.worker.testing import FakeCore
from tests.worker.engine import body, bundle

PATIENCE = 30.0  # seconds that bound a hang, and measure nothing
FOR_EVER = 3_600_000
WAITS = "return [fctx.actions.receive().value for i in range(3)]"


class Core(FakeCore):
    """A fake core that others can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.asked: Counter[str] = Counter()
        self.answer("receive", None)

    def act(self, lease: Lease, *given: Any, **named: Any) -> str | None:
        outcome = super().act(lease, *given, **named)
        with self.changed:
            self.asked[lease.run] += 1
            self.changed.notify_all()
        return outcome

    def finish(self, lease: Lease, outcome: str) -> None:
        super().finish(lease, outcome)
        self._notify()

    def release(self, lease: Lease) -> None:
        super().release(lease)
        self._notify()

    def pause(self, lease: Lease, kind: str, message: str) -> None:
        super().pause(lease, kind, message)
        self._notify()

    def until(self, condition: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), "it does not happen"

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()


@contextmanager
def pool(core: Core, **options: Any) -> Iterator[ThreadWorker]:
    options.setdefault("linger_ms", FOR_EVER)
    before = threading.enumerate()
    worker = ThreadWorker(core, **options)
    core.worker = worker
    try:
        yield worker
    finally:
        worker.stop(int(PATIENCE * 1000))
        left = [thread for thread in threading.enumerate() if thread not in before]
        assert not [thread for thread in left if thread.name.startswith("flo-run-")], "all threads have ended"


def leases(core: Core, source: Bundle, count: int) -> list[Lease]:
    return [core.lease(source, "main.flow::main", run=f"run-{n}") for n in range(count)]


def test_a_waiting_strand_goes_on_in_its_thread_when_it_is_woken() -> None:
    core = Core()
    with pool(core) as worker:
        (lease,) = leases(core, body(WAITS), 1)
        worker.start([lease])
        for n in (1, 2, 3):
            core.until(lambda n=n: core.asked["run-0"] == n)
            core.complete(lease, f"0.{n}", f"+{n}")
        core.until(lambda: core.finished)

        assert core.finished == {"run-0": "+[1,2,3]"} and not core.released and core.asked["run-0"] == 3


def test_one_thread_serves_strands_that_do_not_wait() -> None:
    core = Core()
    core.answer("kv.incr", "+1")
    with pool(core) as worker:
        worker.start(leases(core, body("return fctx.actions.kv.incr('a')"), 50))
        core.until(lambda: len(core.finished) == 50)

        assert set(core.finished.values()) == {"+1"} and len(worker._threads) == 1


def test_strand_for_a_thread_that_has_just_gone_idle_comes_with_the_baton() -> None:
    core = Core()
    first, second = leases(core, body("return fctx.actions.kv.incr('a')"), 2)
    had_it: list[bool] = []

    def incr(params: str) -> str:
        had_it.append(worker._threads[0].gate.locked())
        return "+1"

    class Lock:
        """Lets another thread be first as soon as the pool's lock is free again."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.starts = [second]

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            idle = bool(worker._idle)
            self.lock.release()
            if idle and self.starts:
                worker.start([self.starts.pop()])

    core.answer("kv.incr", incr)
    with pool(core) as worker:
        worker._lock = Lock()  # type: ignore[assignment]
        worker.start([first])
        core.until(lambda: len(core.finished) == 2)
    assert had_it == [True, True]


def test_waiting_strands_are_evicted_at_once_when_others_need_threads() -> None:
    core = Core()
    with pool(core, threads_max=2) as worker:
        waiting = leases(core, body(WAITS), 10)
        worker.start(waiting)
        core.until(lambda: len(core.released) == 8 and sum(core.asked.values()) == 10)

        assert not core.finished and len(worker._threads) == 2

        for lease in waiting:
            if lease.alive:
                core.complete(lease, "0.1", "+0")
        core.until(lambda: sum(core.asked.values()) == 12)
        again = [core.again(lease) for lease in waiting if not lease.alive]
        for lease in again:
            core.complete(lease, "0.1", "+0")
        worker.start(again)
        core.until(lambda: sum(core.asked.values()) == 20)


def test_strand_that_waits_long_gives_its_thread_back() -> None:
    core = Core()
    with pool(core, linger_ms=1) as worker:
        (lease,) = leases(core, body(WAITS), 1)
        worker.start([lease])
        core.until(lambda: core.released == ["run-0"])
        lease = core.again(lease)
        core.complete(lease, "0.1", "+1")
        worker.start([lease])
        core.until(lambda: len(core.released) == 2)

        assert core.asked["run-0"] == 2 and not core.finished


def test_wake_before_the_strand_waits_is_not_lost() -> None:
    core = Core()
    source = body("return fctx.actions.receive().value")
    with pool(core) as worker:
        for n in range(50):
            lease = core.lease(source, "main.flow::main", run=f"run-{n}")

            def complete(params: str, lease: Lease = lease) -> None:
                core.worker.wake([lease])  # type: ignore[union-attr]

            core.answer("receive", complete)
            worker.start([lease])
            core.until(lambda n=n: core.asked[f"run-{n}"] == 1)
            core.complete(lease, "0.1", f"+{n}")
            core.until(lambda n=n: f"run-{n}" in core.finished)
    assert core.finished["run-49"] == "+49"


def test_revoked_strand_leaves_while_it_waits_and_while_it_burns() -> None:
    core = Core()
    core.answer("kv.incr", "+1")
    burner = bundle("""
    def _main(fctx):
        fctx.actions.kv.incr("k")
        for i in range(1000000000):
            for j in range(1000000000):
                pass
    main = flow(implementation = _main)
    """)
    with pool(core) as worker:
        waits = core.lease(body(WAITS), "main.flow::main", run="waits")
        burns = core.lease(burner, "main.flow::main", run="burns")
        worker.start([waits, burns])
        core.until(lambda: core.asked["waits"] and core.asked["burns"])
        core.revoke(waits)
        core.until(lambda: "waits" in core.released)
        core.revoke(burns)
        core.until(lambda: "burns" in core.released)
    assert not core.finished


def test_flow_that_burns_does_not_stop_others() -> None:
    core = Core()
    core.answer("kv.incr", "+1")
    burner = bundle("""
    def _main(fctx):
        fctx.actions.kv.incr("k")
        for i in range(1000000000):
            for j in range(1000000000):
                pass
    main = flow(implementation = _main)
    """)
    quick = body("return [fctx.actions.kv.incr('a'), fctx.actions.receive().value]")
    with pool(core, threads_max=4) as worker:
        burners = [core.lease(burner, "main.flow::main", run=f"burn-{n}") for n in range(3)]
        worker.start(burners)
        core.until(lambda: all(core.asked[f"burn-{n}"] for n in range(3)))
        others = leases(core, quick, 5)
        worker.start(others)
        for n, lease in enumerate(others):
            core.until(lambda n=n: core.asked[f"run-{n}"] == 2)
            live = lease if lease.alive else core.again(lease)
            core.complete(live, "0.2", "+2")
            if live is not lease:
                worker.start([live])
        core.until(lambda: len(core.finished) == 5)
        for lease in burners:
            core.revoke(lease)
    assert set(core.finished.values()) == {"+[1,2]"} and sorted(set(core.released) - set(core.finished)) == [
        "burn-0", "burn-1", "burn-2",
    ]  # fmt: skip


def test_deep_recursion_and_deep_values_do_not_end_the_process() -> None:
    core = Core()
    source = bundle("""
    def f(n):
        return [f(n + 1)]
    def _rec(fctx):
        return f(0)
    recursion = flow(implementation = _rec)
    def _deep(fctx):
        if fctx.args.n == 0:
            return f(0)
        return deep(n = fctx.args.n - 1)
    deep = flow(implementation = _deep, args = {"n": args.int()})
    def _value(fctx):
        x = []
        for i in range(100000):
            x = [x]
        return x
    nested = flow(implementation = _value)
    """)
    with pool(core) as worker:
        worker.start(
            [
                core.lease(source, "main.flow::recursion", run="recursion"),
                core.lease(source, "main.flow::deep", run="deep", args={"n": 190}),
                core.lease(source, "main.flow::nested", run="nested"),
            ]
        )
        core.until(lambda: len(core.finished) == 3)
    assert all(outcome.startswith("-") for outcome in core.finished.values())
    assert "call stack overflow" in core.finished["deep"] and "nested deeper" in core.finished["nested"]


def test_fault_of_the_core_pauses_its_run_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda given: faults.append(given.exc_value))
    core = Core()

    def broken(params: str) -> str:
        raise LookupError("core is broken")

    core.answer("kv.incr", broken)
    core.answer("uuid", ok("u"))
    with pool(core) as worker:
        worker.start(
            [
                core.lease(body("fctx.actions.kv.incr('a')"), "main.flow::main", run="bad"),
                core.lease(body("return fctx.actions.uuid()"), "main.flow::main", run="good"),
            ]
        )
        core.until(lambda: core.finished and core.paused)
    assert core.finished == {"good": '+"u"'} and core.paused == {"bad": "internal: LookupError: core is broken"}
    assert [type(fault) for fault in faults] == [LookupError]


def test_fault_of_the_core_at_a_release_is_told_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda given: faults.append(given.exc_value))
    core = Core()

    def broken(lease: Lease) -> None:
        raise LookupError("core is broken")

    core.on_release = broken
    with pool(core, threads_max=1) as worker:
        first, second = leases(core, body(WAITS), 1), leases(core, body("return 1"), 2)[1:]
        worker.start(first)
        core.until(lambda: core.asked["run-0"])
        worker.start(second)
        core.until(lambda: core.finished)
    assert core.released == ["run-0"] and core.finished == {"run-1": "+1"}
    assert [type(fault) for fault in faults] == [LookupError]


def test_when_the_system_gives_no_more_threads_those_there_are_do(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    given: list[threading.Thread] = []

    def scarce(body: Any, *, name: str) -> threading.Thread:
        if given:
            raise RuntimeError("can't start new thread")
        given.append(large_thread(body, name=name))
        return given[0]

    monkeypatch.setattr("flo.worker.pool.large_thread", scarce)
    with pool(core) as worker:
        worker.start(leases(core, body(WAITS), 5))
        core.until(lambda: sum(core.asked.values()) == 5 and len(core.released) == 4)

        assert len(worker._threads) == 1


def test_without_any_thread_it_is_said_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    first, second = leases(core, body("return 1"), 2)
    with pool(core) as worker:
        with monkeypatch.context() as patched:
            patched.setattr("flo.worker.pool.large_thread", Mock(side_effect=RuntimeError("can't start new thread")))
            with pytest.raises(Unavailable, match="nothing can be evaluated: can't start new thread"):
                worker.start([first])
        worker.start([second])
        core.until(lambda: len(core.finished) == 2)


def test_module_whose_loading_was_ended_is_loaded_anew_by_the_next() -> None:
    core, modules = Core(), Modules()
    source = bundle("""
    def work():
        for i in range(100000):
            pass
    work()
    main = flow(implementation = lambda fctx: 1)
    """)

    def evaluate(run: str, passes: Callable[[Strand], bool]) -> End:
        waiter = Mock(spec=Waiter, passes=passes)
        return Strand(core.lease(source, "main.flow::main", run=run), core, modules, waiter).evaluate()

    def revoke(strand: Strand) -> bool:
        strand.lease.alive = False
        return True

    assert evaluate("evicted", lambda strand: False) is End.LEFT
    assert evaluate("revoked", revoke) is End.LEFT
    assert evaluate("next", lambda strand: True) is End.OVER
    assert core.finished == {"next": "+1"} and not core.paused


def test_stop_releases_what_runs_waits_and_has_not_begun() -> None:
    core = Core()
    worker = ThreadWorker(core, threads_max=1, linger_ms=FOR_EVER)
    core.worker = worker
    (lease,) = leases(core, body(WAITS), 1)
    worker.start([lease])
    core.until(lambda: core.asked["run-0"] == 1)
    worker.stop(10_000)
    late = core.lease(body(WAITS), "main.flow::main", run="late")
    worker.start([late])

    assert core.released == ["run-0", "late"] and not worker._threads


# -- crash guard


def test_strands_that_were_evaluated_when_the_process_died_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "evaluating"
    for count in (1, 2, 3):
        guard = CrashGuard(path)
        assert guard.crashes("bad 0") == count - 1 and guard.counted == (count > 1)
        guard.begin(0, "bad 0")
        guard.begin(1, "good 0")
        guard.end(1)
        # No close: the process dies here.
    guard = CrashGuard(path)
    assert guard.crashes("bad 0") == 3 and guard.crashes("good 0") == 0
    guard.leave_one_try("bad 0")
    assert CrashGuard(path).crashes("bad 0") == 2
    guard.forget("bad 0")
    assert not guard.counted and not CrashGuard(path).counted


def test_a_planned_end_is_no_crash(tmp_path: Path) -> None:
    guard = CrashGuard(tmp_path / "evaluating")
    guard.begin(0, "slow 0")
    guard.close()
    guard.begin(1, "later 0")
    assert not CrashGuard(tmp_path / "evaluating").counted


def test_long_names_stay_different(tmp_path: Path) -> None:
    core, source = Core(), body("return 1")
    names = [strand_name(core.lease(source, "main.flow::main", run="ünï" * 100 + end)) for end in "ab"]
    assert names[0] != names[1]
    guard = CrashGuard(tmp_path / "evaluating")
    guard.begin(0, names[0])
    guard = CrashGuard(tmp_path / "evaluating")
    assert guard.crashes(names[0]) == 1 and guard.crashes(names[1]) == 0


def test_damaged_counts_and_a_folder_that_is_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "evaluating.counts").write_bytes(b"{")
    with pytest.raises(FloError, match=r"evaluating\.counts is damaged"):
        CrashGuard(tmp_path / "evaluating")
    with pytest.raises(Unavailable, match=r"nowhere/evaluating cannot be made: No such file"):
        CrashGuard(tmp_path / "nowhere" / "evaluating")


def test_run_that_crashed_three_processes_is_paused_and_has_one_more_try(tmp_path: Path) -> None:
    for _ in range(3):
        CrashGuard(tmp_path / "guard").begin(5, "run-0 0")
    guard = CrashGuard(tmp_path / "guard")
    core = Core()
    with pool(core, crash_guard=guard) as worker:
        both = leases(core, body("return 1"), 2)
        worker.start(both)
        core.until(lambda: core.paused and core.finished)
        assert core.paused["run-0"].startswith("crashing: 3 processes") and core.finished == {"run-1": "+1"}
        assert guard.crashes("run-0 0") == 2

        worker.start(leases(core, body("return 1"), 1))
        core.until(lambda: "run-0" in core.finished)
    assert not guard.counted


def test_strand_that_ends_or_waits_is_forgotten_and_named_no_more(tmp_path: Path) -> None:
    for _ in range(2):
        guard = CrashGuard(tmp_path / "guard")
        for slot, run in enumerate(("run-0", "run-1", "absent")):
            guard.begin(slot, f"{run} 0")
    guard = CrashGuard(tmp_path / "guard")
    core = Core()
    with pool(core, crash_guard=guard) as worker:
        source = body("return fctx.actions.receive().value")
        waits, _, last = leases(core, source, 3)
        worker.start([waits])
        core.until(lambda: core.asked["run-0"])
        worker.start(leases(core, body("return 1"), 2)[1:])
        core.until(lambda: "run-1" in core.finished)
        worker.start([last])
        core.until(lambda: core.asked["run-2"])  # it has the baton, so the others have laid it down
        os.link(tmp_path / "guard", tmp_path / "copy")
        copy = CrashGuard(tmp_path / "copy")
        assert copy.crashes("run-0 0") == copy.crashes("run-1 0") == 0
    assert [guard.crashes(f"{run} 0") for run in ("run-0", "run-1", "absent")] == [0, 0, 2]
