"""A server process to be killed, as `flo server start` runs it, on the same port and directory again and again.

As a program it is that server with a clock of its own, and a node that takes snapshots early:

    python -m tests.faults.core_server CONFIG OFFSET_MS

Its wall clock is OFFSET_MS ahead; SIGUSR1 sets it back by ten minutes, SIGUSR2 to OFFSET_MS again.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from flo.api.clock import SystemClock
from tests.faults.core_client import CoreClient
from tests.support.flo_command import COMMAND_SECONDS, ROOT, flo_command
from tests.support.flo_server import READY_SECONDS, free_ports

TEN_MINUTES_MS: Final = 600_000
SNAPSHOT_BYTES: Final = 1024 * 1024


class ShiftedClock(SystemClock):
    """A wall clock that is wrong."""

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms

    def wall_ms(self) -> int:
        return super().wall_ms() + self.offset_ms


def main() -> int:
    from flo.grid.node import Node
    from flo.server.config import load
    from flo.server.serve import serve

    config, offset = sys.argv[1:]
    clock = ShiftedClock(int(offset))

    def shift(ms: int) -> None:
        clock.offset_ms = int(offset) + ms

    signal.signal(signal.SIGUSR1, lambda *_: shift(-TEN_MINUTES_MS))
    signal.signal(signal.SIGUSR2, lambda *_: shift(0))

    def open_node(directory: str, *, backend: Any, **settings: Any) -> Node:
        return Node.open(backend, clock=clock, directory=directory, snapshot_bytes_min=SNAPSHOT_BYTES, **settings)

    return serve(load({}, {}, config), open_node)


class CoreServer:
    """With `clock` the server of this module, else the command. `settings` are lines of flo.toml by section."""

    def __init__(self, folder: Path, *, data: Path | None = None, clock: bool = False, **settings: str) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.port = free_ports(1)
        self.starts = 0
        self.process: subprocess.Popen[str] | None = None
        self._clock = clock
        self._config = folder / "flo.toml"
        sections = {
            "server": f'port = {self.port}\ndata_dir = "{self.data}"', "metrics": "enabled = false",
            "dashboard": "enabled = false", "logging": 'level = "warn"',
        } | settings  # fmt: skip
        self._config.write_text("".join(f"[{name}]\n{lines}\n" for name, lines in sections.items()))

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def start(self, offset_ms: int = 0) -> None:
        """Returns when it serves."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        env |= {"HOME": str(self.folder), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        if self._clock:
            argv = [sys.executable, "-m", "tests.faults.core_server", str(self._config), str(offset_ms)]
        else:
            argv = [*flo_command(), "server", "start", "--config", str(self._config)]
        with open(self.folder / "server.log", "a") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=ROOT
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        ready = self.process.stdout.readline() if readable else ""
        assert "ready" in ready, f"the server did not start:\n{self.log}"
        self.starts += 1

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9; what it has started goes on without it."""
        process = self.process
        if process is not None:
            assert process.poll() is None, f"the server had ended by itself, {process.returncode}:\n{self.log}"
            process.kill()
            process.wait(COMMAND_SECONDS)
            self._forget()

    def stop(self) -> int:
        """As planned; the exit code."""
        process = self.process
        assert process is not None
        process.terminate()
        code = process.wait(COMMAND_SECONDS)
        self._forget()
        return code

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(COMMAND_SECONDS)
            self._forget()

    def connect(self) -> CoreClient:
        return CoreClient(self.port)

    def _forget(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        self.process.stdout.close()
        self.process = None


if __name__ == "__main__":
    sys.exit(main())
