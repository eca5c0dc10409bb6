"""Writing to the two streams: data to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import typer

from flo.api.errors import FloError
from flo.cli._exit import ExitCode

_STYLES: Final = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


class OutputLost(FloError):
    """The command's output went nowhere, because of what its stdout is: a file on a full disk, for example."""

    code = "output_lost"


def data(text: str) -> None:
    """Writes text as it is to stdout and flushes. A reader that has gone ends the command quietly; raises OutputLost
    when what stdout is cannot be written."""
    with _lost_output():
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


def line(raw: bytes) -> None:
    """Writes one line of JSON to stdout."""
    data(raw.decode() + "\n")


def exact(raw: bytes) -> None:
    """Writes bytes as they are to stdout and flushes; otherwise as `data`."""
    with _lost_output():
        sys.stdout.flush()
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Writes one or more lines for a person to stderr."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)  # nobody reads the messages; the exit code still tells how it ended


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in a colour where it is seen as one, unchanged elsewhere."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


@contextmanager
def _lost_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _silence(sys.stdout)
        raise typer.Exit(ExitCode.OK) from None
    except OSError as error:
        _silence(sys.stdout)
        raise OutputLost(
            f"stdout cannot be written: {error.strerror or error}",
            hint="what runs have done and printed is in their log: flo runs list, flo runs logs ID, flo resume",
        ) from None


def _silence(stream: TextIO) -> None:
    """The interpreter flushes the streams at its end, and must not find the broken pipe again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
