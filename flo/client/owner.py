"""What an owner is made of: the node, with a worker and connectors in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from flo.api.worker import RunCore, Worker
from flo.client.attach import Attachment

if TYPE_CHECKING:
    from flo.grid.node import Node
    from flo.log.commit import FlushMeter
    from flo.log.contract import LogBackend
    from flo.primitives.machines import Machines


class NodeSettings(TypedDict, total=False):
    """What a server sets besides: see Node.open."""

    memory_budget: int
    hot_bytes: int
    make_machines: Callable[[str], Machines]
    meter: FlushMeter


def open_node(
    directory: str,
    *,
    durability: str = "sync",
    on_warning: Callable[[str], None] | None = None,
    backend: LogBackend | None = None,
    **settings: Unpack[NodeSettings],
) -> Node:
    """A node on a data directory; `backend`: its log, not opened yet, instead of one of that durability. Raises
    DirectoryLocked and the other errors of flo.log.errors."""
    from flo.worker.crashguard import CrashGuard
    from flo.worker.pool import ThreadWorker

    def worker(core: RunCore) -> Worker:
        return ThreadWorker(core, crash_guard=CrashGuard(Path(directory, "running")))

    log: str | LogBackend = f"file:{directory}" if backend is None else backend
    return _node(log, worker, Path(directory, "resources"), durability, on_warning, directory, settings)


def open_memory() -> Attachment:
    """A node that keeps nothing."""
    from tempfile import TemporaryDirectory

    from flo.worker.pool import ThreadWorker

    folder = TemporaryDirectory(prefix="flo-")
    node = _node("memory:", ThreadWorker, Path(folder.name), "ephemeral", None, None, {})
    return Attachment(node, owner=True, folder=folder)


def _node(
    log: str | LogBackend,
    worker: Callable[[RunCore], Worker],
    resources: Path,
    durability: str,
    on_warning: Callable[[str], None] | None,
    directory: str | None,
    settings: NodeSettings,
) -> Node:
    # a guest needs none of these, and they are what takes longest to import
    from flo.connectors.host import LocalHost
    from flo.grid.node import Node

    return Node.open(
        log,
        worker_factory=worker,
        host_factory=lambda: LocalHost(directory=resources),
        durability=durability,
        on_warning=on_warning,
        directory=directory,
        **settings,
    )
