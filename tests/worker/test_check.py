"""Checking: every mistake has a place, a code and words that help; no text ends the process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlark import AstModule, EvalOptions, FileLoader, FrozenModule, Module, StarlarkError, eval_with

from flo.worker import bundle as bundle_module
from flo.worker import check as check_module
from flo.worker.bundle import Bundle
from flo.worker.check import check, check_bundle
from flo.worker.dialect import GLOBALS, STACK_BYTES, TooDeep, large_thread, on_large_stack, parse
from flo.worker.problems import CODES, Problem, display_path, errors, excerpt, render
from flo.worker.source import BLOCK_DEPTH, EXPRESSION_DEPTH, NAMES_MAX, exported, scan

EXAMPLE = """\
load("flo/prelude/v1", "flow", "FlowContext", "unwrap")

LIMIT = 3
TABLE = {"a": [1, 2.5, None], 'b': ("x", r"\\d", f"{LIMIT}")}

def _main(fctx: FlowContext) -> dict[str, int]:
    \"\"\"Counts.\"\"\"
    found = {}
    for i, name in enumerate(sorted(TABLE)):
        if i >= LIMIT or not name:
            break
        elif i % 2 == 0:
            continue
        else:
            found[name] = len(TABLE[name]) if name in TABLE else -1
    total = [x * 2 for x in found.values() if x > 0]
    return unwrap(fctx.actions.run(main, n = len(total), **found))

main = flow(implementation = _main, args = {})

if __name__ == "__flow__":
    print("{} {}".format(main(), (lambda x: x + 1)(1)))
"""

Check = Callable[[str], list[Problem]]


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.chdir(tmp_path)

    def problems(text: str) -> list[Problem]:
        (tmp_path / "m.flow").write_bytes(text.encode())
        return check("m.flow")

    return problems


def checked(text: str) -> list[Problem]:
    return check_bundle(Bundle({"m.flow": text}, "m.flow"), warnings=True)


# -- what is fine


def test_a_good_script_has_no_problem(problems: Check) -> None:
    assert problems(EXAMPLE) == []


def test_an_empty_script_has_no_problem(problems: Check) -> None:
    assert problems("") == problems("\n\n# nothing\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "x: int = 3\n",
        "def f(a: str, *b, c = 1, **d) -> list[int | None]:\n    return []\n",
        "def f(a: typing.Any):\n    return a\n",
        "x = 1;y = 2\r\nz = x\\\r\n + y\r\n",
        "def f():\n    return later\nlater = 1\n",
        'x = "\u2028\x0b"; y = x\n',
        "t = record(a = int)\nu = struct(b = t(a = 1), c = enum('p'))\n",
        "if __name__:\n    x = 1\n",
        "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n",
    ],
)
def test_what_the_dialect_allows_is_accepted(problems: Check, text: str) -> None:
    assert errors(problems(text)) == []


# -- syntax

INSTEAD = {
    "while x:\n    pass": "for i in range(limit)",
    "class A:\n    pass": "struct(…)",
    "import os": 'load("./file.flow", "name")',
    "from os import path as p": 'load("./file.flow", "name")',
    "try:\n    x = 1\nexcept E:\n    pass": "Result",
    "raise x": "fail(message)",
    "with a as b:\n    pass": "resources",
    "yield 1": "return a list",
    "async def f():\n    pass": "fctx.actions.run",
    "global x": "frozen",
    "nonlocal x": "return",
    "del x": ".pop(",
    "assert x": "fail(message)",
    "x = 1 is 2": "`==`",
    "x = 2 ** 3": "multiply",
    "x = {1, 2}": "set displays",
    "x = {1}": "set displays",
    "x = 'a' 'b'": "put `+` between them",
    "(x := 3)": "`:=`",
    "@deco\ndef f():\n    pass": "decorators",
    "x = 1 < 2 < 3": "cannot be chained",
    "for x in []:\n    pass\nelse:\n    pass": "for … else",
    "match x:\n    case 1:\n        pass": "`if` and `elif`",
    "def f(a, /):\n    pass": "positional-only",
    "x = [*a]": "join lists with `+`",
    "x = {**a}": "join dicts",
    "x = b'abc'": "base64",
    "x = y = 2": "one target",
    "x = f'{a + 1}'": ".format(",
    "x = (1, 2\ny = 3": "`(` is never closed",
    "x = [1,": "`[` is never closed",
    "x = (1]": "`]` closes nothing",
    "x = 'abc": "not closed on its line",
    "x = '''abc\nd": "never closed",
    "if x:\npass": "indented block is missing",
    "def f():": "indented block is missing",
    "def f()\n    pass": "a `:` is missing",
    "  x = 1": "indented more",
    "if x:\n    y = 1\n  z = 2": "indentation",
    "if x:\n\ty = 1": "use spaces",
    "print 'x'": "print(…)",
    "f(x for x in y)": "list comprehension",
    "if x = 1:\n    pass": "use `==`",
    "x++": "x += 1",
    "x && y": "`and`",
    "!x": "`not`",
    "x ? 1 : 2": "a if condition else b",
    "x = 1 <> 2": "`!=`",
    "x = 1_000": "underscores",
    "é = 1": "ASCII",
    "x = “a”": "typographic",
    "x = $": "U+0024",
    "x = \x1b[0m": "control character",
    "load('a', x)": "strings",
    "load('a')": "names to load",
    "def f():\n    load('./a.flow', 'x')": "top level",
    "def f(x: 'T'):\n    pass": "annotation",
    "x = 'it's'": "is missing before it",
    "return 1": "outside of a `def`",
}


@pytest.mark.parametrize("text", INSTEAD)
def test_a_syntax_error_says_what_to_do(problems: Check, text: str) -> None:
    found = problems("x = 1\n" + text + "\n")

    assert found and {problem.code for problem in found} == {"syntax"}
    assert INSTEAD[text] in found[0].message
    assert found[0].line >= 2 and found[0].col >= 1 and found[0].severity == "error"
    assert all(one.isprintable() or one == "\n" for one in render(found))


def test_words_of_python_are_all_named_at_once(problems: Check) -> None:
    found = problems(
        "import os\nfrom a import b\nwhile 1:\n    try:\n        raise x\n    except E as e:\n        pass\n"
    )

    assert [(p.line, p.message.split("`")[1]) for p in found] == [
        (1, "import"), (2, "from … import"), (3, "while"), (4, "try"), (5, "raise"),
    ]  # fmt: skip


def test_words_of_python_in_strings_and_comments_are_nothing(problems: Check) -> None:
    assert problems('x = "while" # class\ny = """\nimport os\n"""\nz = r"\\" # try"\nw = \'it\\\'s while\'\n') == []


def test_an_error_before_other_words_comes_first(problems: Check) -> None:
    assert [p.line for p in problems("x = = 1\nwhile x:\n    pass\n")] == [1, 2]


# -- names


def test_every_unknown_name_is_found_with_its_place(problems: Check) -> None:
    found = problems("def f():\n    return first + [second for x in thirds]\nfourth()\n")

    assert [(p.where, p.code, p.message) for p in found] == [
        ("m.flow:2:12", "unknown-name", "`first` is not defined"),
        ("m.flow:2:21", "unknown-name", "`second` is not defined"),
        ("m.flow:2:37", "unknown-name", "`thirds` is not defined"),
        ("m.flow:3:1", "unknown-name", "`fourth` is not defined"),
    ]


def test_unknown_names_in_annotations_hide_no_others(problems: Check) -> None:
    found = problems("def f(x: Foo, y: list[Bar]) -> Baz:\n    return zzz\n")

    assert [(p.where, p.message.split("`")[1]) for p in found] == [
        ("m.flow:1:10", "Foo"), ("m.flow:1:23", "Bar"), ("m.flow:1:32", "Baz"), ("m.flow:2:12", "zzz"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("flow", 'load("flo/prelude/v1", "flow")'),
        ("json", 'load("flo/prelude/v1", "json")'),
        ("set", "a dict with True as values"),
        ("open", "no files"),
        ("lenn", "did you mean `len`?"),
        ("cuont", "did you mean `count`?"),
        ("Optional", "`T | None`"),
    ],
)
def test_an_unknown_name_comes_with_what_to_do(problems: Check, name: str, says: str) -> None:
    (problem,) = errors(problems(f"count = 1\nx = {name}(1)\n"))

    assert says in problem.message


@pytest.mark.parametrize("name", ["open", "eval", "exec", "__import__", "input", "id", "sum", "round", "set", "bytes"])
def test_names_outside_the_language_are_refused(problems: Check, name: str) -> None:
    assert [p.code for p in problems(f"x = {name}\n")] == ["unknown-name"]


# -- warnings


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("x = 1\nx = 2\n", "duplicate-top-level-assign", 2),
        ("x = {1: 2, 1: 3}\n", "duplicate-key", 1),
        ("def f():\n    return 1\n    return 2\n", "unreachable", 3),
        ("x = 1\nx\n", "ident-as-statement", 2),
        ("x = 1\nload('flo/prelude/v1', 'flow')\ny = flow\n", "misplaced-load", 2),
        ("def f(x):\n    if x:\n        return 1\n", "missing-return", 1),
        ("def f():\n    y = y + 1\n", "using-unassigned", 2),
    ],
)
def test_lint_findings_are_warnings_under_their_own_codes(problems: Check, text: str, code: str, line: int) -> None:
    found = problems(text)

    assert (code, line, "warning") in [(p.code, p.line, p.severity) for p in found]
    assert errors(found) == []
    assert Bundle.from_script("m.flow").entry == "m.flow"


def test_guesses_about_types_are_warnings(problems: Check) -> None:
    found = problems('def f():\n    x = [1]\n    return x + "a"\n')

    assert [(p.code, p.severity, p.line) for p in found] == [("type", "warning", 3)]


def test_the_names_of_lint_are_codes_and_every_code_is_documented() -> None:
    binary = Path(str(__import__("starlark").starlark.__file__)).read_bytes()
    lint = {"using-unassigned", "duplicate-key", "duplicate-top-level-assign", "no-effect", "misplaced-load"}

    assert all(code.encode() in binary and code in CODES for code in lint)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) and text.endswith(".") for code, text in CODES.items())


# -- several files


def test_problems_of_loaded_files_are_told_in_the_order_in_which_they_are_loaded(problems: Check) -> None:
    Path("b.flow").write_text("y = undefined\n")
    Path("a.flow").write_text('load("./b.flow", "y")\nx = [y, other]\n')

    found = problems('load("./a.flow", "x")\nprint(x, third)\n')

    assert [p.where for p in found] == ["m.flow:2:10", "a.flow:2:9", "b.flow:1:5"]


def test_a_bundle_from_elsewhere_is_checked_by_its_labels() -> None:
    bundle = Bundle(
        {"m.flow": 'load("./dir/a.flow", "x")\nload("./none.flow", "y")\n', "dir/a.flow": "z = 1\n"}, "m.flow"
    )

    assert [(p.where, p.code) for p in check_bundle(bundle)] == [
        ("m.flow:1:22", "load-name"),
        ("m.flow:2:6", "load-missing"),
    ]


def test_files_outside_the_current_folder_are_shown_by_their_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "m.flow").write_text("x = zz\n")
    monkeypatch.chdir(tmp_path / "here")

    (problem,) = check("../m.flow")

    assert problem.file == str(tmp_path / "m.flow") == display_path("../m.flow")


def test_no_more_than_the_bound_of_problems_is_told(problems: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "PROBLEMS_MAX", 5)

    assert len(problems("".join(f"x{i} = y{i}\n" for i in range(9)))) == 5


# -- text form


def test_a_problem_is_one_line_and_its_excerpt() -> None:
    problem = Problem("a.flow", 2, 7, "unknown-name", "`y` is not defined", "error", excerpt("\n  x = y\n", 2, 7))

    assert str(problem) == "a.flow:2:7: unknown-name: `y` is not defined\n    x = y\n        ^"


def test_a_long_line_is_shown_in_part_with_the_caret_in_place() -> None:
    text = "x = " + "a" * 1000 + "!" + "b" * 1000
    first, second = excerpt(text, 1, 1005).splitlines()

    assert first[second.index("^")] == "!"
    assert len(first) < 200


def test_excerpts_are_harmless_to_a_terminal() -> None:
    assert "\x1b" not in excerpt("x = '\x1b[2J'; y", 1, 1)


# -- bounds: nothing that is accepted may end the process


QUOTES = """\
y = '\\'' + "\\"" + r'\\'' + '''\\'''' # '
x = """
DEEP: dict[str, Callable[[int], str]] = {
    "terms": lambda n: "x = " + "1 + " * n + "1",
    "lists": lambda n: "x = " + "[" * n + "]" * n,
    "open lists": lambda n: "x = " + "[" * n,
    "parentheses": lambda n: "x = " + "(" * n + "1" + ")" * n,
    "dicts": lambda n: "x = " + "{1: " * n + "1" + "}" * n,
    "calls": lambda n: "def f(x):\n    return f\nx = f" + "(1)" * n,
    "arguments": lambda n: "x = " + "str(" * n + "1" + ")" * n,
    "attributes": lambda n: "y = 1\nx = y" + ".a" * n,
    "negations": lambda n: "x = " + "not " * n + "1",
    "signs": lambda n: "x = " + "-" * n + "1",
    "conditionals": lambda n: "x = " + "1 if 1 else " * n + "1",
    "tight conditionals": lambda n: "x = " + "1if 1else " * n + "1",
    "lambdas": lambda n: "x = " + "lambda: " * n + "1",
    "lambdas with parameters": lambda n: "x = " + "lambda a, b: " * n + "1",
    "lambdas with defaults": lambda n: "x = " + "lambda a = lambda c, d: 1, b = 2: " * n + "1",
    "comprehensions": lambda n: "y = [1]\nx = " + "[" * n + "1" + " for i in y]" * n,
    "clauses": lambda n: "y = [1]\nx = [1 " + "for i in y " * n + "]",
    "unions": lambda n: "def f(x: " + "|".join(["str"] * n) + "):\n    return 1",
    "sums in brackets": lambda n: "x = " + "(" * (n // 4) + "1" + " + 1 + 1 + 1)" * (n // 4),
    "ifs": lambda n: "y = 1\n" + "".join(" " * i + "if y:\n" for i in range(n)) + " " * n + "pass",
    "hidden ifs": lambda n: "y = 1\n" + "".join(" " * i + "\\\n" + " " * (2 * n) + "if y:\n" for i in range(n))
        + " " * n + "pass",
    "branches": lambda n: "y = 1\nif y:\n    pass\n" + "elif y:\n    pass\n" * n,
    "short branches": lambda n: "y = 1\nif y: pass\n" + "elif y: pass\n" * n,
    "functions": lambda n: "".join(" " * i + "def f():\n" for i in range(n)) + " " * n + "pass",
    "after a quote": lambda n: QUOTES + "[" * n + "]" * n,
    "after a continued string": lambda n: "y = 'a\\\r\nb'\nx = " + "[" * n + "]" * n,
    "after a carriage return": lambda n: "y = '\r' + 1 # \r'\nx = " + "[" * n + "]" * n,
}  # fmt: skip


def deep(shape: str, n: int) -> str:
    return DEEP[shape](n)


@pytest.mark.parametrize("shape", DEEP)
def test_deep_texts_are_refused_with_their_line(problems: Check, shape: str) -> None:
    size = 1_500 if shape in ("ifs", "hidden ifs", "functions") else 20_000
    found = errors(problems(deep(shape, size) + "\n"))

    assert [p.code for p in found] == ["too-deep"]
    assert 1 <= found[0].line


def test_a_list_nested_a_hundred_thousand_deep_is_refused(problems: Check) -> None:
    (problem,) = problems("y = 1\nx = " + "[" * 100_000 + "]" * 100_000 + "\n")

    assert problem.code == "too-deep" and problem.line == 2
    assert len(str(problem)) < 600


@pytest.mark.parametrize("shape", DEEP)
def test_texts_just_within_the_bound_are_evaluated_on_the_stack_that_we_promise(shape: str) -> None:
    """The greatest depth that is let through must be safe for all that the interpreter does with it."""
    texts = [deep(shape, n) + "\n" for n in range(1, EXPRESSION_DEPTH + 1, 7)]
    text = [text for text in texts if scan(text).excess is None][-1]

    def work() -> None:
        try:
            tree = parse("m.flow", text)
        except StarlarkError:
            return
        tree.typecheck(GLOBALS, {})
        tree.lint()
        evaluate(tree)

    on_large_stack(work)


def test_the_deepest_blocks_may_hold_the_deepest_expressions() -> None:
    blocks = "y = 1\n" + "".join(" " * i + "if y:\n" for i in range(BLOCK_DEPTH - 1))
    text = blocks + " " * (BLOCK_DEPTH - 1) + deep("lambdas", EXPRESSION_DEPTH // 2 - 2) + "\n"
    assert scan(text).excess is None

    on_large_stack(lambda: evaluate(parse("m.flow", text)))


def test_wide_texts_are_not_deep() -> None:
    rows = 2_000
    assert scan("x = [" + "1 + 1, " * rows + "]\n").excess is None
    assert scan("x = {" + "'a': lambda b, c: b + c, " * rows + "}\n").excess is None
    assert scan("x = 1 + 1\n" * rows).excess is None
    assert scan("x = 1; " * rows + "\n").excess is None
    assert scan("x = f(1)(2) + g(3)\nif x:\n    y = 1\n" * rows).excess is None


def test_too_many_names_are_refused(problems: Check) -> None:
    text = "".join(f"n{i} = 1\n" for i in range(NAMES_MAX + 1))

    assert [(p.code, p.line) for p in problems(text)] == [("too-many-names", NAMES_MAX + 1)]


def test_what_is_too_deep_never_reaches_the_interpreter() -> None:
    with pytest.raises(TooDeep):
        parse("m.flow", deep("lists", 100_000))


def test_a_large_stack_returns_and_raises_what_its_work_does() -> None:
    assert on_large_stack(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        on_large_stack(lambda: 1 // 0)


def test_threads_started_elsewhere_keep_their_stack_size() -> None:
    import threading

    before = threading.stack_size()
    large_thread(lambda: None, name="test").join()

    assert threading.stack_size() == before != STACK_BYTES


# -- what the scan finds agrees with the interpreter


def evaluate(tree: AstModule, modules: dict[str, FrozenModule] | None = None) -> FrozenModule | None:
    module = Module()
    module["__name__"] = "__flow__"
    try:
        eval_with(EvalOptions(max_callstack_size=100), module, tree, GLOBALS, FileLoader(lambda x: (modules or {})[x]))
    except StarlarkError:
        return None
    return module.freeze()


BINDINGS = """\
load("./other.flow", "o1", o2 = "p")
load('./other.flow',
    "o3",  # a comment, "no"
    o4 = r'q',)
a, (b, [c, d["k"]]) = 1, (2, [3, 4]); e = 5
f: int = 6
if a == 1: g = 7; h = 8
if (i := 1) if False else True: pass
for j, (k, l) in [(1, (2, 3))]: m = 4
for n in [1]:
    o = 1
    for p in [2]:
        q = 3
def r(s, t = lambda u = 1: u): v = 1
def w():
    x = 1
    def y():
        z = 1
    return lambda: x
if a:
    aa = 1
    def bb():
        cc = 1
    dd = 1
elif b:
    ee = 1
else:
    ff = 1
gg = [hh for hh in [1]]
ii = lambda jj: jj
d2 = struct(kk = 1); ll = {"mm": 1}
ll["nn"] = 1; (oo) = 1; [pp] = [1]
r(qq, rr = 1)
x1 = x2 == 1
x3 += 1
"""


def test_top_level_names_are_found() -> None:
    names = set(scan(BINDINGS.replace("if (i := 1) if False else True: pass\n", "")).bound)

    assert names == set("o1 o2 o3 o4 a b c e f g h j k l m n o p q r w aa bb dd ee ff gg ii d2 ll oo pp x1 x3".split())


ATOMS = ["a", "b", "c", "(a, b)", "[a, c]", "d[0]", "d[a]", "(c)", "a, b", "b, (c, a)"]
TARGETS = st.sampled_from(ATOMS)
SIMPLE = st.one_of(
    st.tuples(TARGETS, st.sampled_from(["[1, [1, 1]]", "x == y", "f(a = 1, b = {'c': 1})", "lambda a, b: a"])).map(
        lambda pair: f"{pair[0]} = {pair[1]}"
    ),
    st.sampled_from(["pass", "a += 1", "x", "f(b = 1)", "c: int = 1", "'a = 1'", "[a for a in x]", "x.a = 1"]),
)
LINE = st.lists(SIMPLE, min_size=1, max_size=2).map("; ".join)


@st.composite
def blocks(draw: st.DrawFn, depth: int = 0) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["simple", "if", "for", "def"] if depth < 3 else ["simple"]))
        if kind == "simple":
            lines.append(draw(LINE))
            continue
        function = draw(st.sampled_from("gh"))
        header = {"if": "if x:", "for": f"for {draw(TARGETS)} in y:", "def": f"def {function}(a = 1):"}[kind]
        if draw(st.booleans()):
            lines.append(f"{header} {draw(LINE)}")
        else:
            lines.extend([header, *("    " + line for line in draw(blocks(depth + 1)))])
        if kind == "if" and draw(st.booleans()):
            lines.append(f"else: {draw(LINE)}")
    return lines


@given(lines=blocks())
@settings(max_examples=300, deadline=None)
def test_names_that_the_scan_finds_are_those_that_the_interpreter_binds(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    wanted = list("abcgh")
    # The interpreter names what nothing binds at the top level, if it is used there.
    tree = parse("m.flow", f"x = 1; y = 1; d = 1; f = 1\n{text}[{', '.join(wanted)}]\n")
    last = f" --> m.flow:{len(lines) + 2}:"
    unbound = {str(error).split("`")[1] for error in tree.typecheck(GLOBALS, {})[0] if last in str(error)}

    assert set(wanted) & set(scan(text).bound) == set(wanted) - unbound


@pytest.mark.parametrize(
    "literal",
    ["'a'", '"""b\nc"""', r"'\'\"\\\n\t\x41\u00e9\U0001F600\101\0'", r"r'\d\'\\'", r"'\d \
'", "'a\\\nb'", "'a\\\r\nb'"],
)  # fmt: skip
def test_strings_in_loads_have_the_value_that_the_interpreter_gives_them(literal: str) -> None:
    text = f"load({literal}, x = {literal})\n"
    (told,) = on_large_stack(lambda: parse("m.flow", text)).loads()
    (load,) = scan(text).loads

    assert load.label == told.module_id
    assert {name.local: name.name for name in load.names} == told.symbols


def test_exported_names_are_those_that_can_be_loaded() -> None:
    text = "a = 1\n_b = 2\ndef c():\n    d = 1\nfor e in [1]:\n    f = e\n"
    frozen = on_large_stack(lambda: evaluate(parse("lib", text)))
    assert frozen is not None
    names = exported(scan(text))
    assert names == ["a", "c", "e", "f"]

    for name in ["a", "_b", "c", "d", "e", "f"]:
        loaded = on_large_stack(lambda: evaluate(parse("m", f'load("lib", x = "{name}")\n'), {"lib": frozen}))  # noqa: B023
        assert (loaded is not None) == (name in names), name


# -- any text at all

PIECES = st.sampled_from([
    "def", "f", "(", ")", "[", "]", "{", "}", ":", ",", "\n", "\n    ", "\n  ", "=", "==", "+", "-", "*", "**", "if",
    "else", "elif", "for", "in", "lambda", "not", "and", "return", "load",
    '"./a.flow"', '"x"', "'", '"""', "\\", "#", "1", "0x", "1.5e",
    "while", "import", "class", "x", "y", ".", ";", "->",
    "|", "%", "f'{x}'", "f'{", "é", "\t", "\r", "\0", "\ufeff", "@", "str",
    "True", "None", "...", "int", "list[", "__name__", "pass", "break", "\\\n", " ",
])  # fmt: skip
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def never_crashes(text: str) -> None:
    found = checked(text)
    for problem in found:
        assert problem.code in CODES and problem.message and problem.line >= 1 and problem.col >= 1
        assert problem.line <= text.count("\n") + 1
        assert "\n" not in problem.message
    if not errors(found):
        on_large_stack(lambda: parse("m.flow", text))  # what has no error is taken by the interpreter
        # The scan has read all of it, with the interpreter's own idea of strings and comments.
        assert scan(f"{text}\n{deep('lists', EXPRESSION_DEPTH + 1)}\n").excess is not None


@given(text=st.text(st.characters(codec="utf-8"), max_size=200))
@FUZZ
def test_random_text_gives_problems_or_is_fine(text: str) -> None:
    never_crashes(text)


@given(pieces=st.lists(PIECES, max_size=40))
@FUZZ
def test_random_pieces_of_scripts_give_problems_or_are_fine(pieces: list[str]) -> None:
    never_crashes("".join(pieces))
    never_crashes(" ".join(pieces))


@given(
    content=st.lists(st.sampled_from(["a", "'", '"', "\\", "\n", "\r", "\r\n", "#", "{", "}", "x41", "7"]), max_size=8),
    prefix=st.sampled_from(["", "r", "f", "fr"]),
    quote=st.sampled_from(["'", '"', "'''", '"""']),
)
@settings(FUZZ, max_examples=1_000)
def test_random_strings_give_problems_or_are_fine(content: list[str], prefix: str, quote: str) -> None:
    never_crashes(f"x = {prefix}{quote}{''.join(content)}{quote}\n")


@given(data=st.data())
@FUZZ
def test_damaged_scripts_give_problems_or_are_fine(data: st.DataObject) -> None:
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + "".join(data.draw(st.lists(PIECES, max_size=2))) + text[end:]
    never_crashes(text)


def test_the_bounds_of_a_bundle_are_those_of_the_limits() -> None:
    assert (bundle_module.BUNDLE_BYTES, bundle_module.BUNDLE_FILES) == (16 << 20, 1_000)
