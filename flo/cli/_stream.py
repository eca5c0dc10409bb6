"""`flo stream …`: records in order, on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from flo.cli import _client_options, _pages, _stream_group, _values
from flo.cli._stream_records import Name, as_line, as_object, headers_of, show_records

if TYPE_CHECKING:
    from flo.wire.calls import StreamDescription, StreamRead, StreamRecords

UNSIGNED_MAX: Final = 2**64 - 1
READ_LIMIT: Final = 10
FOLLOW_LIMIT: Final = 1_000
HOUR_MS: Final = 3_600_000

app = _client_options.client_group({"ls": "list", "rm": "delete"})
app.add_typer(_stream_group.app, name="group")

Partition = Annotated[int | None, typer.Option("--partition", min=0, metavar="N", help="The partition.")]
PartitionKey = Annotated[
    str | None, typer.Option("--partition-key", metavar="K", help="The partition that this key belongs to.")
]
Retention = Annotated[
    str | None, typer.Option("--retention", metavar="D", help="Drop older records: hours, or 7d, 24h, 90m, 30s.")
]
MaxSize = Annotated[
    int | None, typer.Option("--max-size", min=0, max=UNSIGNED_MAX, metavar="BYTES", help="Drop the oldest above it.")
]
MaxRecords = Annotated[
    int | None, typer.Option("--max-records", min=0, max=UNSIGNED_MAX, metavar="N", help="Drop the oldest above it.")
]


@app.callback()
def stream() -> None:
    """Append records to streams, read and follow them, share them in groups.

    \b
      flo stream append orders '{"id": 7}'
      flo stream read orders --follow
      flo stream group read orders -g billing -c worker-1
    """


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    partitions: Annotated[int, typer.Option("--partitions", min=1, metavar="N", help="For good; up to 1024.")] = 1,
    retention: Retention = None,
    max_size: MaxSize = None,
    max_records: MaxRecords = None,
) -> None:
    """Create a stream; the first append does so too, with one partition and no bounds.

    \b
      flo stream create orders --partitions 4 --retention 7d
    """
    age_ms = 0 if retention is None else _values.span_ms("--retention", retention, unit_ms=HOUR_MS)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.StreamCreate(name, partitions, age_ms, max_records or 0, max_size or 0)
    _client.open_client(ctx).call(calls.STREAM_CREATE, asked)
    _rows.done(ctx, {"stream": name, "partitions": partitions}, "OK")


@app.command()
def append(
    ctx: typer.Context,
    name: Name,
    payloads: Annotated[list[str], typer.Argument(metavar="PAYLOAD", help="One record each; - reads stdin.")],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="K=V", help="For each record; several, or a list with commas."),
    ] = None,
    partition: Partition = None,
    partition_key: PartitionKey = None,
) -> None:
    """Append records, all of them or none, and print the id of the first.

    \b
      flo stream append orders '{"id": 7}' '{"id": 8}' --partition-key ann
      flo stream append logs - -H host=web-1 < line
    """
    if partition is not None and partition_key is not None:
        ctx.fail("--partition and --partition-key exclude one another")
    if payloads.count("-") > 1:
        ctx.fail("stdin can be read once")
    headers = headers_of(header or [])
    data = [_values.payload(payload, "PAYLOAD") for payload in payloads]
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.StreamAppend(
        name, [calls.RecordToAppend(each, headers) for each in data], partition,
        None if partition_key is None else _values.data_bytes(partition_key),
    )  # fmt: skip
    done = _client.open_client(ctx).call(calls.STREAM_APPEND, asked)
    if done.count == 1:
        shown = {"stream_id": done.first_id, "count": 1}
        _rows.done(ctx, shown, f"Appended at {done.first_id}", done.first_id)
    else:
        shown = {"first_id": done.first_id, "last_id": done.last_id, "count": done.count}
        _rows.done(ctx, shown, f"Appended {done.count} records starting at {done.first_id}", done.first_id)


@app.command()
def read(
    ctx: typer.Context,
    name: Name,
    start: Annotated[str | None, typer.Option("--start", metavar="ID", help="From here on; $ is the end.")] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="ID", help="Up to here.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="From behind this record on.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-l", "--count", min=1, metavar="N", help="At most so many; 10, up to 1000."),
    ] = None,
    offset: Annotated[int, typer.Option("--offset", min=0, max=UNSIGNED_MAX, metavar="N", help="Skip so many.")] = 0,
    block: Annotated[
        str | None, typer.Option("--block", metavar="MS", help="Wait for a record; 0 without limit.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is appended, from the end unless --start is given.")
    ] = False,
    partition: Partition = None,
    partition_key: PartitionKey = None,
) -> None:
    """Read records; follow them until Ctrl-C, over restarts of the server.

    \b
      flo stream read orders --limit 100
      flo stream read orders --after 1700000000123-4
      flo stream read orders --start 0 --follow --output json | jq .payload
    """
    if start is not None and after is not None:
        ctx.fail("--start and --after exclude one another")
    if partition is not None and partition_key is not None:
        ctx.fail("--partition and --partition-key exclude one another")
    if follow and (end is not None or block is not None or offset):
        ctx.fail("--follow excludes --end, --block and --offset")
    block_ms = None if block is None else _values.span_ms("--block", block, unit_ms=1)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.StreamRead(
        name, start, end, after, limit or (FOLLOW_LIMIT if follow else READ_LIMIT), partition,
        None if partition_key is None else _values.data_bytes(partition_key), offset,
    )  # fmt: skip
    if follow:
        _follow(ctx, asked)
    client = _client.open_client(ctx)
    for wait_ms in _client.waits(block_ms):
        asked.wait_ms = wait_ms
        page: StreamRecords = client.call(calls.STREAM_READ, asked, wait_ms=wait_ms)
        if page.records:
            break
        if asked.start == "$":  # the end as it was when the wait began, not as it is now
            asked.start, asked.after = None, page.next
    show_records(ctx, page.records)
    _rows.more(ctx, page.has_more, f"--after {page.next}")


def _follow(ctx: typer.Context, asked: StreamRead) -> None:
    """Prints records until Ctrl-C."""
    from flo.api.errors import FloError
    from flo.cli import _client, _out, _show
    from flo.wire import calls

    client = _client.open_client(ctx, follows=True)
    persistence = _client.Persistence()
    form = _client_options.output(ctx)
    if asked.start is None and asked.after is None:
        asked.start = "$"
    while True:
        # The end is looked up without waiting: were the reply to a wait lost, so would be what came meanwhile.
        asked.wait_ms = 0 if asked.start == "$" else _client.FOLLOW_MS
        try:
            page = client.call(calls.STREAM_READ, asked, wait_ms=asked.wait_ms)
            persistence.answered()
        except FloError as error:
            persistence.failed(error)
            continue
        for record in page.records:
            if form == "json":
                _out.line(_show.as_json(as_object(record)))
            else:
                _out.exact(record.payload + b"\n" if form == "raw" else as_line(record))
        if page.records or asked.start == "$":
            asked.start, asked.after = None, page.next


@app.command()
def info(ctx: typer.Context, name: Name) -> None:
    """Show how much is in a stream, its bounds and its groups.

    \b
      flo stream info orders
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.STREAM_INFO, calls.StreamName(name))
    _rows.done(ctx, msgspec.to_builtins(found), _rows.fields(_described(found)))


def _described(found: StreamDescription) -> list[tuple[str, object]]:
    from flo.cli import _times

    kept = found.retention
    bounds = [
        _times.span(kept.max_age_ms) if kept.max_age_ms else "",
        f"{kept.max_records} records" if kept.max_records else "",
        f"{kept.max_bytes} bytes" if kept.max_bytes else "",
    ]
    return [
        ("Stream", found.name),
        ("Namespace", found.namespace),
        ("Partitions", found.partitions),
        ("Records", found.records),
        ("Bytes", found.bytes),
        ("First", found.first_id),
        ("Last", found.last_id),
        ("Retention", ", ".join(filter(None, bounds)) or "none"),
        ("Groups", ", ".join(found.groups) or "none"),
    ]


@app.command("list")
def list_(
    ctx: typer.Context, limit: _pages.Limit = None, cursor: _pages.Cursor = "", every: _pages.All = False
) -> None:
    """List streams and how much is in them. Alias: ls.

    \b
      flo stream list
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    client = _client.open_client(ctx)
    found, has_more, following = _pages.walk(
        lambda cursor: client.call(calls.STREAM_LIST, calls.ListPage(limit or 0, cursor)),
        lambda page: page.streams, cursor, every,
    )  # fmt: skip
    columns = [
        _rows.Column("STREAM", lambda each: each.name),
        _rows.Column("PARTITIONS", lambda each: each.partitions),
        _rows.Column("RECORDS", lambda each: each.records),
        _rows.Column("BYTES", lambda each: each.bytes),
        _rows.Column("LAST", lambda each: each.last_id or "-"),
    ]
    shown = {"streams": msgspec.to_builtins(found), "has_more": has_more, "cursor": following}
    _rows.items(ctx, found, columns, value=shown, none="no streams", bare=lambda each: each.name.encode())
    _rows.more(ctx, has_more, f"--cursor {following}, or --all")


@app.command()
def alter(
    ctx: typer.Context,
    name: Name,
    retention: Retention = None,
    max_size: MaxSize = None,
    max_records: MaxRecords = None,
) -> None:
    """Change the bounds of a stream; 0 takes a bound away.

    \b
      flo stream alter orders --retention 30d --max-size 0
    """
    if retention is None and max_size is None and max_records is None:
        ctx.fail("needs --retention, --max-size or --max-records")
    age_ms = None if retention is None else _values.span_ms("--retention", retention, unit_ms=HOUR_MS)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.StreamAlter(name, age_ms, max_records, max_size)
    _client.open_client(ctx).call(calls.STREAM_ALTER, asked)
    _rows.done(ctx, {"stream": name}, "OK")


@app.command()
def trim(
    ctx: typer.Context,
    name: Name,
    maxlen: Annotated[
        int | None, typer.Option("--maxlen", min=0, max=UNSIGNED_MAX, metavar="N", help="Keep the newest N.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="ID", help="Keep this record and later ones.")
    ] = None,
    maxage: Annotated[
        str | None, typer.Option("--maxage", metavar="D", help="Keep what is younger: 3600, 30s, 7d.")
    ] = None,
    maxbytes: Annotated[
        int | None,
        typer.Option("--maxbytes", min=0, max=UNSIGNED_MAX, metavar="BYTES", help="Keep the newest of so much."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
) -> None:
    """Remove the oldest records, up to one bound.

    \b
      flo stream trim orders --maxlen 1000 --dry-run
    """
    if sum(bound is not None for bound in (maxlen, before, maxage, maxbytes)) != 1:
        ctx.fail("needs exactly one of --maxlen, --before, --maxage and --maxbytes")
    age_ms = None if maxage is None else _values.span_ms("--maxage", maxage, unit_ms=1_000)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.StreamTrim(name, maxlen, before, age_ms, maxbytes, dry_run)
    done = _client.open_client(ctx).call(calls.STREAM_TRIM, asked)
    text = f"{'Would trim' if dry_run else 'Trimmed'} {done.trimmed} record{'' if done.trimmed == 1 else 's'}"
    shown = {"trimmed": done.trimmed, "dry_run": dry_run, "first_id": done.first_id}
    _rows.done(ctx, shown, text, done.trimmed)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also one that is not empty.")] = False,
) -> None:
    """Delete a stream with its records and groups; one that is not there is no error. Alias: rm.

    \b
      flo stream delete orders --force
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(calls.STREAM_DELETE, calls.StreamDelete(name, force))
    _rows.done(ctx, {"stream": name}, "Deleted")
