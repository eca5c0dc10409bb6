"""One connection as commands see it: its namespace, its protocol, its waits; and what all connections share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from flo.grid.waiters import Parked
from flo.log.errors import FloError
from flo.primitives.kv_rules import DEFAULT_NAMESPACE
from flo.primitives.machine import Refused
from flo.server.resp.cursors import Cursors
from flo.server.resp.replies import NIL_2, NIL_3, NIL_ARRAY_2, failure, refusal

if TYPE_CHECKING:
    from flo.server.link import ClientLink
    from flo.server.turns import Turns


class Shared:
    """What the connections of one server have in common."""

    def __init__(self) -> None:
        self.cursors = Cursors()
        self.clients: dict[int, Client] = {}
        self.last_id = 0


_shared: Final[WeakKeyDictionary[Turns, Shared]] = WeakKeyDictionary()


def shared_of(turns: Turns) -> Shared:
    found = _shared.get(turns)
    if found is None:
        found = _shared[turns] = Shared()
    return found


class Client:
    __slots__ = (
        "id", "library", "library_version", "link", "name", "nil", "nil_array", "ns", "protocol", "shared", "turns",
        "_empty", "_parked",
    )  # fmt: skip

    def __init__(self, link: ClientLink) -> None:
        self.link = link
        self.turns = link.turns
        self.shared = shared_of(link.turns)
        self.shared.last_id += 1
        self.id = self.shared.last_id
        self.shared.clients[self.id] = self
        self.library = b""
        self.library_version = b""
        self._parked: list[Parked] = []  # what it waits in, when it waits
        self._empty = b""
        self.reset()

    def reset(self) -> None:
        self.ns = DEFAULT_NAMESPACE
        self.name = b""
        self.speak(2)

    def speak(self, protocol: int) -> None:
        self.protocol = protocol
        self.nil = NIL_3 if protocol == 3 else NIL_2
        self.nil_array = NIL_3 if protocol == 3 else NIL_ARRAY_2

    # -- replies that come later; the connection's next commands wait for them

    def wait_for(self, parked: Sequence[Parked | None], empty: bytes) -> None:
        """The command waits, in all these places: its reply comes by `answer`, or is `empty` when the connection ends
        before."""
        for one in parked:
            assert one is not None
            self._parked.append(one)
        self._empty = empty
        self.turns.hold(self.link)

    def answer(self, data: bytes) -> None:
        """The reply that was waited for. With the lock held, in any thread."""
        self.leave()
        self.turns.reply(self.link, data)

    def load(self, size: int, work: Callable[[], bytes]) -> None:
        """The reply is what `work` returns, about `size` bytes; it runs in a thread, without the lock."""

        def guarded() -> bytes:
            try:
                return work()
            except Refused as refused:
                return refusal(refused)
            except FloError as fault:
                return failure(fault)

        self.turns.hold(self.link, loads=True)
        self.turns.load(self.link, size, guarded)

    def leave(self) -> None:
        """Waits no longer, wherever it did. With the lock held."""
        parked, self._parked = self._parked, []
        for one in parked:
            one.cancel()

    def closed(self) -> None:
        """Nothing more comes from this connection: nobody must take a message for it any more. With the lock held."""
        self.shared.clients.pop(self.id, None)
        if self._parked:
            self.answer(self._empty)
