"""Large payloads: stored and synced as blobs before the command that brings them, loaded when somebody reads them."""

from __future__ import annotations

import threading

import msgspec

from flo.api import limits
from flo.api.outcome import error
from flo.log.contract import LogBackend
from flo.primitives.flows import FlowParams
from flo.primitives.payload import digest_of, is_reference, reference
from flo.primitives.run_actions import SendParams
from flo.primitives.run_decide import RetryParams

_flow = msgspec.json.Decoder(FlowParams).decode
_send = msgspec.json.Decoder(SendParams).decode
_retry = msgspec.json.Decoder(RetryParams).decode
_json = msgspec.json.Encoder().encode


def too_large(what: str, size: int) -> str:
    """The outcome of a payload over the hard limit."""
    limit = limits.PAYLOAD_HARD_BYTES
    return error("too_large", f"{what} of {size} bytes is over the limit of {limit} bytes (16 MiB)")


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8, without encoding what is clearly small."""
    return len(text) if text.isascii() else len(text.encode())


class Payloads:
    def __init__(self, backend: LogBackend) -> None:
        self._backend = backend
        self._pins = threading.Lock()
        self._kept: list[bytes] | None = None  # pins to take back when the sweep in progress has ended

    def load_bytes(self, name: str) -> bytes:
        """What lies behind a reference. Raises KeyError or LogDamaged."""
        return self._backend.get_blob(digest_of(name))

    def put(self, data: bytes) -> str:
        """Stores bytes that are no payload, pinned; returns their reference."""
        return reference(self._backend.put_blob(data), "@")

    def load(self, text: str) -> str:
        """The text itself, or the one behind a reference. Raises KeyError or LogDamaged."""
        return self._backend.get_blob(digest_of(text)).decode() if is_reference(text) else text

    def store(self, text: str) -> str:
        """A text that may stand in an event: itself when small, else the reference of its blob, pinned."""
        if len(text) <= limits.PAYLOAD_SOFT_BYTES and size_of(text) <= limits.PAYLOAD_SOFT_BYTES:
            return text
        return reference(self._backend.put_blob(text.encode()), text)

    def store_params(self, kind: str, params: str) -> str:
        """Parameters as an event holds them. What the core itself reads of large ones stays beside the reference."""
        if len(params) <= limits.PAYLOAD_SOFT_BYTES and size_of(params) <= limits.PAYLOAD_SOFT_BYTES:
            return params
        if kind == "flow":
            parsed = _flow(params)
            args = bytes(parsed.args).decode()
            head = _json(FlowParams(flow=parsed.flow, options=parsed.options)).decode()
            return f"{self.store(args)} {head}"
        if kind == "send":
            return self.store("+" + bytes(_send(params).message).decode())
        head = _json(_retry(params)).decode() if '"retry"' in params else ""
        return f"{self.store(params)} {head}".rstrip()

    def load_params(self, stored: str) -> str:
        """The whole parameters of an action that is no flow."""
        return self.load(stored.partition(" ")[0]) if is_reference(stored) else stored

    def unpin(self, stored: str) -> None:
        """The event that names the blob is in the log now."""
        if is_reference(stored):
            digest = digest_of(stored.partition(" ")[0])
            with self._pins:
                if self._kept is not None:
                    self._kept.append(digest)
                    return
            self._backend.unpin(digest)

    def keep_pins(self) -> None:
        """A sweep begins: what it spares is about to be looked up, so a pin must outlive whatever comes to be named
        after that."""
        with self._pins:
            self._kept = []

    def sweep(self, live: frozenset[bytes] | None) -> int:
        """Ends a sweep that `keep_pins` has begun: removes what is neither live nor pinned, and returns how many.
        With None it removes nothing."""
        try:
            return 0 if live is None else self._backend.sweep(live)
        finally:
            with self._pins:
                kept, self._kept = self._kept or (), None
            for digest in kept:
                self._backend.unpin(digest)

    def outcome(self, outcome: str, what: str) -> str:
        """An outcome as an event holds it; one over the hard limit becomes the error `too_large`."""
        if len(outcome) <= limits.PAYLOAD_SOFT_BYTES and size_of(outcome) <= limits.PAYLOAD_SOFT_BYTES:
            return outcome
        size = size_of(outcome)
        return too_large(what, size) if size > limits.PAYLOAD_HARD_BYTES else self.store(outcome)
