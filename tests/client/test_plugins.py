"""Actions of plug-in connectors, from the script to the connector and back."""

from __future__ import annotations

import json
import textwrap
import threading
from pathlib import Path

import pytest

from flo.api.grid import StartRequest
from flo.connectors import Connector, ConnectorError, Job, LocalHost
from flo.grid.node import Node
from flo.worker.bundle import Bundle
from flo.worker.pool import ThreadWorker

SCRIPT = """
    load("flo/prelude/v1", "flow", "retry")

    def _main(fctx):
        once = fctx.actions.connector("test.echo", text = "t", n = 1180591620717411303424)
        again = fctx.actions.connector("test.flaky", retry = retry(max_attempts = 3, initial = 0, on = ["failed"]))
        unknown = fctx.actions.connector("test.nobody")
        return [once.value, again.value, unknown.error.kind, unknown.error.message]

    main = flow(implementation = _main)
"""


class Echo(Connector):
    kinds = ("test.echo", "test.flaky")
    slots = 2

    def __init__(self) -> None:
        self.attempts = 0

    async def perform(self, job: Job) -> object:
        if job.kind == "test.echo":
            return job.input
        self.attempts += 1
        if self.attempts < 3:
            raise ConnectorError("failed", "not yet")
        return self.attempts


def test_a_plugin_performs_its_kinds_and_is_retried_as_declared(tmp_path: Path) -> None:
    script = tmp_path / "p.flow"
    script.write_text(textwrap.dedent(SCRIPT))
    bundle = Bundle.from_script(script)
    echo = Echo()
    node = Node.open(
        "memory:", worker_factory=ThreadWorker, host_factory=lambda: LocalHost([echo], directory=tmp_path / "resources")
    )
    try:
        node.put_bundle(bundle.digest, bundle.data)
        node.start(StartRequest(id="r", bundle=bundle.digest, flow="p.flow::main"))
        ended = threading.Event()
        views = []
        node.watch_end("r", lambda update: (views.append(update.view), ended.set()))
        assert ended.wait(30)
        kinds = [entry.kind for entry in node.history("r")]
    finally:
        node.close()
    echoed, attempts, kind, message = json.loads(bytes(views[0].result))
    assert echoed == {"text": "t", "n": 2**70} and attempts == 3
    assert kind == "not_found" and "test.nobody" in message
    assert kinds[1:4] == ["test.echo", "test.flaky", "test.nobody"], "the history names the kind that was asked for"


@pytest.mark.parametrize(
    ("kind", "says"),
    [("echo", "words with dots"), ("test..echo", "words with dots"), ("kv.incr", "built in"), ("http.get", "built in")],
)
def test_a_kind_that_no_plugin_can_have_is_refused(tmp_path: Path, kind: str, says: str) -> None:
    script = tmp_path / "p.flow"
    script.write_text(
        textwrap.dedent(f"""
            load("flo/prelude/v1", "flow")
            def _main(fctx):
                fctx.actions.connector("{kind}")
            main = flow(implementation = _main)
        """)
    )
    bundle = Bundle.from_script(script)
    node = Node.open("memory:", worker_factory=ThreadWorker, host_factory=lambda: LocalHost(directory=tmp_path / "r"))
    try:
        node.put_bundle(bundle.digest, bundle.data)
        node.start(StartRequest(id="r", bundle=bundle.digest, flow="p.flow::main"))
        ended = threading.Event()
        node.watch_end("r", lambda update: ended.set())
        assert ended.wait(30)
        error = node.show("r").error
    finally:
        node.close()
    assert error is not None and error.kind == "bad_argument" and says in error.message
