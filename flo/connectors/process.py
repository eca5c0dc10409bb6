"""The resource kind `process`: a program that runs while its flow does.

It leads a session of its own, dies with this process (Linux tells it when the thread that started it ends,
which is why only the connectors' loop starts any), and bears its mark in the environment, so that what it
started is found too. Its zombie is kept until the resource is closed: as long as it is there, the numbers
of its process and session belong to nobody else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flo.connectors._output import BoundedOutput
from flo.connectors._reaper import VARIABLE, StillAlive, end_marked
from flo.connectors.contract import ConnectorContext, ConnectorError
from flo.connectors.secrets import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from flo.connectors.resources import Opening

OUTPUT_BYTES = 1024 * 1024  # kept of each of stdout and stderr
MIXED_OUTPUT_BYTES = 512 * 1024  # kept of both in order; all three fit into a value even if they are all escapes
CLOSE_GRACE_MS = 5_000  # between SIGTERM and SIGKILL
STOP_GRACE_MS = 1_000  # the same at a planned stop of the host
READ_BYTES = 64 * 1024
LAST_READ_BYTES = 1024 * 1024  # the most that a pipe holds when its writer has ended

_PR_SET_PDEATHSIG = 1


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a process resource."""

    argv: list[str]
    env: dict[str, str] | None = None  # added to this process's own
    cwd: str | None = None
    stdin: str | None = None  # text for its standard input, which is empty otherwise


class ProcessResources:
    kind = "process"

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}  # by mark

    async def prepare(self, context: ConnectorContext) -> None:
        if not (sys.platform == "linux" and hasattr(os, "pidfd_open")):
            raise ConnectorError("resource", "process resources need Linux 5.3 or newer")

    async def open(self, opening: Opening) -> Any:
        program = _program(opening)
        await self._end(opening.mark, opening.name, grace_ms=0)
        self._processes[opening.mark] = _Process(opening, program)
        return {"name": opening.name}

    async def close(self, opening: Opening) -> None:
        await self._end(opening.mark, opening.name, grace_ms=CLOSE_GRACE_MS)

    async def stop(self) -> None:
        import asyncio

        ending = [self._end(mark, process.name, grace_ms=STOP_GRACE_MS) for mark, process in self._processes.items()]
        for result in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def wait(self, name: str, mark: str, generation: int) -> Any:
        """Exit code (128 + N for a process ended by signal N) and output. Raises ConnectorError `resource` when
        this generation is not, or no longer, open here."""
        process = self._processes.get(mark)
        if process is None:
            raise ConnectorError("resource", f"resource {name} (process) is not open")
        if process.generation != generation:
            raise ConnectorError(
                "resource", f"resource {name} (process) was opened again: generation {generation} is gone"
            )
        await process.exited.wait()
        return {
            "exit_code": process.exit_code,
            "stdout": process.stdout.text(),
            "stderr": process.stderr.text(),
            "output": process.mixed.text(),
        }

    async def _end(self, mark: str, name: str, *, grace_ms: int) -> None:
        """Ends every process that bears the mark, in any generation, and all of its session."""
        import asyncio

        process = self._processes.get(mark)
        sessions = () if process is None else (process.pid,)
        try:
            await asyncio.to_thread(end_marked, mark, sessions=sessions, grace_ms=grace_ms)
        except StillAlive as bad:
            raise ConnectorError("resource", f"resource {name} (process): {bad}", retryable=True) from None
        if process is not None:
            process.reap()
            self._processes.pop(mark, None)


class _Process:
    """A started program and what it wrote. Made and used on the loop."""

    def __init__(self, opening: Opening, program: Program) -> None:
        import asyncio
        import subprocess

        self.name = opening.name
        self.generation = opening.generation
        self.exit_code = 0
        self.exited = asyncio.Event()
        self.stdout = BoundedOutput(OUTPUT_BYTES)
        self.stderr = BoundedOutput(OUTPUT_BYTES)
        self.mixed = BoundedOutput(MIXED_OUTPUT_BYTES)
        self._loop = asyncio.get_running_loop()
        stdin = subprocess.DEVNULL if program.stdin is None else _memory_file(program.stdin)
        try:
            self._popen = subprocess.Popen(
                program.argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=program.cwd,
                env=_environment(opening, program),
                start_new_session=True,
                preexec_fn=_die_with_us(),
            )
        except OSError as bad:
            raise ConnectorError("resource", _not_started(opening, program, bad)) from None
        finally:
            if program.stdin is not None:
                os.close(stdin)
        self.pid = self._popen.pid
        assert self._popen.stdout is not None and self._popen.stderr is not None
        self._pipes: dict[int, tuple[Any, BoundedOutput]] = {}
        for pipe, output in ((self._popen.stdout, self.stdout), (self._popen.stderr, self.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._pipes[pipe.fileno()] = (pipe, output)
            self._loop.add_reader(pipe.fileno(), self._read, pipe.fileno(), READ_BYTES)
        self._handle = os.pidfd_open(self.pid)
        self._loop.add_reader(self._handle, self._on_exit)

    def reap(self) -> None:
        """Gives the process's number back to the system. Only when everything of its session has ended."""
        self._on_exit()
        for descriptor in list(self._pipes):
            self._close_pipe(descriptor)
        self._popen.wait()

    def _read(self, descriptor: int, most: int) -> None:
        while most > 0:
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close_pipe(descriptor)
                return
            self._pipes[descriptor][1].write(data)
            self.mixed.write(data)
            most -= len(data)

    def _close_pipe(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._pipes.pop(descriptor)[0].close()

    def _on_exit(self) -> None:
        if self.exited.is_set():
            return
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        self.exit_code = ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
        # What the process wrote lies in the pipes by now; a descendant that still has them may write for ever.
        for descriptor in list(self._pipes):
            self._read(descriptor, LAST_READ_BYTES)
        self.exited.set()


def _program(opening: Opening) -> Program:
    what = f"resource {opening.name} (process)"
    try:
        program = msgspec.convert(opening.params, Program)
    except msgspec.ValidationError as bad:
        raise ConnectorError("resource", f"{what}: {bad}") from None
    if not program.argv or not program.argv[0]:
        raise ConnectorError("resource", f"{what}: argv must begin with a program")
    texts = [*program.argv, program.cwd or "", *(program.env or {}).keys(), *(program.env or {}).values()]
    if any("\0" in text for text in texts) or any(not key or "=" in key for key in program.env or {}):
        raise ConnectorError("resource", f"{what}: argv, env and cwd must be texts that a system can pass on")
    if program.cwd is not None and not os.path.isdir(program.cwd):
        raise ConnectorError("resource", f"{what}: the working directory {program.cwd} does not exist")
    return program


def _environment(opening: Opening, program: Program) -> dict[str, str]:
    """Ours without the secrets, which a program would show to the first that asks, and with the mark."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    environment.update(program.env or {})
    environment[VARIABLE] = f"{opening.mark}#{opening.generation}"
    return environment


def _die_with_us() -> Callable[[], None]:
    """What the child does between fork and exec. All it needs is looked up before: between the two it should touch
    as little as it can."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent, getppid, getpid, kill = os.getpid(), os.getppid, os.getpid, os.kill

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if getppid() != parent:  # it ended before we asked to be told
            kill(getpid(), signal.SIGKILL)

    return before_exec


def _memory_file(text: str) -> int:
    """A file in memory with this content, read from its start: unlike a pipe it never blocks the one who fills it."""
    descriptor = os.memfd_create("flo-stdin", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _not_started(opening: Opening, program: Program, error: OSError) -> str:
    what = f"resource {opening.name} (process)"
    if isinstance(error, FileNotFoundError):
        where = "there" if "/" in program.argv[0] else "on PATH"
        return f"{what}: the program {program.argv[0]} is not {where}"
    return f"{what}: {program.argv[0]} could not be started: {error.strerror or error}"
