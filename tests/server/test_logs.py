"""Lines of the server's log."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from flo.server import logs


@pytest.fixture
def restored() -> Iterator[None]:
    names = ("flo", "asyncio", "py.warnings")
    before = {name: (list(logging.getLogger(name).handlers), logging.getLogger(name).level) for name in names}
    hook = threading.excepthook
    yield
    for name, (handlers, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True
    threading.excepthook = hook


@pytest.fixture
def out(restored) -> io.StringIO:
    return io.StringIO()


log = logging.getLogger("flo.server.somewhere")


def test_an_event_is_one_line_of_text_with_its_fields(out):
    logs.set_up("info", "text", out)

    logs.event(log, "two\nlines", client="127.0.0.1:9000", empty="", many="a b", none=None, flag=True)

    (line,) = out.getvalue().splitlines()
    assert line.endswith(r'somewhere: two\nlines client=127.0.0.1:9000 empty="" many="a b" none=null flag=true')
    assert line[24:].startswith(" info  ") and line[23] == "Z"


def test_an_event_is_one_object_of_json(out):
    logs.set_up("info", "json", out)

    logs.event(log, "stopping\n", logging.WARNING, signal="SIGTERM", level="field", count=3)

    (line,) = out.getvalue().splitlines()
    shown = json.loads(line)
    assert shown.pop("time").endswith("Z")
    assert shown == {
        "level": "warn", "logger": "somewhere", "event": "stopping\n", "signal": "SIGTERM", "level_": "field",
        "count": 3,
    }  # fmt: skip


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_exception_is_still_one_line(out, format):
    logs.set_up("info", format, out)

    try:
        raise ValueError("no\nway")
    except ValueError:
        log.exception("it broke")

    (line,) = out.getvalue().splitlines()
    assert "ValueError" in line and "test_logs.py" in line


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_levels_below_the_chosen_one_are_left_out(out, level, seen):
    logs.set_up(level, "text", out)

    for number in logs.LEVELS.values():
        log.log(number, "an event")

    assert len(out.getvalue().splitlines()) == seen


def test_long_values_are_cut(out):
    logs.set_up("info", "text", out)

    logs.event(log, "x", body="v" * 100_000)

    assert len(out.getvalue()) < 10_000


def test_a_fault_in_a_thread_is_logged(out):
    logs.set_up("info", "text", out)

    thread = threading.Thread(target=lambda: 1 // 0, name="worker-7")
    thread.start()
    thread.join()

    (line,) = out.getvalue().splitlines()
    assert "ZeroDivisionError" in line and "thread=worker-7" in line and " error " in line
