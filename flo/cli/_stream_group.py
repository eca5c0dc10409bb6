"""`flo stream group …`: consumers that share the records of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flo.cli import _client_options, _pages, _values
from flo.cli._stream_records import Name, ids_of, show_records

if TYPE_CHECKING:
    from flo.wire.calls import GroupDescription, StreamRecord

MODES: Final = ("shared", "exclusive", "key_shared")
READ_LIMIT: Final = 10

app = _client_options.client_group({"ls": "list", "rm": "delete"})

Group = Annotated[str, typer.Option("--group", "-g", metavar="G", help="The group.")]
Consumer = Annotated[str, typer.Option("--consumer", "-c", metavar="C", help="The consumer.")]
AnyConsumer = Annotated[str, typer.Option("--consumer", "-c", metavar="C", help="Only what this consumer holds.")]
Ids = Annotated[list[str], typer.Option("--ids", metavar="A,B", help="Ids of records; several, or a list with commas.")]
MinIdle = Annotated[
    str,
    typer.Option("--min-idle", metavar="MS", help="Held for so long by others; 0: your own, and what is free."),
]  # fmt: skip
Mode = Annotated[str, typer.Option("--mode", metavar="M", help="shared, exclusive or key_shared.")]
Slots = Annotated[int, typer.Option("--slots", min=1, max=4096, metavar="N", help="Of key_shared: shares of the keys.")]
MaxStandbys = Annotated[
    int, typer.Option("--max-standbys", min=0, max=65_535, metavar="N", help="Of exclusive: who may wait to be next.")
]
AckTimeout = Annotated[
    str, typer.Option("--ack-timeout", metavar="MS", help="A record comes again after this time; 0: never.")
]
MaxDeliver = Annotated[
    int,
    typer.Option("--max-deliver", min=0, max=255, metavar="N", help="Then it is put into STREAM.GROUP.dlq; 0: never."),
]
RedeliverDelay = Annotated[
    str, typer.Option("--redeliver-delay", metavar="MS", help="How long one that failed is kept back.")
]
GroupWord = Annotated[str | None, typer.Argument(metavar="GROUP", help="The same as --group.")]
ConsumerWord = Annotated[str | None, typer.Argument(metavar="CONSUMER", help="The same as --consumer.")]
GroupOption = Annotated[str | None, typer.Option("--group", "-g", metavar="G", help="The group.")]
ConsumerOption = Annotated[str | None, typer.Option("--consumer", "-c", metavar="C", help="The consumer.")]


@app.callback()
def group() -> None:
    """Share the records of a stream among consumers. Reading creates a group and joins it.

    \b
      flo stream group read orders -g billing -c worker-1
      flo stream group ack orders -g billing --ids 1700000000123-0
      flo stream group info orders -g billing
    """


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    group: Group,
    mode: Mode = "shared",
    slots: Slots = 256,
    max_standbys: MaxStandbys = 65_535,
    ack_timeout: AckTimeout = "30000",
    max_deliver: MaxDeliver = 10,
    redeliver_delay: RedeliverDelay = "0",
    start: Annotated[
        str, typer.Option("--start", metavar="ID", help="Its first record; $: what comes from now on.")
    ] = "0-0",
) -> None:
    """Create a group with settings of its own.

    \b
      flo stream group create orders -g billing --mode key_shared --ack-timeout 5m
    """
    settings = _settings(mode, slots, max_standbys, ack_timeout, max_deliver, redeliver_delay)
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(calls.GROUP_CREATE, calls.GroupCreate(name, group, start=start, **settings))
    _rows.done(ctx, {"stream": name, "group": group, **settings}, "OK")


@app.command()
def read(
    ctx: typer.Context,
    name: Name,
    group: Group,
    consumer: Consumer,
    limit: Annotated[
        int, typer.Option("--limit", "-l", "--count", min=1, metavar="N", help="At most so many, up to 1000.")
    ] = READ_LIMIT,
    block: Annotated[
        str | None, typer.Option("--block", metavar="MS", help="Wait for a record; 0 without limit.")
    ] = None,
    no_ack: Annotated[bool, typer.Option("--no-ack", help="They are done as soon as they are read.")] = False,
    mode: Mode = "shared",
    slots: Slots = 256,
    max_standbys: MaxStandbys = 65_535,
    ack_timeout: AckTimeout = "30000",
    max_deliver: MaxDeliver = 10,
    redeliver_delay: RedeliverDelay = "0",
) -> None:
    """Take records for a consumer. The settings are those of the group if this creates it.

    \b
      flo stream group read orders -g billing -c worker-1 --block 0
    """
    block_ms = None if block is None else _values.span_ms("--block", block, unit_ms=1)
    settings = _settings(mode, slots, max_standbys, ack_timeout, max_deliver, redeliver_delay)
    from flo.cli import _client
    from flo.wire import calls

    client = _client.open_client(ctx)
    records: list[StreamRecord] = []
    for wait_ms in _client.waits(block_ms):
        asked = calls.GroupRead(name, group, consumer, limit, no_ack=no_ack, wait_ms=wait_ms, **settings)
        records = client.call(calls.GROUP_READ, asked, wait_ms=wait_ms).records
        if records:
            break
    show_records(ctx, records, deliveries=True)


@app.command()
def ack(ctx: typer.Context, name: Name, group: Group, ids: Ids, consumer: AnyConsumer = "") -> None:
    """Say that records are done.

    \b
      flo stream group ack orders -g billing --ids 1700000000123-0,1700000000123-1
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.GroupAck(name, group, ids_of(ids), consumer)
    count = _client.open_client(ctx).call(calls.GROUP_ACK, asked).count
    _rows.done(ctx, {"acked": count}, f"Acknowledged: {count}", count)


@app.command()
def nack(
    ctx: typer.Context,
    name: Name,
    group: Group,
    ids: Ids,
    consumer: AnyConsumer = "",
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="MS", help="They come again after it; else the group's delay.")
    ] = None,
) -> None:
    """Give records back: they come again.

    \b
      flo stream group nack orders -g billing --ids 1700000000123-0 --delay 10s
    """
    delay_ms = None if delay is None else _values.span_ms("--delay", delay, unit_ms=1)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.GroupNack(name, group, ids_of(ids), consumer, delay_ms)
    count = _client.open_client(ctx).call(calls.GROUP_NACK, asked).count
    _rows.done(ctx, {"nacked": count}, f"Given back: {count}", count)


@app.command()
def touch(
    ctx: typer.Context,
    name: Name,
    group: Group,
    ids: Ids,
    consumer: Consumer,
    extend: Annotated[
        str | None, typer.Option("--extend", metavar="MS", help="From now on; else the group's ack-timeout.")
    ] = None,
) -> None:
    """Keep records longer.

    \b
      flo stream group touch orders -g billing -c worker-1 --ids 1700000000123-0 --extend 5m
    """
    extend_ms = None if extend is None else _values.span_ms("--extend", extend, unit_ms=1)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.GroupTouch(name, group, ids_of(ids), consumer, extend_ms)
    count = _client.open_client(ctx).call(calls.GROUP_TOUCH, asked).count
    _rows.done(ctx, {"touched": count}, f"Touched: {count}", count)


@app.command()
def claim(ctx: typer.Context, name: Name, group: Group, consumer: Consumer, ids: Ids, min_idle: MinIdle = "0") -> None:
    """Take over records by their ids.

    \b
      flo stream group claim orders -g billing -c worker-2 --ids 1700000000123-0 --min-idle 60s
    """
    idle_ms = _values.span_ms("--min-idle", min_idle, unit_ms=1)
    from flo.cli import _client
    from flo.wire import calls

    asked = calls.GroupClaim(name, group, consumer, ids_of(ids), idle_ms)
    claimed = _client.open_client(ctx).call(calls.GROUP_CLAIM, asked)
    show_records(ctx, claimed.records, deliveries=True)


@app.command()
def autoclaim(
    ctx: typer.Context,
    name: Name,
    group: Group,
    consumer: Consumer,
    min_idle: MinIdle = "0",
    start: Annotated[str, typer.Option("--start", metavar="ID", help="From here on.")] = "0-0",
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, metavar="N", help="At most so many.")] = 100,
) -> None:
    """Take over records that nobody finishes.

    \b
      flo stream group autoclaim orders -g billing -c worker-2 --min-idle 60s
    """
    idle_ms = _values.span_ms("--min-idle", min_idle, unit_ms=1)
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.GroupAutoclaim(name, group, consumer, idle_ms, start, limit)
    claimed = _client.open_client(ctx).call(calls.GROUP_AUTOCLAIM, asked)
    show_records(ctx, claimed.records, deliveries=True)
    _rows.more(ctx, claimed.next is not None, f"--start {claimed.next}")


@app.command()
def pending(
    ctx: typer.Context,
    name: Name,
    group: Group,
    consumer: AnyConsumer = "",
    limit: _pages.Limit = None,
    cursor: _pages.Cursor = "",
    every: _pages.All = False,
) -> None:
    """List records that are handed out and not acknowledged.

    \b
      flo stream group pending orders -g billing -c worker-1
    """
    import msgspec

    from flo.cli import _client, _rows, _times
    from flo.wire import calls

    client = _client.open_client(ctx)
    found, has_more, following = _pages.walk(
        lambda cursor: client.call(
            calls.GROUP_PENDING, calls.GroupPending(name, group, consumer, limit or 100, cursor)
        ),
        lambda page: page.entries, cursor, every,
    )  # fmt: skip
    columns = [
        _rows.Column("ID", lambda each: each.id),
        _rows.Column("CONSUMER", lambda each: each.consumer),
        _rows.Column("DELIVERY", lambda each: each.delivery_count),
        _rows.Column("IDLE", lambda each: _times.span(each.idle_ms)),
        _rows.Column("STATE", lambda each: each.state),
    ]
    shown = {"entries": msgspec.to_builtins(found), "has_more": has_more, "cursor": following}
    _rows.items(ctx, found, columns, value=shown, none="nothing pending", bare=lambda each: each.id.encode())
    _rows.more(ctx, has_more, f"--cursor {following}, or --all")


@app.command()
def info(ctx: typer.Context, name: Name, group: Group) -> None:
    """Show a group: its settings, its members, how far it is.

    \b
      flo stream group info orders -g billing
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.GROUP_INFO, calls.GroupName(name, group))
    _rows.done(ctx, msgspec.to_builtins(found), _rows.fields(_described(found)))


def _described(found: GroupDescription) -> list[tuple[str, object]]:
    members = [f"{member.consumer} ({member.state}, holds {member.pending})" for member in found.members]
    return [
        ("Group", found.group),
        ("Stream", found.stream),
        ("Namespace", found.namespace),
        ("Mode", found.mode),
        ("Ack timeout", f"{found.ack_timeout_ms} ms"),
        ("Max deliver", found.max_deliver),
        ("Redeliver delay", f"{found.redeliver_delay_ms} ms"),
        ("Max standbys", found.max_standbys if found.mode == "exclusive" else None),
        ("Slots", found.slots if found.mode == "key_shared" else None),
        ("Pending", found.pending),
        ("Lag", found.lag),
        ("Last delivered", found.last_delivered),
        ("Ack floor", found.ack_floor),
        ("Consumers", found.consumers),
        *(("Member", member) for member in members),
    ]


@app.command("list")
def list_(ctx: typer.Context, name: Name) -> None:
    """List the groups of a stream. Alias: ls.

    \b
      flo stream group list orders
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.GROUP_LIST, calls.StreamName(name)).groups
    columns = [
        _rows.Column("GROUP", lambda each: each.group),
        _rows.Column("MODE", lambda each: each.mode),
        _rows.Column("CONSUMERS", lambda each: each.consumers),
        _rows.Column("PENDING", lambda each: each.pending),
        _rows.Column("LAG", lambda each: each.lag),
    ]
    shown = msgspec.to_builtins(found)
    _rows.items(ctx, found, columns, value=shown, none="no groups", bare=lambda each: each.group.encode())


@app.command()
def join(
    ctx: typer.Context,
    name: Name,
    group_word: GroupWord = None,
    consumer_word: ConsumerWord = None,
    group: GroupOption = None,
    consumer: ConsumerOption = None,
) -> None:
    """Let a consumer join a group, without reading.

    \b
      flo stream group join orders billing worker-1
    """
    _member(ctx, "Joined", name, _one(ctx, "GROUP", group_word, group), _one(ctx, "CONSUMER", consumer_word, consumer))


@app.command()
def leave(
    ctx: typer.Context,
    name: Name,
    group_word: GroupWord = None,
    consumer_word: ConsumerWord = None,
    group: GroupOption = None,
    consumer: ConsumerOption = None,
) -> None:
    """Let a consumer leave a group: what it holds goes to others.

    \b
      flo stream group leave orders -g billing -c worker-1
    """
    _member(ctx, "Left", name, _one(ctx, "GROUP", group_word, group), _one(ctx, "CONSUMER", consumer_word, consumer))


@app.command()
def delete(ctx: typer.Context, name: Name, group: Group) -> None:
    """Delete a group; the records stay. Alias: rm.

    \b
      flo stream group delete orders -g billing
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(calls.GROUP_DELETE, calls.GroupName(name, group))
    _rows.done(ctx, {"stream": name, "group": group}, "Deleted")


def _settings(
    mode: str, slots: int, max_standbys: int, ack_timeout: str, max_deliver: int, redeliver_delay: str
) -> dict[str, Any]:
    """Settings of a group as calls take them. Raises typer.BadParameter."""
    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(MODES)}", param_hint="--mode")
    return {
        "mode": mode,
        "ack_timeout_ms": _values.span_ms("--ack-timeout", ack_timeout, unit_ms=1),
        "max_deliver": max_deliver,
        "redeliver_delay_ms": _values.span_ms("--redeliver-delay", redeliver_delay, unit_ms=1),
        "max_standbys": max_standbys,
        "slots": slots,
    }


def _one(ctx: typer.Context, what: str, word: str | None, option: str | None) -> str:
    if word is not None and option is not None:
        ctx.fail(f"give {what} once")
    found = word or option
    if not found:
        ctx.fail(f"Missing argument '{what}'.")
    return found


def _member(ctx: typer.Context, text: str, name: str, group: str, consumer: str) -> None:
    from flo.cli import _client, _rows
    from flo.wire import calls

    call = calls.GROUP_JOIN if text == "Joined" else calls.GROUP_LEAVE
    _client.open_client(ctx).call(call, calls.GroupMember(name, group, consumer))
    _rows.done(ctx, {"stream": name, "group": group, "consumer": consumer}, text)
