"""The floors of the house (design.md §2): the contracts stand in pyproject.toml, import-linter checks them."""

from __future__ import annotations

import subprocess
import sys

from tests.support.flo_command import ROOT

# In a process of its own: it sets up logging anew, which silences the loggers of whoever calls it.
CHECK = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename=sys.argv[1], cache_dir=None, no_cache=True))
"""


def test_a_floor_imports_only_from_floors_below_it():
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(ROOT / "pyproject.toml")], capture_output=True, text=True, cwd=ROOT
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
