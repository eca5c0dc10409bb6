"""Options that several commands share. Given before the command word they hold for it as well."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
FORMATS: Final = {"text": "text", "table": "text", "json": "json"}

_FORMAT: Final = "flo.format"


def command_group(**settings: Any) -> typer.Typer:
    """A Typer with the look of the whole command line: plain help, no completion options of its own."""
    return typer.Typer(
        rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, context_settings=SETTINGS,
        **settings,
    )  # fmt: skip


def wants_json(ctx: typer.Context) -> bool:
    """Whether the command that ran below this context was asked for JSON."""
    return ctx.meta.get(_FORMAT) == "json"


def _format(ctx: typer.Context, value: str | None) -> str:
    value = value or _of_root(ctx, "format") or "text"
    if value not in FORMATS:
        raise typer.BadParameter(f"{value!r} is none of text, json")
    ctx.meta[_FORMAT] = FORMATS[value]
    return FORMATS[value]


def _data_dir(ctx: typer.Context, value: str | None) -> str | None:
    if value == "":
        raise typer.BadParameter("needs a directory")
    return value or _of_root(ctx, "data_dir")


def _of_root(ctx: typer.Context, name: str) -> Any:
    root = ctx.find_root()
    return root.params.get(name) if root is not ctx else None


Format = Annotated[
    str | None,
    typer.Option(
        "--format", "-o", "--output", metavar="text|json", callback=_format,
        help="Text for people (the default), JSON for programs.",
    ),
]  # fmt: skip

DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir", "-d", metavar="DIR", callback=_data_dir,
        help="Where runs are kept; else FLO_DATA_DIR, else ~/.flo/data.",
    ),
]  # fmt: skip
