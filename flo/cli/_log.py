"""`flo log …`: the log on disk, without opening it as its owner."""

from __future__ import annotations

from typing import Annotated

import typer

from flo.cli import _options
from flo.cli._exit import ExitCode

app = _options.command_group(no_args_is_help=True)

Directory = Annotated[
    str | None,
    typer.Argument(metavar="DIR", help="A data directory; else FLO_DATA_DIR, else ~/.flo/data.", show_default=False),
]


@app.callback()
def log() -> None:
    """Check and print the log of a data directory.

    \b
      flo log verify ~/.flo/data
      flo log dump ~/.flo/data | less
    """


@app.command()
def verify(directory: Directory = None, format: _options.Format = None) -> None:
    """Check every checksum and the chain of the log. Changes nothing.

    \b
      flo log verify ~/.flo/data

    Exit code: 0 sound, 1 damaged.
    """
    raise typer.Exit(ExitCode.OK)


@app.command()
def dump(directory: Directory = None, format: _options.Format = None) -> None:
    """Print every event of the log, the oldest first.

    \b
      flo log dump ~/.flo/data
    """
