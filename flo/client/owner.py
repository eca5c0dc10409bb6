"""What an owner is made of: the node, with a worker and connectors in this process."""

from __future__ import annotations

from collections.abc import Callable

from flo.api.grid import Grid


def open_node(
    where: str, *, durability: str = "sync", on_warning: Callable[[str], None] | None = None
) -> Grid:
    """A node on a data directory, or on `memory:`. Raises DirectoryLocked and the other errors of flo.log.errors."""
    # a guest needs none of these, and they are what takes longest to import
    from flo.connectors.host import LocalHost
    from flo.grid.node import Node
    from flo.worker.pool import ThreadWorker

    return Node.open(
        where if where == "memory:" else f"file:{where}",
        worker_factory=ThreadWorker,
        host_factory=LocalHost,
        durability=durability,
        on_warning=on_warning,
    )
