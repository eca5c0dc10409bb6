"""Who watches which run. What they are told waits for durability like every other answer."""

from __future__ import annotations

from collections.abc import Callable

from flo.api.grid import LogLine, Update
from flo.grid.payloads import Payloads
from flo.grid.release import Releases
from flo.grid.views import WAITING_TOLD, log_lines, run_view
from flo.log.errors import LogError
from flo.primitives.run_state import Note, Run

LOST = Update(lines=[], view=None)

OnUpdate = Callable[[Update], None]


class Watches:
    """All methods but the returned one are called with the partition's lock held."""

    def __init__(self, releases: Releases, payloads: Payloads) -> None:
        self._releases = releases
        self._payloads = payloads
        self._by_run: dict[str, list[OnUpdate]] = {}
        self._ends: dict[str, list[OnUpdate]] = {}  # who wants to know of the end, or a pause, alone
        self._lines: dict[str, list[LogLine]] = {}
        self._changed: dict[str, Run] = {}
        self._ended: dict[str, Run] = {}

    def __bool__(self) -> bool:
        return bool(self._by_run or self._ends)

    def add_end(self, run: Run, on_update: OnUpdate, index: int) -> Callable[[], None]:
        """Tells of the run's end, or of its pause, and of nothing before."""
        if run.status != "running" or run.paused:
            self._tell([on_update], self._end_of(run), index)
        if run.status == "running":
            self._ends.setdefault(run.id, []).append(on_update)
        return lambda: _remove(self._ends, run.id, on_update)

    def _end_of(self, run: Run) -> Update:
        return Update(lines=[], view=run_view(run, self._payloads))

    def add(self, run: Run, on_update: OnUpdate, index: int) -> Callable[[], None]:
        """Tells everything so far once `index` is durable, then what follows."""
        final = run.status != "running"
        first = Update(lines=log_lines(run, self._payloads), view=run_view(run, self._payloads, output=final))
        if not final:
            self._by_run.setdefault(run.id, []).append(on_update)
        self._tell([on_update], first, index)

        return lambda: _remove(self._by_run, run.id, on_update)

    def note(self, note: Note) -> None:
        run_id = note.run.id
        if run_id in self._ends and (note.what == "final" or note.run.paused):
            self._ended[run_id] = note.run
        if run_id not in self._by_run:
            return
        if note.line is not None:
            self._lines.setdefault(run_id, []).append(LogLine(*note.line))
        self._changed[run_id] = note.run

    def flush(self, index: int) -> None:
        """Ends a command: what changed goes out when `index` is durable."""
        if self._ended:
            ended, self._ended = self._ended, {}
            for run_id, run in ended.items():
                watching = self._ends.pop(run_id) if run.status != "running" else self._ends[run_id]
                self._tell(watching, self._end_of(run), index)
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        for run_id, run in changed.items():
            following = self._by_run.get(run_id)
            if following is None:
                continue
            final = run.status != "running"
            view = run_view(run, self._payloads, output=final, waiting_max=WAITING_TOLD)
            update = Update(lines=self._lines.pop(run_id, []), view=view)
            if final:
                del self._by_run[run_id]
            self._tell(following, update, index)

    def _tell(self, watching: list[OnUpdate], update: Update, index: int) -> None:
        def release() -> None:
            for on_update in watching:
                on_update(update)

        def lost(error: LogError) -> None:
            for on_update in watching:
                on_update(LOST)

        self._releases.after(index, release, lost)

    def lost(self) -> None:
        """The node is lost: nobody will be told anything more."""
        watching = [on_update for all_ in (self._by_run, self._ends) for each in all_.values() for on_update in each]
        self._by_run.clear()
        self._ends.clear()
        for on_update in watching:
            on_update(LOST)


def _remove(watching: dict[str, list[OnUpdate]], run_id: str, on_update: OnUpdate) -> None:
    left = [other for other in watching.get(run_id, ()) if other is not on_update]
    if left:
        watching[run_id] = left
    else:
        watching.pop(run_id, None)
