"""No promise is broken by `kill -9`, whoever it hits. FLO_KILLS and FLO_SEED choose how often and how."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.faults.kill_loop import KillLoop

KILLS = int(os.environ.get("FLO_KILLS", "25"))
SEED = int(os.environ.get("FLO_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * KILLS)
def test_kills_lose_and_repeat_nothing_and_every_run_ends(short_folder: Path) -> None:
    sys.stderr.write(f"seed {SEED}\n")
    figures = KillLoop(short_folder, SEED, kills=KILLS).run()
    sys.stderr.write(f"{dict(figures)}\n")

    assert figures["kills"] == KILLS and figures["kills of an owner beside others"] and figures["kills of others"]
    assert figures["increments"] and figures["requests"], "it tested something"
