"""HTTP for machines that look after the server: a few pages, GET and HEAD, one reply for each connection.

A client that sends nothing, or reads nothing, is dropped and delays nobody.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias

from flo.server.listener import port_unusable

HEAD_BYTES: Final = 8_192  # of a request
REQUEST_SECONDS: Final = 5.0  # for a request to arrive
REPLY_SECONDS: Final = 10.0  # for a reply to be read
CONNECTIONS: Final = 256  # at a time

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    status: int
    body: bytes
    type: str = "application/json; charset=utf-8"


Answer: TypeAlias = Callable[[], "Page | Awaitable[Page]"]


def json_page(status: int, value: object) -> Page:
    return Page(status, json.dumps(value).encode())


class HttpPort:
    """Answers the paths of `pages`, on one port."""

    def __init__(self, pages: Mapping[str, Answer]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self, bind: str, port: int) -> tuple[str, int]:
        """Listens; returns address and port. Raises PortUnusable."""
        try:
            self._server = await asyncio.start_server(self._accept, bind, port, limit=HEAD_BYTES)
        except (OSError, OverflowError) as error:
            raise port_unusable(bind, port, error) from error
        host, opened = self._server.sockets[0].getsockname()[:2]
        return str(host), int(opened)

    async def close(self) -> None:
        """Answers what was asked, and stops."""
        if self._server is not None:
            self._server.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=1.0)
        for task in self._serving:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            if len(self._serving) <= CONNECTIONS:
                await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _log.debug("a request of HTTP was not answered: %s", error)
        finally:
            self._serving.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        method, path = _request_line(head)
        page, extra = await self._page(method, path)
        reason = HTTPStatus(page.status).phrase
        headers = (
            f"HTTP/1.1 {page.status} {reason}\r\nContent-Type: {page.type}\r\nContent-Length: {len(page.body)}\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n"
            f"Content-Security-Policy: frame-ancestors 'none'\r\n{extra}Connection: close\r\n\r\n"
        )
        writer.write(headers.encode() + (b"" if method == "HEAD" else page.body))
        async with asyncio.timeout(REPLY_SECONDS):
            await writer.drain()

    async def _page(self, method: str, path: str) -> tuple[Page, str]:
        if not method:
            return json_page(400, {"error": "no request of HTTP"}), ""
        answer = self._pages.get(path)
        if answer is None:
            return json_page(404, {"error": f"there is no {path}"}), ""
        if method not in ("GET", "HEAD"):
            return json_page(405, {"error": f"{path} is only read"}), "Allow: GET, HEAD\r\n"
        page = answer()
        return (await page if inspect.isawaitable(page) else page), ""


def _request_line(head: bytes) -> tuple[str, str]:
    """Method and path without a query; "" for what is no request."""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return "", ""
    return words[0], words[1].partition("?")[0]
