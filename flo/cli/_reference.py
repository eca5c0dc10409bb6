"""docs/cli.md, made from the commands themselves: `python -m flo.cli._reference > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from flo.cli._app import PROGRAM, app
from flo.cli._client_options import SharedOption
from flo.cli._exit import MEANINGS

_HEAD = """\
# The command line

`flo --help` and `flo COMMAND --help` show the same. Data goes to stdout, everything else to stderr, and
`--output json` gives every command's data as JSON. An error is `Error: message [word]`; with JSON an object with
`error` and `status` follows it on stderr. `--output` and `--data-dir` may also stand before the command.
With `NO_COLOR` set, with `TERM=dumb`, and wherever no terminal is, there are no colours and no live tree.

`--` ends the options, so that what follows may begin with a dash. A payload of `-` is read from standard input.
Durations are `500ms`, `30s`, `15m`, `2h`, `7d`; a number alone has the unit that the option names, seconds for a
`--ttl`. Where a wait has no limit, Ctrl-C ends it with exit code 130; it ends following and watching with 0.

`flo --install-completion` teaches your shell the commands and options.
"""

_SHARED_HEAD = """\
## Options of client commands

The commands of `flo kv`, `stream`, `queue` and `namespace`, and `flo status` and `flo repl`, have these, too,
behind their own options or before the command words. An option that a command has itself goes by the command:
`flo kv list -p` is a prefix, and `--timeout` behind `flo queue dequeue` is how long messages stay leased. `flo config`
has the two for output.
"""

_SHARED_TAIL = """\
A list shows a page; `--limit` is its size, `--cursor` goes on where it ended, `--all` shows every page. In JSON such
a list is an object with `has_more` and `cursor`. Bytes that are no text stand in JSON as base64, in a field whose name
ends in `_b64`.
"""


def reference() -> str:
    """The whole page."""
    codes = [(str(int(code)), meaning) for code, meaning in MEANINGS.items()]
    root = typer.main.get_command(app)
    shared = [(_option(param), param.help or "") for param in root.params if isinstance(param, SharedOption)]
    parts = [_HEAD, "## Exit codes\n", _table(("code", "meaning"), codes)]
    parts += [_SHARED_HEAD, _table(("", "meaning"), shared), _SHARED_TAIL]
    for words, command in _leaves((PROGRAM,), root):
        parts += [f"## {' '.join(words)}\n", *_page(words, command)]
    return "\n".join(parts)


def _leaves(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
    else:
        for name in children:
            yield from _leaves((*words, name), children[name])


def _page(words: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    if any(isinstance(param, SharedOption) for param in options):
        options = [param for param in options if not isinstance(param, SharedOption)]
    usage = [*words, *(["[OPTIONS]"] if options else []), *map(_usage, arguments)]
    yield f"    {' '.join(usage)}\n"
    yield from _paragraphs(inspect.cleandoc(command.help))
    rows = [(f"`{param.metavar}`", param.help) for param in arguments]
    rows += [(_option(param), param.help) for param in options]
    if rows:
        yield _table(("", "meaning"), rows)


def _usage(argument: Any) -> str:
    several = "..." if argument.nargs != 1 else ""
    return argument.metavar + several if argument.required else f"[{argument.metavar}]{several}"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names if option.is_flag else f"{names} `{option.metavar}`"


def _paragraphs(text: str) -> Iterator[str]:
    """Text as it is, examples (marked for the help by a line with \\b) as code."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if lines[0] == "\b":
            lines = ["```", *(line.removeprefix("  ") for line in lines[1:]), "```"]
        yield "\n".join(lines) + "\n"


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    cells = [head, ("---", "---"), *((_cell(name), _cell(text)) for name, text in rows)]
    return "".join(f"| {name} | {text} |\n" for name, text in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
