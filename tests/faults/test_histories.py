"""What concurrent clients of a real server saw is linearizable, also over kills (FLO_KILLS of them, by FLO_SEED)."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.faults.histories import Histories

KILLS = int(os.environ.get("FLO_KILLS", "2"))
SEED = int(os.environ.get("FLO_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * KILLS)
def test_what_clients_see_could_have_happened_one_after_the_other(short_folder: Path):
    sys.stderr.write(f"seed {SEED}\n")
    figures = Histories(short_folder, SEED, seconds=1.0, kills=KILLS).run()
    sys.stderr.write(f"{dict(figures)}\n")

    assert figures["kills"] == KILLS and figures["operations"] > 500 and figures["objects"] > 4
