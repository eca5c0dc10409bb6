"""From an action's parameters to a request that can be sent. What is wrong is refused here, before anything is sent."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from flo.api.limits import HTTP_REDIRECTS, HTTP_TIMEOUT_MS
from flo.connectors.contract import ConnectorError

if TYPE_CHECKING:
    import httpx

TIMEOUT_MAX_MS = 24 * 3_600 * 1_000

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SET_BY_US = frozenset({"content-length", "transfer-encoding"})
_FOR_ONE_HOST = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
_OF_THE_BODY = frozenset({"content-type", "content-encoding", "content-language", "content-location"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_encode = msgspec.json.Encoder().encode


class Header:
    """One header. `secret` marks a value that holds a secret, so it has no repr."""

    __slots__ = ("name", "value", "secret")

    def __init__(self, name: str, value: str, *, secret: bool = False) -> None:
        self.name = name
        self.value = value
        self.secret = secret


class Request:
    """A checked request with its secrets inserted. It lives only while its job is performed."""

    __slots__ = ("method", "url", "headers", "body", "secret_body", "timeout_ms", "redirects")

    def __init__(
        self,
        *,
        method: str,
        url: httpx.URL,
        headers: list[Header],
        body: bytes | None,
        secret_body: bool,
        timeout_ms: int,
        redirects: int,
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.secret_body = secret_body
        self.timeout_ms = timeout_ms
        self.redirects = redirects  # how many may still be followed

    @property
    def place(self) -> str:
        """Method and host, for messages: the path and the user name may hold what is nobody's business."""
        return f"{self.method} {place_of(self.url)}"

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        return [(header.name.encode(), header.value.encode()) for header in self.headers]

    def redirected(self, status: int, location: str) -> Request | None:
        """The request that follows a redirect; None when this answer is none. Secrets stay with their host."""
        if status not in _REDIRECTS or not location:
            return None
        url = _parse_url(location, relative_to=self.url)
        method, body, headers = self.method, self.body, self.headers
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = [header for header in headers if header.name.lower() not in _OF_THE_BODY]
        if not _same_host(self.url, url):
            headers = [h for h in headers if not h.secret and h.name.lower() not in _FOR_ONE_HOST]
            if body is not None and self.secret_body:
                raise ConnectorError(
                    "connector",
                    f"{self.place} redirects to {place_of(url)}: a secret body is not sent on to another host",
                )
        return Request(
            method=method, url=url, headers=headers, body=body, secret_body=self.secret_body and body is not None,
            timeout_ms=self.timeout_ms, redirects=self.redirects - 1,
        )  # fmt: skip


def parse(kind: str, given: Any, secret: Callable[[str], str]) -> Request:
    """Checks the parameters of a job and inserts its secrets, which `secret` looks up by name. Raises
    ConnectorError `bad_argument`, or whatever `secret` raises."""
    if not isinstance(given, dict):
        raise _bad(f"{kind} takes an object of parameters")
    method = given.get("method", "GET") if kind == "http.request" else kind.removeprefix("http.").upper()
    if not isinstance(method, str) or not _TOKEN.fullmatch(method) or method.upper() == "CONNECT":
        raise _bad(f"{method!r:.40} is not a method")
    url = _parse_url(given.get("url"))
    headers = _headers(given.get("headers"))
    body, media_type = _body(given)
    if (hidden := given.get("secret_body")) is not None:
        if body is not None:
            raise _bad("a request has one body: json, body or secret_body")
        parts = ["{}", hidden] if isinstance(hidden, str) else hidden
        body, media_type = _filled("secret_body", parts, secret).encode(), "text/plain; charset=utf-8"
    headers += _secret_headers(given.get("secret_headers"), secret)
    named = {header.name.lower() for header in headers}
    if url.userinfo and "authorization" not in named:
        user, _, password = url.userinfo.decode().partition(":")
        basic = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        headers.append(Header("Authorization", f"Basic {basic}"))
    defaults = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "User-Agent": "flo"}
    if media_type is not None:
        defaults["Content-Type"] = media_type
    headers += [Header(name, value) for name, value in defaults.items() if name.lower() not in named]
    return Request(
        method=method.upper(), url=url, headers=headers, body=body, secret_body=given.get("secret_body") is not None,
        timeout_ms=_timeout(given.get("timeout")), redirects=_redirects(given.get("redirects")),
    )  # fmt: skip


def place_of(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return host if url.port is None else f"{host}:{url.port}"


def _parse_url(text: Any, *, relative_to: httpx.URL | None = None) -> httpx.URL:
    import httpx

    what = "url" if relative_to is None else f"{place_of(relative_to)} redirects wrongly: its location"
    kind = "bad_argument" if relative_to is None else "connector"
    if not isinstance(text, str) or not text:
        raise _bad("url is missing: a text that begins with http:// or https://")
    try:
        url = httpx.URL(text) if relative_to is None else relative_to.join(text)
        port, host = url.port, url.host
    except (httpx.InvalidURL, ValueError) as bad:
        raise ConnectorError(kind, f"{what} is malformed: {str(bad)[:200]}") from None
    if url.scheme not in ("http", "https"):
        instead = f", not with {url.scheme[:40]}:" if url.scheme else ""
        raise ConnectorError(kind, f"{what} must begin with http:// or https://{instead}")
    if not host:
        raise ConnectorError(kind, f"{what} names no host")
    if port is not None and not 0 < port < 65_536:
        raise ConnectorError(kind, f"{what} has the port {port}, which does not exist")
    return url


def _same_host(one: httpx.URL, other: httpx.URL) -> bool:
    """Same host, port and scheme, or the step from http to https on the standard ports."""
    if one.host != other.host:
        return False
    if one.scheme == other.scheme:
        return _port(one) == _port(other)
    return one.scheme == "http" and _port(one) == 80 and _port(other) == 443


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _headers(given: Any) -> list[Header]:
    if given is None:
        return []
    if not isinstance(given, dict):
        raise _bad("headers must be an object of texts")
    headers: list[Header] = []
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and not isinstance(one, bool):
                one = str(one)
            if not isinstance(one, str):
                raise _bad(f"header {name!r:.80} must be a text, not {type(one).__name__}")
            headers.append(_header(name, one))
    return headers


def _secret_headers(given: Any, secret: Callable[[str], str]) -> list[Header]:
    if given is None:
        return []
    if not isinstance(given, dict):
        raise _bad("secret_headers must be an object")
    headers: list[Header] = []
    for name, parts in given.items():
        text = _filled(f"secret header {name!r:.80}", parts, secret)
        headers.append(_header(name, text, secrets=parts[1:]))
    return headers


def _filled(what: str, parts: Any, secret: Callable[[str], str]) -> str:
    """The template at the front of `parts`, with each `{}` replaced by the secret whose name follows."""
    if not isinstance(parts, list) or len(parts) < 2 or not all(isinstance(part, str) for part in parts):
        raise _bad(f"{what} must be a template and the names of its secrets")
    pieces = parts[0].split("{}")
    if len(pieces) != len(parts):
        raise _bad(f"{what} must have one {{}} for each secret")
    values = [secret(part) for part in parts[1:]]
    return str(pieces[0]) + "".join(value + piece for value, piece in zip(values, pieces[1:], strict=True))


def _header(name: str, value: str, *, secrets: list[str] | None = None) -> Header:
    if not _TOKEN.fullmatch(name):
        raise _bad(f"{name!r:.80} is not a header's name")
    if name.lower() in _SET_BY_US:
        raise _bad(f"header {name} follows from the body and cannot be given")
    if _BAD_IN_VALUE.search(value):
        whose = f"with secret {', '.join(secrets)} " if secrets else ""
        raise _bad(f"header {name} {whose}holds a line break or another control character")
    return Header(name, value.strip(" \t"), secret=secrets is not None)


def _body(given: dict[str, Any]) -> tuple[bytes | None, str | None]:
    """The body and its media type. `json` may be null, which is JSON too; a `body` of null is none."""
    text = given.get("body")
    if "json" in given:
        if text is not None:
            raise _bad("a request has one body: json, body or secret_body")
        return _encode(given["json"]), "application/json"
    if text is None:
        return None, None
    return _text("body", text).encode(), "text/plain; charset=utf-8"


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(f"{name} must be a text, not {type(value).__name__}")
    return value


def _timeout(given: Any) -> int:
    if given is None:
        return HTTP_TIMEOUT_MS
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= TIMEOUT_MAX_MS:
        raise _bad(f"timeout must be between 1 ms and {TIMEOUT_MAX_MS} ms, not {given!r:.40}")
    return max(1, int(given))


def _redirects(given: Any) -> int:
    if given is None or given is True:
        return HTTP_REDIRECTS
    if given is False:
        return 0
    if not isinstance(given, int) or not 0 <= given <= HTTP_REDIRECTS:
        raise _bad(f"redirects must be between 0 and {HTTP_REDIRECTS}, not {given!r:.40}")
    return given


def _bad(message: str) -> ConnectorError:
    return ConnectorError("bad_argument", message)
