"""What `flo run` and `flo resume` have in common: following runs to their end, and leaving before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer

from flo.api.grid import RunView, Update
from flo.cli import _display, _session
from flo.cli._exit import ExitCode
from flo.cli._signals import Interrupted, Signals

OnUpdate = Callable[[str, Update], None]
OnEnd = Callable[[RunView], None]


def follow(
    work: Callable[[Any, OnUpdate, OnEnd], Sequence[RunView]],
    *,
    ids: Sequence[str],
    display: _display.Display,
    data_dir: str | None,
    exit_code: Callable[[Sequence[RunView]], ExitCode],
) -> ExitCode:
    """Has `work(session, on_update, on_end)` follow runs; `ids` are those that are known before (none: all
    unfinished ones). Shows each as it ends, and leaves the directory when all is shown."""
    ended: set[str] = set()

    with Signals() as signals, _session.open_session(data_dir) as session:

        def on_end(view: RunView) -> None:
            if view.paused is not None:
                view = session.call(lambda grid: grid.show(view.id))  # an update may lack the output
            ended.add(view.id)
            display.ended(view)

        try:
            code = exit_code(work(session, display.update, on_end))
            signals.leaving(code)
            display.close()
            return code
        except Interrupted as asked:
            display.close()
            left = [id for id in ids if id not in ended]
            _display.tell_interrupted(left, data_dir, owner=session.owner)
            raise typer.Exit(asked.code) from None
        except BaseException:
            display.close()
            raise
