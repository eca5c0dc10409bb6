"""Fixtures that many tests share: a real HTTP server and the real command."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flo_command import FloCommand
from tests.support.http_server import HttpServer, http_server


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: the path of a unix socket has at most 107 bytes, and pytest's are long."""
    with tempfile.TemporaryDirectory(prefix="flo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def flo_command(short_folder: Path) -> Iterator[FloCommand]:
    """`flo_command("run", script)` runs the command to its end, `.start(…)` begins it."""
    command = FloCommand(short_folder)
    yield command
    command.close()
