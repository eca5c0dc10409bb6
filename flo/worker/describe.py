"""What a bundle's flows declare, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from flo.api.errors import BadArgument, NotFound, ScriptError
from flo.api.flows import FlowOptions
from flo.worker.bundle import Bundle
from flo.worker.dialect import on_large_stack
from flo.worker.errors import explain
from flo.worker.host import entered
from flo.worker.modules import Flow, Loaded, LoadFailed, Outside, shared
from flo.worker.strand import check, describe_flow
from flo.worker.values import decode, encode

T = TypeVar("T")


class ArgSpec(msgspec.Struct, frozen=True):
    """One declared argument."""

    type: str  # string, int, float, bool, list, dict, any
    required: bool
    default: Any = None
    doc: str = ""


class FlowSpec(msgspec.Struct, frozen=True):
    """What `flow(…)` declares."""

    symbol: str  # "label::name"
    args: dict[str, ArgSpec]
    options: FlowOptions

    @property
    def options_json(self) -> str:
        """The options as StartRequest takes them."""
        return encode(self.options)


def describe(bundle: Bundle, symbol: str) -> FlowSpec:
    """The declarations of a flow, by name in the entry script or as "label::name".

    Raises NotFound, or ScriptError when the script fails before it has bound the flow.
    """
    loaded = _load(bundle)
    flow = _flow(loaded, symbol)
    found = _outside(lambda: describe_flow(flow))
    return FlowSpec(flow.symbol, msgspec.convert(found["args"], dict[str, ArgSpec]),
                    msgspec.convert(found["options"], FlowOptions))  # fmt: skip


def list_flows(bundle: Bundle) -> list[str]:
    """The names of the entry script's flows, in the order of its text."""
    return _load(bundle).flows_of_entry()


def check_args(bundle: Bundle, symbol: str, args: str) -> str:
    """The JSON object of the arguments with defaults filled in. Raises BadArgument, which names the argument."""
    flow = _flow(_load(bundle), symbol)
    try:
        given = decode(args)
    except (ValueError, RecursionError) as error:
        raise BadArgument(f"the arguments are not JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadArgument("the arguments are not a JSON object")
    found = _outside(lambda: check(flow, args))
    if found[0] == "-":
        raise BadArgument(found[1:])
    return found[1:]


def _load(bundle: Bundle) -> Loaded:
    def load() -> Loaded:
        try:
            return shared.get(bundle.digest, lambda _: bundle)
        except LoadFailed as failed:
            raise _script_error(failed, bundle.scripts) from None

    return load() if shared.has(bundle.digest) else on_large_stack(load)


def _flow(loaded: Loaded, symbol: str) -> Flow:
    flow = loaded.by_symbol.get(symbol if "::" in symbol else f"{loaded.entry}::{symbol}")
    if flow is not None:
        return flow
    if loaded.error is not None:
        raise _script_error(loaded.error, loaded.sources)
    names = loaded.flows_of_entry()
    raise NotFound(
        f"{loaded.entry} has no flow {symbol.rpartition('::')[2]}",
        hint=f"it has {', '.join(names)}" if names else "it has no flow that is bound to a top-level name",
    )


def _script_error(failed: LoadFailed, sources: Mapping[str, str]) -> ScriptError:
    failure = {"kind": failed.kind, "message": failed.message} if failed.kind else None
    error = decode(explain(str(failed), failure, sources)[1:])
    return ScriptError(f"{error['where']}: {error['message']}", where=error["where"] or "")


def _outside(ask: Callable[[], T]) -> T:
    with entered(Outside()):
        return ask()
