"""Client commands against a server on a real port, in this process: `live("kv", "get", "a")`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from flo.cli._app import app
from tests.client.real_server import RealServer, real_server

ROOT = Path(__file__).parents[2]
SECONDS = 20


class Live:
    """A server, and commands that talk to it."""

    def __init__(self, server: RealServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop

    def __call__(self, *words: object, stdin: bytes | str | None = None) -> Result:
        argv = ["--endpoint", self.server.endpoint, *map(str, words)]
        return CliRunner().invoke(app, argv, input=stdin, catch_exceptions=False)

    def ok(self, *words: object, stdin: bytes | str | None = None) -> str:
        """What a command printed that must have succeeded."""
        done = self(*words, stdin=stdin)
        assert done.exit_code == 0, f"{words}: exit {done.exit_code}\n{done.output}"
        return done.stdout

    def json(self, *words: object) -> Any:
        return json.loads(self.ok(*words, "--json"))

    def refused(self, code: int, *words: object) -> str:
        """What a command said on stderr that must have ended with the exit code."""
        done = self(*words)
        assert done.exit_code == code, f"{words}: exit {done.exit_code}\n{done.output}"
        return done.stderr

    def process(self, *words: object, set_first: str = "") -> subprocess.Popen[bytes]:
        """A command as a process; `set_first` are statements before it."""
        argv = ["--endpoint", self.server.endpoint, *map(str, words)]
        program = f"{set_first}\nimport flo.cli; flo.cli.main({argv!r})"
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=ROOT
        )

    def within(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(SECONDS)

    @property
    def requests(self) -> int:
        """That the server has begun so far."""
        return self._connections.turns.requests

    def until(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds, which is looked at in the server's loop."""

        async def look() -> None:
            async with asyncio.timeout(SECONDS):
                while not condition():  # noqa: ASYNC110 - what is awaited happens in other processes
                    await asyncio.sleep(0.01)

        self.within(look)

    def parked(self, count: int) -> None:
        """Returns when so many waits are parked at the server."""
        self.until(
            lambda: sum(len(link.speaker._session.waits) for link in self._connections.links if link.speaker) >= count
        )

    @property
    def _connections(self) -> Any:
        assert self.server._listener is not None
        return self.server._listener.connections


@contextmanager
def live_server() -> Iterator[Live]:
    started: list[Live] = []
    ready = threading.Event()
    over = asyncio.Event()

    async def serve() -> None:
        try:
            async with real_server() as server:
                started.append(Live(server, asyncio.get_running_loop()))
                ready.set()
                await over.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        if started:
            started[0]._loop.call_soon_threadsafe(over.set)
        thread.join()
