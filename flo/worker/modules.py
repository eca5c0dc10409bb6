"""From a bundle to frozen modules and the table of its flows; once per bundle and worker.

A frozen module may be called by many threads at the same time. Flows are identified by what they are made
from and in which order while a module loads (the **key**), because a flow is a closure that knows no name
of its own; after loading, the names bound at the top level are matched to keys.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import msgspec
from starlark import AstModule, FileLoader, FrozenModule, Module, StarlarkError, eval_with
from starlark import eval as evaluate

from flo.api.errors import ScriptError
from flo.api.limits import STARLARK_STEPS
from flo.worker.bundle import Bundle
from flo.worker.dialect import GLOBALS, PRELUDE_GLOBALS, TooDeep, parse
from flo.worker.host import CHECK_STEPS, FUNCTIONS, HostError, entered, options
from flo.worker.labels import BadLabel, resolve
from flo.worker.prelude_files import PRELUDE
from flo.worker.source import scan
from flo.worker.values import decode, encode

TOKEN = secrets.token_hex(16)  # the first positional argument by which the host speaks to a flow
MODULES_KEPT = 64
_HOST = "flo/host"
_FLOW = PRELUDE + ".call"
# A struct has fixed fields, so a reference is made for each name that may be meant: what follows `secrets.`, and
# names in capitals after any dot, for `s = fctx.secrets`.
_SECRET_NAME = re.compile(r"\bsecrets\s*\.\s*([A-Za-z_]\w*)|\.\s*([A-Z][A-Z0-9_]+)\b", re.ASCII)

_UNKNOWN_NAME = re.compile(r"error: Variable `[^`]*` not found")

_HOST_TEXT = f"""
def key_of(x):
    return x(_token, "key") if type(x) == "function" and str(x) == "{_FLOW}" else None
"""


class Flow(msgspec.Struct, frozen=True):
    """A flow that can be entered: the symbol is `label::name`."""

    symbol: str
    name: str
    export: str  # the name under which the host can call it
    quoted: str  # the symbol as JSON
    module: FrozenModule


class Outside:
    """The context of an evaluation that belongs to no run: loading a module, asking a flow for its declarations."""

    def __init__(self, label: str = "", tick: Callable[[], bool] | None = None) -> None:
        self.label = label
        self.kind = ""
        self.message = ""
        self.broken: BaseException | None = None
        self.ended = False  # by `tick`, which is not the module's fault
        self._keys = Keys(label)
        self._tick = tick
        self._steps = 0

    def act(self, text: str) -> NoReturn:
        self._refuse("a loaded module cannot act while it is loaded; actions belong into flows")

    act_int = begin = wait_for = enter = call = run = open = describing = act
    continue_as_new = run_id = act

    def context(self, text: str) -> NoReturn:
        self._refuse("context(): no flow is being executed here")

    def output(self, text: str) -> None:
        """What is printed while a module loads is dropped: it would be printed at each evaluation."""

    def new(self, text: str) -> str:
        return self._keys.new(text)

    def fail(self, text: str) -> NoReturn:
        error = decode(text)
        self.kind, self.message = error["kind"], error["message"]
        raise HostError(self.message)

    def tick(self) -> bool:
        if self._tick is not None:
            self.ended = self._tick()
            return self.ended
        self._steps += CHECK_STEPS
        return self._steps > STARLARK_STEPS

    def broke(self, error: BaseException) -> None:
        self.broken = error

    def _refuse(self, message: str) -> NoReturn:
        self.kind, self.message = "failed", message
        raise HostError(message)


class _EntryInstance(Outside):
    """The entry module as children see it: its evaluation stops silently at its first action."""

    stopped = False

    def act(self, text: str) -> NoReturn:
        self.stopped = True
        raise HostError("the first action")

    act_int = begin = wait_for = enter = call = run = open = describing = act
    continue_as_new = run_id = act

    def context(self, text: str) -> NoReturn:
        self.act(text)


class Keys:
    """Numbers the flows that are made while a module loads: the same flows get the same keys each time."""

    __slots__ = ("_label", "_made")

    def __init__(self, label: str) -> None:
        self._label = label
        self._made: dict[str, int] = {}

    def new(self, implementation: str) -> str:
        number = self._made[implementation] = self._made.get(implementation, 0) + 1
        return f"{self._label}|{implementation}#{number}"


class Loaded:
    """A bundle, ready for evaluation."""

    def __init__(self, bundle: Bundle, tick: Callable[[], bool] | None = None) -> None:
        self.entry = bundle.entry
        self.by_key: dict[str, Flow] = {}
        self.by_symbol: dict[str, Flow] = {}
        self.stopped = False  # the entry module acts at its top level
        self.error: LoadFailed | None = None  # what ended the loading of the entry, other than that
        self._prelude = _prelude(bundle.files[PRELUDE])
        self._frozen: dict[str, FrozenModule] = {}
        self._asts: dict[str, AstModule] = {}
        self._names: dict[str, dict[str, str]] = {}  # label → name → key
        self._tick = tick
        self.sources = bundle.scripts
        found = (match for text in self.sources.values() for match in _SECRET_NAME.finditer(text))
        self.secrets = sorted({match[1] or match[2] for match in found})
        self._load(self.entry, ())
        self._tick = None  # it belongs to the strand that has loaded this, and others use it from now on
        self._match()

    def evaluate_entry(self) -> None:
        """Evaluates the entry anew, with `__name__ == "__flow__"`, in the context of this thread."""
        module = self._module("__flow__")
        eval_with(options(), module, self._asts[self.entry], GLOBALS, self._loader(self.entry))

    def flows_of_entry(self) -> list[str]:
        """Names of the entry's flows that others may name, in the order of the text."""
        return [name for name in self._names[self.entry] if not name.startswith("_")]

    def _load(self, label: str, above: tuple[str, ...]) -> None:
        if label in above:
            raise ScriptError(f"{label}: modules load each other: {' → '.join([*above, label])}", where=label)
        text = self.sources.get(label)
        if text is None:
            raise ScriptError(f"{label}: the bundle does not hold this file", where=above[-1] if above else label)
        found = scan(text)
        try:
            ast = parse(label, text, scanned=found)
        except (StarlarkError, TooDeep) as refused:
            raise ScriptError(str(refused), where=label) from refused
        for load in ast.loads():
            try:
                other = resolve(label, load.module_id)
            except BadLabel as bad:
                raise ScriptError(f"{label}: {bad.message}", where=label) from bad
            if other not in self._frozen and other != PRELUDE:
                self._load(other, (*above, label))
        self._asts[label] = ast
        self._frozen[label] = self._freeze(label, ast, list(found.bound))

    def _freeze(self, label: str, ast: AstModule, bound: list[str]) -> FrozenModule:
        is_entry = label == self.entry
        context = _EntryInstance(label, self._tick) if is_entry else Outside(label, self._tick)
        module = self._module(label)
        with entered(context):
            try:
                eval_with(options(), module, ast, GLOBALS, self._loader(label))
            except StarlarkError as error:
                if context.broken is not None:
                    raise context.broken from None
                failure = LoadFailed(context.kind, context.message, error)
                # After an unknown name the interpreter's module is half made, and looking at it panics.
                if context.ended or not is_entry or _UNKNOWN_NAME.match(str(error)):
                    raise failure from None
                self.stopped = isinstance(context, _EntryInstance) and context.stopped
                self.error = None if self.stopped else failure
            self._names[label] = _keys_of(module, bound)
        return module.freeze()

    def _module(self, name: str) -> Module:
        module = Module()
        module["__name__"] = name
        # A function of the host would be given converted values; one of the prelude gets them as they are.
        evaluate(module, _PRINT, GLOBALS, FileLoader(lambda _: self._prelude))
        return module

    def _loader(self, label: str) -> FileLoader:
        def load(module_id: str) -> FrozenModule:
            other = resolve(label, module_id)
            return self._prelude if other == PRELUDE else self._frozen[other]

        return FileLoader(load)

    def _match(self) -> None:
        """Names flows by where they were made; other names of theirs (loaded ones) are symbols too."""
        for label, names in self._names.items():
            for name, key in names.items():
                if key.startswith(f"{label}|") and key not in self.by_key:
                    symbol = f"{label}::{name}"
                    self.by_key[key] = Flow(symbol, name, _export(name), encode(symbol), self._frozen[label])
        for label, names in self._names.items():
            for name, key in names.items():
                if key in self.by_key:
                    self.by_symbol[f"{label}::{name}"] = self.by_key[key]


class LoadFailed(Exception):
    """A module could not be evaluated. `kind` and `message` are the prelude's, if it refused something."""

    def __init__(self, kind: str, message: str, error: StarlarkError) -> None:
        super().__init__(str(error))
        self.kind = kind
        self.message = message


class Modules:
    """Loaded bundles by digest; the least recently used one goes first."""

    def __init__(self, kept: int = MODULES_KEPT) -> None:
        self._kept = kept
        self._loaded: OrderedDict[bytes, Loaded] = OrderedDict()

    def has(self, digest: bytes) -> bool:
        """Whether `get` would evaluate nothing."""
        return digest in self._loaded

    def get(self, digest: bytes, read: Callable[[bytes], Bundle], tick: Callable[[], bool] | None = None) -> Loaded:
        """The loaded bundle; `read` is asked for it when it is not here. Raises ScriptError and LoadFailed, the
        latter also when `tick` has ended it: nothing is kept then.

        Two threads that ask at once may both load it: a lock would be held while the baton is passed on.
        """
        loaded = self._loaded.get(digest)
        if loaded is None:
            loaded = Loaded(read(digest), tick)
            self._loaded[digest] = loaded
            while len(self._loaded) > self._kept:
                with suppress(KeyError):
                    self._loaded.popitem(last=False)
        elif len(self._loaded) > 1:
            with suppress(KeyError):  # another thread has just let it go
                self._loaded.move_to_end(digest)
        return loaded


shared = Modules()  # of this process: what was asked about a flow need not be loaded again to run it


_PRINT = parse("flo/print", f'load("{PRELUDE}", "print")')
# The name `json` is taken by what scripts load; these are the interpreter's own functions behind it.
_JSON = parse("flo/json", "_json_encode = json.encode\n_json_decode = json.decode\n")
_preludes: OrderedDict[str, FrozenModule] = OrderedDict()


def _prelude(text: str) -> FrozenModule:
    frozen = _preludes.get(text)
    if frozen is None:
        module = Module()
        for name, function in FUNCTIONS.items():
            module.add_callable(name, function)
        module["_token"] = TOKEN
        evaluate(module, _JSON, PRELUDE_GLOBALS)
        evaluate(module, parse(PRELUDE, text), PRELUDE_GLOBALS)
        frozen = _preludes[text] = module.freeze()
        while len(_preludes) > MODULES_KEPT:
            _preludes.popitem(last=False)
    return frozen


def _host() -> FrozenModule:
    module = Module()
    module["_token"] = TOKEN
    evaluate(module, parse(_HOST, _HOST_TEXT), GLOBALS)
    return module.freeze()


_HOST_MODULE = _host()


def _keys_of(module: Module, bound: list[str]) -> dict[str, str]:
    """The keys of the flows among a module's names."""
    keys: dict[str, str] = {}
    public = [name for name in bound if not name.startswith("_") and _is_function(module, name)]
    if public:
        keys.update(_ask_keys(module, public))
    for name in bound:
        if name.startswith("_"):
            # The host cannot look at private names, so each is asked for alone: it may not have been reached.
            with suppress(StarlarkError):
                found = _ask_keys(module, [name])
                if found[name]:
                    evaluate(module, parse("flo/export", f"{_export(name)} = {name}"), GLOBALS)
                keys.update(found)
    return {name: keys[name] for name in bound if keys.get(name)}


def _export(name: str) -> str:
    """Private names cannot be called from outside: such flows get another name beside."""
    return f"flo_private{name}" if name.startswith("_") else name


def _ask_keys(module: Module, names: list[str]) -> dict[str, str]:
    table = ", ".join(f'"{name}": _flo_key_of({name})' for name in names)
    text = f'load("{_HOST}", _flo_key_of = "key_of")\n{{{table}}}\n'
    keys: Any = evaluate(module, parse("flo/keys", text), GLOBALS, FileLoader(lambda _: _HOST_MODULE))
    return dict(keys)


def _is_function(module: Module, name: str) -> bool:
    try:
        module[name]
    except StarlarkError:  # functions are among the few values that do not cross
        return True
    return False
