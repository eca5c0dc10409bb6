"""One server for the tests of commands, and a client of it for each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from flo.api.clock import FakeClock
from tests.server.resp.support import RespClient, RespServer, resp_server

_numbers = count(1)


@pytest.fixture(scope="package")
def shared_server() -> Iterator[RespServer]:
    with resp_server() as server:
        yield server


@pytest.fixture
def resp_port(shared_server: RespServer) -> int:
    return shared_server.port


@pytest.fixture
def client(shared_server: RespServer) -> Iterator[RespClient]:
    """A client in a namespace of its own."""
    made = RespClient(shared_server.port)
    assert made("USE", f"test{next(_numbers)}") == "OK"
    yield made
    made.close()


@pytest.fixture
def timed() -> Iterator[tuple[FakeClock, RespClient]]:
    """A clock that moves when told, and a client of a server that goes by it."""
    clock = FakeClock()
    with resp_server(clock) as server:
        yield clock, server.client()
