"""What client commands print: tables for people, JSON for programs, bare values for pipes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import typer

from flo.cli import _client_options, _out, _show


class Column(NamedTuple):
    """A column of a table: its head, and what it shows of an item."""

    head: str
    of: Callable[[Any], object]


def done(ctx: typer.Context, value: Any, text: str, bare: object = None) -> None:
    """One result: the value in JSON, a line of text, or in raw mode `bare` (the line if there is none)."""
    form = _client_options.output(ctx)
    if form == "json":
        _out.line(_show.as_json(value))
    else:
        _out.data(f"{text if form == 'text' or bare is None else bare}\n")


def bytes_of(ctx: typer.Context, value: Any, raw: bytes) -> None:
    """One value: in JSON within `value`, in raw mode its exact bytes, else a line."""
    form = _client_options.output(ctx)
    if form == "json":
        _out.line(_show.as_json(value))
    else:
        _out.exact(raw if form == "raw" else raw + b"\n")


def items(
    ctx: typer.Context,
    found: Sequence[Any],
    columns: Sequence[Column],
    *,
    value: Any,
    bare: Callable[[Any], bytes],
    none: str,
) -> None:
    """A list: in JSON `value`, in raw mode what `bare` gives of each, with newlines in between; else a table, or `none`
    for an empty one."""
    form = _client_options.output(ctx)
    if form == "json":
        _out.line(_show.as_json(value))
    elif form == "raw":
        _out.exact(b"\n".join(map(bare, found)))
    elif found:
        rows = [[cell(column.of(item)) for column in columns] for item in found]
        _out.data(_show.table([column.head for column in columns], rows))
    else:
        _out.data(f"{none}\n")


def more(ctx: typer.Context, has_more: bool, how: str) -> None:
    """A footer below a list that goes on."""
    if has_more and _client_options.output(ctx) == "text":
        _out.note(f"more: {how}")


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """`Name: value` lines, without those that have none."""
    return "\n".join(f"{name}: {cell(value)}" for name, value in pairs if value is not None)


def cell(value: object) -> str:
    """A value on one line: bytes as text, with escapes for what a terminal would not show as it is."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def named(name: str, raw: bytes | None) -> dict[str, str | None]:
    """Bytes as a field of a JSON object: text, or `NAME_b64` when they are no text."""
    if raw is None:
        return {name: None}
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_b64": base64.b64encode(raw).decode()}


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _escaped(character: str) -> str:
    return repr(character)[1:-1]
