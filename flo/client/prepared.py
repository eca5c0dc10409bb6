"""A run that can be started. Apart from flo.client.start, which needs the interpreter."""

from __future__ import annotations

from typing import NamedTuple

from flo.api.grid import Grid, StartRequest


class Prepared(NamedTuple):
    """Put the bundle where the runs are (put_bundle), then start the request."""

    bundle: bytes
    request: StartRequest


def put_bundle(grid: Grid, prepared: Prepared) -> None:
    """Brings the bundle where the runs are, unless it is there."""
    digest = prepared.request.bundle
    if not grid.has_bundle(digest):
        grid.put_bundle(digest, prepared.bundle)
