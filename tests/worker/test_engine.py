"""Flows that call, run and await each other."""

from __future__ import annotations

from flo.api.outcome import error, ok, value
from flo.worker.bundle import Bundle
from tests.worker.engine import CHILDREN, HEADER, HTTP, Engine, body, bundle


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


def test_flow_that_only_the_root_makes_is_not_taken_for_another_of_the_same_function(engine: Engine) -> None:
    source = """
    def _child(fctx):
        return fctx.args
    if __name__ == "__flow__":
        only_here = flow(implementation = _child, args = {"n": args.int()})
    other = flow(implementation = _child, args = {"s": args.string(default = "x")})
    print(%s)
    """
    engine.run(bundle(source % "other()"), "main.flow")
    assert engine.core.outputs[-1][3] == '{"s": "x"}'
    assert "top-level" in engine.fails(bundle(source % "only_here(n = 1)"), "main.flow")["message"]


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
