"""The Redis protocol on a connection: requests in, replies in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flo.grid.store import Store
from flo.log.errors import FloError
from flo.primitives.machine import Refused
from flo.server.link import TOO_MUCH
from flo.server.resp.client import Client
from flo.server.resp.commands import find, spelled
from flo.server.resp.parser import RequestParser
from flo.server.resp.replies import Reject, error, failure, refusal, shown, wrong_count

if TYPE_CHECKING:
    from flo.server.link import ClientLink


class RespSpeaker:
    __slots__ = ("_arrived", "_client", "_link", "_parser", "_turns")

    def __init__(self, link: ClientLink) -> None:
        self._link = link
        self._turns = link.turns
        self._parser = RequestParser()
        self._client = Client(link)
        self._arrived = 0  # bytes of what is not submitted yet

    def feed(self, data: bytes) -> None:
        parser = self._parser
        self._arrived += len(data)
        commands = parser.feed(data)
        if commands:
            self._turns.submit_many(self._link, commands, self._arrived)
            self._arrived = 0
        if parser.error:
            self._link.finish(error(f"Protocol error: {parser.error}"))
        elif not self._link.keeps(parser.held):
            self._link.finish(error(TOO_MUCH, "BUSY"))

    def execute(self, store: Store, request: Any) -> bytes | None:
        args: list[bytes] = request
        command = spelled.get(args[0])
        if command is None:
            command = find(args[0])
            if command is None:
                return error(f"unknown command '{shown(args[0])}'")
        if not command.least <= len(args) <= command.most:
            return wrong_count(command.name)
        try:
            return command.handler(self._client, store, args)
        except Refused as refused:
            return refusal(refused)
        except Reject as reject:
            return reject.reply
        except FloError as fault:
            return failure(fault)

    def refuse(self, request: Any, error: FloError) -> bytes:
        return failure(error)

    def closed(self) -> None:
        self._client.closed()
