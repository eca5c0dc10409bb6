"""`flo version`."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from typing import Final

import msgspec
import typer

from flo.api.version import VERSION
from flo.cli import _options, _out

HOT: Final = "flo.log.frame"  # one of the modules that are compiled together

app = _options.command_group()


@app.command()
def version(ctx: typer.Context, format: _options.Format = None) -> None:
    """Print the version of Flo and of the Python that runs it, and whether Flo's hot modules are compiled.

    \b
      flo version
    """
    show(as_json=format == "json")


def show(*, as_json: bool = False) -> None:
    if as_json:
        _out.line(msgspec.json.encode({"version": VERSION, "python": platform.python_version(), "build": build()}))
    else:
        _out.data(f"flo {VERSION} (Python {platform.python_version()}, {build()})\n")


def build() -> str:
    """`compiled` where a C compiler was found when Flo was installed, else `interpreted`."""
    spec = find_spec(HOT)
    return "interpreted" if spec is None or (spec.origin or "").endswith(".py") else "compiled"
