"""The live tree on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flo.api.grid import LogLine, RunView, Update, Waiting
from flo.cli import _display, _out
from flo.cli._live import ROWS_MAX, LiveTree
from tests.cli.fakes import lines


def waiting(task: str, on: str, flow: str = "f") -> Waiting:
    return Waiting(task=task, flow=flow, on=on, since=1)


def running(*parts: Waiting) -> RunView:
    return RunView(id="r", flow="x.flow::main", status="running", waiting=list(parts))


@pytest.fixture
def tree():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    tree = LiveTree(console)
    yield tree
    tree.close()


def drawn(tree: LiveTree) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(tree.tree())
    return lines(console.file.getvalue())


def test_a_task_hangs_below_the_nearest_waiting_task_around_it(tree):
    tree.put(running(waiting("0.2~2.1", "sleep", "leaf"), waiting("0.2~2", "leaf", "mid"), waiting("0", "mid", "main"),
                     waiting("0.3", "signal go", "other")))  # fmt: skip
    head, *below = drawn(tree)

    assert head.startswith("r  x.flow::main")
    assert [line.split(" d")[0].rsplit(" ", 1)[0] for line in below] == [
        "└── main mid", "    ├── mid leaf", "    │   └── leaf sleep", "    └── other signal go",
    ]  # fmt: skip


def test_a_task_whose_parents_do_not_wait_hangs_below_the_run(tree):
    tree.put(running(waiting("0.5.1", "sleep", "leaf")))

    assert drawn(tree)[1].startswith("└── leaf sleep")


def test_many_tasks_are_cut_and_counted(tree):
    tree.put(running(*(waiting(f"0.{n}", "sleep") for n in range(1, ROWS_MAX + 8))))

    assert len(drawn(tree)) == 1 + ROWS_MAX + 1 and drawn(tree)[-1].endswith("… 7 more")


def test_progress_is_shown_beside_the_run(tree):
    tree.put(running())
    tree.take("r", [LogLine(at=1, task="0", channel="progress", text='{"done":3,"total":10}')])

    assert drawn(tree)[0].endswith("3/10 ███░░░░░░░")


def test_text_of_a_flow_is_no_markup(tree):
    tree.put(running(waiting("0", "http.get http://x/[bold]")))

    assert "[bold]" in drawn(tree)[1]


def test_the_tree_is_gone_before_anything_else_is_written(tree):
    tree.put(running(waiting("0", "sleep")))
    tree.draw()
    tree.hide()
    text = tree._console.file.getvalue()

    assert "sleep" in text and text.rstrip().endswith("\x1b[2K")  # the last line is erased
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back


def test_nothing_is_drawn_after_the_end(tree):
    tree.put(running(waiting("0", "sleep")))
    tree.close()
    tree.draw()

    assert tree._console.file.getvalue() == ""


def test_without_a_terminal_there_is_no_tree(capsys):
    display = _display.TextDisplay()
    display.update("r", Update(lines=[], view=running(waiting("0", "sleep"))))

    assert display._tree is None
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "seen"), [("xterm", True), ("dumb", False), ("", False)])
def test_a_dumb_terminal_is_none(monkeypatch, term, seen):
    monkeypatch.setenv("TERM", term)

    assert _out.is_terminal(Terminal()) is seen
    assert not _out.is_terminal(io.StringIO())


def test_no_color_means_none(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert _out.styled("x", "red", Terminal()) == "x"

    monkeypatch.delenv("NO_COLOR")
    assert _out.styled("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
