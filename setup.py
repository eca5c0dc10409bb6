"""The part of the build that pyproject.toml cannot say: mypyc compiles the hot modules where that is possible.

They are listed in pyproject.toml under [tool.flo]. Without a C compiler, Python's headers or mypy the same files are
installed and run interpreted; nothing else changes. `FLO_COMPILE=0` asks for that, `FLO_COMPILE=1` makes whatever is
in the way an error. An editable install is interpreted, so that an edited file is the one that runs.
"""

from __future__ import annotations

import os
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

from flo_compiler import must_compile, obstacle  # noqa: E402

COMPILED: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flo"]["compiled"]
BUILDING: Final = {"bdist_wheel", "build", "build_ext"}


def note(why: str) -> None:
    print(f"flo: not compiled, will run interpreted: {why}", file=sys.stderr)


def extensions() -> list[Extension]:
    if not BUILDING & set(sys.argv):
        return []
    why = obstacle()
    if why:
        note(why)
        return []
    try:
        from mypyc.build import mypycify
    except ImportError as missing:
        if must_compile():
            raise
        note(str(missing))
        return []
    os.chdir(ROOT)
    options = ["--config-file=", "--ignore-missing-imports", "--cache-dir=build/mypy"]
    try:
        # A file for each module, so that all processors have something to do.
        return list(mypycify([*options, *COMPILED], opt_level="3", debug_level="0", multi_file=True, group_name="flo"))
    except SystemExit as end:
        if must_compile():
            raise
        note(f"mypyc: {end}")
        return []


class CompileHotModules(build_ext):
    """Compiles all of them or none: an extension beside a file is what is imported, so half of them would not fit."""

    def run(self) -> None:
        self.remove(but={Path(output) for output in self.get_outputs()})
        try:
            super().run()
        except Exception as fault:
            if must_compile():
                raise
            self.remove(but=set())
            self.extensions = []
            text = str(fault)
            note(text if len(text) < 100 else f"{text[:60]} … {text[-40:]}")

    def remove(self, but: set[Path]) -> None:
        """Extensions that an earlier build with another list has left would be in the wheel as well."""
        for path in Path(self.build_lib).rglob("*" + self.get_ext_filename("")):
            if path not in but:
                path.unlink()

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "unix":
            for extension in self.extensions:
                options = [option for option in extension.extra_compile_args if option != "-Werror"]
                extension.extra_compile_args = [*options, "-fvisibility=hidden"]  # they call one another directly
        compile_one = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                made = threads.map(lambda source: compile_one([source], *args, **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()


setup(ext_modules=extensions(), cmdclass={"build_ext": CompileHotModules})
