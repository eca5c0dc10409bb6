"""Options that several commands share. Given before the command word they hold for it as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperGroup

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
FORMATS: Final = {"text": "text", "table": "text", "json": "json"}

FORMAT: Final = "flo.format"  # in the meta of a context: what the command line asked for


class Group(TyperGroup):
    """Commands, of which some have several names."""

    aliases: ClassVar[Mapping[str, str]] = {}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))


def command_group(**settings: Any) -> typer.Typer:
    """A Typer with the look of the whole command line: plain help, no completion options of its own."""
    return typer.Typer(
        rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, context_settings=SETTINGS,
        **settings,
    )  # fmt: skip


def wants_json(ctx: typer.Context) -> bool:
    """Whether the command that ran below this context was asked for JSON."""
    return ctx.meta.get(FORMAT) == "json"


def _format(ctx: typer.Context, value: str | None) -> str:
    value = value or ctx.meta.get(FORMAT) or "text"
    if value not in FORMATS:
        raise typer.BadParameter(f"{value!r} is none of text, json")
    ctx.meta[FORMAT] = FORMATS[value]
    return FORMATS[value]


def _data_dir(ctx: typer.Context, value: str | None) -> str | None:
    if value == "":
        raise typer.BadParameter("needs a directory")
    root = ctx.find_root()
    return value or (root.params.get("data_dir") if root is not ctx else None)


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
