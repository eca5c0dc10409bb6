"""The key–value machine, one statement of its specification after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flo.primitives import kv, kv_rules
from flo.primitives.kv import KV
from flo.primitives.kv_deadlines import COARSE_MS
from flo.primitives.kv_entry import REAP_AFTER_MS
from flo.primitives.kv_events import KvReaped
from flo.primitives.kv_txn import TxnDelete, TxnPut
from flo.primitives.machine import Event
from tests.support.kv_store import NOW, Store, refusal

INT64_MAX = 2**63 - 1


@pytest.fixture
def store() -> Store:
    return Store()


# -- versions and conditions


def test_cas_zero_succeeds_once(store: Store):
    first = store.put(b"a", b"1", cas=0)

    refused = refusal(lambda: store.put(b"a", b"1", cas=0))
    assert (refused.kind, refused.details) == ("conflict", {"current_version": first})
    assert refused.message == f"Version mismatch: current version {first}"


def test_a_stale_cas_is_told_the_current_version(store: Store):
    first, second = store.put(b"a", b"1"), store.put(b"a", b"2")

    assert second > first
    assert refusal(lambda: store.put(b"a", b"3", cas=first)).details == {"current_version": second}
    assert store.value(b"a") == b"2"
    assert store.put(b"a", b"3", cas=second) == second + 1


def test_versions_are_not_reused_after_a_delete(store: Store):
    first = store.put(b"a", b"1")
    store.do("delete", b"a")
    again = store.put(b"a", b"1")

    assert again > first
    assert refusal(lambda: store.do("delete", b"a", if_match=first)).details == {"current_version": again}


def test_an_absent_key_is_not_found_by_delete_and_a_conflict_with_if_match(store: Store):
    assert refusal(lambda: store.do("delete", b"b")).kind == "not_found"
    refused = refusal(lambda: store.do("delete", b"b", if_match=5))
    assert (refused.kind, refused.details) == ("conflict", {"current_version": 0})
    assert not store.kv.exists(NOW, "default", b"b")
    many = store.kv.mget(NOW, "default", [b"b"])
    assert [(e.found, e.version, e.value) for e in many.entries] == [(False, 0, b"")]


@pytest.mark.parametrize("what", ["delete", "touch", "persist"])
def test_if_match_zero_is_always_a_conflict(store: Store, what: str):
    args = (1_000,) if what == "touch" else ()
    version = store.put(b"a", b"1")

    assert refusal(lambda: store.do(what, b"a", *args, if_match=0)).details == {"current_version": version}
    assert refusal(lambda: store.do(what, b"b", *args, if_match=0)).details == {"current_version": 0}


def test_an_empty_value_is_not_a_missing_key(store: Store):
    store.put(b"k", b"")

    assert store.value(b"k") == b""
    assert store.kv.exists(NOW, "default", b"k")


@pytest.mark.parametrize("options", [{"nx": True, "xx": True}, {"nx": True, "cas": 3}, {"keep_ttl": True, "ttl_ms": 1}])
def test_conditions_that_exclude_each_other_write_nothing(store: Store, options: dict[str, Any]):
    assert refusal(lambda: store.put(b"k", b"v", **options)).kind == "bad_argument"
    assert store.value(b"k") is None


def test_nx_and_xx_say_what_is_wrong(store: Store):
    assert "does not exist" in refusal(lambda: store.put(b"k", b"v", xx=True)).message
    version = store.put(b"k", b"v", nx=True)
    refused = refusal(lambda: store.put(b"k", b"w", nx=True))
    assert "already exists" in refused.message and refused.details == {"current_version": version}
    assert store.put(b"k", b"x", xx=True, cas=version) == version + 1


# -- expiry


def test_an_expired_key_is_absent(store: Store):
    store.put(b"t", b"x", ttl_ms=1_000)
    store.now += 999
    assert store.value(b"t") == b"x"

    store.now += 1
    assert store.value(b"t") is None
    assert not store.kv.exists(store.now, "default", b"t")
    assert not store.kv.mget(store.now, "default", [b"t"]).entries[0].found
    assert store.kv.scan(store.now, "default").rows == []
    assert refusal(lambda: store.do("delete", b"t")).kind == "not_found"
    assert store.put(b"t", b"y", nx=True)


def test_a_plain_put_makes_a_key_permanent_and_keep_ttl_does_not(store: Store):
    store.put(b"t", b"x", ttl_ms=60_000)
    store.put(b"t", b"y", keep_ttl=True)
    kept = store.kv.get(NOW, "default", b"t")
    assert kept is not None and kept.expires_at == NOW + 60_000

    store.put(b"t", b"z")
    after = store.replayed().get(NOW, "default", b"t")
    assert after is not None and after.expires_at == 0


def test_a_lock_holder_renews_and_deletes_with_the_version_of_its_put(store: Store):
    version = store.put(b"l", b"o", nx=True, ttl_ms=30_000)
    store.do("touch", b"l", 60_000, if_match=version)
    entry = store.kv.get(NOW, "default", b"l")
    assert entry is not None and (entry.version, entry.expires_at) == (version, NOW + 60_000)

    store.do("delete", b"l", if_match=version)
    assert store.value(b"l") is None


def test_touch_with_zero_and_persist_remove_the_expiry(store: Store):
    for act in (lambda: store.do("touch", b"k", 0), lambda: store.do("persist", b"k")):
        store.put(b"k", b"v", ttl_ms=1_000)
        act()
        store.now += 2_000
        assert store.value(b"k") == b"v"
    assert refusal(lambda: store.do("persist", b"none")).kind == "not_found"


@pytest.mark.parametrize("what", ["put", "touch"])
def test_an_expiry_beyond_64_bits_is_refused(store: Store, what: str):
    store.put(b"k", b"old")
    put = what == "put"

    def act(ttl_ms: int) -> int:
        return store.put(b"k", b"new", ttl_ms=ttl_ms) if put else store.do("touch", b"k", ttl_ms)

    assert refusal(lambda: act(INT64_MAX - NOW + 1)).message == "ttl too large"
    assert refusal(lambda: act(-1)).message == "ttl must not be negative"
    assert store.value(b"k") == b"old"
    act(INT64_MAX - NOW)
    assert store.kv.exists(INT64_MAX - 1, "default", b"k")


def test_a_deleted_key_is_reaped_after_ten_minutes(store: Store):
    store.put(b"d", b"1")
    store.do("delete", b"d")
    store.now += REAP_AFTER_MS - 1
    assert store.reap() == 0
    assert len(store.kv.history(store.now, "default", b"d")) == 2

    store.now += 1_001
    assert store.reap() == 1
    assert store.kv.history(store.now, "default", b"d") == []
    assert store.kv.key_count("default") == 0
    assert store.kv.next_due() is None


def test_an_expired_key_keeps_its_history_until_it_is_reaped(store: Store):
    store.put(b"e", b"1", ttl_ms=5 * COARSE_MS)
    store.now += 5 * COARSE_MS
    assert store.reap() == 0
    assert [v.value for v in store.kv.history(store.now, "default", b"e")] == [b"1"]

    store.now += REAP_AFTER_MS + 1_000
    assert store.reap() == 1
    assert store.kv.history(store.now, "default", b"e") == []


def test_a_renewed_key_is_not_reaped(store: Store):
    store.put(b"e", b"1", ttl_ms=1_000)
    for _ in range(20):
        store.now += REAP_AFTER_MS
        store.put(b"e", b"1", ttl_ms=1_000)
        assert store.reap() == 0
    assert store.value(b"e") == b"1"


def test_an_expiry_that_moves_nearer_is_seen(store: Store):
    store.put(b"e", b"1", ttl_ms=100 * COARSE_MS)
    store.do("touch", b"e", 1_000)
    store.now += 1_000 + REAP_AFTER_MS + 1_000

    assert store.reap() == 1


def test_one_event_reaps_a_thousand_keys_at_most(store: Store):
    for n in range(kv.REAP_KEYS + 5):
        store.put(b"%d" % n, b"", ttl_ms=1)
    store.now += REAP_AFTER_MS + 2_000

    events = store.kv.due(store.now, store.index + 1)
    assert [len(event.keys) for event in events if isinstance(event, KvReaped)] == [kv.REAP_KEYS]
    assert store.reap() == kv.REAP_KEYS + 5


def test_deciding_timers_changes_nothing(store: Store):
    store.put(b"e", b"1", ttl_ms=1)
    store.now += REAP_AFTER_MS + 2_000
    before = store.kv.dump()

    first = store.kv.due(store.now, 2)
    assert store.kv.dump() == before
    assert store.kv.due(store.now, 2) == first


def test_slots_of_keys_that_change_all_the_time_stay_few(store: Store):
    for _ in range(4 * kv.LOOKS):
        store.now += 1
        store.put(b"lock", b"me", ttl_ms=10 * COARSE_MS)
        store.do("delete", b"lock")

    assert store.kv._deadlines.size <= kv.LOOKS + 2
    store.now += REAP_AFTER_MS + 1_000
    assert store.reap() == 1


# -- counters


def test_counting(store: Store):
    assert [store.incr(b"c"), store.incr(b"c"), store.incr(b"c"), store.incr(b"c", -5)] == [1, 2, 3, -2]
    entry = store.kv.get(NOW, "default", b"c")
    assert entry is not None and (entry.value, entry.kind) == (b"-2", "counter")


def test_a_string_is_no_counter(store: Store):
    store.put(b"s", b"7")

    refused = refusal(lambda: store.incr(b"s"))
    assert (refused.kind, refused.message) == ("conflict", "not a counter")
    assert store.value(b"s") == b"7"


def test_a_put_makes_a_counter_a_string(store: Store):
    store.incr(b"c")
    store.put(b"c", b"1")

    assert refusal(lambda: store.incr(b"c")).message == "not a counter"


@pytest.mark.parametrize("edge", [INT64_MAX, -(2**63)])
def test_a_counter_does_not_overflow(store: Store, edge: int):
    store.incr(b"c", edge)

    refused = refusal(lambda: store.incr(b"c", 1 if edge > 0 else -1))
    assert (refused.kind, refused.message) == ("bad_argument", "counter overflow")
    assert refusal(lambda: store.incr(b"new", edge * 2)).message == "counter overflow"
    assert store.value(b"c") == str(edge).encode()


def test_incr_keeps_the_expiry_and_an_expired_counter_starts_anew(store: Store):
    store.incr(b"c", 5)
    store.do("touch", b"c", 1_000)
    store.incr(b"c")
    entry = store.kv.get(NOW, "default", b"c")
    assert entry is not None and entry.expires_at == NOW + 1_000

    store.now += 1_000
    assert store.incr(b"c") == 1
    entry = store.kv.get(store.now, "default", b"c")
    assert entry is not None and entry.expires_at == 0


# -- history


def test_history_keeps_64_versions(store: Store):
    for n in range(1, 71):
        store.now += 1
        store.put(b"h", b"%d" % n)
    whole = store.kv.history(store.now, "default", b"h", 64)

    assert [v.value for v in whole] == [b"%d" % n for n in range(70, 6, -1)]
    assert [v.timestamp_ms for v in whole] == [NOW + n for n in range(70, 6, -1)]
    assert store.kv.history(store.now, "default", b"h", 1_000) == whole
    assert store.kv.history(store.now, "default", b"h") == whole[:10]
    assert store.kv.version_count("default", b"h") == 64
    assert store.kv.version(store.now, "default", b"h", 7) == whole[-1]
    assert store.kv.version(store.now, "default", b"h", 6) is None


def test_history_shows_the_tombstone_first(store: Store):
    store.put(b"d", b"1")
    store.do("delete", b"d")

    tombstone, value = store.kv.history(NOW, "default", b"d")
    assert (tombstone.tombstone, tombstone.value, tombstone.version) == (True, None, 2)
    assert (value.tombstone, value.value, value.size) == (False, b"1", 1)
    assert store.kv.history(NOW, "default", b"never") == []
    assert store.kv.version(NOW, "default", b"never", 1) is None
    assert store.kv.version_count("default", b"never") == 0


def test_memory_pressure_takes_history_and_tombstones_by_an_event(store: Store):
    store.put(b"a", b"1")
    store.put(b"a", b"2")
    store.put(b"b", b"1")
    store.do("delete", b"b")
    store.commit(store.kv.decide_forget(NOW, 5, "default"))

    assert [v.value for v in store.kv.history(NOW, "default", b"a")] == [b"2"]
    assert store.kv.history(NOW, "default", b"b") == []
    assert store.kv.decide_forget(NOW, 6, "default") is None
    assert store.kv.decide_forget(NOW, 6, "other") is None
    assert store.replayed().dump() == store.kv.dump()


# -- several keys


def test_a_walk_over_pages_meets_each_key_once(store: Store):
    names = [b"user:%04d" % n for n in range(2_500)]
    for key in reversed(names):
        store.put(key, b"v")
    store.put(b"users", b"not one of them")
    seen: list[bytes] = []
    more: list[bool] = []
    cursor = ""
    while not more or more[-1]:
        page = store.kv.scan(NOW, "default", b"user:", 1_000, cursor)
        seen += [row.key for row in page.rows]
        more.append(page.has_more)
        cursor = page.cursor

    assert more == [True, True, False]
    assert seen == names
    assert cursor == ""


def test_a_cursor_survives_writes_and_a_restart(store: Store):
    for key in (b"a", b"c", b"e"):
        store.put(key, b"")
    page = store.kv.scan(NOW, "default", limit=2)
    store.do("delete", b"c")
    store.put(b"b", b"")
    store.put(b"d", b"")

    restarted = KV()
    restarted.load(store.kv.dump())
    assert [row.key for row in restarted.scan(NOW, "default", cursor=page.cursor).rows] == [b"d", b"e"]


@pytest.mark.parametrize("cursor", ["x", "!", "AAAA", "YQ==", "é", "AQ==", "AWE"])
def test_a_malformed_cursor_is_refused(store: Store, cursor: str):
    assert refusal(lambda: store.kv.scan(NOW, "default", cursor=cursor)).message == "invalid cursor"


def test_limits_of_a_page(store: Store):
    for n in range(1_100):
        store.put(b"%04d" % n, b"v" * 10)

    assert len(store.kv.scan(NOW, "default").rows) == 100
    assert len(store.kv.scan(NOW, "default", limit=5_000).rows) == 1_000
    (row,) = store.kv.scan(NOW, "default", b"0007", keys_only=True).rows
    assert (row.key, row.value, row.size, row.version) == (b"0007", b"", 10, 8)
    assert store.kv.scan(NOW, "nothing").rows == []


def test_a_page_ends_before_a_mebibyte(store: Store):
    for n in range(5):
        store.put(b"%d" % n, b"v" * kv_rules.VALUE_BYTES)

    pages = [store.kv.scan(NOW, "default")]
    while pages[-1].has_more:
        pages.append(store.kv.scan(NOW, "default", cursor=pages[-1].cursor))
    assert [len(page.rows) for page in pages] == [3, 2]
    assert len(store.kv.scan(NOW, "default", keys_only=True).rows) == 5


def test_mget_answers_in_order_with_repeats(store: Store):
    keys = [b"%d" % n for n in range(255)] + [b"7"]
    for key in keys[:200]:
        store.put(key, b"v" + key)
    many = store.kv.mget(NOW, "default", keys)

    assert [e.key for e in many.entries] == keys
    assert [e.found for e in many.entries] == [True] * 200 + [False] * 55 + [True]
    assert many.entries[-1].value == b"v7" and not many.truncated
    assert refusal(lambda: store.kv.mget(NOW, "default", [])).message == "mget: zero keys"
    assert "max 256" in refusal(lambda: store.kv.mget(NOW, "default", [*keys, b"x"])).message
    assert not store.kv.mget(NOW, "default", [b"x" * 5_000]).entries[0].found


def test_mget_leaves_off_what_passes_a_mebibyte(store: Store):
    store.put(b"k", b"v" * kv_rules.VALUE_BYTES)
    many = store.kv.mget(NOW, "default", [b"k"] * 5)

    assert (len(many.entries), many.truncated) == (3, True)


# -- names and limits


@pytest.mark.parametrize("key", [b"_action:x", b"_worker:x", b"_sys:x", b"_internal:x", b"_flo:x"])
def test_reserved_keys_are_denied(key: bytes):
    open_store, store = Store(expose_internal_keys=True), Store()
    open_store.put(key, b"1")
    store.kv.load(open_store.kv.dump())
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b"1"),
        lambda: store.incr(key),
        lambda: store.do("delete", key),
        lambda: store.kv.get(NOW, "default", key),
        lambda: store.kv.exists(NOW, "default", key),
        lambda: store.kv.history(NOW, "default", key),
        lambda: store.kv.mget(NOW, "default", [b"a", key]),
        lambda: store.kv.scan(NOW, "default", key),
    ]

    for call in calls:
        refused = refusal(call)
        assert refused.message == "access to reserved key denied"
        assert refused.details == {"code": "unauthorized"}
    assert store.kv.scan(NOW, "default").rows == []
    assert len(open_store.kv.scan(NOW, "default").rows) == 1


def test_namespaces_do_not_meet(store: Store):
    store.put(b"k", b"s", ns="staging", nx=True)
    store.put(b"k", b"p", ns="production", nx=True)

    assert (store.value(b"k", "staging"), store.value(b"k", "production"), store.value(b"k")) == (b"s", b"p", None)
    assert refusal(lambda: store.put(b"k", b"s", ns="staging", nx=True)).kind == "conflict"
    assert store.kv.namespaces() == ["default", "production", "staging"]


def test_reads_create_no_namespace(store: Store):
    assert store.value(b"k", "new") is None
    assert refusal(lambda: store.do("delete", b"k", ns="new")).kind == "not_found"
    assert store.kv.namespaces() == ["default"]


@pytest.mark.parametrize("ns", ["", "1a", "_a", "a-", "a" * 64, "a b", "é", "a\n", "-"])
def test_a_bad_namespace_name_is_refused(store: Store, ns: str):
    for call in (
        lambda: store.put(b"k", b"v", ns=ns),
        lambda: store.kv.get(NOW, ns, b"k"),
        lambda: store.kv.scan(NOW, ns),
        lambda: store.kv.mget(NOW, ns, [b"k"]),
    ):
        refused = refusal(call)
        assert refused.kind == "bad_argument" and "namespace name" in refused.message
    assert store.kv.namespaces() == ["default"]


@pytest.mark.parametrize("ns", ["a", "a" * 63, "A.b_c-9", "a."])
def test_a_good_namespace_name_is_accepted(store: Store, ns: str):
    assert store.put(b"k", b"v", ns=ns)


def test_limits_of_keys_and_values(store: Store):
    assert refusal(lambda: store.put(b"", b"v")).message == "key is required"
    assert refusal(lambda: store.put(b"a\0b", b"v")).message == "key must not contain NUL"
    longest = kv_rules.ADDRESS_BYTES - len("default") - 1
    refused = refusal(lambda: store.put(b"k" * (longest + 1), b"v"))
    assert refused.details == {"code": "kv_key_too_large"} and "key too large" in refused.message
    assert store.put(b"k" * longest, b"v" * 262_144)
    refused = refusal(lambda: store.put(b"k", b"v" * 262_145))
    assert refused.kind == "too_large" and "value too large" in refused.message
    for call in (lambda: store.kv.get(NOW, "default", b""), lambda: store.kv.history(NOW, "default", b"")):
        assert refusal(call).message == "key is required"


# -- the machine


class Explosive(bytes):
    def __hash__(self) -> int:
        raise RuntimeError("in the middle of a decision")


def test_an_exception_in_a_decision_changes_nothing(store: Store):
    store.put(b"k", b"v", ttl_ms=5)
    before = store.kv.dump()

    with pytest.raises(RuntimeError):
        store.put(Explosive(b"k"), b"w")
    with pytest.raises(RuntimeError):
        store.kv.decide_commit(NOW, 2, "new", [TxnPut(b"k", b"w"), TxnDelete(b"k"), TxnPut(Explosive(b"k"), b"w")])
    assert store.kv.dump() == before
    assert store.kv.namespaces() == ["default"]


def test_a_snapshot_of_another_version_is_refused_and_changes_nothing(store: Store):
    store.put(b"k", b"v")

    for data in (b"", b"\x03" + store.kv.dump()[1:]):
        with pytest.raises(ValueError, match="kv snapshot of version"):
            store.kv.load(data)
    assert store.value(b"k") == b"v"


def test_a_foreign_event_is_no_silent_success(store: Store):
    with pytest.raises(AssertionError):
        store.kv.apply(Event(), 1, NOW)


def test_a_loaded_machine_reaps_what_is_due(store: Store):
    store.put(b"e", b"1", ttl_ms=1_000)
    store.put(b"f", b"1", ttl_ms=30 * COARSE_MS)
    store.put(b"g", b"1")
    store.do("delete", b"g")
    store.kv.load(store.kv.dump())
    store.now += REAP_AFTER_MS + 3_000

    assert store.reap() == 2
    store.now += 30 * COARSE_MS
    assert store.reap() == 1
