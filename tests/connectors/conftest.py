"""A real host with a core that records, and a way to perform one job."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flo.api import outcome as outcomes
from flo.api.jobs import Job
from flo.connectors import LocalHost, SecretStore
from flo.connectors.testing import FakeCore, RecordingServer, job

SECRET = "s3cr3t-Zq8vLk2Wn5-value"


class Bench:
    """`ok(kind, …)` gives the value of a job, `error(kind, …)` its error object."""

    def __init__(self, host: LocalHost, core: FakeCore, directory: Path) -> None:
        self.host = host
        self.core = core
        self.directory = directory
        self._number = itertools.count(1)

    def start(self, kind: str, /, **given: Any) -> Job:
        one = job(kind, given, sid=f"0.{next(self._number)}")
        self.host.submit([one])
        return one

    def outcome(self, kind: str, /, **given: Any) -> str:
        return self.core.outcome(self.start(kind, **given))

    def ok(self, kind: str, /, **given: Any) -> Any:
        outcome = self.outcome(kind, **given)
        assert outcomes.is_ok(outcome), outcome
        return outcomes.value(outcome)

    def error(self, kind: str, /, **given: Any) -> dict[str, Any]:
        outcome = self.outcome(kind, **given)
        assert not outcomes.is_ok(outcome), outcome
        error: dict[str, Any] = outcomes.value(outcome)
        return error


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    environ = {"FLO_SECRET_TOKEN": SECRET, "FLO_SECRET_LINES": "a\nb"}
    store = SecretStore(environ=environ, directory=tmp_path / "secrets")
    host, core = LocalHost(directory=tmp_path / "files", secrets=store), FakeCore()
    host.attach(core)
    yield Bench(host, core, tmp_path / "files")
    host.stop(2_000)


@pytest.fixture
def web() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server
