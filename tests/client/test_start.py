"""From what a person gives to a run that can be started, and what is refused before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import flo
from flo.client.start import ScriptCache, os_user, prepare
from flo.client.values import duration_ms, json_text, json_value

SCRIPT = """\
load("flo/prelude/v1", "flow", "FlowContext", "args")
def _main(fctx: FlowContext):
    return fctx.args.n
main = flow(implementation = _main, args = {"n": args.int(), "who": args.string(default = "ann")}, timeout = "5m")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "order.flow"
    path.write_text(SCRIPT)
    return str(path)


def test_a_flow_is_prepared_with_defaults_options_and_the_os_user(script: str) -> None:
    bundle, request = prepare(f"{script}::main", {"n": 7}, timeout_ms=9)

    assert request.flow == "order.flow::main" and json_value(request.args, "args") == {"n": 7, "who": "ann"}
    assert json_value(request.options, "options")["timeout"] == 300_000 and request.timeout_ms == 9
    assert request.username == os_user() and request.script == script and request.id.startswith("main-")
    assert bundle and len(request.bundle) == 32


def test_the_module_itself_is_a_flow_without_arguments(script: str) -> None:
    request = prepare(script, id="chosen").request
    assert (request.flow, request.args, request.id) == ("order.flow", "{}", "chosen")
    assert prepare(script).request.id.startswith("order-")
    with pytest.raises(flo.BadArgument, match="takes no arguments, but got n"):
        prepare(script, {"n": 1})


@pytest.mark.parametrize("absent", ["maine", "_main", "main::x"])
def test_a_flow_that_is_not_there_is_a_script_error_naming_those_that_are(script: str, absent: str) -> None:
    with pytest.raises((flo.ScriptError, flo.BadArgument)) as caught:
        prepare(f"{script}::{absent}")
    if isinstance(caught.value, flo.ScriptError):
        assert "main" in caught.value.hint or "main" in caught.value.message


@pytest.mark.parametrize(
    ("args", "named"),
    [({}, "n"), ({"n": "x"}, "n"), ({"n": 1, "m": 2}, "m"), ('{"n": 1.5}', "n"), ("[]", "argument"), ("{", "argument"),
     ({"n": float("nan")}, "args.n"), ({"n": object()}, "args.n"), ({"n": {1: 2}}, "args.n")],
)  # fmt: skip
def test_wrong_arguments_are_refused_by_name(script: str, args: Any, named: str) -> None:
    with pytest.raises(flo.BadArgument, match=named):
        prepare(f"{script}::main", args)


@pytest.mark.parametrize("id", ["", "a b", "a/0.1", "x" * 129, "ä"])
def test_an_id_that_cannot_be_is_refused(script: str, id: str) -> None:
    with pytest.raises(flo.BadArgument, match="no run id"):
        prepare(f"{script}::main", {"n": 1}, id=id)


@pytest.mark.parametrize("wrong", ["::main", "order.flow::"])
def test_a_script_or_flow_without_a_name_is_refused(wrong: str) -> None:
    with pytest.raises(flo.BadArgument, match="PATH::FLOW"):
        prepare(wrong)


def test_a_script_is_read_anew_when_it_or_what_it_loads_has_changed(script: str, tmp_path: Path) -> None:
    cache = ScriptCache()
    lib = tmp_path / "lib.flow"
    lib.write_text("X = 1\n")
    Path(script).write_text('load("./lib.flow", "X")\n' + SCRIPT)
    for path in (script, lib):
        os.utime(path, (1_000, 1_000))
    first = cache.prepare(f"{script}::main", {"n": 1}).request.bundle
    assert cache.prepare(f"{script}::main", {"n": 2}).request.bundle == first and len(cache._scripts) == 1
    lib.write_text("X = 2\n")
    second = cache.prepare(f"{script}::main", {"n": 1}).request.bundle
    assert second != first
    Path(script).unlink()
    with pytest.raises(flo.ScriptError):
        cache.prepare(f"{script}::main", {"n": 1})


def test_a_file_that_changed_just_now_is_not_kept(script: str) -> None:
    """It could change again within the resolution of its time."""
    os.utime(script, (4_000_000_000, 4_000_000_000))
    cache = ScriptCache()
    cache.prepare(f"{script}::main", {"n": 1})
    assert not cache._scripts


def test_kept_scripts_and_arguments_are_bounded(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("flo.client.start.SCRIPTS_KEPT", 2)
    monkeypatch.setattr("flo.client.start.CHECKED_KEPT", 3)
    cache = ScriptCache()
    for number in range(4):
        path = tmp_path / f"s{number}.flow"
        path.write_text(SCRIPT)
        os.utime(path, (1_000, 1_000))
        for n in range(5):
            cache.prepare(f"{path}::main", {"n": n})
    assert len(cache._scripts) == 2 and all(len(kept._checked) == 3 for kept in cache._scripts.values())


@pytest.mark.parametrize(
    ("given", "ms"),
    [(1, 1_000), (0.25, 250), ("90", 90_000), ("90s", 90_000), ("1h30m", 5_400_000), ("250ms", 250),
     ("2d", 172_800_000), ("1.5", 1_500), (0, 0), (0.0001, 1)],
)  # fmt: skip
def test_durations(given: Any, ms: int) -> None:
    assert duration_ms(given) == ms


@pytest.mark.parametrize("wrong", ["", "soon", "5x", "1h 5", -1, True, None, float("inf"), "-1s", [], "nan"])
def test_what_is_no_duration_is_refused(wrong: Any) -> None:
    with pytest.raises(flo.BadArgument, match="no duration"):
        duration_ms(wrong)


def test_values_nested_too_deep_are_refused() -> None:
    value: Any = 1
    for _ in range(65):
        value = [value]
    with pytest.raises(flo.BadArgument, match="nested deeper than 64"):
        json_text(value, "args")
    assert json_text({"a": (1, 2**70)}, "args") == '{"a":[1,1180591620717411303424]}'
