"""What crosses between flows and their host, and what cannot."""

from __future__ import annotations

import pytest

from tests.worker.engine import Engine, body, bundle


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
