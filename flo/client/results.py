"""What a finished run means to a program."""

from __future__ import annotations

from typing import Any

import msgspec

from flo.api.errors import RunFailed
from flo.api.grid import RunView

_decode = msgspec.json.Decoder().decode


def result_of(view: RunView) -> Any:
    """The value of a run that completed. Raises RunFailed for any other end, and for a run that is paused."""
    if view.status == "completed":
        return None if view.result is None else _decode(view.result)
    if view.error is not None:
        raise RunFailed(
            id=view.id, status=view.status, kind=view.error.kind, message=view.error.message,
            where=view.error.where, traceback=view.error.traceback,
        )  # fmt: skip
    if view.paused is not None:
        kind, _, message = view.paused.partition(": ")
        raise RunFailed(id=view.id, status="paused", kind=kind, message=message or kind, where=None)
    raise RunFailed(id=view.id, status=view.status, kind=view.status, message=f"the run {view.status}", where=None)
