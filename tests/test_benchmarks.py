"""The form of the benchmarks: what `--json` writes, and that an aim is compared in its own direction."""

from __future__ import annotations

import importlib.util
import json
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
