"""Where the prelude's texts come from, and which names they offer.

The sources lie in `prelude/` at the top of the repository and are installed as the package
`flo._prelude`. A bundle carries them, so that a run keeps the prelude that it was started with.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
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
    files = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(SUFFIX)
    }
    if PRELUDE_MAIN not in files:
        raise PreludeMissing(f"no {PRELUDE_MAIN} in {folder}: reinstall flo")
    return files


@cache
def prelude_names(text: str) -> frozenset[str]:
    """The public names of a prelude's main file."""
    return frozenset(exported(scan(text)))


def _folder() -> Traversable:
    try:
        return resources.files("flo._prelude")
    except ModuleNotFoundError:
        # Not installed: the sources are used in place.
        return Path(__file__).resolve().parents[2] / "prelude"
