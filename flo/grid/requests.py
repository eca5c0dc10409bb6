"""What a request about runs must satisfy before anything is decided on it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from flo.api import limits
from flo.api.errors import BadArgument, FloError, NotFound
from flo.api.flows import FlowOptions
from flo.api.grid import StartRequest
from flo.api.ids import is_run_id
from flo.grid.payloads import Payloads, size_of

_json = msgspec.json.Decoder().decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_options = msgspec.json.Decoder(FlowOptions).decode


def checked_start(
    request: StartRequest, has_bundle: Callable[[bytes], bool], payloads: Payloads
) -> StartRequest | FloError:
    """The request with its arguments stored, or what is wrong with it. Called without the lock."""
    if not is_run_id(request.id):
        return BadArgument(f"{request.id!r} is no run id", hint="1 to 128 letters, digits and the signs . _ : -")
    if not has_bundle(request.bundle):
        return NotFound(f"no bundle {request.bundle.hex()[:12]}")
    if size_of(request.args) > limits.PAYLOAD_HARD_BYTES:
        return BadArgument(f"the arguments are over the limit of {limits.PAYLOAD_HARD_BYTES} bytes")
    if sum(map(len, (request.flow, request.options, request.username, request.script))) > limits.PAYLOAD_SOFT_BYTES:
        return BadArgument(f"the flow's name and options are over the limit of {limits.PAYLOAD_SOFT_BYTES} bytes")
    try:
        _object(request.args)
        _options(request.options)
    except (msgspec.DecodeError, RecursionError) as wrong:
        return BadArgument(f"the arguments or options of the flow cannot be read: {wrong}")
    stored = payloads.store(request.args)
    return request if stored is request.args else msgspec.structs.replace(request, args=stored)


def wrong_signal(type: str, payload: str) -> BadArgument | None:
    """What is wrong with a signal's type or payload, if anything."""
    if not type or len(type.encode()) > limits.SIGNAL_TYPE_BYTES:
        return BadArgument(
            f"a signal's type has 1 to {limits.SIGNAL_TYPE_BYTES} bytes, got {type[: limits.SIGNAL_TYPE_BYTES]!r}"
        )
    if size_of(payload) > limits.PAYLOAD_SOFT_BYTES:
        return BadArgument(f"a signal's payload is at most {limits.PAYLOAD_SOFT_BYTES} bytes")
    try:
        _json(payload)
    except (msgspec.DecodeError, RecursionError) as wrong:
        return BadArgument(f"a signal's payload is JSON: {wrong}")
    return None
