"""Payloads whose blobs are gone or damaged: what needs them is told, and nothing waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from flo.api.errors import FloError
from flo.api.outcome import value
from tests.grid.manual import Bench

LARGE = "x" * 100_000


class Missing(FloError):
    """What a store says that has lost a blob."""


def lose_blobs(bench: Bench, monkeypatch: Any) -> None:
    def gone(digest: bytes, *, tenant: str = "default") -> bytes:
        raise Missing(f"blob {digest.hex()[:8]} is not there")

    monkeypatch.setattr(bench.backend, "get_blob", gone)


def test_an_action_whose_parameters_cannot_be_read_fails(monkeypatch: Any) -> None:
    bench = Bench()
    lease = bench.start()
    lose_blobs(bench, monkeypatch)
    assert bench.act(lease, 1, "http.post", {"url": "http://x", "body": LARGE}) is None
    bench.node.pump()
    failed = value(lease.history["0"].records[1].outcome)
    assert failed["kind"] == "connector" and "cannot be read" in failed["message"]
    assert not bench.host.jobs


def test_a_run_whose_arguments_cannot_be_read_is_paused_and_says_why(monkeypatch: Any) -> None:
    bench = Bench()
    lose_blobs(bench, monkeypatch)
    with pytest.raises(KeyError):  # the worker got no lease
        bench.start(args={"text": LARGE})
    view = bench.node.show("r")
    assert view.status == "running" and view.paused is not None
    assert "arguments cannot be read" in view.paused
