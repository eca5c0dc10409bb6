"""The build backend: setuptools', and mypyc where there is a C compiler.

A wheel needs mypy only when its hot modules are going to be compiled, so that is asked for here and not in
pyproject.toml: who has no compiler fetches nothing more. setup.py does the compiling.
"""

from __future__ import annotations

from typing import Any, Final

from flo_compiler import obstacle
from setuptools import build_meta
from setuptools.build_meta import (  # the hooks that stay as they are
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable", "get_requires_for_build_sdist",
    "get_requires_for_build_wheel", "prepare_metadata_for_build_editable", "prepare_metadata_for_build_wheel",
]  # fmt: skip

# mypyc is part of mypy; the types of msgspec and crc32c make what it writes better.
COMPILING: Final = ["mypy[mypyc]>=2.4,<3", "crc32c>=2.7", "msgspec>=0.21"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    wanted: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    return wanted if obstacle() else wanted + COMPILING
