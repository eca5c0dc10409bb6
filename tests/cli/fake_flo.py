"""`flo` as a process over a grid of its own whose run prints `waiting` and then waits: `fake_flo.py KIND WORDS…`.

KIND is `owner`, `guest`, `slow` for an owner that never gets done with leaving, or `busy` for a directory that
cannot be attached to.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import flo.cli._session
import flo.client.start
from flo.api.errors import Unavailable
from flo.cli import main
from tests.cli.fakes import FakeCommand, prepare
from tests.client.fake_grid import FakeGrid


def wait_in_vain(directory, *, stopping, **kind):
    sys.stderr.write("attaching\n")
    sys.stderr.flush()
    stopping.wait()
    raise Unavailable("stopped")


if __name__ == "__main__":
    kind = sys.argv[1]
    grid = FakeGrid()
    fake = FakeCommand(grid, owner=kind != "guest")
    if kind == "slow":
        grid.close = threading.Event().wait
    if kind == "busy":
        fake.attach = wait_in_vain
    flo.cli._session.attach = fake.attach
    flo.client.start.prepare = prepare
    main(sys.argv[2:])
