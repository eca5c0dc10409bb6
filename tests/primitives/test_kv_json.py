"""JSON documents in the key–value machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.primitives import kv_json
from tests.support.kv_store import NOW, Store, refusal


@pytest.fixture
def store() -> Store:
    return Store()


def node(store: Store, path: str, key: bytes = b"o") -> bytes | None:
    found = store.kv.jget(store.now, "default", key, path)
    return None if found is None else found.json


def test_a_field_is_set_and_the_others_stay(store: Store):
    store.do("jset", b"o", "$", b'{"status":"new","n":3}')
    version = store.do("jset", b"o", "$.status", b'"shipped"')

    assert node(store, "$.status") == b'"shipped"'
    assert node(store, ".n") == b"3"
    assert node(store, "$.zz") is None
    found = store.kv.jget(NOW, "default", b"o")
    assert found is not None and found.version == version
    assert refusal(lambda: store.do("jset", b"missing", "$.a", b"1")).kind == "not_found"
    assert node(store, "$", b"missing") is None


def test_fifty_fields_set_one_by_one_are_all_there(store: Store):
    store.do("jset", b"o", "$", b"{}")
    for n in range(50):
        store.do("jset", b"o", f"$.f{n}", b"%d" % n)

    assert json.loads(node(store, "$") or b"") == {f"f{n}": n for n in range(50)}


def test_untouched_members_keep_their_text_and_order(store: Store):
    store.do("jset", b"o", "$", b'{"z":1.50e3,"a":{"big":123456789012345678901234567890,"x":1},"b":"\\u00e9"}')
    store.do("jset", b"o", "$.a.x", b"2")

    assert store.value(b"o") == b'{"z":1.50e3,"a":{"big":123456789012345678901234567890,"x":2},"b":"\\u00e9"}'


def test_arrays_have_no_append_and_close_up(store: Store):
    store.do("jset", b"o", "$", b"[1,2,3]")
    assert refusal(lambda: store.do("jset", b"o", "$[3]", b"4")).kind == "not_found"
    assert node(store, "$[3]") is None
    store.do("jset", b"o", "$[1]", b"[]")
    store.do("jdel", b"o", "$[0]")

    assert store.value(b"o") == b"[[],3]"


def test_jdel_removes_a_member_or_the_key(store: Store):
    store.do("jset", b"o", "$", b'{"a":1,"b":{"c":null}}')
    store.do("jdel", b"o", "$.b.c")
    assert store.value(b"o") == b'{"a":1,"b":{}}'
    assert refusal(lambda: store.do("jdel", b"o", "$.b.c")).kind == "not_found"

    version = store.do("jdel", b"o")
    assert store.value(b"o") is None
    assert store.kv.history(NOW, "default", b"o")[0].version == version
    assert refusal(lambda: store.do("jdel", b"o")).kind == "not_found"


@pytest.mark.parametrize("path", ["$.a.b", "$.n.x", "$[0]", "$.l.x", "$.s[0]"])
def test_a_missing_parent_is_not_found(store: Store, path: str):
    store.do("jset", b"o", "$", b'{"n":1,"l":[],"s":"text"}')

    assert refusal(lambda: store.do("jset", b"o", path, b"1")).kind == "not_found"
    assert refusal(lambda: store.do("jdel", b"o", path)).kind == "not_found"
    assert node(store, path) is None


def test_conditions_and_expiry(store: Store):
    version = store.do("jset", b"o", "$", b"{}", ttl_ms=5_000, cas=0)
    store.do("jset", b"o", "$.a", b"1", cas=version)
    assert refusal(lambda: store.do("jset", b"o", "$.a", b"1", cas=version)).details == {"current_version": 2}
    assert refusal(lambda: store.do("jdel", b"o", "$.a", cas=version)).details == {"current_version": 2}
    store.do("jset", b"o", "$.b", b"1")
    store.do("jdel", b"o", "$.a", cas=3)
    entry = store.kv.get(NOW, "default", b"o")
    assert entry is not None and entry.expires_at == NOW + 5_000

    store.do("jset", b"o", "$.b", b"1", ttl_ms=9_000)
    entry = store.kv.get(NOW, "default", b"o")
    assert entry is not None and entry.expires_at == NOW + 9_000


def test_what_is_no_json_is_refused(store: Store):
    store.put(b"text", b"plain text")

    assert refusal(lambda: store.do("jset", b"o", "$", b"{")).message == "invalid json value"
    assert refusal(lambda: store.do("jset", b"o", "$", b'"\xff"')).message == "invalid json value"
    assert refusal(lambda: store.do("jset", b"o", "$", b"[" * 100_000)).message == "invalid json value"
    assert refusal(lambda: store.do("jset", b"text", "$.a", b"1")).message == "invalid json document"
    assert refusal(lambda: store.kv.jget(NOW, "default", b"text", "$")).message == "invalid json document"
    store.do("jset", b"text", "$", b" [1] ")
    assert store.value(b"text") == b"[1]"


def test_a_document_grows_no_larger_than_a_value(store: Store):
    store.do("jset", b"o", "$", b'{"a":0}')

    refused = refusal(lambda: store.do("jset", b"o", "$.a", b'"' + b"x" * 262_142 + b'"'))
    assert refused.kind == "too_large" and "value too large" in refused.message


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "a",
        "$a",
        "$.",
        "$..a",
        "[0]",
        "$[-1]",
        "$[a]",
        "$.a b",
        "$.é",
        "$.a\n",
        "$" + 129 * ".a",
        "$." + 4_096 * "a",
    ],
)
def test_a_malformed_path_is_refused(store: Store, path: str):
    assert "invalid json path" in refusal(lambda: store.kv.jget(NOW, "default", b"o", path)).message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c-1"]), inner, max_size=3),
    max_leaves=12,
)
STEPS = st.lists(st.sampled_from(["a", "b", "c-1", 0, 1]), max_size=4)


@given(document=VALUES, steps=STEPS, new=VALUES, remove=st.booleans())
def test_a_change_is_the_same_as_on_parsed_values(document: Any, steps: list[str | int], new: Any, remove: bool):
    path = "$" + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in steps)
    assert kv_json.parse_path(path) == steps
    text = json.dumps(document).encode()

    def reach(value: Any, way: list[str | int]) -> Any:
        for step in way:
            fits = isinstance(value, dict) if isinstance(step, str) else isinstance(value, list)
            value = value[step] if fits else {}[step]
        return value

    try:
        expected = reach(document, steps)
        found = kv_json.found(text, steps)
        assert found is not None and json.loads(found) == expected
    except (KeyError, IndexError):
        assert kv_json.found(text, steps) is None
    if not steps:
        return
    changed = kv_json.replaced(text, steps, None if remove else json.dumps(new).encode())
    try:
        parent = reach(document, steps[:-1])
        if remove or isinstance(parent, list) or not isinstance(steps[-1], str):
            reach(parent, steps[-1:])
        if remove:
            del parent[steps[-1]]
        else:
            reach({"": parent}, [""])
            if not isinstance(parent, dict | list):
                raise KeyError(steps[-1])
            parent[steps[-1]] = new
        assert changed is not None and json.loads(changed) == document
    except (KeyError, IndexError):
        assert changed is None
