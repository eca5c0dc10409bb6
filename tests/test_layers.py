"""The floors of the house (design.md §2): the contracts stand in pyproject.toml, import-linter checks them."""

from __future__ import annotations

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.support.flo_command import ROOT


def test_a_floor_imports_only_from_floors_below_it(capsys):
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_cache=True)

    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
