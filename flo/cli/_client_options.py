"""Options of the commands that talk to a server, and what they come to: flag, environment, context, default.

They stand before the command words or after them. A command whose own option has a name of these keeps the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from flo.cli import _contexts, _options, _values

OUTPUTS: Final = {"table": "text", "text": "text", "json": "json", "raw": "raw"}
PORT_DEFAULT: Final = 9_000
HOST_DEFAULT: Final = "127.0.0.1"
TIMEOUT_DEFAULT_MS: Final = 30_000
TIMEOUT_MAX_MS: Final = 24 * 3_600_000
PORT_MAX: Final = 65_535

_META: Final = "flo.client."


class Settings(NamedTuple):
    """Where a command finds its server and how it asks. `namespace_from` and `endpoint_from` say who decided."""

    endpoint: str
    endpoint_from: str
    namespace: str
    namespace_from: str
    timeout_ms: int  # of one request, its own wait not counted
    verbose: bool


class SharedOption(TyperOption):
    """An option that all of these commands have; its value lies in the context's meta."""


class ClientCommand(TyperCommand):
    """A command with the shared options."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        add_to(self)


class ClientGroup(_options.Group):
    """A group whose commands have the shared options."""

    asks_a_server: ClassVar[bool] = True

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            if not isinstance(command, TyperGroup):
                add_to(command, output_only=not self.asks_a_server)


def client_group(aliases: Mapping[str, str] | None = None, *, asks_a_server: bool = True) -> typer.Typer:
    """A group of commands with the shared options; if they ask no server, with those for output alone. `aliases`:
    further names of its commands."""
    kind = type("Group", (ClientGroup,), {"aliases": aliases or {}, "asks_a_server": asks_a_server})
    return _options.command_group(cls=kind, no_args_is_help=True)


def add_to(command: Any, *, output_only: bool = False) -> None:
    """Gives a command the shared options under those of their names that it does not use itself."""
    used = {name for param in command.params for name in param.opts}
    for names, attributes in _OUTPUT_OPTIONS if output_only else _OPTIONS:
        free = [name for name in names if name not in used]
        if free:
            command.params.append(SharedOption(param_decls=free, expose_value=False, **attributes))


def output(ctx: typer.Context) -> str:
    """`text`, `json` or `raw`."""
    return OUTPUTS[ctx.meta.get(_options.FORMAT, "text")]


def settings(ctx: typer.Context) -> Settings:
    """What flags, environment and the current context say. Raises typer.BadParameter for what cannot be used."""
    endpoint, endpoint_from = _endpoint(ctx)
    namespace, namespace_from = _first(
        ("--namespace", ctx.meta.get(_META + "namespace")),
        ("FLO_NAMESPACE", os.environ.get("FLO_NAMESPACE")),
        ("the context", lambda: _contexts.current().namespace),
        ("the default", "default"),
    )
    return Settings(
        endpoint=endpoint,
        endpoint_from=endpoint_from,
        namespace=namespace,
        namespace_from=namespace_from,
        timeout_ms=ctx.meta.get(_META + "timeout", TIMEOUT_DEFAULT_MS),
        verbose=ctx.meta.get(_META + "verbose", False),
    )


def endpoint_text(option: str, text: str, port: int = PORT_DEFAULT) -> str:
    """`host:port` of `host[:port]`, which may be in brackets. Raises typer.BadParameter naming the option."""
    from flo.client.endpoint import parse_endpoint
    from flo.client.sdk_errors import InvalidEndpointError

    scheme, separator, rest = text.rpartition("://")
    whole = rest.rstrip("/")
    if whole.endswith("]") or ":" not in whole:
        whole = f"{whole}:{port}"
    try:
        return str(parse_endpoint(scheme + separator + whole))
    except InvalidEndpointError as error:
        raise typer.BadParameter(error.message, param_hint=option) from None


def _endpoint(ctx: typer.Context) -> tuple[str, str]:
    endpoint, port = ctx.meta.get(_META + "endpoint"), ctx.meta.get(_META + "port")
    if endpoint is not None:
        return endpoint_text("--endpoint", endpoint, port or PORT_DEFAULT), "--endpoint"
    if port is not None:
        return f"{HOST_DEFAULT}:{port}", "--port"
    if text := os.environ.get("FLO_ENDPOINT"):
        return endpoint_text("FLO_ENDPOINT", text), "FLO_ENDPOINT"
    if text := os.environ.get("FLO_PORT"):
        return f"{HOST_DEFAULT}:{_port_number('FLO_PORT', text)}", "FLO_PORT"
    if text := _contexts.current().endpoint:
        return endpoint_text("the context", text), "the context"
    return f"{HOST_DEFAULT}:{PORT_DEFAULT}", "the default"


def _first(*sources: tuple[str, str | Callable[[], str] | None]) -> tuple[str, str]:
    """The first value that is there, and who gave it."""
    for name, source in sources:
        value = source() if callable(source) else source
        if value:
            return value, name
    raise AssertionError("the last source always has a value")


def _port_number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PORT_MAX):
        raise typer.BadParameter(f"a port is 1..{PORT_MAX}, not {text!r}", param_hint=option)
    return int(text)


# What the options do when they are given. The last one counts, and one after the command words comes last.


def _take_output(ctx: typer.Context, param: Any, value: str | None) -> None:
    if value is not None:
        if value not in OUTPUTS:
            raise typer.BadParameter(f"{value!r} is none of table, json, raw", param_hint="--output")
        ctx.meta[_options.FORMAT] = value


def _take_json(ctx: typer.Context, param: Any, value: bool | None) -> None:
    if value:
        ctx.meta[_options.FORMAT] = "json"


def _take_endpoint(ctx: typer.Context, param: Any, value: str | None) -> None:
    if value is not None:
        endpoint_text("--endpoint", value)
        ctx.meta[_META + "endpoint"] = value


def _take_port(ctx: typer.Context, param: Any, value: str | None) -> None:
    if value is not None:
        ctx.meta[_META + "port"] = _port_number("--port", value)


def _take_namespace(ctx: typer.Context, param: Any, value: str | None) -> None:
    if value is not None:
        if not value:
            raise typer.BadParameter("needs a name", param_hint="--namespace")
        ctx.meta[_META + "namespace"] = value


def _take_timeout(ctx: typer.Context, param: Any, value: str | None) -> None:
    if value is not None:
        ms = _values.span_ms("--timeout", value, unit_ms=1, most_ms=TIMEOUT_MAX_MS)
        if ms == 0:
            raise typer.BadParameter("needs more than 0", param_hint="--timeout")
        ctx.meta[_META + "timeout"] = ms


def _take_verbose(ctx: typer.Context, param: Any, value: bool | None) -> None:
    if value:
        ctx.meta[_META + "verbose"] = True


_Shared: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]  # names, attributes

_OUTPUT_OPTIONS: Final[tuple[_Shared, ...]] = (
    (("--output", "-o", "--format"), {
        "metavar": "table|json|raw", "callback": _take_output,
        "help": "Tables for people (the default), JSON for programs, or bare values.",
    }),
    (("--json", "-j"), {"is_flag": True, "callback": _take_json, "help": "The same as --output json."}),
)  # fmt: skip

_OPTIONS: Final[tuple[_Shared, ...]] = (
    (("--endpoint", "-e", "--host"), {
        "metavar": "HOST[:PORT]", "callback": _take_endpoint,
        "help": "The server; else --port, FLO_ENDPOINT, FLO_PORT, the context, 127.0.0.1:9000.",
    }),
    (("--port", "-p"), {
        "metavar": "N", "callback": _take_port, "help": "The server's port, on this machine without --endpoint.",
    }),
    (("--namespace", "-n"), {
        "metavar": "NS", "callback": _take_namespace,
        "help": "Whose keys, queues and streams; else FLO_NAMESPACE, the context, default.",
    }),
    *_OUTPUT_OPTIONS,
    (("--timeout",), {
        "metavar": "MS", "callback": _take_timeout,
        "help": "How long a request may take, its own wait not counted; 30000 by default.",
    }),
    (("--api-key",), {"metavar": "KEY", "help": "For servers that ask for a key; those of this release do not."}),
    (("--verbose", "-v", "--debug"), {
        "is_flag": True, "callback": _take_verbose, "help": "Say on stderr whom the command asks, and for what.",
    }),
)  # fmt: skip
