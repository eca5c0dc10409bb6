"""Errors of the store in flows say which action on which key they are of."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.grid.manual import Bench


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("kv.incr", {"key": "text"}, "kv.incr 'text': not a counter"),
        ("kv.put", {"key": "text", "value": "b", "nx": True}, "kv.put 'text': key already exists"),
        ("kv.put", {"key": "x" * 9_000, "value": ""}, f"kv.put '{'x' * 100}'…: key too large"),
        ("kv.delete", {"key": "none"}, "kv.delete 'none': key not found"),
        ("kv.scan", {"prefix": "", "cursor": "?"}, "kv.scan: "),
    ],
)
def test_a_refusal_of_the_store_names_the_action_and_the_key(kind: str, params: Any, message: str) -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "kv.put", {"key": "text", "value": "a"})
    outcome = bench.act(root, 2, kind, params)
    assert outcome is not None and outcome[0] == "-"
    assert msgspec.json.decode(outcome[1:])["message"].startswith(message)
