"""`flo run`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flo.cli import _options, _values
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from flo.api.grid import RunView
    from flo.client.start import Prepared

app = _options.command_group()


@app.command()
def run(
    script: Annotated[str, typer.Argument(metavar="SCRIPT[::FLOW]", help="A script, and a flow of it to run.")],
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", metavar="K=V", help="An argument: JSON where it parses, else a text."),
    ] = None,
    args_json: Annotated[
        str | None, typer.Option("--args-json", metavar="J", help="Arguments as a JSON object; - reads stdin.")
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", metavar="I", help="The run's id. One that exists is shown, not run again.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="D", help="End the run after this time: 90s, 5m, 1h30m.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run durably and do not wait for it.")] = False,
    format: _options.Format = None,
    data_dir: _options.DataDir = None,
) -> None:
    """Run a script, or one flow of it, durably.

    Prints go to stdout as they come, then the result as one line of JSON. What the run has done is in a
    log: after a crash, or Ctrl-C, `flo resume` goes on from there.

    \b
      flo run ./hello.flow                                  the script itself
      flo run ./order.flow::main --arg n=7 --arg who=Ann    a flow and its arguments
      flo run ./order.flow::main --arg n=7 --id order-7     at most one run has this id
      flo run ./nightly.flow --detach                       start it; `flo resume` executes it

    Exit code: 0 completed, 1 failed or paused, 2 the script or the usage is wrong, 3 refused, 4 try again,
    5 cannot connect, 6 cancelled, 7 timed out, 130 Ctrl-C, 143 SIGTERM.
    """
    arguments = _values.arguments(arg or (), args_json)
    timeout_ms = 0 if timeout is None else _values.duration_ms("--timeout", timeout)
    from flo.client.start import prepare

    prepared = prepare(script, arguments, id=id, timeout_ms=timeout_ms)
    raise typer.Exit((_detached if detach else _attached)(prepared, format or "text", data_dir))


def _attached(prepared: Prepared, format: str, data_dir: str | None) -> ExitCode:
    from flo.cli import _display, _exit, _following

    def work(session: Any, on_update: Any, on_end: Any) -> list[RunView]:
        return [session.run(prepared, on_update, on_end)]

    return _following.follow(
        work,
        ids=[prepared.request.id],
        display=_display.display_for(format),
        data_dir=data_dir,
        exit_code=lambda views: _exit.of_view(views[0]),
    )


def _detached(prepared: Prepared, format: str, data_dir: str | None) -> ExitCode:
    from flo.cli import _display, _out, _session, _show

    with _session.open_session(data_dir) as session:
        view = session.run(prepared, detach=True)
        guest = not session.owner
    if format == "json":
        _out.line(_show.as_json(_show.run_object(view)))
        return ExitCode.OK
    _out.data(view.id + "\n")
    if view.status != "running":
        _out.note(f"this run exists, and is {_out.styled(view.status, _show.STATUS_STYLES[view.status], sys.stderr)}")
    elif guest:
        _out.note("the run is started; the process that owns the data directory executes it")
    else:
        _out.note(f"the run is started and waits; execute it with\n  {_display.resume_command([view.id], data_dir)}")
    return ExitCode.OK
