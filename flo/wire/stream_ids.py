"""The text form of stream ids, `<ms>-<sequence>` (spec: streams §3)."""

from __future__ import annotations

import re
from typing import Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import StreamId

BEGINNING: Final = (0, 0)
LAST: Final = 2**64 - 1
TAIL: Final = "$"

_form = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", re.ASCII)


def format_stream_id(id: StreamId) -> str:
    return f"{id[0]}-{id[1]}"


def parse_stream_id(text: str, *, is_end: bool = False) -> StreamId:
    """A bare number is that millisecond's first id; as an end it is its last. Raises Refused for anything else."""
    found = _form.fullmatch(text)
    if found is not None:
        milliseconds = int(found[1])
        sequence = int(found[2]) if found[2] is not None else LAST if is_end else 0
        if milliseconds <= LAST and sequence <= LAST:
            return milliseconds, sequence
    shown = text if len(text) <= 64 else text[:61] + "..."
    raise Refused("bad_argument", f"invalid stream id {shown!r}")
