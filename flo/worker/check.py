"""Finding what is wrong with a script without running any of it.

A run refuses **errors**: syntax, loads that lead nowhere, names that nothing binds. **Warnings** are the
interpreter's lint and its guesses about types; they stop no run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from starlark import AstModule, EvalSeverity, StarlarkError

from flo.api.limits import BUNDLE_BYTES, BUNDLE_FILES
from flo.worker import problems as _problems
from flo.worker.bundle import Bundle
from flo.worker.dialect import GLOBALS, TooDeep, on_large_stack, parse
from flo.worker.hints import name_hint, similar
from flo.worker.labels import BadLabel, is_canonical, resolve
from flo.worker.prelude_files import PRELUDE, PRELUDE_MAIN, installed_prelude, prelude_names
from flo.worker.problems import CODES, Problem
from flo.worker.source import Lines, Load, Position, Scan, exported, scan
from flo.worker.syntax import annotation_message, complaints, told

PROBLEMS_MAX = 100  # errors of one file, and warnings; who repairs these may ask again
_ANNOTATION_ROUNDS = 20  # unknown names in annotations that are found one by one
# The interpreter's checker does not know this name, which the worker sets in every module.
_NAME = '\n__name__ = ""\n'
_UNKNOWN = re.compile(r"Variable `(?P<name>[^`]*)` not found")


class Inspection(NamedTuple):
    """`bundle` is None when an error stands against making one."""

    bundle: Bundle | None
    problems: list[Problem]


def check(path: str | os.PathLike[str]) -> list[Problem]:
    """All errors and warnings of the script and of what it loads, ordered by file and line."""
    return inspect(path).problems


def check_bundle(bundle: Bundle, *, warnings: bool = False) -> list[Problem]:
    """The same for a bundle that came from elsewhere; problems name its labels."""
    walk = _Walk(_BundleFiles(bundle), bundle.prelude[PRELUDE_MAIN], warnings=warnings)
    on_large_stack(lambda: walk.run(bundle.entry))
    return walk.problems()


def inspect(path: str | os.PathLike[str], *, warnings: bool = True) -> Inspection:
    """Reads the script and all that it loads, and makes the bundle if there is no error."""
    given = Path(path)
    # Like Python, which finds modules beside the file that a link means.
    script = Path(os.path.realpath(given)) if given.is_symlink() else Path(os.path.abspath(given))
    prelude = installed_prelude()
    walk = _Walk(_Folder(script.parent), prelude[PRELUDE_MAIN], warnings=warnings)
    on_large_stack(lambda: walk.run(script.name))
    found = walk.problems()
    if _problems.errors(found):
        return Inspection(None, found)
    files = {label: module.text for label, module in walk.modules.items()}
    return Inspection(Bundle(files, script.name, prelude=prelude, root=script.parent), found)


class _Unreadable(Exception):
    def __init__(self, code: str, message: str, at: Position | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.at = at  # in the file itself


class _Files(Protocol):
    def read(self, label: str, room: int) -> str:
        """The text of a file of at most `room` bytes. Raises _Unreadable."""
        ...

    def shown(self, label: str) -> str:
        """What a person sees for a label."""
        ...


class _BundleFiles:
    def __init__(self, bundle: Bundle) -> None:
        self._files: Mapping[str, str] = bundle.files

    def read(self, label: str, room: int) -> str:
        try:
            return self._files[label]
        except KeyError:
            raise _Unreadable("load-missing", f"{label} is not in the bundle") from None

    def shown(self, label: str) -> str:
        return label


class _Folder:
    """Files below a folder, of which none may lie elsewhere in truth."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = os.path.realpath(root)

    def shown(self, label: str) -> str:
        return _problems.shown_label(self._root, label)

    def read(self, label: str, room: int) -> str:
        path = self._root / label
        real = os.path.realpath(path)
        if os.path.commonpath([self._real, real]) != self._real:
            raise _Unreadable(
                "load-escape", f"{self.shown(label)} leads out of the folder of the script by a symbolic link"
            )
        try:
            if not stat.S_ISREG(os.stat(real).st_mode):
                raise _Unreadable("load-missing", f"{self.shown(label)} is not a file")
            with open(real, "rb") as file:
                data = file.read(room + 1)
        except FileNotFoundError:
            raise _Unreadable("load-missing", f"there is no file {self.shown(label)}") from None
        except OSError as error:
            raise _Unreadable("load-missing", f"{self.shown(label)} cannot be read: {error.strerror}") from None
        if len(data) > room:
            raise _Unreadable("bundle-too-large", f"the script and what it loads are over {BUNDLE_BYTES >> 20} MiB")
        return _decode(data, self.shown(label))


def _decode(data: bytes, shown: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        at = Lines(before).position(len(before))
        message = f"{shown} is not UTF-8 text: byte 0x{data[error.start]:02x} at {at.line}:{at.col}"
        raise _Unreadable("load-damaged", message, at) from None


class _Module:
    def __init__(self, text: str) -> None:
        self.text = text
        self.scan: Scan = scan(text)
        self.parsed = False
        self.loads: list[tuple[Load, str]] = []  # with the canonical label of each


class _Walk:
    """One look at a script and at everything it loads."""

    def __init__(self, files: _Files, prelude: str, *, warnings: bool) -> None:
        self.files = files
        self.prelude = prelude
        self.warnings = warnings
        self.modules: dict[str, _Module] = {}
        self._found: dict[str, list[Problem]] = {}
        self._unreadable: dict[str, _Unreadable] = {}
        self._room = BUNDLE_BYTES

    def problems(self) -> list[Problem]:
        return [problem for found in self._found.values() for problem in sorted(found)]

    def run(self, entry: str) -> None:
        try:
            if not is_canonical(entry):
                raise _Unreadable("load-missing", "the name of a script cannot hold a backslash or a control character")
            self._read(entry)
        except _Unreadable as error:
            code = {"load-missing": "script-missing", "load-damaged": "not-utf8"}.get(error.code, error.code)
            at = error.at or Position(0, 0)
            self._found[entry] = [Problem(self.files.shown(entry), *at, code, error.message)]
            return
        waiting = [entry]
        for label in waiting:
            self._look_at(label)
            for load, target in self.modules[label].loads:
                if target == PRELUDE or target in self.modules:
                    continue
                try:
                    self._read(target)
                    waiting.append(target)
                except _Unreadable as error:
                    self._add(label, load.at, error.code, error.message, width=len(load.label) + 2)
        for label, module in self.modules.items():
            for load, target in module.loads:
                self._check_names(label, load, target)
        self._check_cycles()

    # -- reading

    def _read(self, label: str) -> None:
        if label in self._unreadable:
            raise self._unreadable[label]
        try:
            if len(self.modules) >= BUNDLE_FILES:
                raise _Unreadable("bundle-too-many", f"the script loads more than {BUNDLE_FILES:,} files")
            text = self.files.read(label, self._room)
        except _Unreadable as error:
            self._unreadable[label] = error
            raise
        self._room -= len(text.encode())
        self.modules[label] = _Module(text)

    # -- one file

    def _look_at(self, label: str) -> None:
        module = self.modules[label]
        self._found.setdefault(label, [])
        tree = self._parse(label, module)
        if tree is None:
            return
        module.parsed = True
        for load in module.scan.loads:
            try:
                module.loads.append((load, resolve(label, load.label)))
            except BadLabel as error:
                self._add(label, load.at, error.code, error.message, width=len(load.label) + 2)
        self._check_with_interpreter(label, module, tree)

    def _parse(self, label: str, module: _Module) -> AstModule | None:
        """The tree of the text with `__name__` bound at its end, or None when there are syntax errors."""
        try:
            if module.text.endswith(("\\", "\r")):
                parse(label, module.text, scanned=module.scan)  # the addition would complete this line
            return parse(label, module.text + _NAME, scanned=module.scan)
        except TooDeep as error:
            excess = error.excess
            code = "too-many-names" if excess.what == "names" else "too-deep"
            self._add(label, excess.at, code, _too_much(excess.what, excess.limit))
            return None
        except StarlarkError as error:
            refused = error
        try:
            # The addition changes what is said about a text that ends too early.
            parse(label, module.text, scanned=module.scan)
        except StarlarkError as error:
            refused = error
        for complaint in complaints(refused, module.text, module.scan):
            self._add(label, complaint.at, "syntax", complaint.message, width=complaint.width)
        return None

    def _check_with_interpreter(self, label: str, module: _Module, tree: AstModule) -> None:
        added = _NAME
        for _ in range(_ANNOTATION_ROUNDS):
            try:
                found, _interface, _ = tree.typecheck(GLOBALS, {})
            except StarlarkError as error:
                raw = told(error)
                at = raw.at or Position(1, 1)
                self._add(label, at, "syntax", annotation_message(raw.message))
                return
            unresolved = None
            for one in found:
                message = str(one).removeprefix("error: ").split("\n -", 1)[0].split("\n  -", 1)[0].strip()
                unknown = _UNKNOWN.match(message)
                span = one.span
                at = Position(span.span.begin.line + 1, span.span.begin.column + 1) if span else Position(1, 1)
                width = span.span.end.column - span.span.begin.column if span else 1
                if unknown:
                    self._unknown_name(label, module, unknown["name"], at)
                elif "unresolved ident" in message:
                    unresolved = _word_at(module.text, at)
                    self._unknown_name(label, module, unresolved, at)
                elif self.warnings:
                    self._add(label, at, "type", message, severity="warning", width=width)
            if not unresolved:
                if self.warnings and added == _NAME:
                    self._lint(label, tree)
                return
            # An unknown name in an annotation hides all other findings: bind it and look again.
            added += f"{unresolved} = None\n"
            tree = parse(label, module.text + added, scanned=module.scan)

    def _unknown_name(self, label: str, module: _Module, name: str, at: Position) -> None:
        hint = name_hint(name, prelude_names(self.prelude), module.scan.bound)
        self._add(label, at, "unknown-name", f"`{name}` is not defined{hint}", width=len(name))

    def _lint(self, label: str, tree: AstModule) -> None:
        ended = self.modules[label].text.count("\n") + 1
        for one in tree.lint():
            begin, end = one.resolved_location.span.begin, one.resolved_location.span.end
            ours = begin.line >= ended or one.original == "__name__"  # about what was appended
            if ours or one.severity == EvalSeverity.Disabled:
                continue
            code = one.short_name if one.short_name in CODES else "lint"
            width = end.column - begin.column if end.line == begin.line else 1
            message = one.problem.replace("Statement at has", "The statement has")
            self._add(label, Position(begin.line + 1, begin.column + 1), code, message, severity="warning", width=width)

    # -- loads

    def _check_names(self, label: str, load: Load, target: str) -> None:
        if target == PRELUDE:
            names, shown = prelude_names(self.prelude), f'"{load.label}"'
        else:
            module = self.modules.get(target)
            if module is None or not module.parsed:
                return
            names, shown = frozenset(exported(module.scan)), self.files.shown(target)
        for one in load.names:
            if one.name in names:
                continue
            width = len(one.name) + 2
            if one.name.startswith("_"):
                message = f"`{one.name}` is private to {shown}: only names without a leading underscore can be loaded"
                self._add(label, one.at, "load-private", message, width=width)
            else:
                self._add(
                    label, one.at, "load-name", f"{shown} has no `{one.name}`{similar(one.name, names)}", width=width
                )

    def _check_cycles(self) -> None:
        done: set[str] = set()
        for start in self.modules:
            path: list[str] = []
            stack = [(start, iter(self.modules[start].loads))] if start not in done else []
            while stack:
                label, loads = stack[-1]
                if len(path) < len(stack):
                    path.append(label)
                for load, target in loads:
                    if target in path:
                        circle = " loads ".join(self.files.shown(one) for one in [*path[path.index(target) :], target])
                        self._add(label, load.at, "load-cycle", f"modules load each other: {circle}",
                                  width=len(load.label) + 2)  # fmt: skip
                    elif target in self.modules and target not in done:
                        stack.append((target, iter(self.modules[target].loads)))
                        break
                else:
                    done.add(label)
                    stack.pop()
                    path.pop()

    def _add(
        self,
        label: str,
        at: Position,
        code: str,
        message: str,
        *,
        severity: Literal["error", "warning"] = "error",
        width: int = 1,
    ) -> None:
        assert code in CODES
        found = self._found[label]
        if sum(one.severity == severity for one in found) >= PROBLEMS_MAX:
            return
        excerpt = _problems.excerpt(self.modules[label].text, at.line, at.col, width=width)
        problem = Problem(
            self.files.shown(label), at.line, at.col, code, _problems.printable(message), severity, excerpt
        )
        if problem not in found:
            found.append(problem)


def _too_much(what: str, limit: int) -> str:
    if what == "names":
        return f"the file holds more than {limit:,} different names: split it into modules"
    if what == "block":
        return f"blocks (or the branches of one `if`) are more than {limit} levels deep: split them into functions"
    return f"the expression is more than {limit} levels deep: split it, or build the value in a loop"


def _word_at(text: str, at: Position) -> str:
    line = text.split("\n")[at.line - 1]
    found = re.match(r"[A-Za-z_]\w*", line[at.col - 1 :])
    return found.group() if found else ""
