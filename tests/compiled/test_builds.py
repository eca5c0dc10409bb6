"""The hot modules compiled by mypyc do what the same files do when they are interpreted."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.flo_command import ROOT

HERE = Path(__file__).parent
COMPILED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flo"]["compiled"]
EXTENSION = sysconfig.get_config_var("EXT_SUFFIX")
LIBRARY = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
SEEDS = ["1", "2", "3", "4", "5"]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def compiled_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel holds that was built with the C compiler found here."""
    obstacle = tool("flo_compiler").obstacle()
    if obstacle:
        pytest.skip(f"nothing is compiled here: {obstacle}")
    found: Path = tool("flo_trees").compiled_tree(tmp_path_factory.mktemp("wheel"))
    return found


def run(tree: Path, *words: str) -> str:
    environment = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-P", *words], env=environment, capture_output=True, text=True, timeout=300, cwd=tree
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_builds_leave_the_same_bytes_after_the_same_commands(compiled_tree: Path) -> None:
    commands = str(HERE / "commands.py")
    first, *compiled = run(compiled_tree, commands, *SEEDS).splitlines()
    other, *interpreted = run(ROOT, commands, *SEEDS).splitlines()

    assert (first, other) == ("compiled", "interpreted")
    assert len(compiled) == 2 * len(SEEDS)
    assert compiled == interpreted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_module_of_the_list_is_compiled(compiled_tree: Path) -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in COMPILED]
    program = "import importlib, sys; [print(importlib.import_module(m).__file__) for m in sys.argv[1:]]"
    files = run(compiled_tree, "-c", program, *modules).splitlines()

    assert [file for file in files if file.endswith(".py")] == []
    assert run(compiled_tree, "-m", "flo", "version").endswith(", compiled)\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("compiler", ["missing", "failing"])
def test_without_a_compiler_that_works_everything_is_there_and_interpreted(tmp_path: Path, compiler: str) -> None:
    program = tmp_path / compiler
    if compiler == "failing":
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    folder = tmp_path / "wheel"
    left_over = folder / "source" / "build" / LIBRARY / "flo" / "grid" / f"gone{EXTENSION}"  # of another list
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    tree = tool("flo_trees").wheel_tree(folder, CC=str(program), FLO_COMPILE="")

    assert list(tree.rglob("*.so")) == []
    assert run(tree, "-m", "flo", "version").endswith(", interpreted)\n")


def declares_structs(path: Path) -> bool:
    """Whether msgspec has a say in its classes: then it stays interpreted."""
    bases = [
        ast.unparse(base).partition("[")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ]
    return any(base == "Event" or base.endswith("Struct") for base in bases)


def test_the_list_holds_all_machines_but_what_msgspec_makes() -> None:
    machines = [path for path in sorted((ROOT / "flo/primitives").glob("*.py")) if path.stem != "__init__"]
    hot = {path.relative_to(ROOT).as_posix() for path in machines if not declares_structs(path)}

    assert hot | {"flo/log/frame.py", "flo/log/hot.py", "flo/log/commit.py"} <= set(COMPILED)
    assert [name for name in COMPILED if declares_structs(ROOT / name)] == []
    assert COMPILED == sorted(COMPILED)
