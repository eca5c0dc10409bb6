"""Records of streams as they are typed and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flo.cli import _values

if TYPE_CHECKING:
    from flo.wire.calls import StreamRecord

Name = Annotated[str, typer.Argument(metavar="STREAM", help="The stream.")]


def headers_of(words: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers of `K=V` or `K=V,K=V` words; a comma belongs to the value when no `K=` follows it.
    Raises typer.BadParameter."""
    headers: list[tuple[str, str]] = []
    for word in words:
        first = len(headers)
        for part in word.split(","):
            name, equals, value = part.partition("=")
            if equals and name:
                headers.append((name, value))
            elif len(headers) > first:
                name, value = headers[-1]
                headers[-1] = (name, f"{value},{part}")
            else:
                raise typer.BadParameter(f"{word!r} is not NAME=VALUE", param_hint="--header")
    return tuple((_values.data_bytes(name), _values.data_bytes(value)) for name, value in headers)


def ids_of(words: Sequence[str]) -> list[str]:
    """Ids of words with one each, or a list with commas."""
    return [id for word in words for id in word.split(",") if id]


def show_records(ctx: typer.Context, records: Sequence[StreamRecord], *, deliveries: bool = False) -> None:
    """`deliveries`: they were handed out to a consumer of a group."""
    from flo.cli import _rows

    columns = [_rows.Column("ID", lambda each: each.id), _rows.Column("PARTITION", lambda each: each.partition)]
    if deliveries:
        columns.append(_rows.Column("DELIVERY", lambda each: each.delivery_count))
    if any(record.headers for record in records):
        columns.append(_rows.Column("HEADERS", lambda each: _headers_text(each)))
    columns.append(_rows.Column("PAYLOAD", lambda each: each.payload))
    objects = [as_object(record) for record in records]
    _rows.items(ctx, records, columns, value=objects, none="(no records)", bare=lambda each: each.payload)


def as_object(record: StreamRecord) -> dict[str, Any]:
    """A record for JSON. Headers are pairs, since names may come twice."""
    from flo.cli import _rows

    shown: dict[str, Any] = {
        "id": record.id,
        "partition": record.partition,
        **_rows.named("payload", record.payload),
        "tier": record.tier,
        "timestamp_ms": record.timestamp_ms,
        "headers": [[_rows.text_of(name), _rows.text_of(value)] for name, value in record.headers],
    }
    if record.partition_key is not None:
        shown |= _rows.named("partition_key", record.partition_key)
    if record.delivery_count:
        shown["delivery_count"] = record.delivery_count
    return shown


def as_line(record: StreamRecord) -> bytes:
    """A record that is followed: its id and payload, and headers in between if it has any."""
    from flo.cli import _rows

    parts = [record.id, *([_headers_text(record)] if record.headers else []), _rows.cell(record.payload)]
    return ("  ".join(parts) + "\n").encode()


def _headers_text(record: StreamRecord) -> str:
    from flo.cli import _rows

    return ",".join(f"{_rows.cell(name)}={_rows.cell(value)}" for name, value in record.headers)
