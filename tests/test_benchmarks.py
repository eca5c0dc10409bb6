"""The form of the benchmarks: what `--json` writes, and that an aim is compared in its own direction."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flo_benchmark_report", BENCHMARKS / "report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_figures_are_written_as_a_list_of_objects(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [
        report.Figure("one step", 0.3, "ms", "DBOS 3.5", 0.4),
        report.Figure("many steps", 50_000, "steps/s", "Restate 5,940", 60_000, "more"),
    ]
    report.show(figures, sync=0.1, json_file=str(tmp_path / "figures.json"))
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [set(row) for row in rows] == [{"work", "value", "unit", "peer", "aim", "met"}] * 2
    assert [row["met"] for row in rows] == [True, False]
    assert "fdatasync here: 0.100 ms" in capsys.readouterr().out


def test_a_median_needs_five_repetitions(report: ModuleType) -> None:
    assert report.median_of([5, 1, 3, 2, 4]) == 3
    with pytest.raises(AssertionError, match="five"):
        report.median_of([1, 2, 3, 4])


@pytest.mark.parametrize("row", ["log", "kv", "store", "message", "memory", "writers"])
def test_a_row_of_the_core_measures_something(row: str):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "core_rows.py"), row, "2000"],
        check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
    )  # fmt: skip
    values = json.loads(done.stdout)
    assert all(value > 0 for value in (values.values() if isinstance(values, dict) else [values]))


@pytest.mark.parametrize("how", ["snapshot", "none"])
def test_a_restart_is_measured_on_a_directory_that_was_filled_for_it(how: str, tmp_path: Path):
    def row(*words: str) -> bytes:
        command = [sys.executable, str(BENCHMARKS / "core_rows.py"), *words]
        environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
        return subprocess.run(command, check=True, capture_output=True, env=environment).stdout

    row("fill", "12000", str(tmp_path / "data"), how)
    taken = json.loads(row("restart", str(tmp_path / "data")))

    assert taken["seconds"] > 0 and taken["bytes"] > 0
    assert (taken["entries"] < 12_000) == (how == "snapshot")


@pytest.mark.parametrize("client", ["core_appender.py", "core_consumers.py"])
def test_a_client_measures_a_server(client: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    servers = importlib.import_module("core_servers")
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    with servers.FloServer(environment) as server:
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / client), str(server.port), "1000"],
            check=True, capture_output=True, env=environment,
        )  # fmt: skip
    assert float(done.stdout) > 0
