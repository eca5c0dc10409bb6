"""A server that is restarted finds its directory as it left it, although guests were attached."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flo.api.clock import SystemClock
from flo.client import attach as module
from flo.client.attach import attach
from flo.grid.gateway import Gateway
from tests.client.fake_grid import FakeGrid


class OnlyOnce:
    """Opens an owner's grid, and remembers that it did."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, directory: str) -> FakeGrid:
        self.opened.set()
        return FakeGrid()


@pytest.fixture(autouse=True)
def forgotten():
    module._servers.clear()
    yield
    module._servers.clear()


def test_a_guest_of_a_server_waits_for_it_to_come_back(tmp_path: Path):
    directory = str(tmp_path)
    gateway = Gateway(FakeGrid(), directory, server=True)
    attach(directory).close()
    gateway.close()

    opens = OnlyOnce()
    found = []
    waiting = threading.Thread(target=lambda: found.append(attach(directory, open_owner=opens)))
    waiting.start()
    waiting.join(timeout=0.2)
    assert waiting.is_alive() and not opens.opened.is_set()

    again = Gateway(FakeGrid(), directory, server=True)
    waiting.join(timeout=30)
    assert not found[0].owner and not opens.opened.is_set()
    found[0].close()
    again.close()


def test_a_server_that_does_not_come_back_leaves_its_directory_to_the_guest(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "SERVER_RETURN_MS", 20)
    directory = str(tmp_path)
    gateway = Gateway(FakeGrid(), directory, server=True)
    attach(directory).close()
    gateway.close()

    begun = SystemClock().monotonic_ms()
    attachment = attach(directory, open_owner=OnlyOnce())
    assert attachment.owner and SystemClock().monotonic_ms() - begun >= 20
    attachment.close()


def test_the_guest_of_a_command_takes_over_at_once(tmp_path: Path):
    directory = str(tmp_path)
    gateway = Gateway(FakeGrid(), directory)
    attach(directory).close()
    gateway.close()

    attachment = attach(directory, open_owner=OnlyOnce())
    assert attachment.owner
    attachment.close()
