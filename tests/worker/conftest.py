"""Fixtures of the worker's tests."""

from __future__ import annotations

import pytest

from tests.worker.engine import Engine


@pytest.fixture
def engine() -> Engine:
    return Engine()
