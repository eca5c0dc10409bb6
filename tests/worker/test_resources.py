"""Resources and the exit part of a flow."""

from __future__ import annotations

from flo.api.outcome import error, ok, value
from tests.worker.engine import Engine, bundle

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
