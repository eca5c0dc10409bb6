"""Where a server listens: `host:port`, `[v6]:port`, with or without `flo://` in front."""

from __future__ import annotations

from typing import NamedTuple

from flo.client.sdk_errors import InvalidEndpointError

HINT = "host:port, like localhost:9000"


class Endpoint(NamedTuple):
    """An address of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Raises InvalidEndpointError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        rest = text
    elif scheme == "flos":
        raise InvalidEndpointError(f"{text!r}: encrypted connections (flos://) are not supported", hint="flo://…")
    elif scheme != "flo":
        raise InvalidEndpointError(f"{text!r} is no endpoint of Flo", hint=HINT)
    host, colon, port = rest.rstrip("/").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidEndpointError(f"{text!r}: an IPv6 address stands in brackets", hint="[::1]:9000")
    if not colon or not host or any(c in host for c in "/@ []"):
        raise InvalidEndpointError(f"{text!r} is no endpoint: {'no host' if colon else 'no port'}", hint=HINT)
    if not port.isascii() or not port.isdigit() or not 1 <= int(port[:9]) <= 65_535:
        raise InvalidEndpointError(f"{text!r}: a port is 1..65535, not {port!r}", hint=HINT)
    return Endpoint(host, int(port))
