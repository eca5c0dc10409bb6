"""Fixtures for people who test their flows from Python; pytest finds them as soon as Flo is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flo.client.testing import TestGrid


@pytest.fixture
def flo_grid() -> Iterator[TestGrid]:
    """A grid for this test alone, in virtual time and with mocks (flo.client.testing.TestGrid)."""
    from flo.client.testing import TestGrid

    with TestGrid() as grid:
        yield grid
