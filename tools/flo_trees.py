"""The two builds of this checkout, as folders for PYTHONPATH: for tests and benchmarks that look at both.

Not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ("flo", "prelude", "tools", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
GIVEN: Final = "FLO_COMPILED_TREE"  # names one that was built before, by whoever knows that it is of this checkout


class NotBuilt(Exception):
    """The compiled wheel could not be built; the text is the end of what the build said."""


def interpreted_tree() -> Path:
    return ROOT


def compiled_tree(folder: Path) -> Path:
    """Builds a compiled wheel in `folder` and unpacks it. Raises NotBuilt."""
    given = os.environ.get(GIVEN)
    return Path(given) if given else wheel_tree(folder, FLO_COMPILE="1")


def wheel_tree(folder: Path, **environment: str) -> Path:
    """Builds a wheel in `folder` with this interpreter and unpacks it; what lies in `source` there from a build before
    stays. Raises NotBuilt."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", "-w", folder, source]
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise NotBuilt(done.stdout[-4_000:])
    (wheel,) = folder.glob("*.whl")
    tree = folder / "tree"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree)
    return tree
