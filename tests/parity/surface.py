"""What the drivers of all surfaces have in common."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from tests.parity.script import Refusal


class Refused(Exception):
    """An operation was refused; `refusal` tells why in words that all surfaces share."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.refusal = Refusal(kind)


class Driver(Protocol):
    """Has a method for each operation that its surface offers: `kv.put` is `kv_put`. They raise Refused."""

    name: str
    ns: str  # where the next operation goes


def json_of(text: str | bytes) -> Any:
    return msgspec.json.decode(text)
