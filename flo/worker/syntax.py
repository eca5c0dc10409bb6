"""The interpreter's complaints about a text, in words for somebody who knows Python."""

from __future__ import annotations

import re
from typing import NamedTuple

from flo.worker.source import Position, Scan

# What to do instead of Python's words that Starlark refuses.
INSTEAD = {
    "while": "`while` does not exist: loop with `for i in range(limit):` and `break`, or call the function again",
    "class": "`class` does not exist: use `struct(…)`, `record(…)` or a dict",
    "import": '`import` does not exist: load modules with `load("./file.flow", "name")`',
    "from": '`from … import` does not exist: load names with `load("./file.flow", "name")`',
    "try": "`try` does not exist: actions that can fail return a Result, look at its `ok`, `value` and `error`",
    "except": "`except` does not exist: actions that can fail return a Result, look at its `ok` and `error`",
    "finally": "`finally` does not exist: give `flow(…, on_exit = function)` what must run after any end",
    "raise": "`raise` does not exist: end the flow with `fail(message)`",
    "with": "`with` does not exist: declare what must be opened and closed in `flow(…, resources = {…})`",
    "yield": "`yield` does not exist: return a list",
    "async": "`async` does not exist: start flows side by side with `fctx.actions.run(flow)` and `fctx.actions.wait`",
    "await": "`await` does not exist: actions wait by themselves, handles with `fctx.actions.wait([…])`",
    "global": "`global` does not exist: module values are frozen, pass values as arguments and return them",
    "nonlocal": "`nonlocal` does not exist: return the new value, or change a list or dict of the outer function",
    "is": "`is` does not exist: compare with `==`",
    "del": "`del` does not exist: use `.pop(…)` of the list or dict",
    "assert": "`assert` does not exist: write `if not condition: fail(message)`",
    "as": "`as` does not exist: rename what is loaded with `load(label, new = \"old\")`",
}  # fmt: skip


class Complaint(NamedTuple):
    at: Position
    message: str
    width: int = 1  # columns that the caret should cover


class Told(NamedTuple):
    """A StarlarkError of the parser, taken apart."""

    message: str
    at: Position | None


_TOLD = re.compile(r"\n\s*--> (?P<file>[^\n]*):(?P<line>\d+):(?P<col>\d+)\n(?P<rest>.*)\Z", re.DOTALL)
_NO_SOURCE = re.compile(r"[\s|]*\Z")
_EXPECTED = re.compile(r"\A(?P<what>.*?), expected one of (?P<options>.*)\Z", re.DOTALL)
_EXPECTED_SHOWN = 4
_COMPARISONS = ("'<'", "'>'", "'<='", "'>='", "'=='", "'!='")


def told(error: BaseException) -> Told:
    """Takes the interpreter's error text apart: `error: MESSAGE`, `--> FILE:LINE:COL`, an excerpt."""
    text = str(error)
    found = None
    for match in re.finditer(r"\n\s*--> [^\n]*:\d+:\d+\n", text):
        found = match  # the last one: a message may quote anything
    place = _TOLD.match(text, found.start()) if found else None
    message = text[: place.start()] if place else text
    message = message.strip().removeprefix("error: ").removeprefix("Parse error: ")
    # Without a source line in its excerpt the place is a placeholder.
    at = Position(int(place["line"]), int(place["col"])) if place and not _NO_SOURCE.match(place["rest"]) else None
    return Told(message, at)


def complaints(error: BaseException, text: str, found: Scan) -> list[Complaint]:
    """What is wrong with a text that the parser refused with `error`, at least one."""
    raw = told(error)
    reserved = [Complaint(at, INSTEAD.get(word, f"`{word}` is a reserved word"), len(word))
                for word, at in found.reserved]  # fmt: skip
    if raw.message.startswith("cannot use reserved keyword") and reserved:
        return _without_followers(reserved, text)
    lines = text.split("\n")
    end = len(lines)
    while end > 1 and not lines[end - 1].strip():
        end -= 1
    last = Position(end, len(lines[end - 1].rstrip()) + 1)
    at = min(raw.at or last, last)  # the end of a text is where its last line ends
    if found.unclosed is not None and raw.message.startswith(("unexpected", "Unexpected")) and found.unclosed[1] < at:
        bracket, opened = found.unclosed
        return [Complaint(opened, f"`{bracket}` is never closed")]
    if found.stray is not None and found.stray[1] == at:
        return [Complaint(at, f"`{found.stray[0]}` closes nothing")]
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    message = _friendly(raw.message, line[: at.col - 1], line[at.col - 1 :])
    first = Complaint(at, message, _width(raw.message))
    # The parser stops at its first error; words that it would refuse later are known already.
    return [first, *(one for one in _without_followers(reserved, text) if one.at > at)]


def annotation_message(message: str) -> str:
    """For what the interpreter says about an annotation, while parsing or later."""
    if "not allowed in type expression" in message:
        kind = message.split(" expression is not allowed", 1)[0]
        return f"a {kind} cannot stand in an annotation: use a type such as `str`, `list[int]` or `typing.Any`"
    return message


def _without_followers(reserved: list[Complaint], text: str) -> list[Complaint]:
    """Leaves out words that belong to one already named: `import` after `from`, `except` after `try` …"""
    lines = text.split("\n")
    kept: list[Complaint] = []
    for one in reserved:
        word = lines[one.at.line - 1][one.at.col - 1 :][: one.width]
        same_line = [other for other in reserved if other.at.line == one.at.line and other.at < one.at]
        if word in ("except", "finally") and any("`try`" in other.message for other in kept):
            continue
        if word in ("import", "as", "from") and same_line:
            continue
        kept.append(one)
    return kept


def _width(message: str) -> int:
    quoted = re.search(r"unexpected \w+(?: literal)? ['\"](.*?)['\"] here", message)
    return len(quoted[1]) if quoted else 1


def _friendly(message: str, before: str, rest: str) -> str:
    """`before` and `rest` are the parts of the source line before and from the place of the error."""
    previous = before.rstrip()
    last_word = (re.findall(r"[A-Za-z_]\w*\Z", previous) or [""])[0]
    expected = _EXPECTED.match(message)
    options = expected["options"] if expected else ""
    what = expected["what"] if expected else message
    if "invalid input" in message:
        return _invalid_input(rest)
    if "tabs are not allowed" in message:
        return "tabs are not allowed: use spaces"
    if "incorrect indentation" in message:
        return "the indentation fits no block around it"
    if "unexpected new indentation block" in message:
        return "this line is indented more than the block it belongs to"
    if "unfinished string literal" in message:
        return (
            "the string is not closed on its line" if rest[:3] not in ('"""', "'''") else "the string is never closed"
        )
    if "Not a valid identifier" in message:
        return 'only plain names may stand between the braces of an f-string: use "{}".format(…) for more'
    if "positional-only-arguments" in message:
        return "positional-only parameters (`/`) do not exist"
    if "not allowed in type expression" in message:
        return annotation_message(message)
    if "must only occur at the top of a module" in message:
        return "`load` must stand at the top level of the file, outside functions, `if` and `for`"
    if "requires at least two arguments" in message:
        return '`load` needs a label and the names to load: load("./file.flow", "name")'
    if "string literal" in what:
        if last_word in ("b", "br", "rb", "B") and previous == before:
            return "bytes do not exist: use a string, binary data crosses as base64 text"
        if previous.endswith(('"', "'")):
            return "strings that stand side by side are not joined: put `+` between them"
        if last_word == "print":
            return "`print` is a function: print(…)"
    if "'**'" in what:
        if previous.endswith(("{", ",")):
            return "`**` works only in calls and parameters: join dicts with `|` or .update(…)"
        return "`**` does not exist as an operator: multiply in a loop"
    if "'*'" in what and previous.endswith(("[", "(", ",", "=", "{")):
        return "`*` works only in calls and parameters: join lists with `+`"
    if rest.startswith(":=") or (rest.startswith("=") and previous.endswith(":")):
        return "`:=` does not exist: assign on a line of its own"
    if options.strip() == '":"' and rest[:1] in (",", "}") and "{" in previous:
        return "set displays `{a, b}` do not exist: use a list, or a dict with True as values"
    if options.strip() == '":"' and rest.startswith("=") and not rest.startswith("=="):
        return "use `==` to compare: an assignment is a statement of its own"
    if any(symbol in what for symbol in _COMPARISONS) and '"and"' in options and '"<"' not in options:
        return "comparisons cannot be chained: write `a < b and b < c`"
    if rest.startswith(">") and previous.endswith("<"):
        return "`<>` does not exist: write `!=`"
    if re.match(r"\s*load *\(", before) and options.strip() == '"="':
        return 'the names in a `load` are strings: load("./file.flow", "name")'
    if (
        rest.startswith("=")
        and not previous.endswith("=")
        and '"="' not in options
        and re.search(r"(?<![=!<>])=(?!=)", previous)
    ):
        return "an assignment has one target only: write one statement for each"
    if "keyword 'else'" in what:
        return "`else` fits no `if` here; `for … else` does not exist"
    if "keyword 'for'" in what and re.search(r"[(,][^()\[\]]*\Z", previous):
        return "generator expressions do not exist: use a list comprehension, `[… for …]`"
    if last_word in ("match", "case") and "unexpected" in what:
        return "`match` does not exist: use `if` and `elif`"
    if last_word == "print" and "unexpected" in what:
        return "`print` is a function: print(…)"
    if (rest.startswith("&") and previous.endswith("&")) or (rest.startswith("|") and previous.endswith("|")):
        return "write `and` and `or` for conditions"
    if previous.endswith(("++", "--")):
        return "`++` and `--` do not exist: write `x += 1`"
    if rest.startswith("_") and previous[-1:].isdigit():
        return "numbers cannot hold underscores"
    if "unexpected end of file" in what or "unexpected new line" in what:
        if '"INDENT"' in options or previous.endswith(":"):
            return "an indented block is missing here"
        if '":"' in options and options.count('"') <= 4:
            return "a `:` is missing at the end of the line"
        return f"the line ends too early{_expecting(options)}"
    if '"INDENT"' in options:
        return "an indented block is missing here"
    if '"and"' in options and re.search("identifier|literal", what):
        return f"{what}: an operator, a comma or a quote is missing before it"
    return what + _expecting(options)


def _expecting(options: str) -> str:
    found = re.findall(r'"((?:\\.|[^"\\])*)"', options)
    if not 0 < len(found) <= _EXPECTED_SHOWN or any(word.isupper() for word in found):
        return ""
    return ", expected " + " or ".join("the end of the line" if one == r"\n" else f"`{one}`" for one in found)


def _invalid_input(rest: str) -> str:
    character = rest[:1]
    if character == "@":
        return "decorators do not exist: call the function, `f = decorate(f)`"
    if character == "!":
        return "write `not` for a condition"
    if character == "?":
        return "write `a if condition else b`"
    if character == "`":
        return "backquotes mean nothing: use str(…)"
    if character and character in "“”„‘’«»":
        return f"`{character}` is a typographic quote: write \" or '"
    if character.isalpha():
        return f"names are made of ASCII letters, digits and _: `{character}` is not allowed outside strings"
    shown = f"`{character}`" if character.isprintable() and character else "a control character"
    return f"{shown} (U+{ord(character):04X}) means nothing here" if character else "the text ends in the middle"
