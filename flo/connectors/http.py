"""The `http` connector. Each action sends its request at most once; only redirects make further ones.

What is built so that nothing reaches a server twice: no retries in the transport, a connection that was
idle longer than KEEP_ALIVE_S is not used again (it may be closed at the other end just now), and one that
turns out dead fails the action instead of sending anew. httpx is imported when the first job needs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from flo.connectors._http_connections import Connections
from flo.connectors._http_request import Request, parse, place_of
from flo.connectors._http_response import headers_of, read_body, value_of
from flo.connectors.contract import Connector, ConnectorContext, ConnectorError, Job, SecretSource

if TYPE_CHECKING:
    import httpx

SLOTS = 256


class HttpConnector(Connector):
    """`http.get`, `http.post` … `proxy` is the URL of one to use for everything (the environment's are ignored);
    `hosts` are patterns such as `*.example.com` that requests may go to, None for all."""

    kinds = tuple(f"http.{m}" for m in ("get", "post", "put", "patch", "delete", "request", "head", "options"))
    slots = SLOTS

    def __init__(self, *, proxy: str | None = None, hosts: Sequence[str] | None = None) -> None:
        self._connections = Connections(proxy=proxy)
        self._hosts = hosts
        self._secrets: SecretSource | None = None

    async def open(self, context: ConnectorContext) -> None:
        self._secrets = context.secrets
        import httpx  # noqa: F401 - here, where the host may open us ahead of the first job

    async def close(self) -> None:
        await self._connections.close()

    async def perform(self, job: Job) -> Any:
        import asyncio

        assert self._secrets is not None
        request = parse(job.kind, job.input, self._secrets.get)
        place = request.place
        try:
            async with asyncio.timeout(request.timeout_ms / 1_000):
                return await self._exchange(request)
        except TimeoutError:
            raise ConnectorError(
                "timeout", f"{place} gave no whole answer within {request.timeout_ms:,} ms", retryable=True
            ) from None

    async def _exchange(self, request: Request) -> dict[str, Any]:
        """Sends the request and those that redirects ask for."""
        assert self._secrets is not None
        first, follow = request, request.redirects > 0
        for _ in range(request.redirects + 1):
            self._admit(request)
            try:
                async with self._connections.use(request.url) as transport:
                    response = await transport.handle_async_request(_sendable(request))
                    try:
                        headers = headers_of(response.headers.raw)
                        status, location = response.status_code, headers.get("location", "")
                        following = request.redirected(status, location) if follow else None
                        if following is None:
                            has_body = request.method != "HEAD" and status not in (204, 304)
                            stream = response.stream
                            assert isinstance(stream, AsyncIterable)
                            body = await read_body(stream, headers, has_body=has_body, place=request.place)
                            return value_of(status, headers, body, self._secrets.mask_bytes)
                    finally:
                        await response.aclose()
            except ConnectorError:
                raise
            except Exception as bad:  # noqa: BLE001 - httpx, anyio, ssl and the system each have their own
                raise _trouble(request, bad) from None
            request = following
        raise ConnectorError("connector", f"{first.place} was redirected more than {first.redirects} times")

    def _admit(self, request: Request) -> None:
        if self._hosts is not None and not any(fnmatchcase(request.url.host, pattern) for pattern in self._hosts):
            raise ConnectorError("bad_argument", f"{request.place}: requests to this host are not allowed")


def connectors() -> Iterable[Connector]:
    """The factory that the registry calls."""
    return (HttpConnector(),)


def _sendable(request: Request) -> httpx.Request:
    # No httpx.Client: it would keep cookies, and so carry something from one run to another.
    import httpx

    url = request.url.copy_with(username=None, password=None) if request.url.userinfo else request.url
    return httpx.Request(request.method, url, headers=request.raw_headers(), content=request.body)


def _trouble(request: Request, error: Exception) -> ConnectorError:
    """What went wrong in transport, in the words of the system where it has some."""
    import httpx

    connecting = isinstance(error, (httpx.ConnectError, httpx.ProxyError))
    reason = _system_reason(error) or str(error).strip().rstrip(".") or type(error).__name__
    what = "cannot connect: " if connecting else ""
    if isinstance(error, httpx.RemoteProtocolError):
        reason = reason[:1].lower() + reason[1:]
    details = {"host": place_of(request.url), "phase": "connect" if connecting else "exchange"}
    return ConnectorError("connector", f"{request.place}: {what}{reason}", retryable=True, details=details)


def _system_reason(error: BaseException) -> str:
    """The text of the first error of the system or of TLS among an error's causes."""
    import ssl

    todo: list[BaseException] = [error]
    for _ in range(20):
        if not todo:
            break
        one = todo.pop(0)
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return f"TLS failed: {one.reason or one}"
        if isinstance(one, OSError) and one.strerror:
            return one.strerror[:1].lower() + one.strerror[1:]
        if isinstance(one, BaseExceptionGroup):
            todo.extend(one.exceptions)
        todo.extend(cause for cause in (one.__cause__, one.__context__) if cause is not None)
    return ""
