from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.support import LittleSession, LittleStore


@pytest.fixture
def store() -> Iterator[LittleStore]:
    store = LittleStore()
    yield store
    store.close()


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operations of the binary protocol are those of LittleSession."""
    monkeypatch.setattr("flo.server.wire_link.WireSession", LittleSession)
    monkeypatch.setattr("flo.server.websocket.WireSession", LittleSession)
