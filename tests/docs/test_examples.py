"""The code in README.md and docs/ is run, page by page, as a reader would run it.

Each page has a folder, a home and the demo server of its own, and its blocks are taken from top to bottom. What is
done with a block stands after its language:

    starlark file=NAME   is saved as NAME and must pass `flo check`
    starlark run[=FLOW]  is run by `flo run` and must complete; a `text output` block after it must be what it prints
    python file=NAME     is saved as NAME
    console              lines that begin with `$ ` are commands; what follows each must be what it prints
    console redis        the same with `redis-cli`; left off where that is not installed
    sh server            `flo server start`: a server that runs until the end of the page
    … norun              is shown only

In expected output `…` stands for any text. `http://127.0.0.1:8321` is the demo server, 9000 the port of the server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.flo_command import COMMAND_SECONDS, EXAMPLES, ROOT, FloCommand
from tests.support.flo_server import FloServer

SERVER = "http://127.0.0.1:8321"
PORT = re.compile(r"\b9000\b")
RUNNABLE = re.compile(r"^```(starlark|python|console)\b", re.MULTILINE)
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if RUNNABLE.search(page.read_text(encoding="utf-8"))
]


@dataclass(frozen=True)
class Block:
    line: int
    info: list[str]
    text: str

    def option(self, name: str) -> str | None:
        """The value of NAME=VALUE in the block's first line, "" for NAME alone, None if absent."""
        for word in self.info[1:]:
            key, _, value = word.partition("=")
            if key == name:
                return value
        return None


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].startswith("```"):
            number += 1
            continue
        start = number
        number += 1
        while not lines[number].startswith("```"):
            number += 1
        yield Block(start + 1, lines[start][3:].split(), "\n".join(lines[start + 1 : number]) + "\n")
        number += 1


def matches(expected: str, actual: str) -> bool:
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, actual.strip(), re.DOTALL) is not None


class Reader:
    """Does what one page says."""

    def __init__(self, flo: FloCommand, server: str) -> None:
        self._flo = flo
        self._server = server
        self._started: FloServer | None = None
        self.left_off = 0  # blocks that need a program which is not there

    def close(self) -> None:
        if self._started is not None:
            self._started.kill()

    def read(self, page: Path) -> int:
        """Returns how many blocks were run."""
        done = 0
        todo = list(blocks(page))
        for block, after in zip(todo, [*todo[1:], None], strict=True):
            place = f"{page.relative_to(ROOT)}:{block.line}"
            if not block.info or block.option("norun") is not None:
                continue
            if block.info[0] == "console":
                if block.option("redis") is not None and not shutil.which("redis-cli"):
                    self.left_off += 1
                    continue
                self._console(block, place)
            elif block.info == ["sh", "server"]:
                assert block.text == "flo server start\n", place
                self._started = FloServer(self._flo.folder).start()
                self._flo.env["FLO_PORT"] = str(self._started.port)
            elif block.info[0] in {"starlark", "python"}:
                expected = after.text if after and after.info == ["text", "output"] else None
                self._code(block, expected, place)
            else:
                continue
            done += 1
        return done

    def _code(self, block: Block, expected: str | None, place: str) -> None:
        name = block.option("file")
        path = self._flo.folder / (name or f"block{block.line}.flow")
        path.write_text(self._real(block.text), encoding="utf-8")
        if block.info[0] == "python":
            assert name, f"{place}: a python block needs file=NAME"
            return
        checked = self._flo("check", path)
        assert checked.exit_code == 0, f"{place}\n{checked}"
        flow = block.option("run")
        if flow is None:
            assert name, f"{place}: a starlark block needs run or file=NAME"
            return
        done = self._flo("run", f"{path}::{flow}" if flow else path)
        assert done.exit_code == 0, f"{place}\n{done}"
        assert expected is None or matches(expected, done.out), f"{place}\n{done}"

    def _console(self, block: Block, place: str) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            while command.endswith("\\"):
                more, _, expected = expected.partition("\n")
                command = command[:-1] + more.strip()
            shown = subprocess.run(
                ["bash", "-c", self._real(command)], cwd=self._flo.folder, env=self._flo.env,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=COMMAND_SECONDS,
            ).stdout  # fmt: skip
            shown = self._shown(shown)
            assert matches(expected, shown), f"{place}: $ {command}\n--- expected\n{expected}\n--- printed\n{shown}"

    def _real(self, text: str) -> str:
        text = text.replace(SERVER, self._server)
        return PORT.sub(str(self._started.port), text) if self._started is not None else text

    def _shown(self, text: str) -> str:
        text = text.replace(self._server, SERVER)
        return text.replace(str(self._started.port), "9000") if self._started is not None else text


@pytest.fixture
def reader(flo_command: FloCommand, demo_server: str) -> Iterator[Reader]:
    (flo_command.folder / "examples").symlink_to(EXAMPLES)
    reader = Reader(flo_command, demo_server)
    yield reader
    reader.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_everything_that_a_page_shows_works(page: Path, reader: Reader):
    assert reader.read(page) > 0
    if reader.left_off:
        pytest.skip(f"redis-cli is not installed: {reader.left_off} blocks were not run, the others were")
