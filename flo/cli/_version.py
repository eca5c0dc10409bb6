"""`flo version`."""

from __future__ import annotations

import platform

from flo.api.version import VERSION
from flo.cli import _options, _out

app = _options.command_group()


@app.command()
def version() -> None:
    """Print the version of Flo and of the Python that runs it.

    \b
      flo version
    """
    show()


def show() -> None:
    _out.data(f"flo {VERSION} (Python {platform.python_version()})\n")
