"""Strands on the real core, thrown away and replayed at every wait."""

from __future__ import annotations

from pathlib import Path

from flo.client.testing import TestGrid
from tests.worker.engine import HEADER

CONTINUED = """
def _count(fctx):
    fctx.actions.sleep(1)
    if fctx.args.n < 3:
        fctx.actions.continue_as_new(n = fctx.args.n + 1)
    fctx.actions.sleep(1)
    return [fctx.args.n, fctx.run.id, fctx.run.parent]
count = flow(implementation = _count, args = {"n": args.int(default = 1)})
def _main(fctx):
    return count()
main = flow(implementation = _main)
"""


def test_direct_call_that_was_continued_as_new_keeps_its_arguments_when_it_is_replayed(tmp_path: Path) -> None:
    script = tmp_path / "main.flow"
    script.write_text(HEADER + CONTINUED)
    with TestGrid() as grid:
        assert grid.run(f"{script}::main", id="r").result() == [3, "r/0.1", "r"]
