"""What can be known of a script's text before the interpreter sees it: places, names, depth.

The interpreter's parser and compiler recurse with the depth of what they are given, and a deep enough
input kills the process (design.md §6.1). `scan` bounds that depth with a tokenizer that follows the
interpreter's own rules for strings, comments and line ends, so that nothing can be hidden from it. The
same pass finds what the interpreter does not tell: where the parts of each `load` stand, and which names
a module binds at its top level.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from typing import NamedTuple

EXPRESSION_DEPTH = 500  # operators, calls and brackets inside one another in one statement
NAMES_MAX = 10_000  # different names in one file: what nothing binds costs the interpreter their square
BLOCK_DEPTH = 500  # blocks inside one another, each elif of a chain counted as one inside the one before

RESERVED = frozenset(
    "as assert async await class del except finally from global import is nonlocal raise try while with yield".split()
)
_DEEPENING = frozenset({"and", "else", "for", "if", "in", "lambda", "not", "or"})
_KEYWORDS = RESERVED | _DEEPENING
_FLAT = frozenset({"string", "number"})
_COMPOUND = frozenset({"def", "elif", "else", "for", "if"})
_ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "//=", "%=", "&=", "|=", "^=", "<<=", ">>="})

_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = dict(zip("nrtabfv\"'\\\n", "\n\r\t\a\b\f\v\"'\\", strict=False)) | {"\n": ""}
_INDENTATION = re.compile("[ \r]*")
_TOKEN = re.compile(
    r'''
      (?P<skip>[ \t\r\f]+|\\\r?\n|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<string>"""(?:[^"\\]++|\\.|"(?!""))*+"""|\'\'\'(?:[^'\\]++|\\.|'(?!''))*+\'\'\'
        |"(?!"")(?:[^"\\\n]++|\\(?:\r\n|.))*+"|'(?!'')(?:[^'\\\n]++|\\(?:\r\n|.))*+')
    | (?P<number>0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<quote>["'])
    | (?P<operator>//=|<<=|>>=|\.\.\.|\*\*|->|[-+*/%&|^=!<>]=|//|<<|>>|.)
    ''',
    re.VERBOSE | re.DOTALL,
)


class Position(NamedTuple):
    """A place in a text; both numbers count from 1, columns in characters."""

    line: int
    col: int


class Token(NamedTuple):
    kind: str
    text: str
    offset: int


class LoadedName(NamedTuple):
    """One name of a `load`: `name` in the loaded module, bound as `local` in the loading one."""

    name: str
    local: str
    at: Position


class Load(NamedTuple):
    label: str
    at: Position  # of the label's string
    names: tuple[LoadedName, ...]


class Excess(NamedTuple):
    """The first place where a bound is broken."""

    at: Position
    what: str  # "expression", "block" or "names"
    limit: int


class Scan(NamedTuple):
    """The findings of one pass. They hold for every text that the interpreter accepts."""

    excess: Excess | None  # the text must not be given to the interpreter
    loads: tuple[Load, ...]
    bound: dict[str, Position]  # names bound at the top level, loaded ones included
    reserved: tuple[tuple[str, Position], ...]  # Python's words that Starlark refuses
    unclosed: tuple[str, Position] | None  # the innermost bracket that is still open at the end
    stray: tuple[str, Position] | None  # the first closing bracket that fits no open one


def scan(text: str) -> Scan:
    """Reads `text` once; never fails, whatever it holds."""
    return _Scanner(text).run()


def exported(found: Scan) -> list[str]:
    """The names that another module can load, in order of appearance."""
    return [name for name in found.bound if not name.startswith("_")]


class Lines:
    """Turns offsets into positions. Only a line feed ends a line, as in the interpreter's messages."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def position(self, offset: int) -> Position:
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)


class _Level:
    """How deep the expression inside one bracket is. A comma begins an expression beside the others."""

    __slots__ = ("chain", "inner", "deepest", "lambdas", "bracket", "offset")

    def __init__(self, bracket: str, offset: int) -> None:
        self.bracket = bracket
        self.offset = offset
        self.chain = 0  # operators since the last comma: each may have all before it as its operand
        self.inner = 0  # the deepest bracket since the last comma
        self.deepest = 0  # of the expressions before the last comma
        self.lambdas = 0  # lambdas whose parameters are being read: their commas separate no expressions

    def depth(self) -> int:
        return max(self.deepest, self.chain + self.inner)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = Lines(text)
        self.levels = [_Level("", 0)]
        self.blocks: list[tuple[int, int, bool]] = []  # indentation, weight, inside a def
        self.inside_def = False  # of the innermost block
        self.branches: dict[int, int] = {}  # by indentation: branches so far of the `if` there
        self.excess: Excess | None = None
        self.names: set[str] = set()
        self.loads: list[Load] = []
        self.bound: dict[str, Position] = {}
        self.reserved: list[tuple[str, Position]] = []
        self.stray: tuple[str, Position] | None = None
        self.statement: list[Token] = []  # a logical line of the top level, or what is needed of another
        self.previous = ("", 0)  # first word and weight of the logical line before

    def run(self) -> Scan:
        line_start = 0
        fresh = True  # nothing of the logical line has been read
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup
            assert kind is not None
            if kind == "skip":
                continue
            if kind == "newline":
                if len(self.levels) == 1:
                    if not fresh:
                        self._end_statement()
                    fresh, line_start = True, match.end()
                continue
            if kind == "quote":
                break  # an unfinished string, where the interpreter's lexer stops as well
            text = match.group()
            if kind == "name":
                self.names.add(text)
            if not fresh and self.inside_def and (kind in _FLAT or (kind == "name" and text not in _KEYWORDS)):
                continue  # the most frequent case: nothing to learn
            token = Token(kind, text, match.start())
            if fresh:
                fresh = False
                self._begin_statement(token, self._indentation(line_start))
            self._deepen(token)
            if len(self.names) > NAMES_MAX:
                self._refuse(token, "names", NAMES_MAX)
            if self.excess is not None:
                break
            if text in RESERVED and kind == "name":
                self.reserved.append((text, self.lines.position(token.offset)))
            if not self.inside_def:
                self.statement.append(token)
        innermost = self.levels[-1]
        unclosed = (innermost.bracket, self.lines.position(innermost.offset)) if len(self.levels) > 1 else None
        if not fresh:
            self._end_statement()
        return Scan(self.excess, tuple(self.loads), self.bound, tuple(self.reserved), unclosed, self.stray)

    # -- depth

    def _deepen(self, token: Token) -> None:
        level = self.levels[-1]
        if token.kind == "open":
            level.chain += 1
            self.levels.append(_Level(token.text, token.offset))
            if len(self.levels) > EXPRESSION_DEPTH:
                self._refuse(token, "expression", EXPRESSION_DEPTH)
            return
        if token.kind == "close":
            if level.bracket + token.text not in ("()", "[]", "{}"):
                self.stray = self.stray or (token.text, self.lines.position(token.offset))
            if len(self.levels) > 1:
                self.levels.pop()
                outer = self.levels[-1]
                outer.inner = max(outer.inner, level.depth() + 1)
                level = outer
        elif token.text == ";" or (token.text == "," and not level.lambdas):
            level.deepest, level.chain, level.inner = level.depth(), 0, 0
        elif token.kind == "operator" or token.text in _DEEPENING:
            level.chain += 1
            if token.text == "lambda":
                level.lambdas += 1
            elif token.text == ":" and level.lambdas:
                level.lambdas -= 1
        if level.depth() > EXPRESSION_DEPTH:
            self._refuse(token, "expression", EXPRESSION_DEPTH)

    def _refuse(self, token: Token, what: str, limit: int) -> None:
        self.excess = self.excess or Excess(self.lines.position(token.offset), what, limit)

    # -- statements

    def _begin_statement(self, token: Token, indentation: int) -> None:
        outer = self.blocks[-1][0] if self.blocks else 0
        if indentation > outer:
            header, weight = self.previous
            self.blocks.append((indentation, weight, header == "def" or self.inside_def))
        while self.blocks and indentation < self.blocks[-1][0]:
            self.branches.pop(self.blocks.pop()[0], None)
        self.inside_def = bool(self.blocks) and self.blocks[-1][2]
        branch = self.branches.get(indentation, 0) + 1 if token.text in ("elif", "else") else 1
        self.branches[indentation] = branch
        self.previous = (token.text, branch)
        if sum(weight for _, weight, _ in self.blocks) + branch > BLOCK_DEPTH:
            self._refuse(token, "block", BLOCK_DEPTH)

    def _indentation(self, line_start: int) -> int:
        """Spaces up to the first other character, even if that only continues the line: so the interpreter counts."""
        blank = _INDENTATION.match(self.text, line_start)
        assert blank is not None
        return blank.group().count(" ")

    def _end_statement(self) -> None:
        tokens, self.statement = self.statement, []
        self.levels = [_Level("", 0)]
        if not tokens:
            return
        if tokens[0].text in _COMPOUND:
            tokens = self._compound(tokens)
        for simple in _split(tokens, ";"):
            self._simple(simple)

    def _compound(self, tokens: list[Token]) -> list[Token]:
        """Binds what the header binds and returns what follows it on its line."""
        if tokens[0].text == "def":
            if len(tokens) > 1 and tokens[1].kind == "name":
                self._bind(tokens[1])
            return []
        header, suite = _cut(tokens, ":")
        if tokens[0].text == "for":
            self._bind_targets(_cut(header[1:], "in")[0])
        return suite

    def _simple(self, tokens: list[Token]) -> None:
        if not tokens:
            return
        if tokens[0].text == "load":
            self._load(tokens[1:])
            return
        depth = 0
        for index, token in enumerate(tokens):
            if token.kind == "open":
                depth += 1
            elif token.kind == "close":
                depth -= 1
            elif token.text == "lambda":
                return
            elif depth == 0 and token.text in _ASSIGNMENTS:
                self._bind_targets(_cut(tokens[:index], ":")[0])
                return

    def _bind_targets(self, tokens: list[Token]) -> None:
        """Binds the names among assignment targets, but not `a` in `a.b = …` nor `i` in `a[i] = …`."""
        index = 0
        while index < len(tokens):
            token = tokens[index]
            after = index + 1
            while after < len(tokens) and (tokens[after].text == "." or _is_postfix(tokens, after)):
                after = after + 2 if tokens[after].text == "." else _closing(tokens, after) + 1
            if token.kind == "name" and after == index + 1:
                self._bind(token)
            index = index + 1 if token.kind in ("open", "operator") else after

    def _bind(self, token: Token) -> None:
        self.bound.setdefault(token.text, self.lines.position(token.offset))

    def _load(self, tokens: list[Token]) -> None:
        strings = [index for index, token in enumerate(tokens) if token.kind == "string"]
        if not strings:
            return
        names = []
        for index in strings[1:]:
            token = tokens[index]
            name = _literal(tokens, index)
            index -= _is_raw(tokens, index)
            renamed = index >= 2 and tokens[index - 1].text == "=" and tokens[index - 2].kind == "name"
            local = tokens[index - 2].text if renamed else name
            at = self.lines.position(token.offset)
            names.append(LoadedName(name, local, at))
            self.bound.setdefault(local, at)
        at = self.lines.position(tokens[strings[0]].offset)
        self.loads.append(Load(_literal(tokens, strings[0]), at, tuple(names)))


def _is_postfix(tokens: list[Token], index: int) -> bool:
    """Whether the bracket at `index` indexes or calls what stands before it."""
    before = tokens[index - 1]
    return tokens[index].kind == "open" and (before.kind in ("name", "string", "close"))


def _closing(tokens: list[Token], index: int) -> int:
    depth = 0
    for at in range(index, len(tokens)):
        depth += (tokens[at].kind == "open") - (tokens[at].kind == "close")
        if depth == 0:
            return at
    return len(tokens)


def _cut(tokens: list[Token], mark: str) -> tuple[list[Token], list[Token]]:
    """What stands before and after the first `mark` outside brackets and lambdas."""
    depth = lambdas = 0
    for index, token in enumerate(tokens):
        depth += (token.kind == "open") - (token.kind == "close")
        lambdas += token.text == "lambda"
        if depth == 0 and token.text == mark:
            if mark == ":" and lambdas:
                lambdas -= 1
                continue
            return tokens[:index], tokens[index + 1 :]
    return tokens, []


def _split(tokens: list[Token], mark: str) -> list[list[Token]]:
    parts = []
    while tokens:
        part, tokens = _cut(tokens, mark)
        parts.append(part)
    return parts


def _literal(tokens: list[Token], index: int) -> str:
    """The value of a string token; a raw one has its prefix as the name before it."""
    text = tokens[index].text
    quotes = 3 if text[:3] in ('"""', "'''") else 1
    content = text[quotes:-quotes].replace("\r", "")
    if _is_raw(tokens, index):
        return re.sub(r"\\([\"'])", r"\1", content)
    return _ESCAPE.sub(_unescaped, content)


def _unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    if escape[0] in "01234567":
        return chr(int(escape, 8))
    if escape[0] in "xuU" and len(escape) > 1:
        number = int(escape[1:], 16)
        return chr(number) if number <= sys.maxunicode else found[0]
    return _ESCAPES.get(escape, found[0])


def _is_raw(tokens: list[Token], index: int) -> bool:
    return index > 0 and tokens[index - 1].text == "r" and tokens[index - 1].offset + 1 == tokens[index].offset
