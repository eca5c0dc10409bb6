"""What an owner is made of: the node, with a worker and connectors in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flo.api.worker import RunCore, Worker
from flo.client.attach import Attachment, OwnedGrid


def open_node(
    directory: str, *, durability: str = "sync", on_warning: Callable[[str], None] | None = None
) -> OwnedGrid:
    """A node on a data directory. Raises DirectoryLocked and the other errors of flo.log.errors."""
    from flo.worker.crashguard import CrashGuard
    from flo.worker.pool import ThreadWorker

    def worker(core: RunCore) -> Worker:
        return ThreadWorker(core, crash_guard=CrashGuard(Path(directory, "running")))

    return _node(f"file:{directory}", worker, Path(directory, "resources"), durability, on_warning)


def open_memory() -> Attachment:
    """A node that keeps nothing."""
    from tempfile import TemporaryDirectory

    from flo.worker.pool import ThreadWorker

    folder = TemporaryDirectory(prefix="flo-")
    return Attachment(_node("memory:", ThreadWorker, Path(folder.name), "ephemeral", None), owner=True, folder=folder)


def _node(
    url: str,
    worker: Callable[[RunCore], Worker],
    resources: Path,
    durability: str,
    on_warning: Callable[[str], None] | None,
) -> OwnedGrid:
    # a guest needs none of these, and they are what takes longest to import
    from flo.connectors.host import LocalHost
    from flo.grid.node import Node

    return Node.open(
        url,
        worker_factory=worker,
        host_factory=lambda: LocalHost(directory=resources),
        durability=durability,
        on_warning=on_warning,
    )
