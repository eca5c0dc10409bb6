"""Transactions of the key–value machine: the buffer of an open one, and the commit."""

from __future__ import annotations

import pytest

from flo.primitives.kv_txn import TXN_BYTES, Transaction, TxnDelete, TxnIncr, TxnPut, TxnTouch
from flo.primitives.machine import Refused
from tests.support.kv_store import NOW, Store, refusal


@pytest.fixture
def store() -> Store:
    return Store()


def commit(store: Store, transaction: Transaction) -> int:
    return store.commit(store.kv.decide_commit(store.now, store.index + 1, transaction.ns, transaction.ops))


def test_a_transaction_sees_itself_and_others_see_it_at_its_commit(store: Store):
    transaction = Transaction(store.kv, "default")
    put = transaction.write(NOW, TxnPut(b"user:42:name", b"Jane"))
    visits = transaction.write(NOW, TxnIncr(b"user:42:visits"))

    assert put is not None and put.version == 0
    assert visits is not None and visits.value == b"1"
    inside = transaction.get(NOW, b"user:42:name")
    assert inside is not None and inside.value == b"Jane"
    assert transaction.exists(NOW, b"user:42:visits")
    assert store.value(b"user:42:name") is None

    index = commit(store, transaction)
    for key, value in ((b"user:42:name", b"Jane"), (b"user:42:visits", b"1")):
        entry = store.kv.get(NOW, "default", key)
        assert entry is not None and (entry.value, entry.version) == (value, index)
    assert store.replayed().dump() == store.kv.dump()


def test_several_changes_of_a_key_become_one_version(store: Store):
    transaction = Transaction(store.kv, "default")
    transaction.write(NOW, TxnPut(b"k", b"1"))
    transaction.write(NOW, TxnPut(b"k", b"2", xx=True))
    transaction.write(NOW, TxnTouch(b"k", 5_000))
    transaction.write(NOW, TxnPut(b"gone", b"1", nx=True))
    assert transaction.write(NOW, TxnDelete(b"gone")) is None
    assert not transaction.exists(NOW, b"gone")
    assert transaction.get(NOW, b"gone") is None
    index = commit(store, transaction)

    assert [(v.version, v.value) for v in store.kv.history(NOW, "default", b"k")] == [(index, b"2")]
    assert [v.tombstone for v in store.kv.history(NOW, "default", b"gone")] == [True]
    entry = store.kv.get(NOW, "default", b"k")
    assert entry is not None and entry.expires_at == NOW + 5_000


def test_a_touch_alone_keeps_the_version(store: Store):
    version = store.put(b"k", b"v")
    store.commit(store.kv.decide_commit(NOW, 2, "default", [TxnTouch(b"k", 5_000, if_match=version)]))

    entry = store.kv.get(NOW, "default", b"k")
    assert entry is not None and (entry.version, entry.expires_at) == (version, NOW + 5_000)


def test_the_commit_runs_on_what_is_committed_then(store: Store):
    store.incr(b"n", 10)
    transaction = Transaction(store.kv, "default")
    transaction.write(NOW, TxnIncr(b"n", 5))
    transaction.write(NOW, TxnPut(b"t", b"v", ttl_ms=1_000))
    store.incr(b"n", 100)
    store.now += 60_000
    commit(store, transaction)

    assert store.value(b"n") == b"115"
    entry = store.kv.get(store.now, "default", b"t")
    assert entry is not None and entry.expires_at == store.now + 1_000


def test_one_operation_that_fails_at_commit_refuses_all(store: Store):
    version = store.put(b"k", b"v")
    transaction = Transaction(store.kv, "default")
    transaction.write(NOW, TxnPut(b"other", b"1"))
    transaction.write(NOW, TxnPut(b"k", b"w", cas=version))
    store.put(b"k", b"x")
    before = store.kv.dump()

    refused = refusal(lambda: commit(store, transaction))
    assert (refused.kind, refused.details) == ("conflict", {"current_version": version + 1})
    assert "operation 2" in refused.message
    assert store.kv.dump() == before
    store.do("delete", b"k")
    assert refusal(lambda: store.kv.decide_commit(NOW, 4, "default", [TxnDelete(b"k")])).kind == "conflict"
    assert refusal(lambda: store.kv.decide_commit(NOW, 4, "default", [TxnTouch(b"k", 1)])).kind == "conflict"


def test_an_empty_transaction_writes_nothing(store: Store):
    assert store.kv.decide_commit(NOW, 1, "default", []) is None


def test_the_257th_write_is_refused_and_256_are_committed(store: Store):
    transaction = Transaction(store.kv, "default")
    for n in range(256):
        transaction.write(NOW, TxnPut(b"%d" % n, b"v"))

    refused = refusal(lambda: transaction.write(NOW, TxnPut(b"one more", b"v")))
    assert (refused.kind, refused.details) == ("too_large", {"code": "kv_txn_too_large"})
    commit(store, transaction)
    assert store.kv.key_count("default") == 256


def test_the_bytes_of_a_transaction_are_bounded_and_refused_operations_do_not_count(store: Store):
    transaction = Transaction(store.kv, "default")
    for n in range(4):
        transaction.write(NOW, TxnPut(b"%d" % n, b"v" * (TXN_BYTES // 4 - 1)))
    assert len(transaction.ops) == 4

    with pytest.raises(Refused) as caught:
        transaction.write(NOW, TxnPut(b"x", b""))
    assert caught.value.details == {"code": "kv_txn_too_large"}
    assert not transaction.exists(NOW, b"x")
    assert refusal(lambda: transaction.write(NOW, TxnPut(b"0", b"", nx=True))).kind == "conflict"
    assert refusal(lambda: transaction.write(NOW, TxnIncr(b"0"))).message == "not a counter"
    assert len(transaction.ops) == 4


def test_reserved_keys_are_denied_inside_too(store: Store):
    transaction = Transaction(store.kv, "default")

    for call in (
        lambda: transaction.write(NOW, TxnPut(b"_sys:x", b"1")),
        lambda: transaction.get(NOW, b"_sys:x"),
        lambda: store.kv.decide_commit(NOW, 1, "default", [TxnPut(b"_sys:x", b"1")]),
    ):
        assert refusal(call).message.endswith("access to reserved key denied")
