"""A server that reads its log for as long as a test wants: until a line comes on stdin. Arguments: port, directory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from flo.client.owner import open_node
from flo.primitives.machines import Machines
from flo.server.config import load
from flo.server.serve import serve


def slow_node(*arguments: Any, make_machines: Callable[[str], Machines], **settings: Any) -> Any:
    def make(runtime: str) -> Machines:
        sys.stdin.readline()
        return make_machines(runtime)

    return open_node(*arguments, make_machines=make, **settings)


if __name__ == "__main__":
    sys.exit(serve(load({"server.port": int(sys.argv[1]), "server.data_dir": sys.argv[2]}), slow_node))
