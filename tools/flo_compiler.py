"""Whether the hot modules can be compiled here."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path


def must_compile() -> bool:
    """Whether anything that is in the way of compiling is an error."""
    return os.environ.get("FLO_COMPILE") == "1"


def obstacle() -> str:
    """Why nothing is going to be compiled; "" if it is."""
    if must_compile():
        return ""
    if os.environ.get("FLO_COMPILE") == "0":
        return "FLO_COMPILE=0"
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} runs no extensions of CPython"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if headers.exists() else f"no {headers}"
