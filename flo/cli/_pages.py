"""Lists in pages: one of them, or all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol, TypeVar

import typer

Limit = Annotated[int | None, typer.Option("--limit", "-l", min=1, metavar="N", help="The size of a page.")]
Cursor = Annotated[str, typer.Option("--cursor", metavar="C", help="Go on where a page ended.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All pages.")]


class Page(Protocol):
    @property
    def has_more(self) -> bool: ...

    @property
    def cursor(self) -> str: ...


P = TypeVar("P", bound=Page)
T = TypeVar("T")


def walk(
    fetch: Callable[[str], P], items_of: Callable[[P], list[T]], cursor: str, every: bool
) -> tuple[list[T], bool, str]:
    """The items of the page at the cursor, or of `every` page from it on; whether there are more, and their cursor."""
    page = fetch(cursor)
    items = list(items_of(page))
    while every and page.has_more:
        page = fetch(page.cursor)
        items += items_of(page)
    return items, page.has_more, page.cursor
