"""The command in this process, over a grid that its test tells what the runs do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from flo.api.errors import ScriptError
from flo.api.grid import StartRequest
from flo.cli._app import app
from flo.client.attach import Attachment
from flo.client.start import Prepared
from tests.client.fake_grid import FakeGrid


class FakeCommand:
    """`command("run", "fake.flow::echo")` gives typer's Result; the runs are those of `grid`."""

    def __init__(self, grid: FakeGrid, *, owner: bool = True) -> None:
        self.grid = grid
        self.owner = owner
        self.attached: list[str] = []
        self.before_attach: Callable[[], None] = lambda: None

    def __call__(self, *words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin, catch_exceptions=False)

    def attach(self, directory: str, **kind: Any) -> Attachment:
        self.attached.append(directory)
        self.before_attach()
        return Attachment(self.grid, owner=self.owner)


def prepare(script: str, args: Any = None, *, id: str | None = None, timeout_ms: int = 0, **more: Any) -> Prepared:
    """The flow `fake::NAME` of any script but those that are absent."""
    path, _, flow = script.partition("::")
    if "absent" in path:
        raise ScriptError(f"{path} does not exist", where=path)
    request = StartRequest(
        id=id or "made-up",
        bundle=b"b" * 32,
        flow=f"fake::{flow or 'echo'}",
        args=msgspec.json.encode(args or {}).decode(),
        timeout_ms=timeout_ms,
    )
    return Prepared(bundle=b"", request=request)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> FakeCommand:
    fake = FakeCommand(FakeGrid())
    monkeypatch.setattr("flo.cli._session.attach", fake.attach)
    monkeypatch.setattr("flo.client.start.prepare", prepare, raising=False)
    for name in ("FLO_DATA_DIR", "FLO_DEBUG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return fake


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*\w", "", text).splitlines()]
