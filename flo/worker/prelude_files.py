"""Where the prelude's texts come from, and which names they offer.

The sources lie in `prelude/` at the top of the repository and are installed as the package
`flo._prelude`. A bundle carries them, so that a run keeps the prelude that it was started with.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from flo.worker.source import exported, scan

PRELUDE = "flo/prelude/v1"  # the canonical label
PRELUDE_LABELS = frozenset({PRELUDE, "pkg.flowmetal.io/prelude/v1"})
PRELUDE_VERSION = "v1"
PRELUDE_MAIN = "v1.star"  # the file that scripts load; others in the folder are for its own use
SUFFIX = ".star"


class PreludeMissing(RuntimeError):
    """The installation lacks the prelude: a mistake in packaging, not in a script."""


@cache
def installed_prelude() -> dict[str, str]:
    """File name → text of the installed prelude, sorted. Read once; do not change it."""
    folder = _folder()
    files = {entry.name: entry.read_text(encoding="utf-8") for entry in sorted(folder.glob("*" + SUFFIX))}
    if PRELUDE_MAIN not in files:
        raise PreludeMissing(f"no {PRELUDE_MAIN} in {folder}: reinstall flo")
    return files


@cache
def prelude_names(text: str) -> frozenset[str]:
    """The public names of a prelude's main file."""
    return frozenset(exported(scan(text)))


def _folder() -> Path:
    # importlib.resources would do the same, and takes longer to import than the prelude takes to read.
    package = find_spec("flo._prelude")
    if package is not None and package.submodule_search_locations:
        return Path(next(iter(package.submodule_search_locations)))
    # Not installed: the sources are used in place.
    return Path(__file__).resolve().parents[2] / "prelude"
