"""The hot tier."""

from __future__ import annotations

from flo.log.cache import Block, BlockCache
from flo.log.hot import ENTRY_BYTES, HotBuffer


def test_what_was_put_is_found_until_it_is_evicted():
    hot = HotBuffer(3 * (10 + ENTRY_BYTES))
    for index in range(1, 6):
        hot.put(index, b"%010d" % index)
    assert hot.get(1) == b"0000000001"
    hot.durable(5)

    assert [hot.get(index) for index in (1, 2)] == [None, None]
    assert [hot.get(index) for index in (3, 4, 5)] == [b"%010d" % index for index in (3, 4, 5)]
    assert hot.get(6) is None
    assert hot.held_bytes == 3 * (10 + ENTRY_BYTES)


def test_what_is_not_durable_is_never_evicted():
    hot = HotBuffer(0)
    for index in (3, 7, 9):
        hot.put(index, b"x")
    hot.durable(8)

    assert [hot.get(index) for index in (3, 7, 9)] == [None, None, b"x"]
    hot.durable(9)
    assert hot.get(9) is None
    assert hot.held_bytes == 0


def test_below_its_capacity_nothing_goes():
    hot = HotBuffer(1_000)
    hot.put(1, b"x")
    hot.durable(1)

    assert hot.get(1) == b"x"
    hot.clear()
    assert hot.get(1) is None
    assert hot.held_bytes == 0


def test_the_cache_of_blocks_forgets_the_one_used_longest_ago():
    block = Block(1, [b"x" * 1_000])
    cache = BlockCache(2 * block.size)
    for key in (1, 2):
        cache.put(key, Block(1, [b"x" * 1_000]))
    assert cache.get(1) is not None
    cache.put(3, Block(1, [b"x" * 1_000]))

    assert [cache.get(key) is not None for key in (1, 2, 3)] == [True, False, True]
    cache.put(4, Block(1, [b"x" * 10_000]))
    assert cache.get(4) is None
    assert cache.held_bytes == 2 * block.size
