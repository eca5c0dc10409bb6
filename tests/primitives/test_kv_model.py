"""The key–value machine against a dict: any history of commands, at every index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flo.primitives.kv import KV
from flo.primitives.kv_entry import REAP_AFTER_MS
from flo.primitives.kv_events import KvReaped
from flo.primitives.kv_txn import TxnDelete, TxnIncr, TxnOp, TxnPut, TxnTouch
from flo.primitives.machine import Event, Refused

NAMESPACES = st.sampled_from(["default", "other"])
KEYS = st.sampled_from([b"a", b"ab", b"b", b"\xff"])
VALUES = st.sampled_from([b"", b"v", b"7"])
TTLS = st.sampled_from([0, 0, 1, 1_000, 90_000_000])
VERSIONS = st.none() | st.just(-1) | st.integers(0, 3)  # -1: the current one
OPS = st.one_of(
    st.builds(TxnPut, KEYS, VALUES, TTLS, nx=st.booleans()),
    st.builds(TxnIncr, KEYS, st.integers(-3, 3)),
    st.builds(TxnDelete, KEYS),
    st.builds(TxnTouch, KEYS, TTLS),
)


@dataclass
class Model:
    """A key: its versions as (version, value or None, counter, expires), newest last."""

    versions: list[tuple[int, bytes | None, bool, int]]
    expires: int  # of the newest, which touch changes
    reaped_from: int

    def alive(self, now: int) -> bool:
        return self.versions[-1][1] is not None and not 0 < self.expires <= now


class KvHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.kv, self.replica = KV(), KV()
        self.keys: dict[tuple[str, bytes], Model] = {}
        self.now = 1_750_000_000_000
        self.index = 0

    @initialize()
    def begin(self) -> None:
        assert self.kv.dump() == self.replica.dump()

    # -- help

    def commit(self, event: Event | None) -> None:
        if event is None:
            return
        self.index += 1
        self.kv.apply(event, self.index, self.now)
        logged = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=KV.events[event.KIND, event.VERSION])
        self.replica.apply(logged, self.index, self.now)

    def decide(self, what: str, *args: Any, **options: Any) -> tuple[Any, str]:
        """The event, or None and the refusal's kind; neither has changed anything."""
        before = self.kv.dump()
        try:
            return getattr(self.kv, f"decide_{what}")(self.now, self.index + 1, *args, **options), ""
        except Refused as refused:
            return None, refused.kind
        finally:
            assert self.kv.dump() == before

    def current(self, ns: str, key: bytes) -> Model | None:
        model = self.keys.get((ns, key))
        return model if model is not None and model.alive(self.now) else None

    def write(self, ns: str, key: bytes, value: bytes | None, counter: bool, expires: int, version: int) -> None:
        model = self.keys.setdefault((ns, key), Model([], 0, 0))
        model.versions = [*model.versions, (version, value, counter, expires)][-64:]
        self.expire(model, expires)

    def expire(self, model: Model, expires: int) -> None:
        model.expires = expires
        gone = expires or (self.now if model.versions[-1][1] is None else 0)
        model.reaped_from = gone + REAP_AFTER_MS if gone else 0

    def wanted(self, ns: str, key: bytes, version: int | None) -> int | None:
        current = self.current(ns, key)
        return (current.versions[-1][0] if current else 0) if version == -1 else version

    def matches(self, current: Model | None, wanted: int | None, *, zero_is_absent: bool) -> bool:
        if wanted is None:
            return True
        if wanted == 0:
            return zero_is_absent and current is None
        return current is not None and current.versions[-1][0] == wanted

    # -- commands

    @rule(ns=NAMESPACES, key=KEYS, value=VALUES, ttl=TTLS, nx=st.booleans(), xx=st.booleans(), cas=VERSIONS,
          keep=st.booleans())  # fmt: skip
    def put(self, ns: str, key: bytes, value: bytes, ttl: int, nx: bool, xx: bool, cas: int | None, keep: bool) -> None:
        current, cas = self.current(ns, key), self.wanted(ns, key, cas)
        event, refused = self.decide("put", ns, key, value, ttl_ms=ttl, nx=nx, xx=xx, cas=cas, keep_ttl=keep)
        if (nx and (xx or cas is not None)) or (keep and ttl):
            assert refused == "bad_argument"
        elif not self.matches(current, cas, zero_is_absent=True) or (nx and current) or (xx and not current):
            assert refused == "conflict"
        else:
            assert not refused
            self.commit(event)
            kept = current.expires if keep and current else 0
            self.write(ns, key, value, False, self.now + ttl if ttl else kept, self.index)

    @rule(ns=NAMESPACES, key=KEYS, delta=st.integers(-5, 5) | st.just(2**63 - 1))
    def incr(self, ns: str, key: bytes, delta: int) -> None:
        current = self.current(ns, key)
        event, refused = self.decide("incr", ns, key, delta)
        if current and not current.versions[-1][2]:
            assert refused == "conflict"
            return
        total = int(current.versions[-1][1] or 0) + delta if current else delta
        if total > 2**63 - 1:
            assert refused == "bad_argument"
            return
        assert event.value == total
        self.commit(event)
        self.write(ns, key, b"%d" % total, True, current.expires if current else 0, self.index)

    @rule(ns=NAMESPACES, key=KEYS, match=VERSIONS)
    def delete(self, ns: str, key: bytes, match: int | None) -> None:
        current, match = self.current(ns, key), self.wanted(ns, key, match)
        event, refused = self.decide("delete", ns, key, if_match=match)
        if not self.matches(current, match, zero_is_absent=False):
            assert refused == "conflict"
        elif not current:
            assert refused == "not_found"
        else:
            self.commit(event)
            self.write(ns, key, None, False, 0, self.index)

    @rule(ns=NAMESPACES, key=KEYS, ttl=TTLS, match=VERSIONS)
    def touch(self, ns: str, key: bytes, ttl: int, match: int | None) -> None:
        current, match = self.current(ns, key), self.wanted(ns, key, match)
        event, refused = self.decide("touch", ns, key, ttl, if_match=match)
        if not self.matches(current, match, zero_is_absent=False):
            assert refused == "conflict"
        elif not current:
            assert refused == "not_found"
        else:
            self.commit(event)
            self.expire(current, self.now + ttl if ttl else 0)

    @rule(ns=NAMESPACES, ops=st.lists(OPS, max_size=4))
    def transact(self, ns: str, ops: list[TxnOp]) -> None:
        event, refused = self.decide("commit", ns, ops)
        assert refused in ("", "conflict")
        # Its operations one after the other, on a machine of their own, end in the same values.
        alone = KV()
        alone.load(self.kv.dump())
        failed = False
        for place, op in enumerate(ops):
            index = self.index + 1 + place
            try:
                if isinstance(op, TxnPut):
                    one: Event = alone.decide_put(self.now, index, ns, op.key, op.value, ttl_ms=op.ttl_ms, nx=op.nx)
                elif isinstance(op, TxnIncr):
                    one = alone.decide_incr(self.now, index, ns, op.key, op.delta)
                elif isinstance(op, TxnDelete):
                    one = alone.decide_delete(self.now, index, ns, op.key)
                else:
                    one = alone.decide_touch(self.now, index, ns, op.key, op.ttl_ms)
            except Refused:
                failed = True
                break
            alone.apply(one, index, self.now)
        assert failed == bool(refused)
        self.commit(event)
        for key in {op.key for op in ops} if event is not None else ():
            entry, expected = self.kv.get(self.now, ns, key), alone.get(self.now, ns, key)
            written = any(op.key == key and not isinstance(op, TxnTouch) for op in ops)
            assert (entry is None) == (expected is None)
            if entry is None:
                self.write(ns, key, None, False, 0, self.index)
                continue
            assert expected is not None
            assert (entry.value, entry.kind, entry.expires_at) == (expected.value, expected.kind, expected.expires_at)
            if written:
                self.write(ns, key, entry.value, entry.kind == "counter", entry.expires_at, self.index)
            else:
                self.expire(self.keys[ns, key], entry.expires_at)

    @rule(ms=st.sampled_from([0, 1, 999, 60_000, REAP_AFTER_MS, 90_000_000]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule()
    def reap(self) -> None:
        for _ in range(10):
            due = self.kv.next_due()
            if due is None or due > self.now:
                break
            before = self.kv.dump()
            events = self.kv.due(self.now, self.index + 1)
            assert self.kv.dump() == before
            for event in events:
                assert isinstance(event, KvReaped)
                for key in event.keys:
                    gone = self.keys.pop((event.ns, key))
                    assert 0 < gone.reaped_from <= self.now
                self.commit(event)
        for model in self.keys.values():
            assert not 0 < model.reaped_from <= self.now - 1_000, "a timer is a second late at most"

    @rule(ns=NAMESPACES)
    @precondition(lambda self: self.keys)
    def forget(self, ns: str) -> None:
        event, _ = self.decide("forget", ns)
        self.commit(event)
        for key in event.keys if event is not None else ():
            model = self.keys[ns, key]
            del model.versions[:-1]
            if model.versions[-1][1] is None:
                del self.keys[ns, key]

    @rule()
    def restart(self) -> None:
        data = self.kv.dump()
        self.kv = KV()
        self.kv.load(data)
        assert self.kv.dump() == data

    # -- what must hold at every index

    @invariant()
    def the_replica_is_equal(self) -> None:
        assert self.replica.dump() == self.kv.dump()

    @invariant()
    def reads_are_the_models(self) -> None:
        for (ns, key), model in self.keys.items():
            entry = self.kv.get(self.now, ns, key)
            assert (entry is not None) == model.alive(self.now) == self.kv.exists(self.now, ns, key)
            if entry is not None:
                version, value, counter, _ = model.versions[-1]
                assert (entry.version, entry.value, entry.kind == "counter") == (version, value, counter)
                assert entry.expires_at == model.expires
            history = self.kv.history(self.now, ns, key, 64)
            assert [(v.version, v.value) for v in history] == [v[:2] for v in reversed(model.versions)]
        for ns in ("default", "other"):
            live = sorted(key for (n, key), model in self.keys.items() if n == ns and model.alive(self.now))
            assert [row.key for row in self.kv.scan(self.now, ns).rows] == live
            first = self.kv.scan(self.now, ns, limit=1)
            rest = self.kv.scan(self.now, ns, cursor=first.cursor).rows if first.has_more else []
            assert [row.key for row in [*first.rows, *rest]] == live


KvHistories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKvHistories = KvHistories.TestCase
