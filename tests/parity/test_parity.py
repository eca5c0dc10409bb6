"""Every surface does the same: one script, five ways to perform it, one state at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flo.api.clock import FakeClock
from flo.client.testing import TestGrid
from flo.grid.node import Node
from flo.server.resp import fields
from tests.parity.cli import CliDriver
from tests.parity.flow import FlowDriver
from tests.parity.resp import RespDriver
from tests.parity.script import APART, DIFFERENCES, DONE, ID, NOT_IN_SURFACE, NOT_OFFERED, SCRIPT, VERSION, Step
from tests.parity.sdk import SdkDriver
from tests.parity.state import state
from tests.parity.surface import Driver, Refused
from tests.parity.wire import Socket, WireDriver
from tests.server.resp.support import resp_server
from tests.server.wire_service import Service

WALL_MS = 1_750_000_000_000
SURFACES = ["wire", "resp", "sdk", "cli", "flow"]


class Setup(NamedTuple):
    """A fresh store, the surface that is tested, and a client beside it."""

    node: Node
    driver: Driver
    beside: WireDriver
    advance: Callable[[int], None]


@contextmanager
def setup(surface: str, folder: Path) -> Iterator[Setup]:
    if surface == "flow":
        with TestGrid(wall_ms=WALL_MS) as grid:
            service = Service(_Bench(grid))  # type: ignore[arg-type]
            connection = service.connect()

            def exchange(opcode: int, key: bytes, value: bytes, options: dict[int, bytes], ns: str) -> Any:
                grid.settle()
                return connection.reply(opcode, key, value, options, ns)

            yield Setup(grid.node, FlowDriver(grid, folder), WireDriver(exchange), lambda ms: grid.advance(ms / 1000))
        return
    clock = FakeClock(WALL_MS)
    with resp_server(clock=clock) as server:
        beside = Socket(server.port)
        drivers: dict[str, Callable[[], Any]] = {
            "wire": lambda: WireDriver(beside),
            "resp": lambda: RespDriver(server.port),
            "sdk": lambda: SdkDriver(server.port),
            "cli": lambda: CliDriver(server.port),
        }
        driver = drivers[surface]()

        def advance(ms: int) -> None:
            clock.advance(ms)
            server.node.tick()

        try:
            yield Setup(server.node, driver, WireDriver(beside), advance)
        finally:
            beside.close()
            getattr(driver, "close", lambda: None)()


class _Bench:
    """What the in-process connection needs of the grid."""

    def __init__(self, grid: TestGrid) -> None:
        self.node = grid.node


class Performance:
    """Performs the script on one surface."""

    def __init__(self, made: Setup) -> None:
        self._made = made
        self._saved: dict[str, Any] = {}
        self.differed: set[tuple[str, str]] = set()
        self.beside: set[str] = set()  # operations that only the client beside could do

    def perform(self, step: Step) -> None:
        surface = self._made.driver.name
        if step.op == "time":
            self._made.advance(step.args["ms"])
            return
        args = {name: self._meant(value) for name, value in step.args.items()}
        driver: Any = self._made.driver
        options, _ = NOT_IN_SURFACE.get(surface, (set(), ""))
        method = step.op.replace(".", "_")
        want = step.want
        if surface == "flow" and step.ns != "default":
            driver = self._made.beside  # README.md 8: a flow sees the namespace of its own node
        elif not hasattr(driver, method):
            self.beside.add(step.op)
            driver = self._made.beside
        elif options & args.keys():
            driver = self._made.beside
        for differs in (surface, "wire" if driver is self._made.beside else ""):
            if (differs, step.name) in DIFFERENCES:
                want = DIFFERENCES[differs, step.name][0]
                if differs == surface:
                    self.differed.add((surface, step.name))
                break
        driver.ns = step.ns
        try:
            got = getattr(driver, method)(**args)
        except Refused as refused:
            got = refused.refusal
        assert self._fits(want, got), f"{surface}: {_short(step)}: wanted {want!r}, got {str(got)[:300]}"
        if step.save:
            self._saved[step.save] = got if got is not None else self._made.beside.version(args["key"])

    def _meant(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._meant(each) for each in value]
        return self._saved.get(value[1:], value) if isinstance(value, str) and value[:1] == "$" else value

    def _fits(self, want: Any, got: Any) -> bool:
        if want is VERSION:
            return (isinstance(got, int) and got > 0) or (got is None and self._made.driver.name == "resp")
        if want is ID:
            return isinstance(got, str) and got.startswith("175")
        if want is DONE:
            return not isinstance(got, tuple)
        return type(want) is type(got) and want == got


def _short(step: Step) -> str:
    return f"{step.op} {str(step.args)[:200]}"


def as_written_by_others(found: dict[str, Any]) -> dict[str, Any]:
    """The payloads of XADD as the other surfaces write them (redis.md §2: they are JSON objects of the fields)."""
    for ns in found.values():
        for stream in ns["streams"].values():
            stream["records"] = [
                (*place, fields.pairs(payload, headers)[1], ())
                if headers == fields.JSON
                else (*place, payload, headers)
                for *place, payload, headers in stream["records"]
            ]
    return found


@pytest.fixture(scope="module")
def performances(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Performance, dict[str, Any], dict[str, bytes]]]:
    done = {}
    for surface in SURFACES:
        with setup(surface, tmp_path_factory.mktemp(surface)) as made:
            performance = Performance(made)
            for step in SCRIPT:
                performance.perform(step)
            with made.node.partition.lock:
                dumps = made.node.partition.machines.dump()
            done[surface] = performance, as_written_by_others(state(made.node)), dumps
    return done


@pytest.mark.parametrize("surface", SURFACES)
def test_every_operation_gives_what_the_script_says(performances, surface: str):
    performance, _, _ = performances[surface]

    assert performance.differed == {key for key in DIFFERENCES if key[0] == surface}
    assert performance.beside == set(NOT_OFFERED[surface])


@pytest.mark.parametrize("surface", ["wire", "sdk", "cli", "flow"])
def test_a_transaction_of_a_client_stays_in_its_slot_and_that_of_a_flow_is_one_command(surface: str, tmp_path: Path):
    with setup(surface, tmp_path) as made:
        made.driver.kv_put("w", "x")  # type: ignore[attr-defined]
        performance = Performance(made)
        performance.perform(APART._replace(want=2) if surface == "flow" else APART)


@pytest.mark.parametrize("surface", SURFACES[1:])
def test_all_surfaces_leave_the_same_behind(performances, surface: str):
    _, reference, _ = performances["wire"]
    _, found, _ = performances[surface]

    assert found == reference


def test_equal_operations_leave_equal_bytes(performances):
    """The binary protocol, FloClient and the commands log the same events at the same indexes."""
    dumps = [performances[surface][2] for surface in ("wire", "sdk", "cli")]

    for section in ("kv", "queues", "streams"):
        assert dumps[0][section] == dumps[1][section] == dumps[2][section], section
