from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from tests.server.support import LittleSession, LittleStore


@pytest.fixture
def store() -> Iterator[LittleStore]:
    store = LittleStore()
    yield store
    store.close()


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operations of the binary protocol are those of LittleSession; clients get little time for last words."""
    monkeypatch.setattr("flo.server.link.LINGER_SECONDS", 0.05)
    monkeypatch.setattr("flo.server.wire_link.WireSession", LittleSession)
    monkeypatch.setattr("flo.server.websocket.WireSession", LittleSession)


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Connections are served by uvloop; turns run on any loop."""
    if item.path.name == "test_turns.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}
