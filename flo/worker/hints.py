"""What to say to somebody who used a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable

from flo.worker.prelude_files import PRELUDE

BUILTINS = frozenset(
    "abs all any bool chr dict dir enum enumerate fail filter float getattr hasattr hash int isinstance len list map "
    "max min ord partial print range record repr reversed sorted str struct tuple type typing zip "
    "True False None".split()
)
# Python's names that scripts miss most, and what takes their place.
_INSTEAD = {
    "set": "use a dict with True as values, or a list",
    "frozenset": "use a dict with True as values, or a list",
    "bytes": "binary data crosses as base64 text",
    "bytearray": "binary data crosses as base64 text",
    "sum": "add in a loop",
    "round": "use int(x + 0.5)",
    "pow": "multiply in a loop",
    "open": "scripts have no files; resources and actions reach the outside",
    "eval": "scripts cannot run text",
    "exec": "scripts cannot run text",
    "compile": "scripts cannot run text",
    "__import__": 'load modules with load("./file.flow", "name")',
    "input": "wait for a signal with fctx.actions.signal(type)",
    "time": "fctx.actions.now() and fctx.actions.sleep(duration)",
    "datetime": "fctx.actions.now() gives seconds since the epoch",
    "random": "fctx.actions.random()",
    "uuid": "fctx.actions.uuid()",
    "requests": "fctx.actions.http.get(url) and its neighbours",
    "os": "scripts have no files and no environment; fctx.secrets and arguments take their place",
    "Exception": "end the flow with fail(message)",
    "ValueError": "end the flow with fail(message)",
    "RuntimeError": "end the flow with fail(message)",
    "Optional": "write `T | None`",
    "List": "write `list[T]`",
    "Dict": "write `dict[K, V]`",
    "Any": "write `typing.Any`",
    "object": "write `typing.Any`",
    "id": "values have no identity; compare with ==",
    "next": "loop with for, or index a list",
    "iter": "loop with for",
    "callable": 'compare type(x) with "function"',
    "globals": "name what you need",
    "locals": "name what you need",
    "fctx": "it is the parameter of a flow's implementation; elsewhere call context() of the prelude",
    "null": "write None",
    "true": "write True",
    "false": "write False",
    "this": "use parameters",
    "self": "there are no classes; use parameters",
}


def name_hint(name: str, prelude: frozenset[str], bound: Iterable[str]) -> str:
    """What to do, with a colon before it, or "" when nothing useful is known about this unknown name."""
    if name in prelude:
        return f': load it, load("{PRELUDE}", "{name}")'
    if name in _INSTEAD:
        return f": {_INSTEAD[name]}"
    return similar(name, {*bound, *BUILTINS})


def similar(name: str, names: Iterable[str]) -> str:
    """A question, ", did you mean …?", for a name that looks like one of `names`, else ""."""
    from difflib import get_close_matches

    found = get_close_matches(name[:100], [one for one in sorted(names) if not one.startswith("__")], n=1, cutoff=0.7)
    return f", did you mean `{found[0]}`?" if found else ""
