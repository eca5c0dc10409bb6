"""One of the processes of test_takeover: runs one flow after the other, as owner or guest, whoever dies meanwhile.

    python -m tests.faults.takeover DIRECTORY NAME ROUNDS HOW

HOW is `stays` for one session over all rounds, `leaves` for one per round. Called again with the same name it finds
the runs of the call before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flo.api.grid import Update
from flo.client.session import Session
from flo.client.start import prepare

SCRIPT = f"{Path(__file__).with_suffix('.flow')}::turn"


def turn(session: Session, id: str) -> None:
    lines: list[str] = []

    def on_update(id: str, update: Update) -> None:
        lines.extend(line.text for line in update.lines)

    view = session.run(prepare(SCRIPT, id=id), on_update)
    assert view.status == "completed", view
    assert len(lines) == 1, f"{id} showed {lines}"


def main() -> None:
    directory, name, rounds, how = sys.argv[1:]
    if how == "stays":
        with Session(directory) as session:
            for n in range(int(rounds)):
                turn(session, f"{name}-{n}")
    else:
        for n in range(int(rounds)):
            with Session(directory) as session:
                turn(session, f"{name}-{n}")


if __name__ == "__main__":
    main()
