"""Evaluation: what flows ask of the core, and that a replay asks nothing."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from flo.api.outcome import error, ok, value
from flo.api.worker import Lease, Record, TaskHistory
from flo.worker.bundle import Bundle
from flo.worker.inline import InlineWorker
from flo.worker.testing import FakeCore

HEADER = (
    'load("flo/prelude/v1", "FlowContext", "args", "bearer", "context", "flow", "json", "lock", "process", "retry",'
    ' "tempdir", "unwrap")\n'
)


def bundle(text: str, **others: str) -> Bundle:
    files = {"main.flow": HEADER + textwrap.dedent(text)}
    files.update({f"{name}.flow": textwrap.dedent(source) for name, source in others.items()})
    return Bundle(files, "main.flow")


def body(text: str, *, options: str = "", **others: str) -> Bundle:
    """A flow `main` with this body."""
    lines = textwrap.indent(textwrap.dedent(text).strip("\n"), "    ")
    return bundle(f"def _main(fctx):\n{lines}\nmain = flow(implementation = _main{options})\n", **others)


class Engine:
    """A fake core with a worker without threads."""

    def __init__(self) -> None:
        self.core = FakeCore()
        self.worker = self.core.worker = InlineWorker(self.core)

    def begin(self, source: Bundle, flow: str = "main.flow::main", **given: Any) -> Lease:
        lease = self.core.lease(source, flow, **given)
        self.again(lease)
        return lease

    def again(self, lease: Lease) -> Lease:
        """Evaluates a strand that was evicted, or another with its history."""
        lease = lease if lease.alive else self.core.again(lease)
        self.worker.start([lease])
        self.worker.drain()
        return lease

    def run(self, source: Bundle, flow: str = "main.flow::main", **given: Any) -> Any:
        """The value of a flow that ends at once."""
        outcome = self.outcome(source, flow, **given)
        assert outcome[0] == "+", outcome
        return value(outcome)

    def fails(self, source: Bundle, flow: str = "main.flow::main", **given: Any) -> dict[str, Any]:
        outcome = self.outcome(source, flow, **given)
        assert outcome[0] == "-", outcome
        found: dict[str, Any] = value(outcome)
        return found

    def outcome(self, source: Bundle, flow: str, **given: Any) -> str:
        self.begin(source, flow, **given)
        assert not self.core.paused, self.core.paused
        return self.core.finished.pop("run-1")

    def asked(self) -> list[tuple[str, str]]:
        return [(act.kind, act.params) for act in self.core.acts]


@pytest.fixture
def engine() -> Engine:
    return Engine()


# -- parameters of every action


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


HTTP = {"status": 418, "headers": {"x": "y"}, "body": "[1]", "json": [1]}


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
        ("connector", '{"kind":"test.echo","params":{"text":"t","n":1}}'),
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


# -- flows

CHILDREN = """
def _child(fctx):
    fctx.actions.kv.incr("inner")
    return fctx.args.x
child = flow(implementation = _child, args = {"x": args.any(default = 5)})
def _slow(fctx):
    return 1
slow = flow(implementation = _slow, timeout = "500ms", retry = retry(max_attempts = 2), args = {"x": args.int()})
"""


def test_direct_call_without_options_is_evaluated_inside_the_strand(engine: Engine) -> None:
    engine.core.answer("kv.incr", "+1")
    lease = engine.begin(bundle(CHILDREN + "def _main(fctx):\n    return [child(x = {'a': 1}), child()]\n"
                                           "main = flow(implementation = _main)\n"))  # fmt: skip

    assert engine.core.finished["run-1"] == '+[{"a":1},5]'
    assert [(act.sid, act.params) for act in engine.core.entered] == [
        ("0.1", '{"flow":"main.flow::child","args":{"x":{"a":1}}}'),
        ("0.2", '{"flow":"main.flow::child","args":{"x":5}}'),
    ]
    assert [act.sid for act in engine.core.acts] == ["0.1.1", "0.2.1"]
    assert list(lease.history) == ["0"] and sorted(lease.history["0"].records) == [1, 2]

    engine.core.finished.clear()
    engine.again(lease)

    assert engine.core.finished["run-1"] == '+[{"a":1},5]' and len(engine.core.acts) == 2


def test_direct_call_of_a_flow_with_options_is_an_action_that_carries_them(engine: Engine) -> None:
    engine.core.answer("flow", "+41")
    got = engine.run(
        bundle(CHILDREN + "def _main(fctx):\n    return slow(x = 1)\nmain = flow(implementation = _main)\n")
    )

    assert got == 41
    assert engine.asked() == [
        ("flow", '{"flow":"main.flow::slow","args":{"x":1},"options":{"timeout":500,"retry":'
                 '{"max_attempts":2,"backoff":"exponential","initial":1000,"max":60000}}}'),
    ]  # fmt: skip
    assert not engine.core.acts[0].handle


def test_run_and_wait_give_results_in_the_order_of_the_handles(engine: Engine) -> None:
    source = bundle(CHILDREN + """
def _main(fctx):
    a = fctx.actions
    hs = [a.run(child, x = 1), a.run(child, detached = True), a.timer("1s"), a.run(child, y = 1)]
    first = a.wait_any(hs[:3])
    rs = a.wait(hs[:3] + [hs[0], hs[3]])
    return [first.index, first.result.value, [r.ok for r in rs], rs[1].error.message, rs[4].error.kind,
            rs[4].error.message]
main = flow(implementation = _main)
""")  # fmt: skip
    engine.core.answer("flow", None)
    engine.core.answer("clock.timer", None)
    lease = engine.begin(source)

    assert engine.asked() == [
        ("flow", '{"flow":"main.flow::child","args":{"x":1}}'),
        ("flow", '{"flow":"main.flow::child","args":{"x":5},"options":{"detached":true}}'),
        ("clock.timer", '{"ms":1000}'),
        ("wait", '{"handles":["0.1","0.2","0.3"],"count":1,"timeout":null}'),
    ]
    assert [act.handle for act in engine.core.acts] == [True, True, True, False]

    engine.core.complete(lease, "0.2", error("failed", "broken"))
    engine.core.complete(lease, "0.4", ok({"done": [1]}))
    lease = engine.again(lease)
    assert engine.asked()[4:] == [("wait", '{"handles":["0.1","0.2","0.3"],"count":null,"timeout":null}')]

    engine.core.complete(lease, "0.1", "+1")
    engine.core.complete(lease, "0.3", "+null")
    engine.core.complete(lease, "0.5", ok({"done": [0, 1, 2]}))
    engine.again(lease)

    assert value(engine.core.finished["run-1"]) == [
        1, None, [True, False, True, True, False], "broken", "bad_argument", "argument y is not declared; there are x",
    ]  # fmt: skip
    assert len(engine.core.acts) == 5


def test_wait_with_timeout_gives_timeout_results_for_the_unfinished(engine: Engine) -> None:
    engine.core.answer("clock.timer", None)
    lease = engine.begin(
        body("""
        hs = [fctx.actions.timer(1), fctx.actions.timer(2)]
        return [[r.ok, r.error.kind if r.error else None] for r in fctx.actions.wait(hs, timeout = 0.5, count = 2)]
        """)
    )
    assert engine.asked()[2] == ("wait", '{"handles":["0.1","0.2"],"count":2,"timeout":500}')

    engine.core.complete(lease, "0.1", "+null")
    engine.core.complete(lease, "0.3", ok({"done": [0], "timeout": True}))
    engine.again(lease)

    assert value(engine.core.finished["run-1"]) == [[True, None], [False, "timeout"]]


def test_begin_gives_handles_of_waiting_actions(engine: Engine) -> None:
    engine.core.answer("http.get", ok(HTTP))
    engine.core.answer("signal", ok("go"))
    got = engine.run(
        body("""
        a = fctx.actions
        hs = [a.begin(a.http.get, "http://x/", timeout = 1), a.begin(a.signal, "s")]
        rs = a.wait(hs)
        return [rs[0].value.status, rs[1].value]
        """)
    )

    assert got == [418, "go"]
    assert [act.handle for act in engine.core.acts] == [True, True, False]
    assert engine.fails(body("fctx.actions.begin(fctx.actions.now)"))["kind"] == "bad_argument"
    assert engine.fails(body("fctx.actions.http.get('x', _begin = 'x')"))["kind"] == "bad_argument"


def test_failure_of_a_direct_child_fails_its_caller_with_place_and_calls_of_both(engine: Engine) -> None:
    failure = engine.fails(
        bundle("""
        def _bad(fctx):
            fail("disk on fire")
        bad = flow(implementation = _bad)
        def _main(fctx):
            bad()
            print("NOT REACHED")
        main = flow(implementation = _main)
        """)
    )

    assert (failure["kind"], failure["message"]) == ("failed", "disk on fire")
    assert failure["where"].startswith("main.flow:4:")
    traceback = failure["details"]["traceback"]
    assert traceback.count("Traceback") == 1 and traceback.index("main.flow:7") < traceback.index("main.flow:4")
    assert "NOT REACHED" not in str(engine.core.outputs)


def test_unwrap_fails_with_the_very_error_and_passes_what_is_no_result(engine: Engine) -> None:
    engine.core.answer("receive", error("interrupted", "the process died", retryable=True, details={"a": 1}))
    failure = engine.fails(body("x = unwrap(struct(ok = False)).ok\nunwrap(fctx.actions.receive())"))

    assert (failure["kind"], failure["message"], failure["retryable"]) == ("interrupted", "the process died", True)
    assert failure["where"].startswith("main.flow:4") and failure["details"]["a"] == 1


def test_failing_use_of_a_value_action_fails_the_flow_with_its_kind(engine: Engine) -> None:
    engine.core.answer("kv.incr", error("conflict", "k is no counter"))
    failure = engine.fails(body("fctx.actions.kv.incr('k')"))

    assert (failure["kind"], failure["message"]) == ("conflict", "k is no counter")
    assert failure["where"].startswith("main.flow:3")


def test_flow_that_is_not_a_top_level_name_is_refused(engine: Engine) -> None:
    source = """
    def _main(fctx):
        def _inner(c):
            return 1
        hidden = flow(implementation = _inner)
        return {use}
    main = flow(implementation = _main)
    """
    for use in ("hidden()", "fctx.actions.run(hidden)"):
        failure = engine.fails(bundle(source.replace("{use}", use)))
        assert failure["kind"] == "bad_argument" and "top-level" in failure["message"]


def test_flows_under_private_names_and_in_loaded_modules_can_be_called(engine: Engine) -> None:
    lib = (
        HEADER
        + """
def _impl(fctx):
    return fctx.run.name
shared = flow(implementation = _impl)
_hidden = flow(implementation = _impl)
def make():
    return flow(implementation = _impl)
def call():
    return _hidden()
"""
    )
    got = engine.run(
        Bundle(
            {
                "main.flow": HEADER
                + 'load("./lib.flow", "call", "make", mine = "shared")\nmade, other = make(), make()\n'
                "def _main(fctx):\n    return [mine(), call(), made(), other()]\nmain = flow(implementation = _main)\n",
                "lib.flow": lib,
            },
            "main.flow",
        )
    )

    assert got == ["shared", "_hidden", "made", "other"]


def test_module_is_the_root_flow_and_its_children_run_on_the_frozen_instance(engine: Engine) -> None:
    engine.core.answer("kv.incr", "+1", "+2")
    source = bundle("""
    SEEN = []
    def _child(fctx):
        fctx.actions.kv.incr("c")
        return [len(SEEN), context().run.parent, context().run.id]
    child = flow(implementation = _child)
    print(__name__)
    SEEN.append(1)
    print(child(), child(), context().run.id, len(SEEN))
    late = flow(implementation = _child)
    """)
    lease = engine.begin(source, "main.flow")

    assert [text for *_, text in engine.core.outputs] == [
        "__flow__", '[1, "run-1", "run-1/0.1"] [1, "run-1", "run-1/0.2"] run-1 1',
    ]  # fmt: skip
    assert engine.core.finished == {"run-1": "+null"} and not engine.core.paused

    engine.again(lease)
    assert len(engine.core.outputs) == 2 and len(engine.core.acts) == 2


def test_names_bound_after_the_first_action_are_explained(engine: Engine) -> None:
    source = bundle("""
    def _child(fctx):
        return 1
    context().actions.kv.incr("x")
    late = flow(implementation = _child)
    late()
    """)
    engine.core.answer("kv.incr", "+1")
    failure = engine.fails(source, "main.flow")

    assert failure["kind"] == "bad_argument" and "before its first action" in failure["message"]


def test_two_hundred_flows_nest_and_no_more(engine: Engine) -> None:
    source = """
    def _deep(fctx):
        return 0 if fctx.args.n == 0 else 1 + deep(n = fctx.args.n - 1)
    deep = flow(implementation = _deep, args = {"n": args.int()})
    """
    assert engine.run(bundle(source), "main.flow::deep", args={"n": 200}) == 200
    failure = engine.fails(bundle(source), "main.flow::deep", args={"n": 201})

    assert failure["kind"] == "quota_exceeded" and "200" in failure["message"]


def test_continue_as_new_of_the_strand_ends_its_lease(engine: Engine) -> None:
    lease = engine.begin(
        body('fctx.actions.continue_as_new(n = 2)\nfail("unreached")', options=', args = {"n": args.int(default = 0)}')
    )

    assert engine.core.continued == [("0", '{"n":2}')] and not engine.core.finished and not lease.alive
    assert engine.core.released == []


def test_continue_as_new_of_a_direct_call_goes_on_in_the_strand(engine: Engine) -> None:
    source = bundle("""
    def _count(fctx):
        fctx.actions.kv.incr("k")
        if fctx.args.n < 3:
            fctx.actions.continue_as_new(n = fctx.args.n + 1)
        fctx.actions.receive()
        return fctx.args.n
    count = flow(implementation = _count, args = {"n": args.int(default = 1)})
    def _main(fctx):
        return count()
    main = flow(implementation = _main)
    """)
    engine.core.answer("receive", None)
    engine.core.answer("kv.incr", "+1")
    lease = engine.begin(source)
    assert [act.sid for act in engine.core.acts] == ["0.1.1", "0.1~2.1", "0.1~3.1", "0.1~3.2"]

    engine.core.complete(lease, "0.1~3.2", "+null")
    engine.again(lease)
    assert engine.core.finished["run-1"] == "+3" and len(engine.core.acts) == 4


def test_continue_as_new_checks_its_arguments(engine: Engine) -> None:
    failure = engine.fails(body("fctx.actions.continue_as_new(ghost = 2)"))

    assert failure["kind"] == "bad_argument" and "ghost" in failure["message"]


# -- replay


def test_replay_with_history_equals_live_and_asks_nothing(engine: Engine) -> None:
    engine.core.answer("clock.now", "+1.5")
    engine.core.answer("http.get", ok(HTTP))
    engine.core.answer("kv.incr", *[f"+{n}" for n in range(1, 30)])
    source = bundle(CHILDREN + """
def _main(fctx):
    a = fctx.actions
    print("begins")
    out = [a.now(), a.http.get("http://x/", body = "b" * 3000).value.json, child(x = [1])]
    for i in range(20):
        out.append(a.kv.incr("k"))
        print(i)
    return out
main = flow(implementation = _main)
""")  # fmt: skip
    lease = engine.begin(source)
    live, asked, printed = engine.core.finished.pop("run-1"), len(engine.core.acts), len(engine.core.outputs)
    engine.again(lease)

    assert engine.core.finished == {"run-1": live} and not engine.core.paused
    assert (len(engine.core.acts), len(engine.core.outputs)) == (asked, printed)


def test_every_wait_is_left_and_replayed(engine: Engine) -> None:
    engine.core.answer("receive", None)
    lease = engine.begin(body("return [fctx.actions.receive().value for i in range(3)]"))
    for n in (1, 2, 3):
        assert engine.core.released == ["run-1"] * n
        engine.core.complete(lease, f"0.{n}", f"+{n}")
        lease = engine.again(lease)

    assert engine.core.finished == {"run-1": "+[1,2,3]"} and len(engine.core.acts) == 3


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (Record(1, "kv.put", '{"key":"k"}', "+1", 0, 0, "old.flow:7"), ["kv.put", "old.flow:7", "kv.incr"]),
        (Record(1, "kv.incr", '{"key":"other","by":1}', "+1", 0, 0, ""), ['"other"', '"k"']),
    ],
)
def test_another_action_than_recorded_pauses_the_run(engine: Engine, recorded: Record, says: list[str]) -> None:
    history = TaskHistory()
    history.records[1] = recorded
    lease = engine.begin(body("return fctx.actions.kv.incr('k')"), history={"0": history})

    message = engine.core.paused["run-1"]
    assert message.startswith("NonDeterministic: 0.1: ") and "flo runs history run-1" in message
    assert all(text in message for text in [*says, "main.flow:3"])
    assert not engine.core.finished and not engine.core.acts and not lease.alive and not engine.core.released


def test_recorded_actions_that_are_never_reached_pause_the_run(engine: Engine) -> None:
    history = TaskHistory()
    history.records[1] = Record(1, "kv.incr", '{"key":"k","by":1}', "+1", 0, 0, "main.flow:9")
    engine.begin(body("return 1"), history={"0": history})

    assert "0.1" in engine.core.paused["run-1"] and "ended before" in engine.core.paused["run-1"]


def test_records_that_are_references_are_loaded(engine: Engine) -> None:
    engine.core.texts["@+abc"] = ok("large")
    history = TaskHistory()
    history.records[1] = Record(1, "receive", '{"timeout":null}', "@+abc", 0, 0, "")

    assert engine.run(body("return fctx.actions.receive().value"), history={"0": history}) == "large"


def test_revoked_lease_is_released_and_acts_no_more(engine: Engine) -> None:
    def revoke(params: str) -> str:
        lease.alive = False
        return "+1"

    engine.core.answer("kv.incr", revoke)
    source = body("fctx.actions.kv.incr('a')\nfctx.actions.kv.incr('b')")
    lease = engine.core.lease(source, "main.flow::main")
    engine.worker.start([lease])
    engine.worker.drain()

    assert engine.core.released == ["run-1"] and not engine.core.finished and len(engine.core.acts) == 1


def test_fault_of_the_core_is_no_failure_of_the_flow(engine: Engine) -> None:
    def broken(params: str) -> str:
        raise LookupError("core is broken")

    engine.core.answer("kv.incr", broken)
    with pytest.raises(LookupError, match="core is broken"):
        engine.begin(body("fctx.actions.kv.incr('a')"))
    assert not engine.core.finished


# -- values


def test_values_cross_unchanged(engine: Engine) -> None:
    given = {
        "none": None, "yes": True, "big": 2**70, "neg": -(2**65), "float": 0.1, "text": 'ünï→✓ \x00 "q"\n',
        "list": [[], {}, [1, [2, [3]]]], "": "empty key", "nested": {"a": {"b": [1.5, -0.25]}},
    }  # fmt: skip
    got = engine.run(
        bundle("""
        def _child(fctx):
            return {"got": fctx.args.v, "tuple": (1, 2), "struct": struct(a = 1), "big": context().args.v["big"] + 1}
        child = flow(implementation = _child, args = {"v": args.any()})
        def _main(fctx):
            return child(v = fctx.args.v)
        main = flow(implementation = _main, args = {"v": args.any()})
        """),
        args={"v": given},
    )

    assert got == {"got": given, "tuple": [1, 2], "struct": {"a": 1}, "big": 2**70 + 1}


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("lambda: 1", "payload: a value of type function"),
        ("[1, {'k': len}]", "payload[1].k: a value of type function"),
        ("{(1, 2): 3}", "payload: the key (1, 2)"),
        ("{1: 3}", "payload: the key 1"),
        ("range(3)", "payload: a value of type range"),
        ("float('inf')", "payload: +inf is no finite number"),
        ("[float('nan')]", "payload[0]: nan is no finite number"),
        ("child", "payload: a flow cannot cross"),
        ("fctx.actions.timer(1)", "payload: a handle cannot cross"),
        ("deep()", "nested deeper than 64"),
        ("struct(a = print)", "payload.a: a value of type function"),
    ],
)
def test_what_cannot_cross_is_named_with_its_place(engine: Engine, expr: str, says: str) -> None:
    engine.core.answer("clock.timer", None)
    failure = engine.fails(
        bundle(f"""
        def deep():
            x = []
            for i in range(100):
                x = [x]
            return x
        def _child(fctx):
            print("CHILD RAN")
        child = flow(implementation = _child, args = {{"payload": args.any()}})
        def _main(fctx):
            fctx.actions.run(child, payload = {expr})
        main = flow(implementation = _main)
        """)
    )

    assert failure["kind"] == "bad_argument" and says in failure["message"], failure["message"]
    assert failure["where"].startswith("main.flow:12") and "flow" not in engine.core.kinds()


def test_value_of_64_levels_crosses(engine: Engine) -> None:
    got = engine.run(body("x = 1\nfor i in range(64):\n    x = {'k': [x]} if i % 2 and i < 2 else [x]\nreturn x[0]"))

    assert str(got).count("[") >= 60


def test_result_that_cannot_cross_fails_the_run(engine: Engine) -> None:
    assert "the result[0]" in engine.fails(body("return [_main]"))["message"]


def test_json_is_guarded_and_keeps_integers(engine: Engine) -> None:
    got = engine.run(
        body("""
        big = json.decode("[1180591620717411303424, -5, 1.5, null]")
        return [big, json.encode({"a": big, "s": fctx.secrets.KEY})]
        """)
    )
    assert got == [[2**70, -5, 1.5, None], '{"a":[1180591620717411303424,-5,1.5,null],"s":"<secret KEY>"}']

    failure = engine.fails(body('json.decode("[1,")'))
    assert failure["kind"] == "bad_argument" and failure["where"].startswith("main.flow:3")
    assert engine.fails(body('json.decode("[" * 100000)'))["kind"] == "bad_argument"
    assert engine.fails(body("json.encode(len)"))["kind"] == "bad_argument"


def test_arguments_are_checked_before_anything_runs(engine: Engine) -> None:
    source = """
    def _child(fctx):
        return 1
    child = flow(implementation = _child, args = {
        "n": args.int(), "f": args.float(default = 1), "l": args.list(default = []), "s": args.string(default = None)})
    def _main(fctx):
        return child(%s)
    main = flow(implementation = _main)
    """
    assert engine.run(bundle(source % "n = 1, f = 2, l = (1, 2)")) == 1
    assert engine.core.entered[0].params.endswith('"args":{"n":1,"f":2.0,"l":[1,2],"s":null}}')
    for given, says in [
        ("", "argument n is missing"),
        ("n = 'x'", "argument n: int is wanted, not string"),
        ("n = True", "argument n: int is wanted, not bool"),
        ("n = 1, ghost = 2", "argument ghost is not declared"),
        ("1", "by name"),
    ]:
        failure = engine.fails(bundle(source % given))
        assert failure["kind"] == "bad_argument" and says in failure["message"], failure["message"]


# -- resources

RESOURCES = """
def _main(fctx):
    p = fctx.resources.job
    r = unwrap(p.wait())
    again = unwrap(fctx.actions.process.wait(context().resources.job))
    return [fctx.resources.tmp.path, r.exit_code, r.output, again.stdout, fctx.resources.guard.name]
main = flow(implementation = _main, args = {"x": args.string(default = "arg")}, resources = {
    "tmp": lambda fctx: tempdir(),
    "job": lambda fctx: process(["sh", "-c", fctx.args.x], env = {"A": "1"}, cwd = "/"),
    "guard": lambda fctx: lock("deploy"),
})
"""
ENDED = {"exit_code": 117, "stdout": "out", "stderr": "", "output": "out"}


def test_resources_are_described_and_opened_before_the_first_step(engine: Engine) -> None:
    engine.core.answer("resources.open", None)
    engine.core.answer("process.wait", ok(ENDED))
    lease = engine.begin(bundle(RESOURCES))
    assert [(act.sid, act.kind, act.input) for act in engine.core.acts] == [
        ("0.0", "resources.open", [
            {"name": "tmp", "kind": "tempdir", "params": {}},
            {"name": "job", "kind": "process", "params": {"argv": ["sh", "-c", "arg"], "env": {"A": "1"}, "cwd": "/"}},
            {"name": "guard", "kind": "lock", "params": {"name": "deploy"}},
        ]),
    ]  # fmt: skip

    engine.core.complete(lease, "0.0", ok({"tmp": {"path": "/t"}, "job": {}, "guard": {}}))
    engine.again(lease)

    assert value(engine.core.finished["run-1"]) == ["/t", 117, "out", "out", "guard"]
    assert engine.asked()[1:] == [("process.wait", '{"resource":"job"}')] * 2
    assert not engine.core.paused


def test_resource_that_cannot_be_opened_fails_the_flow_without_running_it(engine: Engine) -> None:
    engine.core.answer("resources.open", error("resource", "second: no such program"))
    failure = engine.fails(bundle(RESOURCES))

    assert failure["kind"] == "resource" and len(engine.core.acts) == 1


def test_actions_of_a_resource_function_are_refused(engine: Engine) -> None:
    for use in ("fctx.actions.now()", "fctx.actions.timer(1)", "main()", "fctx.actions.run(main)"):
        failure = engine.fails(
            bundle(f"""
            def _plain(fctx):
                return 1
            main = flow(implementation = _plain)
            res = flow(implementation = _plain, resources = {{"x": lambda fctx: {use}}})
            """),
            "main.flow::res",
        )
        assert failure["kind"] == "bad_argument" and "cannot act" in failure["message"]
    assert not engine.core.acts


def test_exit_part_gets_the_end_of_the_body(engine: Engine) -> None:
    source = bundle("""
    def _exit(fctx):
        fctx.actions.kv.put("ended", fctx.result.error.kind + fctx.args.x)
    def _main(fctx):
        return 1
    main = flow(implementation = _main, on_exit = _exit, args = {"x": args.string()})
    """)
    engine.begin(source, task="0.exit", phase="exit", args={"x": "!"}, outcome=error("cancelled", "by ada"))

    assert engine.asked() == [("kv.put", '{"key":"ended","value":"cancelled!"}')]
    assert engine.core.finished == {"run-1/0.exit": "+null"}


# -- failing, bounds


def test_runtime_error_has_its_place_and_traceback(engine: Engine) -> None:
    failure = engine.fails(
        bundle("""
        def inner(d):
            return d["missing"]
        def _main(fctx):
            return inner({"a": 1})
        main = flow(implementation = _main)
        """)
    )

    assert failure["kind"] == "failed" and failure["where"].startswith("main.flow:4:")
    traceback = failure["details"]["traceback"]
    assert "main.flow:6" in traceback and 'd["missing"]' in traceback and "prelude" not in traceback


def test_failing_to_load_is_a_failure_of_the_run_with_its_place(engine: Engine) -> None:
    failure = engine.fails(bundle("x = 1 // 0\ndef _m(fctx):\n    return 1\nmain = flow(implementation = _m)\n"))
    assert failure["kind"] == "failed" and failure["where"].startswith("main.flow:2:")

    failure = engine.fails(bundle("load('./lib.flow', 'x')\n", lib="x = 1\ny = x.nothing\n"), "main.flow")
    assert failure["where"].startswith("lib.flow:2:")

    failure = engine.fails(bundle("load('./lib.flow', 'x')\n", lib=HEADER + "x = context()\n"), "main.flow")
    assert "no flow is being executed" in failure["message"]


def test_unknown_flow_is_not_found(engine: Engine) -> None:
    assert engine.fails(body("return 1"), "main.flow::ghost")["kind"] == "not_found"


def test_endless_recursion_is_stopped_with_its_line(engine: Engine) -> None:
    failure = engine.fails(
        bundle("def f(n):\n    return f(n + 1)\ndef _m(fctx):\n    return f(0)\nmain = flow(implementation = _m)\n")
    )

    assert failure["kind"] == "failed" and failure["where"].startswith("main.flow:3")
    assert len(failure["details"]["traceback"]) < 20_000


def test_step_budget_ends_a_loop_as_quota_exceeded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flo.worker.strand.STARLARK_STEPS", 1_000_000)
    failure = engine.fails(
        bundle("""
        def _child(fctx):
            for i in range(1000000000):
                for j in range(1000000000):
                    pass
        child = flow(implementation = _child)
        def _main(fctx):
            child()
        main = flow(implementation = _main)
        """)
    )

    assert failure["kind"] == "quota_exceeded" and failure["where"].startswith("main.flow:")


def test_step_budget_bounds_loading_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flo.worker.strand.STARLARK_STEPS", 1_000_000)
    failure = engine.fails(bundle("[0 for i in range(1000000000) for j in range(1000000000)]\n"), "main.flow")

    assert failure["kind"] == "quota_exceeded"


@pytest.mark.parametrize(
    "expr",
    ['open("/etc/passwd")', 'eval("1")', '__import__("os")', '"".__class__', 'getattr("", "__class__")',
     "fctx.__class__", "fctx.actions.__globals__", "(lambda: 0).__code__", '_act("kv.incr {}")', "_token",
     'main("", "key")', 'main("", "body", "{}", "{}")'],
)  # fmt: skip
def test_script_cannot_reach_the_host(engine: Engine, expr: str) -> None:
    failure = engine.fails(body(f"return 'REACHED ' + str({expr})"))

    assert "REACHED" not in failure["message"] and failure["where"].startswith("main.flow:")


@pytest.mark.parametrize("name", ["_act", "_token", "_raise", "_json_encode", "_actions"])
def test_private_names_of_the_prelude_cannot_be_loaded(engine: Engine, name: str) -> None:
    source = Bundle({"main.flow": f'load("flo/prelude/v1", "{name}")\n'}, "main.flow")

    assert "private" in engine.fails(source, "main.flow")["message"]
    other = Bundle({"main.flow": 'load("flo/host", "key_of")\n'}, "main.flow")
    assert engine.fails(other, "main.flow")["kind"] == "failed"
