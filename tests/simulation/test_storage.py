"""Storage under seeds and at every change of the disk: nothing acknowledged is lost, and nothing is half.

FLO_STORAGE_SEEDS=FIRST:COUNT runs other seeds. A failing one is printed; `simulate(SEED)` repeats it.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from flo.log.simdisk import PowerLoss
from tests.simulation.storage import StorageWorld, simulate

FIRST, COUNT = (int(n) for n in os.environ.get("FLO_STORAGE_SEEDS", "0:300").split(":"))
CHUNK = 25
SCENARIO = 7  # the seed of what happens while the power goes at each change
STEPS = 75
SURVIVORS = [{}, {"seed": 1}, {"seed": 2}, {"keep": True}]  # nothing unsynced, some of it, all of it


def failures(first: int) -> list[str]:
    """The failing seeds of one chunk, each with what went wrong."""
    found = []
    for seed in range(first, min(first + CHUNK, FIRST + COUNT)):
        try:
            simulate(seed)
        except Exception as failed:  # noqa: BLE001 - whatever a seed breaks, the others are tried and all are named
            found.append(f"seed {seed}: {type(failed).__name__}: {failed}")
    return found


@pytest.mark.slow
@pytest.mark.timeout(60 + COUNT)
def test_no_seed_breaks_a_promise():
    with ProcessPoolExecutor(max_workers=2) as pool:
        found = [line for lines in pool.map(failures, range(FIRST, FIRST + COUNT, CHUNK)) for line in lines]
    assert not found, "\n".join(found)


def test_the_same_seed_tells_clients_the_same():
    assert simulate(5).told == simulate(5).told


def test_seeds_do_what_they_should():
    figures = sum((simulate(seed).figures for seed in range(15)), start=StorageWorld(0).figures)

    for what in ("ok", "refused", "power losses", "snapshots", "restarts", "overloaded"):
        assert figures[what] > 5, (what, figures)


def scenario(world: StorageWorld) -> None:
    for step in range(STEPS):
        world.act()
        if step % 15 == 9:
            world.snapshot()
        if step == 2 * STEPS // 3:
            world.restart()


def changes() -> int:
    world = StorageWorld(SCENARIO)
    before = world.disk.changes
    scenario(world)
    assert world.figures["snapshots"] >= 3 and world.figures["restarts"]
    return world.disk.changes - before


def broken_points(number: int) -> list[str]:
    """What went wrong at every second point, beginning with this one, with all ways to survive in turn."""
    found = []
    for point in range(1 + number, changes() + 1, 2):
        world = StorageWorld(SCENARIO)
        world.disk.crash_after(point)
        try:
            with pytest.raises(PowerLoss):
                scenario(world)
            world.forget(**SURVIVORS[point // 2 % len(SURVIVORS)])  # type: ignore[arg-type]
            world.boot()
            world.finish()
        except Exception as failed:  # noqa: BLE001 - as above
            found.append(f"change {point}: {type(failed).__name__}: {failed}")
    return found


@pytest.mark.slow
def test_nothing_is_lost_at_whatever_change_of_the_disk_the_power_goes():
    assert changes() > 150
    with ProcessPoolExecutor(max_workers=2) as pool:
        found = [line for lines in pool.map(broken_points, range(2)) for line in lines]
    assert not found, "\n".join(found)
