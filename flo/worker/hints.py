"""What to say to somebody who used a name that does not exist, or met one of the interpreter's errors."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flo.api.limits import CALL_DEPTH, STARLARK_STEPS
from flo.worker.prelude_files import PRELUDE
from flo.worker.source import scan

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


_LOCAL = re.compile(r"Local variable `(?P<name>[^`]*)` referenced before assignment")
# What the interpreter says when something fails, and what a newcomer can do about it.
_MESSAGES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\AImmutable\Z"), "values of a module are frozen once it is loaded: make a copy and change that, "
     "or pass the value as an argument and return it"),
    (re.compile(r"mutates an iterable .* while iterating"), "loop over a copy: `for x in list(values):`"),
    (re.compile(r"\AKey `.*` was not found\Z", re.DOTALL), "d.get(key) gives None for a missing key, "
     "d.get(key, default) the default"),
    (re.compile(r"\AIndex `.*` is out of bound\Z"), "compare with len(…) first"),
    (re.compile(r"call stack overflow"), f"functions may call each other {CALL_DEPTH:,} levels deep: "
     "use a loop, or end the recursion earlier"),
    (re.compile(r"\AEvaluation cancelled\Z"), f"an evaluation may take {STARLARK_STEPS:,} loop rounds and calls: "
     "split the work into flows, or end the loop earlier"),
    (re.compile(r"Operation `\+` not supported for types `(string` and `\w+|\w+` and `string)`"),
     'turn the other value into text first: "…" + str(value), or "… {}".format(value)'),
    (re.compile(r"Operation `call\(\)` not supported on type `(NoneType|record|struct)`"),
     "only functions and flows can be called"),
    (re.compile(r"Operation `\.\w+=` not supported on type `struct`"), "structs cannot be changed: make a new one, "
     "or use a dict"),
    (re.compile(r"Operation `\(iter\)` not supported on type `int`"), "use range(n) to count"),
    (re.compile(r"Operation `\(iter\)` not supported on type `string`"), "use text.elems() for the characters"),
    (re.compile(r"Value of type `(list|dict)` is not hashable"), "keys of a dict are strings, numbers or tuples"),
    (re.compile(r"Object of type `NoneType` has no attribute"), "the value before the dot is None"),
    (re.compile(r"has no attribute `(read|write|items|keys|append)`"), "look at what type(…) gives for the value"),
    (re.compile(r"\AMissing parameter `|\AFound .* extra (positional|named)"), "compare the call with the `def`"),
    (re.compile(r"Record instance cannot be created"), "assign the record type to a name at the top level first"),
)  # fmt: skip


def message_hint(message: str, text: str | None = None) -> str:
    """What to do about an error of the interpreter, or "". `text` is the source of the file that it names."""
    local = _LOCAL.search(message)
    if local:
        return _unassigned(local["name"], text)
    return next((hint for pattern, hint in _MESSAGES if pattern.search(message)), "")


def _unassigned(name: str, text: str | None) -> str:
    at_top = text is not None and name in scan(text).bound
    if at_top:
        return (
            f"`{name}` gets its value further down the file, or after the file's first action: bind it above what "
            'uses it, and put what acts under `if __name__ == "__flow__":` at the end'
        )
    return (
        f"a function that assigns `{name}` anywhere has a variable of its own by that name: give it a value first, "
        "or pass it as an argument"
    )
