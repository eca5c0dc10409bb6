"""The sorted set of keys against a plain sorted list."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.primitives.sorted_keys import SortedKeys

KEYS = st.binary(min_size=1, max_size=2)
CHUNK = 4


@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=120), st.sets(KEYS, max_size=30), KEYS)
def test_it_holds_what_a_sorted_list_holds(steps: list[tuple[bool, bytes]], given_keys: set[bytes], start: bytes):
    model = set(given_keys)
    keys = SortedKeys(sorted(model), chunk=CHUNK)
    for add, key in steps:
        if add and key not in model:
            keys.add(key)
            model.add(key)
        elif not add and key in model:
            keys.remove(key)
            model.remove(key)

    assert keys.all() == sorted(model)
    assert list(keys.walk(start)) == sorted(k for k in model if k >= start)
    assert list(keys.walk(start, beyond=True)) == sorted(k for k in model if k > start)


@pytest.mark.parametrize("order", [sorted, lambda keys: sorted(keys, reverse=True), lambda keys: keys])
def test_chunks_stay_of_even_size(order: Callable[[list[bytes]], list[bytes]]):
    names = order([b"%05d" % (n * 7_919 % 1_000) for n in range(1_000)])
    keys = SortedKeys(chunk=CHUNK)
    for name in names:
        keys.add(name)
    assert max(map(len, keys._chunks)) <= 2 * CHUNK
    assert len(keys._chunks) <= 2 * len(names) / CHUNK

    for name in names[: 9 * len(names) // 10]:
        keys.remove(name)
    assert len(keys._chunks) <= 4 * 100 / CHUNK
