"""A fake core with a worker without threads, for tests of evaluation."""

from __future__ import annotations

import textwrap
from typing import Any

from flo.api.outcome import value
from flo.api.worker import Lease
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


HTTP = {"status": 418, "headers": {"x": "y"}, "body": "[1]", "json": [1]}

CHILDREN = """
def _child(fctx):
    fctx.actions.kv.incr("inner")
    return fctx.args.x
child = flow(implementation = _child, args = {"x": args.any(default = 5)})
def _slow(fctx):
    return 1
slow = flow(implementation = _slow, timeout = "500ms", retry = retry(max_attempts = 2), args = {"x": args.int()})
"""
