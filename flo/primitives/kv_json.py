"""Nodes of JSON documents by path. What a change does not touch keeps its text: numbers, order of members."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from flo.primitives.machine import Refused

PATH_LENGTH: Final = 4_096
PATH_STEPS: Final = 128  # each reads the rest of the document once more

Step: TypeAlias = str | int

_path = re.compile(r"(?:\$|(?=\.))(?:\.[A-Za-z0-9_-]+|\[[0-9]+\])*")
_step = re.compile(r"\.([A-Za-z0-9_-]+)|\[([0-9]+)\]")
_any = msgspec.json.Decoder().decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_array = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.Encoder().encode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_path(path: str) -> list[Step]:
    """`$.a[0]` or `.a[0]` gives ["a", 0]; `$` gives []."""
    if len(path) > PATH_LENGTH or _path.fullmatch(path) is None:
        raise Refused("bad_argument", "invalid json path")
    steps: list[Step] = [name or int(digits) for name, digits in _step.findall(path)]
    if len(steps) > PATH_STEPS:
        raise Refused("bad_argument", f"invalid json path: more than {PATH_STEPS} steps")
    return steps


def parse_value(json: bytes) -> bytes:
    """The text of a JSON value without the space around it."""
    try:
        _any(json)
    except _NOT_JSON:
        raise Refused("bad_argument", "invalid json value") from None
    return json.strip()


def found(document: bytes, steps: list[Step]) -> bytes | None:
    """The text of a node, or None."""
    parents = _walk(document, steps)
    return None if parents is None else parents[-1][1]


def replaced(document: bytes, steps: list[Step], node: bytes | None) -> bytes | None:
    """The document with a node set, or removed when `node` is None; None when there is no such place.

    A member may be new, an element may not; both must be there to be removed. `steps` is not empty."""
    parents = _walk(document, steps[:-1])
    if parents is None:
        return None
    last = steps[-1]
    container = _children(parents[-1][1])
    if isinstance(container, dict) and isinstance(last, str):
        if node is not None:
            container[last] = Raw(node)
        elif container.pop(last, None) is None:
            return None
    elif isinstance(container, list) and isinstance(last, int) and last < len(container):
        if node is not None:
            container[last] = Raw(node)
        else:
            del container[last]
    else:
        return None
    text = _encode(container)
    for (parent, _), step in zip(reversed(parents[:-1]), reversed(steps[:-1]), strict=True):
        parent[step] = Raw(text)  # type: ignore[index]  # the walk went through this very step
        text = _encode(parent)
    # Two texts that can be read may be nested too deeply to be read as one.
    return text if node is None else parse_value(text)


Children: TypeAlias = dict[str, Raw] | list[Raw] | None


def _walk(document: bytes, steps: list[Step]) -> list[tuple[Children, bytes]] | None:
    """Every node on the way as (its children, its text), of the last one the text alone; None when a step fails."""
    try:
        _any(document)
    except _NOT_JSON:
        raise Refused("bad_argument", "invalid json document") from None
    text = document.strip()
    way: list[tuple[Children, bytes]] = []
    for step in steps:
        children = _children(text)
        way.append((children, text))
        if isinstance(children, dict) and isinstance(step, str):
            child = children.get(step)
            if child is None:
                return None
        elif isinstance(children, list) and isinstance(step, int) and step < len(children):
            child = children[step]
        else:
            return None
        text = bytes(child)
    way.append((None, text))
    return way


def _children(text: bytes) -> Children:
    if text.startswith(b"{"):
        return _object(text)
    return _array(text) if text.startswith(b"[") else None
