"""The actions `resource.open`, `resource.close` and `process.wait`: things that live as long as a flow.

Each opening has a mark, the same in every generation, by which the thing is found again after a crash of
the process that opened it. Opening and closing may be repeated without harm: opening a later generation
first clears what an earlier one left, closing what is not open succeeds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from flo.connectors.contract import Connector, ConnectorContext, ConnectorError, Job
from flo.connectors.process import ProcessResources
from flo.connectors.tempdir import TempdirResources

if TYPE_CHECKING:
    import asyncio

SLOTS = 64
WAIT_SLOTS = 1_024  # a wait holds nothing but its place here


class Opening(msgspec.Struct, frozen=True):
    """The input of `resource.open` and `resource.close`."""

    name: str  # as the flow declared it
    kind: str  # "tempdir", "process" …
    mark: str  # node/run/sid of the task/name: the same in every generation
    generation: int = 1
    params: dict[str, Any] = {}


class Waiting(msgspec.Struct, frozen=True):
    """The input of `process.wait`."""

    resource: str
    mark: str = ""  # of the resource with this name; "" when the flow has none
    generation: int = 1


class ResourceKind(Protocol):
    """One kind of resource. Its methods raise ConnectorError of kind `resource`, naming the resource."""

    kind: str

    async def prepare(self, context: ConnectorContext) -> None: ...

    async def open(self, opening: Opening) -> Any:
        """Opens the thing and returns what the flow sees, which must be the same in every generation. What bears
        the mark from another generation is gone, or taken over, when this returns."""
        ...

    async def close(self, opening: Opening) -> None:
        """Ends every generation of the thing. Succeeds when there is none."""
        ...

    async def stop(self) -> None:
        """A planned stop of the host: ends what could not outlive it anyway, and keeps what can."""
        ...


class ResourceConnector(Connector):
    """Hands each opening and closing to its kind. Cancelling either would leave half a thing: they run to the end."""

    kinds = ("resource.open", "resource.close")
    slots = SLOTS
    repeatable = True
    cancellable = False

    def __init__(self, resource_kinds: Sequence[ResourceKind]) -> None:
        self._kinds = {one.kind: one for one in resource_kinds}
        self._turns: dict[str, asyncio.Lock] = {}  # by mark: a close that comes during an opening waits for its end

    async def open(self, context: ConnectorContext) -> None:
        for one in self._kinds.values():
            await one.prepare(context)

    async def close(self) -> None:
        for one in self._kinds.values():
            await one.stop()

    async def perform(self, job: Job) -> Any:
        opening = _convert(job, Opening)
        kind = self._kinds.get(opening.kind)
        if kind is None:
            raise ConnectorError("resource", f"resource {opening.name}: there is no kind {opening.kind}")
        if not opening.mark or "\0" in opening.mark or "#" in opening.mark:
            raise ConnectorError("resource", f"resource {opening.name!r:.80}: a name must not hold # or a zero byte")
        try:
            async with self._turn(opening.mark):
                return await (kind.open(opening) if job.kind == "resource.open" else kind.close(opening))
        except OSError as bad:
            doing = "opened" if job.kind == "resource.open" else "closed"
            raise ConnectorError(
                "resource", f"resource {opening.name} ({opening.kind}) could not be {doing}: {_words(bad)}"
            ) from None

    @asynccontextmanager
    async def _turn(self, mark: str) -> AsyncIterator[None]:
        import asyncio

        lock = self._turns.setdefault(mark, asyncio.Lock())
        async with lock:
            yield
        if not lock.locked() and self._turns.get(mark) is lock:
            del self._turns[mark]


class ProcessWaitConnector(Connector):
    """`process.wait`: exit code and output of a process resource."""

    kinds = ("process.wait",)
    slots = WAIT_SLOTS

    def __init__(self, processes: ProcessResources) -> None:
        self._processes = processes

    async def perform(self, job: Job) -> Any:
        waiting = _convert(job, Waiting)
        return await self._processes.wait(waiting.resource, waiting.mark, waiting.generation)


def connectors() -> Iterable[Connector]:
    """The factory that the registry calls."""
    processes = ProcessResources()
    return (ResourceConnector([TempdirResources(), processes]), ProcessWaitConnector(processes))


def _convert(job: Job, kind: Any) -> Any:
    try:
        return msgspec.convert(job.input, kind)
    except msgspec.ValidationError as bad:
        raise ConnectorError("bad_argument", f"{job.kind}: {bad}") from None


def _words(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text
