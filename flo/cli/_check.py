"""`flo check`."""

from __future__ import annotations

from typing import Annotated

import typer

from flo.cli import _options
from flo.cli._exit import ExitCode

app = _options.command_group()


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Scripts.")],
    format: _options.Format = None,
) -> None:
    """Check scripts without running them.

    Finds the errors for which `flo run` would refuse a script: syntax, loads, unknown names. Findings of lint
    and types are warnings. One `file:line:col: code: message` each.

    \b
      flo check ./order.flow
      flo check flows/*.flow --format json

    Exit code: 0 no errors (perhaps warnings), 2 errors.
    """
    from flo.cli import _out, _show
    from flo.worker.check import check

    found = [problem for file in files for problem in check(file)]
    if format == "json":
        _out.line(_show.as_json(found))
    elif found:
        _out.data("".join(f"{problem}\n" for problem in found))
    errors = sum(problem.severity == "error" for problem in found)
    if format != "json":
        warnings = len(found) - errors
        files_text = f"{len(files)} file{'s' if len(files) > 1 else ''}"
        _out.note(f"{files_text} checked: {errors} errors, {warnings} warnings")
    raise typer.Exit(ExitCode.USAGE if errors else ExitCode.OK)
