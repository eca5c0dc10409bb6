"""Problems of scripts: their codes, their text form, and the error that carries them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from flo.api.errors import ScriptError

EXCERPT_COLUMNS = 160  # longer source lines are shown in part

# Every code that a problem can have. Codes are stable; the lint's own names are kept for its findings.
CODES: dict[str, str] = {
    "syntax": "The text is not Starlark, or uses a part of Python that flows do not have.",
    "too-deep": "An expression or block is nested more deeply than can be evaluated safely.",
    "too-many-names": "A file holds more names than can be checked in reasonable time.",
    "not-utf8": "The file is not UTF-8 text.",
    "script-missing": "The script does not exist, or cannot be read.",
    "load-missing": "A loaded file does not exist, is not a file, or cannot be read.",
    "load-unknown": "The label of a load names no module.",
    "load-escape": "A load leaves the folder of the script, by .. or by a symbolic link.",
    "load-cycle": "Modules load each other in a circle.",
    "load-name": "A loaded module does not have this name.",
    "load-private": "A name that begins with an underscore cannot be loaded.",
    "load-damaged": "A loaded file is not UTF-8 text.",
    "bundle-too-large": "The script and what it loads are larger than a bundle may be.",
    "bundle-too-many": "The script loads more files than a bundle may hold.",
    "unknown-name": "A name is used that nothing binds.",
    "type": "A value is used in a way that its type does not support (warning).",
    "unchecked": "The interpreter could not check this file for unknown names (warning).",
    "lint": "Another finding of the interpreter's lint (warning).",
    "duplicate-key": "A dictionary literal has the same key twice (warning).",
    "duplicate-top-level-assign": "A top-level name is assigned twice (warning).",
    "dict-without-star-star": "A dictionary is passed where ** was probably meant (warning).",
    "ident-as-statement": "A statement is nothing but a name (warning).",
    "inefficient-bool-check": "A comparison with a bool can be written shorter (warning).",
    "misplaced-load": "A load stands after other statements (warning).",
    "missing-return": "A function returns a value on some paths only (warning).",
    "missing-return-expression": "A function returns a value on some paths and nothing on others (warning).",
    "no-effect": "A statement has no effect (warning).",
    "redundant-continue": "A continue at the end of a loop does nothing (warning).",
    "redundant-return": "A return at the end of a function does nothing (warning).",
    "unreachable": "A statement can never be reached (warning).",
    "unused-load": "A loaded name is never used (warning).",
    "using-ignored": "A name that begins with an underscore to say that it is unused is used (warning).",
    "using-maybe-undefined": "A variable may be used before it has a value (warning).",
    "using-unassigned": "A variable is used before it has a value (warning).",
}


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a script, and where. Lines and columns count from 1; 0 means the whole file."""

    file: str  # as the person would find it
    line: int
    col: int
    code: str  # one of CODES
    message: str
    severity: Literal["error", "warning"] = "error"
    excerpt: str = ""  # the source line and a caret below the column, or ""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"

    def __str__(self) -> str:
        kind = "warning: " if self.severity == "warning" else ""
        line = f"{self.where}: {self.code}: {kind}{self.message}"
        return f"{line}\n{self.excerpt}" if self.excerpt else line


def render(problems: Iterable[Problem]) -> str:
    """`file:line:col: code: message`, each followed by its excerpt."""
    return "\n".join(str(problem) for problem in problems)


def errors(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def script_error(problems: Sequence[Problem]) -> ScriptError:
    """The error that refuses a script. Its message is the text form of all its errors."""
    found = errors(problems)
    assert found, "a script is refused for an error"
    return ScriptError(render(found), where=found[0].where, problems=tuple(found))


def excerpt(text: str, line: int, col: int, *, width: int = 1) -> str:
    """The source line with carets below `width` columns from `col`; "" when there is no such line."""
    lines = text.split("\n", line)
    if not 1 <= line <= len(lines) or not lines[line - 1].strip():
        return ""
    source = lines[line - 1].rstrip()
    start = 0 if len(source) <= EXCERPT_COLUMNS else max(0, col - EXCERPT_COLUMNS // 2)
    shown = printable(source[start : start + EXCERPT_COLUMNS])
    head = "…" if start else ""
    tail = "…" if start + EXCERPT_COLUMNS < len(source) else ""
    before = len(head) + col - 1 - start
    carets = "^" * max(1, min(width, len(shown) - (col - 1 - start)))
    indent = len(shown) - len(shown.lstrip()) if not head else 0
    return f"    {head}{shown[indent:]}{tail}\n    {' ' * (before - indent)}{carets}"


def printable(text: str) -> str:
    """The text on one line and harmless to a terminal, with as many characters as before."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def display_path(path: str | os.PathLike[str]) -> str:
    """A file's name as a person would find it: relative when inside the current folder, else absolute."""
    absolute = Path(os.path.abspath(path))
    try:
        return str(absolute.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # outside, or the current folder has been removed
        return str(absolute)


def shown_label(root: Path | None, label: str) -> str:
    """What a person sees for the label of a bundle's file: its path, if the bundle was made from files here."""
    return label if root is None else display_path(root / label)
