"""Fixtures that many tests share: a real HTTP server and the real command."""

from __future__ import annotations

import importlib.util
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flo_command import EXAMPLES, FloCommand
from tests.support.http_server import HttpServer, http_server


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Commands that are run in this process change how it takes signals; the next test begins as Python does. That
    holds also where pytest is started in the background, with Ctrl-C ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.fixture
def demo_server() -> Iterator[str]:
    """The URL of examples/demo_server.py on a free port."""
    spec = importlib.util.spec_from_file_location("demo_server", EXAMPLES / "demo_server.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    running = module.make_server(0, quiet=True)
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()
