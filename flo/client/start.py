"""From "path::flow" and arguments to a run that can be started: what is wrong is said before anything runs."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from flo.api.errors import BadArgument
from flo.api.grid import Grid, StartRequest
from flo.api.ids import is_run_id, new_run_id
from flo.client.values import json_text, json_value

BUNDLES_KEPT: Final = 64  # scripts whose bundle is kept until a file of theirs changes


class Prepared(NamedTuple):
    """A run that can be started: put the bundle where the runs are (put_bundle), then start the request."""

    bundle: bytes
    request: StartRequest


def put_bundle(grid: Grid, prepared: Prepared) -> None:
    """Brings the bundle where the runs are, unless it is there."""
    digest = prepared.request.bundle
    if not grid.has_bundle(digest):
        grid.put_bundle(digest, prepared.bundle)
