"""Who watches which run. What they are told waits for durability like every other answer."""

from __future__ import annotations

from collections.abc import Callable

from flo.api.grid import LogLine, Update
from flo.grid.payloads import Payloads
from flo.grid.release import Releases
from flo.grid.views import log_lines, run_view
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
        self._lines: dict[str, list[LogLine]] = {}
        self._changed: dict[str, Run] = {}

    def __bool__(self) -> bool:
        return bool(self._by_run)

    def add(self, run: Run, on_update: OnUpdate, index: int) -> Callable[[], None]:
        """Tells everything so far once `index` is durable, then what follows."""
        final = run.status != "running"
        first = Update(lines=log_lines(run), view=run_view(run, self._payloads.load, output=final))
        if not final:
            self._by_run.setdefault(run.id, []).append(on_update)
        self._tell([on_update], first, index)

        def stop() -> None:
            watching = self._by_run.get(run.id)
            if watching is not None and on_update in watching:
                self._by_run[run.id] = [other for other in watching if other is not on_update]
                if not self._by_run[run.id]:
                    del self._by_run[run.id]

        return stop

    def note(self, note: Note) -> None:
        run_id = note.run.id
        if run_id not in self._by_run:
            return
        if note.line is not None:
            self._lines.setdefault(run_id, []).append(LogLine(*note.line))
        self._changed[run_id] = note.run

    def flush(self, index: int) -> None:
        """Ends a command: what changed goes out when `index` is durable."""
        changed, self._changed = self._changed, {}
        for run_id, run in changed.items():
            watching = self._by_run.get(run_id)
            if watching is None:
                continue
            final = run.status != "running"
            update = Update(
                lines=self._lines.pop(run_id, []), view=run_view(run, self._payloads.load, output=final)
            )  # fmt: skip
            if final:
                del self._by_run[run_id]
            self._tell(watching, update, index)

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
        watching = [on_update for each in self._by_run.values() for on_update in each]
        self._by_run.clear()
        for on_update in watching:
            on_update(LOST)
