"""From the interpreter's error to the error of a flow, with the flow's own places and traceback."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flo.api.outcome import ERROR_KINDS, Outcome, error
from flo.worker.prelude_files import PRELUDE
from flo.worker.trace import Trace, parse_trace, render, with_message

TRACEBACK_CHARS = 16_000  # of one error; the middle of a longer one is left out

_HEADER = "Traceback (most recent call last):\n"
_HOST_EXCEPTION = re.compile(r"\AHostError: ")
_PRELUDE_FUNCTION = re.compile(re.escape(PRELUDE) + r"\._?(\w+)")


def place(stack: str) -> str:
    """FILE:LINE of the innermost call outside the prelude in the text of a call stack, or ""."""
    end = len(stack)
    while (start := stack.rfind("\n  * ", 0, end)) >= 0:
        if not stack.startswith(PRELUDE, start + 5):
            return stack[start + 5 : stack.index(", in ", start)]
        end = start
    return ""


def explain(text: str, failure: Mapping[str, Any] | None, sources: Mapping[str, str]) -> Outcome:
    """The outcome of an evaluation that the interpreter ended with this text.

    `failure` is the error object that the flow fails with; without one the text says what went wrong.
    `sources` is label → text of the scripts.
    """
    trace = parse_trace(text, sources)
    if failure is None:
        message = _PRELUDE_FUNCTION.sub(r"\1", _HOST_EXCEPTION.sub("", trace.message))
        failure = {"kind": "failed", "message": message}
        trace = with_message(trace, message, hint=trace.hint)
    else:
        trace = with_message(trace, failure["message"])
    kind = failure["kind"] if failure["kind"] in ERROR_KINDS else "failed"
    details = failure.get("details")
    if not isinstance(details, dict):
        details = {} if details is None else {"details": details}
    traceback = _traceback(trace, kind, details.get("traceback", ""), sources)
    return error(
        kind,
        failure["message"],
        retryable=bool(failure.get("retryable")),
        details={**details, "traceback": traceback},
        where=failure.get("where") or trace.where or None,
    )


def _traceback(trace: Trace, kind: str, inner: str, sources: Mapping[str, str]) -> str:
    if inner and trace.frames:
        # A flow that was called here failed: its calls follow ours.
        calls = render(with_message(trace, ""), sources, kind="")
        text = calls.rstrip("\n") + "\n" + inner.removeprefix(_HEADER)
    else:
        text = inner or render(trace, sources, kind=kind)
    if len(text) > TRACEBACK_CHARS:
        half = TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n  …\n{text[-half:]}"
    return text
