"""No promise of the core service is broken by `kill -9`. FLO_KILLS and FLO_SEED choose how often and how."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.faults.core_kill_loop import CoreKillLoop

KILLS = int(os.environ.get("FLO_KILLS", "5"))
SEED = int(os.environ.get("FLO_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * KILLS)
@pytest.mark.parametrize("clock", [False, True], ids=["clock right", "clock set back"])
def test_kills_lose_nothing_that_was_acknowledged(short_folder: Path, clock: bool):
    sys.stderr.write(f"seed {SEED}\n")
    figures = CoreKillLoop(short_folder, SEED, kills=KILLS, clock=clock).run()
    sys.stderr.write(f"{dict(figures)}\n")

    assert figures["kills"] == KILLS
    for what in ("put", "incr", "txn", "enqueue", "dequeue", "ack", "append", "read", "done"):
        assert figures[f"{what} ok"] > 20, f"it tested {what}"
    assert figures["leases ended"] and figures["records"]
