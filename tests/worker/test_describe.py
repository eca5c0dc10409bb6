"""What a bundle's flows declare."""

from __future__ import annotations

import pytest

from flo.api.errors import BadArgument, NotFound, ScriptError
from flo.api.flows import FlowOptions, RetryPolicy
from flo.worker.bundle import Bundle
from flo.worker.describe import check_args, describe, list_flows

TEXT = """
load("flo/prelude/v1", "args", "flow", "retry", "tempdir")
def _a(fctx):
    print("RAN")
def _exit(fctx):
    pass
plain = flow(implementation = _a)
full = flow(
    implementation = _a, timeout = "5m", retry = retry(max_attempts = 2, within = 60), on_exit = _exit,
    resources = {"t": lambda fctx: tempdir()},
    args = {"n": args.int(doc = "how many"), "s": args.string(default = "x"), "o": args.any(required = False)},
)
_hidden = flow(implementation = _a)
def helper():
    return flow(implementation = _a)
if __name__ == "__flow__":
    plain()
"""


@pytest.fixture
def bundle() -> Bundle:
    return Bundle({"main.flow": TEXT}, "main.flow")


def test_flows_are_listed_in_the_order_of_the_text(bundle: Bundle) -> None:
    assert list_flows(bundle) == ["plain", "full"]


def test_declarations_are_told(bundle: Bundle) -> None:
    spec = describe(bundle, "full")

    assert spec.symbol == "main.flow::full" and describe(bundle, "main.flow::full") == spec
    assert [(name, a.type, a.required, a.default, a.doc) for name, a in spec.args.items()] == [
        ("n", "int", True, None, "how many"), ("s", "string", False, "x", ""), ("o", "any", False, None, ""),
    ]  # fmt: skip
    policy = RetryPolicy(max_attempts=2, within=60_000)
    assert spec.options == FlowOptions(timeout=300_000, retry=policy, resources=True, exit=True)
    assert describe(bundle, "plain").options_json == "{}"


def test_arguments_are_completed_or_refused(bundle: Bundle) -> None:
    assert check_args(bundle, "full", '{"n":1180591620717411303424}') == '{"n":1180591620717411303424,"s":"x","o":null}'
    for args, says in [
        ("{}", "argument n is missing"), ('{"n":"many"}', "argument n: int"), ('{"n":1,"g":1}', "argument g"),
        ("[1]", "not a JSON object"), ("{not", "not JSON"),
    ]:  # fmt: skip
        with pytest.raises(BadArgument, match=says.replace("(", ".")):
            check_args(bundle, "full", args)


def test_what_is_not_there_or_broken_is_told(bundle: Bundle) -> None:
    with pytest.raises(NotFound, match="ghost"):
        describe(bundle, "ghost")
    with pytest.raises(NotFound):
        describe(bundle, "helper")
    with pytest.raises(ScriptError, match=r"main\.flow:1:"):
        describe(Bundle({"main.flow": "x = 1 // 0\n"}, "main.flow"), "main")
