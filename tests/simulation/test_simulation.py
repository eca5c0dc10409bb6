"""Whole nodes under seeds: nothing acknowledged is lost, nothing outside is repeated, every run ends.

FLO_SIMULATION_SEEDS=FIRST:COUNT runs others. A failing seed is printed; `simulate(SEED)` repeats it.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.world import simulate

FIRST, COUNT = (int(n) for n in os.environ.get("FLO_SIMULATION_SEEDS", "0:2000").split(":"))
CHUNK = 50


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
@pytest.mark.timeout(600)
def test_no_seed_breaks_a_promise() -> None:
    with ProcessPoolExecutor(max_workers=2) as pool:
        found = [line for lines in pool.map(failures, range(FIRST, FIRST + COUNT, CHUNK)) for line in lines]
    assert not found, "\n".join(found)


def test_the_same_seed_gives_the_same_trace() -> None:
    one, other = simulate(7), simulate(7)
    assert one.trace == other.trace and one.begun == other.begun


def test_power_is_lost_often_enough_to_mean_something() -> None:
    assert sum(simulate(seed).crashes for seed in range(20)) >= 5
