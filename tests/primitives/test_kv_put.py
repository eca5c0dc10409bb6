"""The short way of a plain put: what it writes and what it leaves is what the event would."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.primitives.kv import KV
from flo.primitives.kv_events import KvPut
from flo.primitives.kv_put import put_head, put_payload
from flo.primitives.kv_rules import ADDRESS_BYTES, VALUE_BYTES
from flo.primitives.machine import Refused

SIZES = [0, 1, 31, 32, 255, 256, 65_535, 65_536, VALUE_BYTES]


@pytest.mark.parametrize("ns", ["a", "default", "n" * 31, "n" * 32, "n" * 63])
@pytest.mark.parametrize("value", SIZES)
@pytest.mark.parametrize("key", [1, 255, 256, ADDRESS_BYTES - 64])
def test_the_payload_is_what_msgspec_writes(ns: str, key: int, value: int):
    event = KvPut(ns, b"k" * key, b"v" * value, 0)

    assert put_payload(put_head(ns), event.key, event.value) == msgspec.msgpack.encode(event)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([b"a", b"b", b"c"]),
            st.binary(max_size=300),
            st.sampled_from([0, 1, 700]),
        ),
        max_size=40,
    ),
    st.integers(1, 300),
)
def test_it_leaves_the_state_that_its_event_leaves(steps: list[tuple[int, bytes, bytes, int]], index: int):
    short, long = KV(), KV()
    now = 1_000
    for what, key, value, ms in steps:
        now += ms
        index += 1
        if what == 0:
            event = long.decide_put(now, index, "default", key, value, ttl_ms=ms)
            short.apply(event, index, now)
            long.apply(event, index, now)
        else:
            payload = short.put(now, index, "default", key, value)
            plain = long.decide_put(now, index, "default", key, value)
            long.apply(plain, index, now)
            assert payload == msgspec.msgpack.encode(plain)

    assert short.dump() == long.dump()
    assert (short.bytes, short.next_due()) == (long.bytes, long.next_due())


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"", b"v"), (b"a\0b", b"v"), (b"k" * ADDRESS_BYTES, b"v"), (b"_sys:x", b"v"), (b"k", bytes(VALUE_BYTES + 1))],
)
def test_it_refuses_what_the_long_way_refuses_and_changes_nothing(key: bytes, value: bytes):
    kv = KV()
    before = kv.dump()
    with pytest.raises(Refused) as long:
        kv.decide_put(1, 1, "default", key, value)
    with pytest.raises(Refused) as short:
        kv.put(1, 1, "default", key, value)

    assert (short.value.kind, short.value.message) == (long.value.kind, long.value.message)
    assert kv.dump() == before


def test_a_new_namespace_and_one_that_is_gone_take_the_long_way():
    kv = KV()
    assert kv.put(1, 1, "other", b"k", b"v") == b""

    kv.apply(KvPut("other", b"k", b"v", 0), 1, 1)
    assert kv.put(1, 2, "other", b"k", b"w")
    kv.drop_namespace("other")
    assert kv.put(1, 3, "other", b"k", b"v") == b""
    assert kv.get(1, "other", b"k") is None
