"""What an owner is made of: the node, with a worker and connectors in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flo.client.attach import Attachment, OwnedGrid


def open_node(
    directory: str, *, durability: str = "sync", on_warning: Callable[[str], None] | None = None
) -> OwnedGrid:
    """A node on a data directory. Raises DirectoryLocked and the other errors of flo.log.errors."""
    return _node(f"file:{directory}", Path(directory, "resources"), durability, on_warning)


def open_memory() -> Attachment:
    """A node that keeps nothing."""
    from tempfile import TemporaryDirectory

    folder = TemporaryDirectory(prefix="flo-")
    return Attachment(_node("memory:", Path(folder.name), "ephemeral", None), owner=True, folder=folder)


def _node(url: str, resources: Path, durability: str, on_warning: Callable[[str], None] | None) -> OwnedGrid:
    # a guest needs none of these, and they are what takes longest to import
    from flo.connectors.host import LocalHost
    from flo.grid.node import Node
    from flo.worker.pool import ThreadWorker

    return Node.open(
        url,
        worker_factory=ThreadWorker,
        host_factory=lambda: LocalHost(directory=resources),
        durability=durability,
        on_warning=on_warning,
    )
