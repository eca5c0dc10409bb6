"""What `flo run` and `flo resume` have in common: following runs to their end, and leaving before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import typer

from flo.api.grid import RunView, Update
from flo.api.limits import STOP_GRACE_MS
from flo.cli import _display, _out, _session
from flo.cli._exit import ExitCode
from flo.cli._signals import Interrupted, Signals

OnUpdate = Callable[[str, Update], None]
OnEnd = Callable[[RunView], None]

LEAVING_SECONDS: Final = 0.5


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
    known: set[str] = set()  # runs of which anything was heard

    def on_update(id: str, update: Update) -> None:
        known.add(id)
        display.update(id, update)

    with Signals() as signals, _telling_of_leaving() as leaves, _session.open_session(data_dir) as session:

        def on_end(view: RunView) -> None:
            if view.paused is not None:
                view = session.call(lambda grid: grid.show(view.id))  # an update may lack the output
            ended.add(view.id)
            display.ended(view)

        try:
            code = exit_code(work(session, on_update, on_end))
            signals.leaving(code)
            return code
        except Interrupted as asked:
            display.close()
            left = [id for id in ids if id not in ended]
            _display.tell_interrupted(left, data_dir, owner=session.owner, known=bool(known))
            raise typer.Exit(asked.code) from None
        finally:
            display.close()
            leaves.start()


@contextmanager
def _telling_of_leaving() -> Iterator[threading.Timer]:
    """Once the timer is started, a person who waits for more than a moment is told what for."""
    text = f"leaving: actions in flight get up to {STOP_GRACE_MS // 1000} s to end (Ctrl-C ends at once)"
    timer = threading.Timer(LEAVING_SECONDS, _out.note, [text])
    timer.daemon = True
    try:
        yield timer
    finally:
        timer.cancel()
