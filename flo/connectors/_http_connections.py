"""Connections that are kept between requests. Each is used by one exchange at a time.

Every connection has a transport of its own: httpx's pool looks at all its connections twice for each
request, which at a hundred of them takes longer than the request. The bounds are the same as a pool's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import ssl

    import httpx

KEEP_ALIVE_S = 2.0  # servers keep idle connections for five seconds and more
IDLE_CONNECTIONS = 64

Origin: TypeAlias = tuple[str, str, int | None]


class Connections:
    def __init__(self, *, proxy: str | None = None) -> None:
        self._proxy = proxy
        self._tls: dict[str, ssl.SSLContext] = {}
        self._idle: OrderedDict[httpx.AsyncHTTPTransport, Origin] = OrderedDict()  # longest idle first
        self._by_origin: dict[Origin, list[httpx.AsyncHTTPTransport]] = {}

    @asynccontextmanager
    async def use(self, url: httpx.URL) -> AsyncIterator[httpx.AsyncHTTPTransport]:
        """A transport for one exchange with the URL's host. After an error it is closed, never used again."""
        origin = (url.scheme, url.host, url.port)
        kept = self._by_origin.get(origin)
        if kept:
            transport = kept.pop()
            del self._idle[transport]
            if not kept:
                del self._by_origin[origin]
        else:
            transport = self._make(url.scheme)
        try:
            yield transport
        except BaseException:
            await transport.aclose()
            raise
        self._idle[transport] = origin
        self._by_origin.setdefault(origin, []).append(transport)
        if len(self._idle) > IDLE_CONNECTIONS:
            oldest, its = self._idle.popitem(last=False)
            self._by_origin[its].remove(oldest)
            if not self._by_origin[its]:
                del self._by_origin[its]
            await oldest.aclose()

    async def close(self) -> None:
        idle, self._idle = self._idle, OrderedDict()
        self._by_origin.clear()
        for transport in idle:
            await transport.aclose()

    def _make(self, scheme: str) -> httpx.AsyncHTTPTransport:
        import httpx

        return httpx.AsyncHTTPTransport(
            verify=self._context(scheme),
            http1=True,
            http2=False,
            retries=0,
            proxy=self._proxy,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S),
        )

    def _context(self, scheme: str) -> ssl.SSLContext:
        """Loading the certificates takes 20 ms, which plain HTTP need not pay."""
        found = self._tls.get(scheme)
        if found is None:
            import ssl

            import httpx

            plain = scheme == "http" and self._proxy is None
            found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else httpx.create_ssl_context()
            self._tls[scheme] = found
        return found
