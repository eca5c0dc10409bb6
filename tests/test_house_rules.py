"""House rules that a program can check, so that nobody has to remember them."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import flo
from flo.api import limits, outcome
from flo.api.errors import FloError
from flo.grid import transactions, waiters
from flo.primitives import group_rules, kv_rules, kv_txn, namespaces, queue_dedup, queue_rules, stream_rules
from flo.worker import problems
from tests.support.flo_command import EXAMPLES, ROOT

LINES_MAX = 700  # of one file: above it a module holds more than one idea
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Calls that read the real clock or wait for it, and where they are allowed.
CLOCK_CALLS = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.sleep", "datetime.now"}
CLOCK_HOMES = {
    "flo/api/clock.py",  # the one clock
}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(node: ast.expr) -> str:
    """`time.sleep` for the expression time.sleep, the last two names of a longer one."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    return ".".join(reversed(names[:2]))


def calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node.lineno


def swallows(handler: ast.ExceptHandler) -> bool:
    """Whether the handler catches everything and goes on as if nothing had happened."""
    broad = handler.type is None or dotted(handler.type) in {"Exception", "BaseException"}
    silent = all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in handler.body
    )
    return broad and silent


def test_only_the_clock_reads_the_clock():
    found = [
        f"{name(path)}:{line}: {call}"
        for path in sources("flo")
        if name(path) not in CLOCK_HOMES
        for call, line in calls(parsed(path))
        if call in CLOCK_CALLS
    ]

    assert found == []


def test_tests_do_not_sleep():
    found = [
        f"{name(path)}:{line}"
        for path in sources("tests")
        for call, line in calls(parsed(path))
        if call == "time.sleep"
    ]

    assert found == []


def test_no_handler_swallows_everything():
    found = [
        f"{name(path)}:{node.lineno}"
        for path in sources("flo", "tests", "benchmarks")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]

    assert found == []


def test_no_file_is_too_long_for_one_idea():
    found = {
        name(path): lines
        for path in sources("flo", "tests", "benchmarks")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }

    assert found == {}


def test_every_module_says_what_it_is():
    found = [name(path) for path in sources("flo") if not ast.get_docstring(parsed(path))]

    assert found == []


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {name(path.parent).replace("/", ".") for path in sources("flo")} | {"flo._prelude"}

    assert set(listed) == packages


def error_classes() -> list[type[FloError]]:
    for module in pkgutil.walk_packages(flo.__path__, "flo."):
        if module.name not in {"flo.__main__", "flo.pytest_plugin"} and "._prelude" not in module.name:
            importlib.import_module(module.name)
    found: list[type[FloError]] = []
    todo: list[type[FloError]] = [FloError]
    while todo:
        error = todo.pop()
        found.append(error)
        todo += error.__subclasses__()
    return [error for error in found if error.__module__.startswith("flo.")]


def headings(page: str) -> set[str]:
    """The codes that docs/PAGE explains: headings in backticks."""
    return set(re.findall(r"^#+ `([^`]+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE))


def test_every_error_code_is_documented():
    codes = {error.code for error in error_classes()}

    assert codes - headings("errors.md") == set()


def test_every_reason_for_a_pause_is_documented():
    assert headings("errors.md") >= {"NonDeterministic", "crashing"}


def test_every_error_kind_of_a_result_is_documented():
    assert outcome.ERROR_KINDS - headings("errors.md") == set()


def test_every_code_of_flo_check_is_documented_with_its_meaning():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    assert dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)) == problems.CODES


def test_every_limit_is_documented_with_its_value():
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([\d,]+)", text, re.MULTILINE))
    documented = {limit: int(value.replace(",", "")) for limit, value in rows.items()}
    actual = {limit: value for limit, value in vars(limits).items() if limit.isupper()}

    assert documented == actual


STORAGE_LIMITS = {
    "kv": (kv_rules,),
    "txn": (kv_txn, transactions),
    "queue": (queue_rules, queue_dedup),
    "stream": (stream_rules,),
    "group": (group_rules,),
    "node": (namespaces, waiters),
}
NO_LIMITS = {  # what numbers are made of, and how memory is kept
    "kv.COUNTER", "kv.EXPIRES", "kv.UNDERSCORE", "kv.INSTANT_MAX", "kv.COUNTER_MAX", "kv.COUNTER_MIN", "txn.COUNTER",
    "txn.EXPIRES", "txn.TOMBSTONE", "txn.HEADER_BYTES", "txn.ID_BITS", "queue.INSTANT_MAX", "queue.DROPS",
    "queue.GARBAGE", "queue.ENTRY_BYTES", "stream.PART_MAX", "node.DUMP_VERSION", "txn.COPIES", "txn.OPERATION_BYTES",
}  # fmt: skip


def test_every_limit_of_keys_queues_and_streams_is_documented_with_its_value():
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z]+\.[A-Z_]+)` \| ([\d,]+) ", text, re.MULTILINE))
    actual = {
        f"{part}.{limit}": value
        for part, modules in STORAGE_LIMITS.items()
        for module in modules
        for limit, value in vars(module).items()
        if limit.isupper() and type(value) is int
    }

    assert {limit: int(value.replace(",", "")) for limit, value in rows.items()} == {
        limit: value for limit, value in actual.items() if limit not in NO_LIMITS
    }
    assert actual.keys() >= NO_LIMITS


def test_every_code_in_the_details_of_a_refusal_is_documented():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    codes = {
        code
        for path in sources("flo/primitives", "flo/grid", "flo/server")
        for code in re.findall(r'\{"code": "([a-z_]+)"', path.read_text(encoding="utf-8"))
    }

    assert codes and codes - set(re.findall(r"^- `([a-z_]+)`: ", text, re.MULTILINE)) == set()


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_links_between_pages_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]

    assert missing == []


def test_every_example_has_a_test():
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "examples").glob("test_*.py")}

    assert {path.stem for path in EXAMPLES.glob("*.flow")} <= tested


def test_every_block_of_code_in_the_pages_is_run():
    """tests/docs/test_examples.py runs blocks by the words after the language; a block without them would rot."""
    languages = {"starlark", "python", "console"}
    found = []
    for page in PROSE:
        for line in page.read_text(encoding="utf-8").splitlines():
            info = line.strip().removeprefix("```").split()
            if line.strip().startswith("```") and info and info[0] in languages:
                if info[0] != "console" and len(info) < 2:
                    found.append(f"{name(page)}: {line}")

    assert found == []
