"""~/.flo/config.json: servers by name, and which of them the commands talk to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
import typer

FILE: Final = "~/.flo/config.json"


class Context(msgspec.Struct, omit_defaults=True):
    """A server and a namespace of it; what is "" has its default."""

    endpoint: str = ""
    namespace: str = ""


class Contexts(msgspec.Struct):
    current_context: str = ""
    contexts: dict[str, Context] = {}


def path() -> Path:
    return Path(FILE).expanduser()


def read() -> Contexts:
    """What the file holds, nothing when there is none. Raises typer.BadParameter when it cannot be read."""
    try:
        return msgspec.json.decode(path().read_bytes(), type=Contexts)
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint=FILE) from None


def write(contexts: Contexts) -> None:
    """Replaces the file at once, for nobody else to read."""
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(contexts), indent=2) + b"\n"
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def current() -> Context:
    """The context in use; an empty one when none is. Raises typer.BadParameter when the file is wrong."""
    stored = read()
    if not stored.current_context:
        return Context()
    if stored.current_context not in stored.contexts:
        raise typer.BadParameter(f"there is no context {stored.current_context!r}", param_hint=FILE)
    return stored.contexts[stored.current_context]
