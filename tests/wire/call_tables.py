"""The tables of docs/wire-protocol.md, from the calls themselves. Run as a script it brings the page up to date."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from flo.primitives.stream_pages import Headers
from flo.wire.calls import CALLS

PAGE = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
BEGIN, END = "<!-- calls: begin -->", "<!-- calls: end -->"
TITLES = {
    "kv": "Keys and values",
    "queue": "Queues",
    "stream": "Streams",
    "group": "Consumer groups",
    "namespace": "Namespaces",
    "server": "The server",
}


def rendered() -> str:
    """All calls by area, and the structures that their arguments and results hold."""
    lines: list[str] = []
    held: dict[str, type[msgspec.Struct]] = {}
    for area, title in TITLES.items():
        lines += ["", f"### {title}", "", "| call | arguments | result |", "|---|---|---|"]
        for name, call in CALLS.items():
            if name.startswith(f"{area}."):
                lines.append(f"| `{name}` | {fields(call.arguments, held)} | {fields(call.result, held)} |")
    lines += ["", "### What they hold", "", "| | |", "|---|---|"]
    done: set[str] = set()
    while len(done) < len(held):
        for name in sorted(held.keys() - done):
            done.add(name)
            lines.append(f"| {name} | {fields(held[name], held)} |")
    return "\n".join([BEGIN, *lines, "", END])


def fields(struct: type[msgspec.Struct], held: dict[str, type[msgspec.Struct]]) -> str:
    hints = typing.get_type_hints(struct)
    shown = []
    for field in msgspec.structs.fields(struct):
        text = f"{field.name}: {shape(hints[field.name], held)}"
        if not field.required:
            text += f" = {default(field.default)}"
        shown.append(f"`{text}`")
    return ", ".join(shown) or "none"


def default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return '""' if value == b"" else repr(value).replace("'", '"')


def shape(hint: Any, held: dict[str, type[msgspec.Struct]]) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint == Headers:
        return "[[bytes, bytes]]"
    if origin is list:
        return f"[{shape(inner[0], held)}]"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if each is type(None) else shape(each, held) for each in inner)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        held[hint.__name__] = hint
        return hint.__name__
    return {int: "int", str: "text", bytes: "bytes", bool: "bool"}[hint]


def replaced(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + rendered() + after


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
