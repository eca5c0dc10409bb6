"""The command line as a whole: which commands there are, and what happens with their errors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Annotated, Any, Final

import typer

from flo.api.errors import FloError
from flo.cli import _client_options, _errors, _options
from flo.cli._exit import ExitCode
from flo.cli._signals import Interrupted

COMMANDS: Final = {
    "run": "flo.cli._run",
    "resume": "flo.cli._resume",
    "runs": "flo.cli._runs",
    "check": "flo.cli._check",
    "test": "flo.cli._flow_tests",
    "log": "flo.cli._log",
    "server": "flo.cli._server",
    "kv": "flo.cli._kv",
    "stream": "flo.cli._stream",
    "queue": "flo.cli._queue",
    "namespace": "flo.cli._namespace",
    "status": "flo.cli._status",
    "repl": "flo.cli._repl",
    "config": "flo.cli._config",
    "version": "flo.cli._version",
    "help": "flo.cli._help",
}
ALIASES: Final = {"ns": "namespace"}
PROGRAM: Final = "flo"


def command_line(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names (the process's own arguments without it) and returns its exit code."""
    try:
        typer.main.get_command(app).main(args=argv, prog_name=PROGRAM)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Interrupted as asked:
        return asked.code
    except Exception as error:  # noqa: BLE001 - whatever it is, a person gets a message and not our traceback
        return _errors.report_unexpected(error)
    return ExitCode.OK


class _Commands(MutableMapping[str, Any]):
    """The commands by name; a command's module is imported when somebody asks for it."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            command = typer.main.get_command(importlib.import_module(COMMANDS[name]).app)
            command.name = name
            self._loaded[name] = command
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands stay")

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class RootGroup(_options.Group):
    """Imports commands when they are called, and ends failed ones with a message and a code of the table."""

    aliases = ALIASES

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()
        _client_options.add_to(self)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FloError as error:
            raise typer.Exit(_errors.report(error, as_json=_options.wants_json(ctx))) from None


app = typer.Typer(
    cls=RootGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings=_options.SETTINGS,
)


def _show_version(asked: bool) -> None:
    if asked:
        from flo.cli._version import show

        show()
        raise typer.Exit(ExitCode.OK)


@app.callback()
def flo(
    data_dir: _options.DataDir = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Durable workflows: run scripts that survive crashes, and look after their runs.

    \b
      flo run ./hello.flow                       run a script, durably
      flo run ./order.flow::main --arg n=3       run one flow of it, with an argument
      flo runs list                              what ran and what runs
      flo resume                                 go on with everything unfinished
    """
