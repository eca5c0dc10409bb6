"""What `flo run` and `flo resume` show: text for people, JSON for programs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from flo.api.grid import FINAL, LogLine, RunView, Update
from flo.cli import _out, _show

if TYPE_CHECKING:
    from flo.cli._live import LiveTree


class Display(Protocol):
    """What a person or a program sees of runs while they are followed. Called from one thread."""

    def update(self, id: str, update: Update) -> None: ...

    def ended(self, view: RunView) -> None:
        """The run is over, or the runtime has paused it; the view is whole."""
        ...

    def close(self) -> None:
        """Nothing but messages follows."""
        ...


def display_for(format: str, *, several: bool = False) -> Display:
    """`several` runs share the output, so each line says whose it is."""
    return JsonDisplay() if format == "json" else TextDisplay(several=several)


class JsonDisplay:
    """One object per run, as each ends."""

    def update(self, id: str, update: Update) -> None:
        pass  # the object at the end holds it

    def ended(self, view: RunView) -> None:
        _out.line(_show.as_json(_show.run_object(view)))
        tell_end(view)

    def close(self) -> None:
        pass


class TextDisplay:
    """Prints on stdout as they come, then the result as one line of JSON; on a terminal a live tree on stderr."""

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._live = _out.is_terminal(sys.stderr)
        self._tree: LiveTree | None = None

    def update(self, id: str, update: Update) -> None:
        if update.lines:
            self._lines(id, update.lines)
        if self._live and update.view is not None and update.view.status not in FINAL:
            if self._tree is None:
                from flo.cli._live import LiveTree

                self._tree = LiveTree()
            self._tree.put(update.view)

    def ended(self, view: RunView) -> None:
        if self._tree is not None:
            self._tree.drop(view.id)
        self._hide()
        line = _show.result_line(view)
        if line is not None:
            _out.data(self._mark(view.id) + line + "\n")
        tell_end(view, always=self._several)

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()

    def _lines(self, id: str, lines: Sequence[LogLine]) -> None:
        mark = self._mark(id)
        printed = "".join(f"{mark}{line.text}\n" for line in lines if line.channel == "print")
        logged = [mark + _show.log_text(line) for line in lines if line.channel == "log"]
        if self._tree is not None:
            self._tree.take(id, lines)
        if printed or logged:
            self._hide()
        if printed:
            _out.data(printed)
        if logged:
            _out.note(_out.styled("\n".join(logged), "dim", sys.stderr))

    def _mark(self, id: str) -> str:
        return _out.styled(f"{id}:", "cyan", sys.stdout) + " " if self._several else ""

    def _hide(self) -> None:
        if self._tree is not None:
            self._tree.hide()


def tell_end(view: RunView, *, always: bool = False) -> None:
    """Says on stderr how a run ended, with the flow's own traceback; of a completed one only `always`."""
    error = view.error
    if error is not None and error.traceback:
        _out.note(error.traceback.rstrip("\n"))
    if view.status == "running":
        _out.note(_out.styled(f"run {view.id} is paused:", "red", sys.stderr) + f" {view.paused}")
    elif view.status == "completed":
        if always:
            _out.note(_out.styled(f"run {view.id} completed", "green", sys.stderr))
    elif view.status == "cancelled":
        _out.note(_out.styled(f"run {view.id} was cancelled", "yellow", sys.stderr))
    else:
        head = f"run {view.id} " + ("timed out" if view.status == "timed_out" else "failed")
        told = error is None or error.traceback  # which ends with the message
        _out.note(_out.styled(head, "red", sys.stderr) + ("" if told else f": {_show.error_text(view)}"))


def tell_interrupted(ids: Sequence[str], data_dir: str | None, *, owner: bool, known: bool) -> None:
    """Says on stderr what becomes of runs that the command stops following (all unfinished ones without `ids`),
    and how to see them again. `known` tells whether they have certainly begun."""
    named = "the unfinished runs" if not ids else f"run {ids[0]}" if len(ids) == 1 else f"runs {', '.join(ids)}"
    command = resume_command(ids, data_dir)
    if not known:
        _out.note(f"interrupted before anything was heard of {named}; if begun, resume with\n  {command}")
    elif owner:
        _out.note(f"interrupted: {named} can be resumed at any time with\n  {command}")
    else:
        _out.note(f"no longer watching {named}: the process that owns the data directory goes on; watch or resume with")
        _out.note(f"  {command}")


def resume_command(ids: Sequence[str], data_dir: str | None) -> str:
    where = ["--data-dir", shlex.quote(data_dir)] if data_dir else []
    return " ".join(["flo resume", *ids, *where])
