"""What every action asks of the core, and what it gives the flow."""

from __future__ import annotations

import pytest

from flo.api.outcome import error, ok
from tests.worker.engine import HTTP, Engine, body, bundle


def test_kv_actions_ask_with_their_arguments_and_give_what_is_promised(engine: Engine) -> None:
    engine.core.answer("kv.get", ok("text"), ok(None), ok(None))
    engine.core.answer("kv.incr", "+7", "+1180591620717411303424")
    engine.core.answer("kv.put", "+12")
    engine.core.answer("kv.delete", "+13")
    page = {"entries": [{"key": "a", "value": "1", "version": 4}], "cursor": "c", "has_more": True}
    engine.core.answer("kv.scan", ok(page))
    got = engine.run(
        body("""
        kv = fctx.actions.kv
        put = kv.put("k", "v", ttl = "5m", nx = True, xx = True, cas = 3, keep_ttl = True)
        plain = kv.put("k", "v")
        gone = kv.delete("k", if_match = 4)
        entry = kv.scan("a", limit = 5)[0]
        page = kv.page(cursor = "x")
        return [kv.get("k"), kv.get("k"), kv.get("k", "default"), kv.incr("n"), kv.incr("n", by = -2),
                [put.ok, put.value, plain.value, gone.value], [entry.key, entry.value, entry.version],
                [page.cursor, page.has_more, len(page.entries)]]
        """)
    )

    assert got == [
        "text", None, "default", 7, 1180591620717411303424, [True, 12, 12, 13], ["a", "1", 4], ["c", True, 1],
    ]  # fmt: skip
    assert engine.asked() == [
        ("kv.put", '{"key":"k","value":"v","ttl":300000,"nx":true,"xx":true,"cas":3,"keep_ttl":true}'),
        ("kv.put", '{"key":"k","value":"v"}'),
        ("kv.delete", '{"key":"k","if_match":4}'),
        ("kv.scan", '{"prefix":"a","limit":5,"cursor":null}'),
        ("kv.scan", '{"prefix":"","limit":100,"cursor":"x"}'),
        ("kv.get", '{"key":"k"}'),
        ("kv.get", '{"key":"k"}'),
        ("kv.get", '{"key":"k"}'),
        ("kv.incr", '{"key":"n","by":1}'),
        ("kv.incr", '{"key":"n","by":-2}'),
    ]


def test_time_and_chance_are_values(engine: Engine) -> None:
    engine.core.answer("clock.now", "+1750000000.25")
    engine.core.answer("random", "+0.5")
    engine.core.answer("uuid", ok("u-1"))
    got = engine.run(body("a = fctx.actions\nreturn [a.now(), a.random(), a.uuid(), a.sleep(1.5), a.sleep('500ms')]"))

    assert got == [1750000000.25, 0.5, "u-1", None, None] and isinstance(got[0], float)
    assert engine.asked() == [
        ("clock.now", "{}"), ("random", "{}"), ("uuid", "{}"), ("clock.sleep", '{"ms":1500}'),
        ("clock.sleep", '{"ms":500}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ms"), [('"1h30m"', 5_400_000), ('"2d"', 172_800_000), ('"1.5s"', 1_500), ("0", 0), ("2", 2_000)]
)
def test_durations_are_seconds_or_texts(engine: Engine, text: str, ms: int) -> None:
    engine.run(body(f"fctx.actions.sleep({text})"))

    assert engine.asked() == [("clock.sleep", f'{{"ms":{ms}}}')]


@pytest.mark.parametrize("text", ["-1", "-0.5", '"5x"', '""', '"5"', "None", "[]", 'float("nan")', "1000000000000"])
def test_what_is_no_duration_fails_the_flow(engine: Engine, text: str) -> None:
    failure = engine.fails(body(f"fctx.actions.sleep({text})"))

    assert failure["kind"] == "bad_argument" and "sleep" in failure["message"]
    assert failure["where"].startswith("main.flow:3") and not engine.core.acts


def test_http_asks_under_the_name_of_its_method_and_keeps_secrets_apart(engine: Engine) -> None:
    for kind in ("get", "post", "put", "patch", "delete", "options"):
        engine.core.answer(f"http.{kind}", ok(HTTP))
    got = engine.run(
        body("""
        h, s = fctx.actions.http, fctx.secrets
        r = h.get("http://x/", headers = {"A": "b", "N": 1}, timeout = 0.5,
                  retry = retry(max_attempts = 4, backoff = "constant", initial = "250ms", on = ["timeout"]))
        h.post("http://x/", json = None, headers = {"Authorization": bearer(s.TOKEN), "K": s.KEY})
        h.put("http://x/", body = "text")
        h.patch("http://x/", body = s.KEY)
        h.delete("http://x/")
        h.request("options", "http://x/")
        return [r.ok, r.value.status, r.value.headers, r.value.body, r.value.json]
        """)
    )

    assert got == [True, 418, {"x": "y"}, "[1]", [1]]
    assert engine.asked() == [
        ("http.get", '{"method":"GET","url":"http://x/","headers":{"A":"b","N":"1"},"timeout":500,"retry":'
                     '{"max_attempts":4,"backoff":"constant","initial":250,"max":60000,"on":["timeout"]}}'),
        ("http.post", '{"method":"POST","url":"http://x/","headers":{},"secret_headers":'
                      '{"Authorization":["Bearer {}","TOKEN"],"K":["{}","KEY"]},"json":null}'),
        ("http.put", '{"method":"PUT","url":"http://x/","headers":{},"body":"text"}'),
        ("http.patch", '{"method":"PATCH","url":"http://x/","headers":{},"secret_body":["{}","KEY"]}'),
        ("http.delete", '{"method":"DELETE","url":"http://x/","headers":{}}'),
        ("http.options", '{"method":"OPTIONS","url":"http://x/","headers":{}}'),
    ]  # fmt: skip


def test_messages_signals_and_registered_actions(engine: Engine) -> None:
    engine.core.answer("receive", ok({"m": 1}))
    engine.core.answer("signal", error("timeout", "none came"))
    engine.core.answer("call", ok([1]))
    engine.core.answer("flow", None)
    got = engine.run(
        bundle("""
        def _child(fctx):
            return None
        child = flow(implementation = _child)
        def _main(fctx):
            a = fctx.actions
            a.send("other", {"i": (1, struct(a = 2))})
            a.send(a.run(child), "hi")
            r, s = a.receive(timeout = "1s"), a.signal("go", timeout = 0)
            c = a.call("name", input = [1], timeout = 2, retry = retry(max_attempts = 1), idempotency_key = "k")
            a.connector("test.echo", text = "t", n = 1)
            return [r.value, s.ok, s.error.kind, s.error.message, c.value]
        main = flow(implementation = _main)
        """)
    )

    assert got == [{"m": 1}, False, "timeout", "none came", [1]]
    assert engine.asked() == [
        ("send", '{"to":"other","message":{"i":[1,{"a":2}]}}'),
        ("flow", '{"flow":"main.flow::child","args":{}}'),
        ("send", '{"to":"run-1/0.2","message":"hi"}'),
        ("receive", '{"timeout":1000}'),
        ("signal", '{"type":"go","timeout":0}'),
        ("call", '{"name":"name","input":[1],"timeout":2000,"retry":'
                 '{"max_attempts":1,"backoff":"exponential","initial":1000,"max":60000},"idempotency_key":"k"}'),
        ("test.echo", '{"text":"t","n":1}'),
    ]  # fmt: skip


def test_output_has_numbers_of_its_own(engine: Engine) -> None:
    engine.run(
        body("""
        a = fctx.actions
        print("one", 2, None, sep = "-")
        print(len, [lambda: 1])
        return [a.log("m", n = 1, s = fctx.secrets.KEY), a.progress(1, 2), a.publish("k", [1])]
        """)
    )

    assert engine.core.outputs[0] == ("0", 1, "print", "one-2-None")
    assert engine.core.outputs[2:] == [
        ("0", 3, "log", '{"message":"m","fields":{"n":1,"s":"<secret KEY>"}}'),
        ("0", 4, "progress", '{"done":1,"total":2}'),
        ("0", 5, "publish", '{"key":"k","value":[1]}'),
    ]


def test_where_is_the_line_of_the_script_also_through_helpers_of_the_prelude(engine: Engine) -> None:
    engine.core.answer("kv.incr", "+1")
    engine.core.answer("http.get", ok(HTTP))
    engine.core.answer("kv.scan", ok({"entries": [], "cursor": None, "has_more": False}))
    engine.run(
        body("""
        fctx.actions.kv.incr("a")
        fctx.actions.http.get("x")
        f = lambda: fctx.actions.kv.page()
        f()
        """)
    )

    assert [act.where for act in engine.core.acts] == ["main.flow:3", "main.flow:4", "main.flow:5"]
