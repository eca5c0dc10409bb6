from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.fakes import command as command
from tests.cli.live import Live, live_server

CLIENT_VARIABLES = ("FLO_ENDPOINT", "FLO_PORT", "FLO_NAMESPACE")


@pytest.fixture(scope="session")
def running() -> Iterator[Live]:
    with live_server() as live:
        yield live


@pytest.fixture
def live(running: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    """The server that these tests share, and a home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in CLIENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return running
