"""`flo help [COMMAND…]`."""

from __future__ import annotations

from typing import Annotated

import typer

from flo.cli import _options

app = _options.command_group()


@app.command()
def help(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="The command's words.")] = None,
) -> None:
    """Show the help of a command.

    \b
      flo help runs signal
    """
    from flo.cli._app import command_line

    raise typer.Exit(command_line([*(words or ()), "--help"]))
