"""`flo runs …`: looking at runs, and acting on them. None of these executes a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flo.cli import _options, _values

app = _options.command_group(no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run, as `flo runs list` shows it.")]


@app.callback()
def runs() -> None:
    """Look at runs, signal and cancel them.

    \b
      flo runs list                           all runs, the oldest first
      flo runs show order-7                   status, result or error, what it waits for
      flo runs signal order-7 approve true    what the flow gets from fctx.actions.signal("approve")
    """


@app.command("list")
def list_runs(
    status: Annotated[
        str | None,
        typer.Option("--status", metavar="S", help="Only running, completed, failed, cancelled or timed_out."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the newest N.")] = None,
    format: _options.Format = None,
    data_dir: _options.DataDir = None,
) -> None:
    """List runs, the oldest first: status, age, duration, and what each waits for.

    Children stand in the history of their run; detached ones are listed.

    \b
      flo runs list --status running
      flo runs list --format json | jq -r '.[].id'
    """
    from flo.api.grid import STATUSES
    from flo.cli import _out, _session, _show, _times

    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"{status!r} is none of {', '.join(STATUSES)}", param_hint="--status")
    views = _session.ask(data_dir, lambda grid: grid.list())
    views = [view for view in views if status is None or view.status == status]
    views = views if limit is None else views[-limit:]
    if format == "json":
        _out.line(_show.as_json([_show.list_object(view) for view in views]))
    elif views:
        _out.data(_show.runs_table(views, _times.now_ms()))
    else:
        _out.note("no runs" if status is None else f"no {status} runs")


@app.command()
def show(id: RunId, format: _options.Format = None, data_dir: _options.DataDir = None) -> None:
    """Show one run: status, times, result or error, what it waits for.

    \b
      flo runs show order-7
    """
    from flo.cli import _out, _session, _show, _times

    view = _session.ask(data_dir, lambda grid: grid.show(id))
    if format == "json":
        _out.line(_show.as_json(_show.whole_object(view)))
    else:
        _out.data(_show.run_text(view, _times.now_ms()))


@app.command()
def history(id: RunId, format: _options.Format = None, data_dir: _options.DataDir = None) -> None:
    """Show what a run asked for and what came back, the oldest first.

    \b
      flo runs history order-7
      flo runs history order-7 --format json | jq '.[] | select(.kind == "http.post")'
    """
    from flo.cli import _out, _session, _show

    entries = _session.ask(data_dir, lambda grid: grid.history(id))
    if format == "json":
        _out.line(_show.as_json(entries))
    else:
        _out.data(_show.history_table(entries))


@app.command()
def logs(id: RunId, format: _options.Format = None, data_dir: _options.DataDir = None) -> None:
    """Show what a run printed, logged, published and said of its progress.

    \b
      flo runs logs order-7
    """
    from flo.cli import _out, _session, _show

    lines = _session.ask(data_dir, lambda grid: grid.logs(id))
    if format == "json":
        _out.line(_show.as_json(lines))
    else:
        _out.data("".join(_show.log_text(line) + "\n" for line in lines))


@app.command()
def cancel(
    id: RunId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the run's history.")] = "",
    data_dir: _options.DataDir = None,
    format: _options.Format = None,
) -> None:
    """End a run: its children first, then its resources are closed.

    A run that nobody executes is ended by the next `flo resume`.

    \b
      flo runs cancel order-7 --reason "customer called"
    """
    from flo.cli import _out, _session

    _session.ask(data_dir, lambda grid: grid.cancel(id, reason), repeatable=False)
    if format != "json":
        _out.note(_out.styled(f"run {id} is asked to end", "yellow", sys.stderr))


@app.command()
def signal(
    id: RunId,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="What the flow waits for.")],
    payload: Annotated[
        str, typer.Argument(metavar="JSON", help="What the flow gets; - reads stdin.", show_default=False)
    ] = "null",
    data_dir: _options.DataDir = None,
    format: _options.Format = None,
) -> None:
    """Send a signal to a run. It is kept until the flow takes it, and taken once.

    \b
      flo runs signal order-7 approve '{"by": "Ann"}'
      flo runs signal order-7 approve              without a payload the flow gets None
    """
    from flo.cli import _out, _session

    text = _values.json_text("JSON", _values.from_stdin(payload, "JSON"))
    _session.ask(data_dir, lambda grid: grid.signal(id, type, text), repeatable=False)
    if format != "json":
        _out.note(f"run {id} has the signal {type}")
