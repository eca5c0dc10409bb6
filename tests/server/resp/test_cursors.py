"""SCAN's numbers stand for positions for ten minutes, and only the newest of them."""

from __future__ import annotations

from flo.server.resp import cursors
from flo.server.resp.cursors import Cursors


def test_a_cursor_is_found_again_and_again_until_its_time_is_over():
    table = Cursors()
    number = table.give(1_000, "default", "position")

    assert table.find(1_000, "default", number) == table.find(600_999, "default", number) == "position"
    assert table.find(601_000, "default", number) is None


def test_a_cursor_of_another_namespace_or_an_unknown_one_is_none():
    table = Cursors()
    number = table.give(0, "a", "position")

    assert table.find(0, "b", number) is None and table.find(0, "a", number + 1) is None and number != 0


def test_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(cursors, "CURSORS", 3)
    table = Cursors()
    first, *others = [table.give(0, "a", str(n)) for n in range(4)]

    assert len(table) == 3
    assert table.find(0, "a", first) is None and [table.find(0, "a", n) for n in others] == ["1", "2", "3"]


def test_long_positions_take_the_place_of_more_than_one(monkeypatch):
    monkeypatch.setattr(cursors, "CURSOR_BYTES", 10_000)
    table = Cursors()
    for _ in range(10):
        table.give(0, "a", "x" * 4_000)

    assert len(table) == 2


def test_old_ones_go_when_a_new_one_comes():
    table = Cursors()
    table.give(0, "a", "old")
    table.give(600_000, "a", "new")

    assert len(table) == 1
