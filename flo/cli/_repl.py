"""`flo repl`: keys of a server, line by line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from flo.cli import _client_options, _options, _values

if TYPE_CHECKING:
    from flo.cli._client import Client

HISTORY_FILE: Final = "~/.flo/repl_history"
HISTORY_LINES: Final = 1_000
KEYS_LIMIT: Final = 100

_HELP: Final = """\
USE NAMESPACE      go to a namespace
GET KEY            print a value
SET KEY VALUE      write one
DEL KEY            delete one
KEYS [PREFIX]      list the first keys that begin so
PING               ask whether the server is there
HELP, QUIT
"""

app = _options.command_group()


@app.command(cls=_client_options.ClientCommand)
def repl(ctx: typer.Context) -> None:
    """Read and write keys, line by line: USE, GET, SET, DEL, KEYS, PING, HELP, QUIT.

    \b
      flo repl
      printf 'SET a 1\\nGET a\\n' | flo repl
    """
    from flo.api.errors import FloError
    from flo.cli import _client, _errors, _out

    client = _client.open_client(ctx, at_once=False)
    _ping(client)  # who cannot be reached is told before the first line is typed
    read = _reader()
    while (line := read(f"flo:{client.namespace}> ")) is not None:
        try:
            words = shlex.split(line)
        except ValueError as error:
            _out.note(f"Error: {error}")
            continue
        if not words:
            continue
        if words[0].upper() in ("QUIT", "EXIT"):
            break
        try:
            _out.data(_perform(client, words))
        except FloError as error:
            _errors.report(error)
        except typer.BadParameter as error:
            _out.note(f"Error: {error.format_message()}")


def _perform(client: Client, words: Sequence[str]) -> str:
    """What a line prints. Raises FloError."""
    name, arguments = words[0].upper(), words[1:]
    command, least, most = _COMMANDS.get(name, (_unknown, 0, sys.maxsize))
    if not least <= len(arguments) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise typer.BadParameter(f"{name} takes {count} argument{'' if most == 1 else 's'}")
    return command(client, *arguments)


def _use(client: Client, namespace: str) -> str:
    client.namespace = namespace
    return "OK\n"


def _get(client: Client, key: str) -> str:
    from flo.cli import _rows
    from flo.client.sdk_errors import NotFoundError
    from flo.wire import calls

    try:
        entry = client.call(calls.KV_GET, calls.KvGet(_values.data_bytes(key)))
    except NotFoundError:
        return "(nil)\n"
    return _rows.cell(entry.value) + "\n"


def _set(client: Client, key: str, value: str) -> str:
    from flo.wire import calls

    written = client.call(calls.KV_PUT, calls.KvPut(_values.data_bytes(key), _values.data_bytes(value)))
    return f"OK (version {written.version})\n"


def _del(client: Client, key: str) -> str:
    from flo.wire import calls

    written = client.call(calls.KV_DELETE, calls.KvDelete(_values.data_bytes(key)))
    return f"OK (version {written.version})\n"


def _keys(client: Client, prefix: str = "") -> str:
    from flo.cli import _rows
    from flo.wire import calls

    asked = calls.KvScan(_values.data_bytes(prefix), KEYS_LIMIT, keys_only=True)
    page = client.call(calls.KV_SCAN, asked)
    lines = [_rows.cell(row.key) for row in page.rows] or ["no keys"]
    return "\n".join(lines + (["…"] if page.has_more else [])) + "\n"


def _ping(client: Client) -> str:
    from flo.wire import calls

    client.call(calls.SERVER_STATUS, calls.NoArguments())
    return "PONG\n"


def _help(client: Client) -> str:
    return _HELP


def _unknown(client: Client, *arguments: str) -> str:
    raise typer.BadParameter("no such command; HELP lists them")


_COMMANDS: Final[dict[str, tuple[Callable[..., str], int, int]]] = {
    "USE": (_use, 1, 1),
    "GET": (_get, 1, 1),
    "SET": (_set, 2, 2),
    "DEL": (_del, 1, 1),
    "KEYS": (_keys, 0, 1),
    "PING": (_ping, 0, 0),
    "HELP": (_help, 0, 0),
}


def _reader() -> Callable[[str], str | None]:
    """Gives line after line, None at the end: with a prompt and a history at a terminal, without them elsewhere."""
    if not sys.stdin.isatty():
        return lambda prompt: sys.stdin.readline() or None
    _keep_history()

    def read(prompt: str) -> str | None:
        try:
            return input(prompt)
        except EOFError:
            sys.stdout.write("\n")
            return None

    return read


def _keep_history() -> None:
    """Lines of earlier sessions come back with the arrow keys, where Python can edit lines at all."""
    try:
        import readline
    except ImportError:
        return
    import atexit

    file = Path(HISTORY_FILE).expanduser()
    if file.exists():
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    atexit.register(_write_history, readline, file)


def _write_history(readline: Any, file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    readline.write_history_file(file)
