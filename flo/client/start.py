"""From "path::flow" and arguments to a run that can be started: what is wrong is said before anything runs."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from flo.api.clock import Clock, SystemClock
from flo.api.errors import BadArgument, NotFound, ScriptError
from flo.api.grid import StartRequest
from flo.api.ids import is_run_id, new_run_id
from flo.client.prepared import Prepared as Prepared
from flo.client.values import json_text, json_value
from flo.worker.bundle import Bundle
from flo.worker.describe import FlowSpec, check_args, describe

SCRIPTS_KEPT: Final = 64  # whose bundle is kept until a file of theirs changes
CHECKED_KEPT: Final = 1_024  # texts of arguments of a script that are known to be right
CHECKED_BYTES: Final = 4_096  # longer ones are checked each time
RACY_MS: Final = 50  # a file that changed so shortly before it was read may change again with the same time


def prepare(
    script: str,
    args: Mapping[str, Any] | str | None = None,
    *,
    id: str | None = None,
    timeout_ms: int = 0,
    username: str | None = None,
) -> Prepared:
    """`script` is "PATH" (the module itself is the flow) or "PATH::FLOW"; `args` a mapping or the text of a JSON
    object.

    Raises ScriptError for what is wrong with the script (a flow that is not there included), BadArgument for
    an id or an argument that cannot be, naming it.
    """
    return ScriptCache().prepare(script, args, id=id, timeout_ms=timeout_ms, username=username)


class ScriptCache:
    """Bundles by script, read anew when a file of theirs has changed. Used from one thread."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._scripts: OrderedDict[str, _Script] = OrderedDict()
        self._username = ""

    def prepare(
        self,
        script: str,
        args: Mapping[str, Any] | str | None = None,
        *,
        id: str | None = None,
        timeout_ms: int = 0,
        username: str | None = None,
    ) -> Prepared:
        """As the function of this name."""
        path, flow = split(script)
        if id is not None and not is_run_id(id):
            raise BadArgument(f"{id!r} is no run id", hint="1 to 128 letters, digits and the signs . _ : -")
        found = self._script(path)
        given = args if isinstance(args, str) else json_text({} if args is None else dict(args), "args")
        symbol, options, checked = found.flow(flow, given) if flow else found.module(given)
        request = StartRequest(
            id=id or new_run_id(flow or os.path.splitext(os.path.basename(path))[0]),
            bundle=found.bundle.digest,
            flow=symbol,
            args=checked,
            options=options,
            timeout_ms=timeout_ms,
            username=self._user() if username is None else username,
            script=path,
        )
        return Prepared(found.bundle.data, request)

    def _script(self, path: str) -> _Script:
        key = os.path.abspath(path)
        kept = self._scripts.get(key)
        if kept is not None and kept.stamps == _stamps(kept.paths):
            self._scripts.move_to_end(key)
            return kept
        began = self._clock.wall_ms()
        bundle = Bundle.from_script(path)
        assert bundle.root is not None
        files = {os.path.join(bundle.root, label) for label in bundle.files}
        script = _Script(bundle, [key, *sorted(files - {key})])
        if script.newest_ms < began - RACY_MS:
            self._scripts[key] = script
            if len(self._scripts) > SCRIPTS_KEPT:
                self._scripts.popitem(last=False)
        return script

    def _user(self) -> str:
        if not self._username:
            self._username = os_user()
        return self._username


class _Script:
    """A bundle with what was asked about its flows."""

    def __init__(self, bundle: Bundle, paths: list[str]) -> None:
        self.bundle = bundle
        self.paths = paths
        self.stamps = _stamps(paths)
        self.newest_ms = max(stamp[0] // 1_000_000 for stamp in self.stamps)
        self._specs: dict[str, tuple[FlowSpec, str]] = {}  # with the options as JSON
        self._checked: dict[tuple[str, str], str] = {}

    def flow(self, name: str, given: str) -> tuple[str, str, str]:
        """Symbol, options and checked arguments."""
        if name not in self._specs:
            try:
                spec = describe(self.bundle, name)
            except NotFound as absent:
                raise ScriptError(absent.message, where=self.paths[0], hint=absent.hint) from None
            self._specs[name] = (spec, spec.options_json)
        spec, options = self._specs[name]
        checked = self._checked.get((name, given))
        if checked is None:
            checked = check_args(self.bundle, name, given)
            if len(given) <= CHECKED_BYTES:
                if len(self._checked) == CHECKED_KEPT:
                    del self._checked[next(iter(self._checked))]
                self._checked[name, given] = checked
        return spec.symbol, options, checked

    def module(self, given: str) -> tuple[str, str, str]:
        """The same for the module itself, which declares nothing."""
        value = json_value(given, "the arguments")
        if not isinstance(value, dict):
            raise BadArgument("the arguments are no JSON object")
        if value:
            raise BadArgument(
                f"the script itself takes no arguments, but got {', '.join(map(str, value))}",
                hint="name the flow that takes them: PATH::FLOW",
            )
        return self.bundle.entry, "{}", "{}"


def split(script: str) -> tuple[str, str]:
    """The path and the flow's name, "" for the module itself."""
    path, colons, flow = script.rpartition("::")
    if not colons:
        return script, ""
    if not flow or not path:
        raise BadArgument(f"{script!r} names no {'script' if flow else 'flow'}", hint="write PATH::FLOW, or PATH alone")
    return path, flow


def os_user() -> str:
    """The name of the user that this process runs as, or the number when the system has no name for it."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _stamps(paths: list[str]) -> list[tuple[int, int, int]]:
    """What changes when a file does; a file that is gone has one of its own."""
    stamps = []
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            stamps.append((0, -1, 0))
        else:
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return stamps
