"""`flo resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flo.cli import _options
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flo.api.grid import RunView

app = _options.command_group()


@app.command()
def resume(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Runs; without any, all unfinished ones.")
    ] = None,
    format: _options.Format = None,
    data_dir: _options.DataDir = None,
) -> None:
    """Go on with unfinished runs, to their end.

    What a run did before is not done again. A run that has ended is shown. With --format json one object per
    line, as each run ends.

    \b
      flo resume                    everything that `flo runs list` shows as running
      flo resume order-7            one run, shown as `flo run` would

    Exit code: of one run as `flo run`; of several 0 if all completed, else 1; 0 if there was none.
    """
    from flo.cli import _display, _following, _out

    named = list(dict.fromkeys(ids)) if ids else None

    def work(session: Any, on_update: Any, on_end: Any) -> Sequence[RunView]:
        views: Sequence[RunView] = session.resume(named, on_update, on_end)
        return views

    def exit_code(views: Sequence[RunView]) -> ExitCode:
        if not views and format != "json":
            _out.note("no unfinished runs")
        return _of(views)

    raise typer.Exit(
        _following.follow(
            work,
            ids=named or (),
            display=_display.display_for(format or "text", several=named is None or len(named) > 1),
            data_dir=data_dir,
            exit_code=exit_code,
        )
    )


def _of(views: Sequence[RunView]) -> ExitCode:
    from flo.cli import _exit

    if len(views) == 1:
        return _exit.of_view(views[0])
    return ExitCode.OK if all(view.status == "completed" for view in views) else ExitCode.FAILED
