"""The live tree on a terminal: what runs, and what each part of it waits for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flo.api.clock import SystemClock
from flo.api.grid import LogLine, RunView, Waiting
from flo.cli import _times

# rich is imported by the thread that draws, so a run that is quicker than its first drawing does not pay for it
if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.tree import Tree

ROWS_MAX: Final = 20  # of one run
LOOK_SECONDS: Final = 0.25  # so nothing is drawn for a run that is quicker
AGES_SECONDS: Final = 1.0  # how often a tree that has not changed is drawn, for the ages in it


class LiveTree:
    """Drawn on stderr by a thread of its own, below what was written; hidden while something else is written.
    Thread-safe."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._clock = SystemClock()
        self._runs: dict[str, RunView] = {}
        self._progress: dict[str, str] = {}
        self._live: Live | None = None
        self._changed = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._keep_drawing, name="flo-live-tree", daemon=True).start()

    def take(self, id: str, lines: Sequence[LogLine]) -> None:
        """Remembers how far the run says that it is."""
        with self._lock:
            for line in lines:
                if line.channel == "progress":
                    self._progress[id] = _progress(line.text)
                    self._changed = True

    def put(self, view: RunView) -> None:
        with self._lock:
            self._runs[view.id] = view
            self._changed = True

    def drop(self, id: str) -> None:
        with self._lock:
            self._runs.pop(id, None)
            self._progress.pop(id, None)
            self._changed = True

    def draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        with self._lock:
            self._changed = False
            if not self._runs or self._closed.is_set():
                return
            if self._live is None:
                self._live = Live(
                    console=self._console or Console(stderr=True),
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            self._live.update(self.tree(), refresh=True)

    def hide(self) -> None:
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None
                self._changed = True

    def close(self) -> None:
        self._closed.set()
        self.hide()

    def tree(self) -> Tree:
        """What is drawn, one branch for each run."""
        from rich.text import Text
        from rich.tree import Tree

        now = self._clock.wall_ms()
        top = Tree("", hide_root=True)
        for view in self._runs.values():
            head = Text.assemble((view.id, "bold"), f"  {view.flow}  ", (_times.rough(now - view.started_at), "dim"))
            if view.id in self._progress:
                head.append("  " + self._progress[view.id], "cyan")
            _grow(top.add(head), view.waiting, now)
        return top

    def _keep_drawing(self) -> None:
        unchanged = 0.0
        while not self._closed.wait(LOOK_SECONDS):
            unchanged += LOOK_SECONDS
            if self._changed or unchanged >= AGES_SECONDS:
                self.draw()
                unchanged = 0.0


def _grow(root: Tree, waiting: Sequence[Waiting], now: int) -> None:
    """Each task hangs below the nearest task above it that waits too."""
    from rich.text import Text

    branches: dict[str, Tree] = {}
    for item in sorted(waiting, key=lambda item: (item.task.count("."), item.since))[:ROWS_MAX]:
        age = (_times.rough(now - item.since), "dim")
        above = next((branches[task] for task in _above(item.task) if task in branches), root)
        branches[item.task] = above.add(Text.assemble((item.flow or item.task, "bold"), f" {item.on} ", age))
    if len(waiting) > ROWS_MAX:
        root.add(Text(f"… {len(waiting) - ROWS_MAX} more", "dim"))


def _above(task: str) -> list[str]:
    """The tasks around a task, the nearest first: those around `0.3~2.1` are `0.3~2` and `0`."""
    parts = task.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def _progress(text: str) -> str:
    """`3/10 ███░░░` of a progress line's JSON, or the text itself when it is something else."""
    try:
        value: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    done, total = (value.get("done"), value.get("total")) if isinstance(value, dict) else (None, None)
    if isinstance(done, int | float) and isinstance(total, int | float) and total > 0:
        full = round(10 * min(max(done / total, 0), 1))
        return f"{done}/{total} " + "█" * full + "░" * (10 - full)
    return text
