"""Damaged frames against the binary protocol's speaker, without sockets: `fuzz(10**6, seed)` takes some ten seconds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flo.server.wire_link import WireSpeaker
from flo.wire.frames import MAGIC, REQUEST_PAYLOAD_BYTES, Request, encode_request

pytestmark = pytest.mark.usefixtures("little")

SAMPLES = [
    encode_request(0x100, 1, "default", b"key", b"value"),
    encode_request(0x101, 2, "ns", b"key", b"", {0x08: bytes(8), 0x21: bytes(16)}),
    encode_request(0x000, 3),
    encode_request(0x170, 4, "default", b"queue", b"x" * 500),
]
SPOTS = [4, 5, 6, 7, 20, 21, 22, 23, 24, 31, 32, 33]  # of the header, which matter most


class FuzzedLink:
    """What a speaker needs of its link and of Turns."""

    def __init__(self) -> None:
        self.turns: Any = self
        self.store = None
        self.requests = 0
        self.last: bytes | None = None

    def reply(self, data: bytes) -> None:
        raise AssertionError("nothing waits")

    def submit_many(self, link: FuzzedLink, requests: list[Request], size: int) -> None:
        assert requests and size >= 32 * len(requests)
        for request in requests:
            assert len(request.ns) <= 65_535 and len(request.key) <= 65_535 and len(request.value) <= size
        self.requests += len(requests)

    def keeps(self, unread: int) -> bool:
        assert unread < REQUEST_PAYLOAD_BYTES
        return True

    def finish(self, last: bytes = b"") -> None:
        assert self.last is None
        self.last = last


def damaged(chance: random.Random) -> bytes:
    frame = bytearray(chance.choice(SAMPLES))
    for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 3))):
        at = chance.choice(SPOTS) if chance.random() < 0.5 else chance.randrange(len(frame))
        frame[at % len(frame)] = chance.choice((0, 1, 2, 255, chance.randrange(256)))
    if chance.random() < 0.05:
        del frame[chance.randrange(len(frame)) :]
    return bytes(frame)


def fuzz(frames: int, seed: int) -> tuple[int, int]:
    """Feeds damaged frames, cut anywhere; the requests that were whole, and the connections that were refused."""
    chance = random.Random(seed)
    requests = refused = sent = 0
    while sent < frames:
        link = FuzzedLink()
        speaker = WireSpeaker(link)  # type: ignore[arg-type]
        for _ in range(chance.randrange(1, 50)):
            data = b"".join(damaged(chance) for _ in range(chance.choice((1, 1, 5))))
            sent += 1
            cut = chance.randrange(len(data) + 1)
            for part in (data[:cut], data[cut:]):
                if link.last is None:
                    speaker.feed(part)
            assert speaker._scanner.unread <= 32 + REQUEST_PAYLOAD_BYTES
            if link.last is not None:
                break
        if link.last is not None:
            refused += 1
            assert link.last == b"" or (link.last.startswith(MAGIC) and link.last[8:16] == bytes(8))
        requests += link.requests
    return requests, refused


def test_damaged_frames_are_refused_and_whole_ones_performed():
    requests, refused = fuzz(20_000, seed=7)

    assert requests > 1_000 and refused > 1_000
