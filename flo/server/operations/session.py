"""One connection's requests: each is performed and answered; waits are parked and answered later.

    session = WireSession(send, link, turns)     # send(frame): turns.reply(link, frame)
    frame = session.execute(store, request)      # in a turn; None: the reply comes later
    session.close(store)                         # the connection is gone: with the lock held, in a batch

Replies leave as they become ready: a wait never holds back a later request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from flo.api.errors import FloError
from flo.primitives.machine import Refused
from flo.wire.calls import Refusal, encode
from flo.wire.frames import Request, encode_reply
from flo.wire.layouts import LayoutError
from flo.wire.opcodes import CALL, unknown
from flo.wire.statuses import BAD_REQUEST, OK, UNAUTHORIZED, status_of
from flo.wire.tlv import BLOCK_MS, OptionError, integer

if TYPE_CHECKING:
    from flo.grid.store import Store
    from flo.grid.waiters import Parked

WAIT_MS: Final = 300_000  # the longest wait; what asks for no limit waits so long, too
SHOWN_CODES: Final = frozenset({"kv_key_too_large", "kv_txn_too_large", "kv_txn_cross_shard", "kv_txn_unsupported_op"})
WAITS: Final = 1_024  # parked at a time on one connection

_log = logging.getLogger(__name__)

Send: TypeAlias = Callable[[bytes], None]
Operation: TypeAlias = Callable[["WireSession", "Store", Request], bytes | None]
"""Performs a request; returns the reply, None if it comes later. Raises what `execute` makes a reply of."""

Answer: TypeAlias = Callable[["WireSession", "Store", Request, Any], bytes | None]
"""The reply to a request that waited, from the result that it waited for."""


class Loads(Protocol):
    """What the session needs of Turns: bytes of a reply that are made in a thread, without the lock."""

    def load(self, link: Any, size: int, work: Callable[[], bytes]) -> None: ...


class Wait:
    """A parked request. Called with the result; cancelled when its connection closes."""

    __slots__ = ("answer", "if_missing", "parked", "request", "session", "store")

    def __init__(
        self, session: WireSession, store: Store, request: Request, answer: Answer, if_missing: bytes | None
    ) -> None:
        self.session = session
        self.store = store
        self.request = request
        self.answer = answer
        self.if_missing = if_missing
        self.parked: Parked | None = None

    def __call__(self, result: Any) -> None:
        session = self.session
        session.waits.pop(self, None)
        frame = session.answer_late(self.store, self, result)
        if frame is not None:
            session.send(frame)


class WireSession:
    """What the server keeps of one connection. `owner` stands for the connection: what is bound to it is let go
    with it, and Turns knows it as its link. `allowed`: the operations that it may ask for; None: all."""

    waits_max = WAITS

    def __init__(
        self, send: Send, owner: Hashable, turns: Loads, *, allowed: frozenset[int] | None = None
    ) -> None:  # fmt: skip
        self.send = send
        self.owner = owner
        self.turns = turns
        self.waits: dict[Wait, None] = {}
        self._allowed = allowed
        self._operations = operations()

    def execute(self, store: Store, request: Request) -> bytes | None:
        """The reply, or None if it comes later. Never raises but for a fault of ours."""
        operation = self._operations.get(request.opcode)
        if operation is None:
            return encode_reply(BAD_REQUEST, request.request_id, unknown(request.opcode).encode())
        if self._allowed is not None and request.opcode not in self._allowed:
            return encode_reply(UNAUTHORIZED, request.request_id, b"this operation is not offered to browsers")
        try:
            return operation(self, store, request)
        except (Refused, FloError) as error:
            return refuse(request, error)
        except (LayoutError, OptionError) as malformed:
            return refuse(request, Refused("bad_argument", f"malformed request: {malformed}"))

    def wait(self, store: Store, request: Request, answer: Answer, if_missing: bytes | None = None) -> Wait:
        """What a waiting operation of the store calls when it is done. `if_missing`: the body of an OK in place of a
        not_found. Raises Refused when too many wait."""
        if len(self.waits) >= self.waits_max:
            raise Refused("quota_exceeded", f"too many waits on one connection (max {self.waits_max})")
        return Wait(self, store, request, answer, if_missing)

    def parked(self, store: Store, wait: Wait) -> None:
        """The operation is parked: `wait` is called later."""
        wait.parked = store.last_parked
        self.waits[wait] = None

    def answer_late(self, store: Store, wait: Wait, result: Any) -> bytes | None:
        request = wait.request
        try:
            if isinstance(result, Refused | FloError):
                raise result
            return wait.answer(self, store, request, result)
        except (Refused, FloError) as error:
            if wait.if_missing is not None and isinstance(error, Refused) and error.kind == "not_found":
                return encode_reply(OK, request.request_id, wait.if_missing)
            return refuse(request, error)
        except Exception:  # noqa: BLE001  # raised further, it would break the memory that everybody shares
            _log.exception("the result of a wait could not be answered")
            return refuse(request, Refused("internal", "internal error"))

    def close(self, store: Store) -> None:
        """Ends the waits without handing them anything, and lets go what was bound to the connection."""
        for wait in self.waits:
            if wait.parked is not None:
                wait.parked.cancel()
        self.waits.clear()
        store.owner_gone(self.owner)


def refuse(request: Request, error: Refused | FloError) -> bytes:
    """The reply to what was refused: a status and a text, or more to a call of ours."""
    if isinstance(error, Refused):
        kind, message, details = error.kind, error.message, error.details
    else:
        kind, message, details = error.code, str(error), None
    code = details["code"] if isinstance(details, dict) and "code" in details else kind
    if request.opcode == CALL:
        body = encode(Refusal(message, code, details))
    else:
        shown = f"{code}: {message}" if code in SHOWN_CODES and not message.startswith(code) else message
        body = shown.encode("utf-8", "replace")
    return encode_reply(status_of(kind, details), request.request_id, body)


def wait_ms(request: Request, tag: int = BLOCK_MS, cap: int = WAIT_MS) -> int | None:
    """How long the request waits at most; None: not at all. 0 stands for no limit, and waits up to the cap."""
    options = request.options
    if tag not in options:
        return None
    return min(integer(options, tag, 0) or cap, cap)


def operations() -> dict[int, Operation]:
    """All operations by their opcodes."""
    if not _operations:
        from flo.server import calls
        from flo.server.operations import group, kv, queue, stream, system

        for module in (system, kv, queue, stream, group, calls):
            _operations.update(module.OPERATIONS)
    return _operations


_operations: dict[int, Operation] = {}
