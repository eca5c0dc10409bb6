"""Tracebacks of flows: read from real errors of the interpreter, joined, and shown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlark import EvalOptions, FileLoader, FrozenModule, Module, StarlarkError, eval_with

from flo.api.limits import CALL_DEPTH
from flo.worker.dialect import GLOBALS, on_large_stack, parse
from flo.worker.trace import Trace, parse_trace, render, with_message

PRELUDE = "flo/prelude/v1"


def failure(files: Mapping[str, str], *, call: str = "", depth: int = 50) -> StarlarkError:
    """Evaluates the files in order and gives the error of the last, or of a call of one of its functions."""
    modules: dict[str, FrozenModule] = {}

    def host() -> None:
        raise ValueError("from the host")

    def work() -> None:
        for label, text in files.items():
            module = Module()
            module["__name__"] = label
            module.add_callable("host", host)
            options = EvalOptions(max_callstack_size=depth)
            eval_with(options, module, parse(label, text), GLOBALS, FileLoader(lambda name: modules[name]))
            modules[label] = module.freeze()
        if call:
            modules[label].call_with(EvalOptions(max_callstack_size=depth), call)

    with pytest.raises(StarlarkError) as caught:
        on_large_stack(work)
    return caught.value


def traced(files: Mapping[str, str], *, call: str = "", depth: int = 50) -> Trace:
    return parse_trace(failure(files, call=call, depth=depth), files)


def one(text: str) -> Trace:
    return traced({"m.flow": text})


NESTED = {
    "m.flow": 'def inner(d):\n    return d["missing"]  # INNER\n\n'
    'def outer():\n    return inner({"a": 1})  # OUTER\n\nouter()\n'
}


# -- reading


def test_frames_are_read_outermost_first_with_the_place_of_the_error_last() -> None:
    trace = traced(NESTED)

    assert trace.message == 'Key `"missing"` was not found'
    assert not trace.fail
    assert [(f.where, f.name, f.source) for f in trace.frames] == [
        ("m.flow:7:1", "<module>", "outer()"),
        ("m.flow:5:5", "outer", 'return inner({"a": 1})  # OUTER'),
        ("m.flow:2:12", "inner", 'return d["missing"]  # INNER'),
    ]
    assert trace.where == "m.flow:2:12"


def test_a_trace_is_read_without_the_sources_too() -> None:
    trace = parse_trace(failure(NESTED))

    assert trace.where == "m.flow:2:12"
    assert [(f.where, f.source) for f in trace.frames[:2]] == [
        ("m.flow:7", "outer()"),
        ("m.flow:5", 'return inner({"a": 1})  # OUTER'),
    ]
    assert trace.frames[2].source == 'return d["missing"]  # INNER'


def test_fail_gives_its_message_and_its_place() -> None:
    trace = one('def f():\n    fail("no stock", 3)\nf()\n')

    assert (trace.message, trace.fail, trace.where) == ("no stock 3", True, "m.flow:2:5")
    assert one("fail()\n").message == ""


def test_an_error_at_the_top_level_has_a_place() -> None:
    trace = one('x = 1\ny = x + "a"\n')

    assert [(f.where, f.name) for f in trace.frames] == [("m.flow:2:5", "<module>")]


@pytest.mark.parametrize(
    "message",
    [
        "two\nlines",
        "\n --> x.flow:1:1\n",
        " --> x.flow:1:1\n  |\n1 | x",
        "  * x.flow:1, in f\n",
        "error: x",
        "fail: x",
        "",
        "ü",
    ],
)
def test_a_message_may_hold_anything(message: str) -> None:
    literal = '"' + message.replace("\n", "\\n") + '"'
    trace = one(f"def f():\n    fail({literal})\nf()\n")

    assert (trace.message, trace.fail, trace.where) == (message, True, "m.flow:2:5")


def test_frames_of_the_prelude_and_the_host_are_left_out() -> None:
    trace = traced(
        {
            PRELUDE: 'def unwrap(x):\n    return _deeper(x)\ndef _deeper(x):\n    fail("refused")\n',
            "m.flow": f'load("{PRELUDE}", "unwrap")\n'
            "def f():\n    return [unwrap(i) for i in [1]]\ndef g():\n    return f()\n",
        },
        call="g",
    )

    assert [(f.where, f.name) for f in trace.frames] == [("m.flow:5:5", "g"), ("m.flow:3:5", "f")]
    assert (trace.message, trace.where) == ("refused", "m.flow:3:5")


def test_a_flow_in_a_folder_called_flo_is_the_persons_own() -> None:
    assert traced({"flo/m.flow": "x = 1 // 0\n"}).where == "flo/m.flow:1:5"


def test_an_error_of_the_host_keeps_its_text() -> None:
    trace = one("def f():\n    host()\nf()\n")

    assert trace.message == "ValueError: from the host"
    assert trace.where == "m.flow:2:5"


def test_functions_are_named_by_the_text_around_the_place() -> None:
    text = "def f():\n\n    # a comment\n    for i in [1]:\n        if i:\n            x = 1 // 0\nf()\n"

    assert one(text).frames[-1].name == "f"
    assert one("if True:\n    x = 1 // 0\n").frames[-1].name == "<module>"
    assert one("def f(): return 1 // 0\nf()\n").frames[-1].name == "f"


def test_expressions_of_several_lines_have_the_place_of_their_first() -> None:
    trace = one('x = (1 +\n  2 +\n  "a")\n')

    assert trace.where == "m.flow:1:6"


@given(text=st.text(max_size=200))
def test_any_text_gives_a_trace(text: str) -> None:
    trace = parse_trace(text)
    assert render(trace)
    assert render(parse_trace("Traceback (most recent call last):\n" + text + "\nerror: x\n --> m.flow:1:1\n  |\n"))


def test_the_worker_can_say_more_than_the_interpreter() -> None:
    trace = with_message(traced(NESTED), "the step budget is used up", hint="end the loop")

    assert trace.where == "m.flow:2:12"
    assert render(trace, NESTED, kind="quota_exceeded").endswith(
        "quota_exceeded: the step budget is used up\nhint: end the loop"
    )


# -- showing


def test_a_traceback_shows_each_call_with_its_source_and_marks_the_error() -> None:
    assert render(traced(NESTED), NESTED) == (
        "Traceback (most recent call last):\n"
        "  m.flow:7:1, in <module>\n"
        "    outer()\n"
        "  m.flow:5:5, in outer\n"
        '    return inner({"a": 1})  # OUTER\n'
        "  m.flow:2:12, in inner\n"
        '    return d["missing"]  # INNER\n'
        "           ^^^^^^^^^^^^\n"
        'failed: Key `"missing"` was not found\n'
        "hint: d.get(key) gives None for a missing key, d.get(key, default) the default"
    )


def test_a_recursion_is_shown_once_with_its_count() -> None:
    files = {"m.flow": "def f(n):\n    return f(n + 1)\nf(0)\n"}
    trace = traced(files, depth=CALL_DEPTH)

    shown = render(trace, files)

    assert len(trace.frames) > CALL_DEPTH - 10 and trace.where == "m.flow:2:12"
    assert len(shown.splitlines()) < 12 and "more times]" in shown
    assert "call stack overflow" in shown and f"{CALL_DEPTH:,} levels" in trace.hint


def test_a_long_traceback_is_shortened_in_the_middle() -> None:
    files = {"m.flow": "def f(n):\n    return g(n)\n\ndef g(n):\n    return f(n + 1)\nf(0)\n"}
    trace = traced(files, depth=CALL_DEPTH)

    lines = render(trace, files).splitlines()

    assert len(lines) < 60
    assert lines[1:3] == ["  m.flow:6:1, in <module>", "    f(0)"]
    hidden = [line for line in lines if "more calls" in line]
    assert hidden == [f"  … {len(trace.frames) - 24} more calls …"]


# -- hints


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f():\n    later()\nf()\ndef later():\n    pass\n", 'if __name__ == "__flow__":'),
        ("def f():\n    y = y + 1\nf()\n", "variable of its own"),
        ("x = {}['a']\n", "d.get(key, default)"),
        ("x = [1][3]\n", "len("),
        ("x = 'a' + 1\n", "str(value)"),
        ("x = 1 + 'a'\n", "str(value)"),
        ("x = [1]\nfor i in x:\n    x.append(i)\n", "list(values)"),
        ("x = None.foo\n", "is None"),
        ("x = None()\n", "can be called"),
        ("for i in 3:\n    pass\n", "range(n)"),
        ("for i in 'abc':\n    pass\n", "elems()"),
        ("x = struct(a = 1)\nx.a = 2\n", "make a new one"),
        ("x = {[]: 1}\n", "keys of a dict"),
        ("def f(a):\n    pass\nf()\n", "compare the call"),
        ("def f():\n    pass\nf(1)\n", "compare the call"),
        ("x = record(a = int)(a = 1)", "top level"),
    ],
)
def test_errors_that_puzzle_come_with_a_hint(text: str, says: str) -> None:
    assert says in one(text).hint


def test_changing_a_frozen_value_has_a_hint() -> None:
    files = {"lib.flow": "S = [1]\n", "m.flow": 'load("lib.flow", "S")\ndef f():\n    S.append(2)  # HERE\nf()\n'}
    trace = traced(files)

    assert trace.where == "m.flow:3:5"
    assert "frozen" in trace.hint


def test_a_loop_that_is_stopped_has_its_place_and_a_hint() -> None:
    text = "def f():\n    for i in range(1000000000):\n        x = i\nf()\n"

    def work() -> None:
        eval_with(EvalOptions(check_cancelled=lambda: True), Module(), parse("m.flow", text), GLOBALS)

    with pytest.raises(StarlarkError) as caught:
        on_large_stack(work)
    trace = parse_trace(caught.value, {"m.flow": text})

    assert trace.where.startswith("m.flow:2:") and "loop rounds" in trace.hint


def test_what_a_script_says_itself_gets_no_hint() -> None:
    assert one('fail("Immutable")\n').hint == ""
