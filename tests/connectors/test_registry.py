"""Connectors are found by kind; plug-ins only when nobody else serves it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flo.connectors import Connector, Job, LocalHost, Registry
from flo.connectors.registry import BUILTINS
from flo.connectors.testing import FakeCore, job

PLUGIN = """
from flo.connectors import Connector

class Shout(Connector):
    kinds = ("shout.echo",)

    def __init__(self, *args, **config):
        super().__init__(*args, **config)

    async def perform(self, job):
        return {"shouted": job.input["text"].upper()}

class Plain:
    kinds = ["plain.echo"]

    async def perform(self, job):
        return job.input

class Greedy(Connector):
    kinds = ("http.get", "greedy.echo")

    async def perform(self, job):
        return "mine"

class Wrong:
    kinds = "wrong.echo"
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch) -> Path:
    """Installs a distribution with four plug-ins and one that is not there."""
    info = tmp_path / "shout-1.0.dist-info"
    info.mkdir()
    (tmp_path / "shout_plugin_of_a_test.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n")
    names = {"shout": "Shout", "plain": "Plain", "greedy": "Greedy", "wrong": "Wrong", "missing": "Missing"}
    lines = [f"{name} = shout_plugin_of_a_test:{attribute}" for name, attribute in names.items()]
    (info / "entry_points.txt").write_text("[flo.connectors]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("shout_plugin_of_a_test", None)


def test_a_plugin_is_found_and_performs(plugins: Path):
    host, core = LocalHost(directory=plugins), FakeCore()
    host.attach(core)
    jobs = [job("shout.echo", {"text": "hello"}, sid="0.1"), job("plain.echo", {"a": 1}, sid="0.2")]
    assert host.slots("shout.echo") == host.slots("plain.echo") == 16

    host.submit(jobs)

    assert [core.outcome(one) for one in jobs] == ['+{"shouted":"HELLO"}', '+{"a":1}']
    host.stop(1_000)


def test_plugins_are_looked_for_only_when_nobody_else_serves_a_kind(plugins: Path):
    registry = Registry()

    assert registry.find("http.get") is not None and registry.find("process.wait") is not None
    assert "shout_plugin_of_a_test" not in sys.modules
    assert registry.find("shout.echo") is not None
    assert "shout_plugin_of_a_test" in sys.modules


def test_a_builtin_kind_cannot_be_taken_by_a_plugin(plugins: Path):
    registry = Registry()

    greedy = registry.find("greedy.echo")

    assert greedy is not None and registry.find("http.get") is not greedy


def test_broken_plugins_are_named_and_harm_no_other(plugins: Path, caplog):
    host, core = LocalHost(directory=plugins), FakeCore()
    host.attach(core)
    assert host.slots("wrong.echo") == 0 and host.slots("shout.echo") == 16

    assert len(host.problems) == 2
    assert "plug-in missing (shout_plugin_of_a_test:Missing) cannot be used: AttributeError" in host.problems[0]
    assert "plug-in wrong (shout_plugin_of_a_test:Wrong) cannot be used: TypeError: `kinds` must" in host.problems[1]
    one = job("wrong.echo")
    host.submit([one])
    assert "no connector serves wrong.echo; connector plug-in missing" in core.outcome(one)
    host.stop(1_000)


def test_a_given_connector_wins_over_a_builtin_one():
    class Mine(Connector):
        kinds = ("http.get",)

        async def perform(self, job: Job) -> Any:
            return "mine"

    mine = Mine()

    assert Registry([mine]).find("http.get") is mine


def test_the_table_of_builtins_says_what_the_connectors_say():
    registry = Registry(plugins=False)

    for kind in BUILTINS:
        found = registry.find(kind)
        assert found is not None and kind in found.kinds and set(found.kinds) <= set(BUILTINS)
    assert Registry(builtins=False, plugins=False).find("http.get") is None
