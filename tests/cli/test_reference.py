"""Help texts and the page that is made of them."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from flo.cli import _reference
from flo.cli._app import PROGRAM, app
from tests.support.flo_command import ROOT

LEAVES = list(_reference._leaves((PROGRAM,), typer.main.get_command(app)))


def test_the_page_is_current():
    """`python -m flo.cli._reference > docs/cli.md` makes it."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == _reference.reference()


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=[" ".join(words) for words, _ in LEAVES])
def test_every_command_has_a_worked_example_and_help_for_each_option(words, command):
    done = CliRunner().invoke(app, [*words[1:], "--help"])

    assert done.exit_code == 0
    assert f"\n    {' '.join(words)}" in done.stdout, "an example"
    assert all(param.help for param in command.params)


def test_run_names_its_options():
    text = CliRunner().invoke(app, ["run", "--help"]).stdout

    for option in ("--arg", "--args-json", "--id", "--data-dir", "--timeout", "--detach", "--format"):
        assert option in text


def test_help_is_a_command_too():
    assert CliRunner().invoke(app, ["help", "runs", "signal"]).stdout == (
        CliRunner().invoke(app, ["runs", "signal", "--help"], prog_name="flo").stdout
    )


def test_a_close_spelling_is_suggested():
    done = CliRunner().invoke(app, ["rn"])

    assert done.exit_code == 2 and "'run'" in done.stderr
