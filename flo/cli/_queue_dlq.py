"""`flo queue dlq …`: messages that were given up; and what the commands on messages have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from flo.cli import _client_options, _pages

if TYPE_CHECKING:
    from flo.primitives.queue_pages import Settled

SEQ_MAX: Final = 2**64 - 1

app = _client_options.client_group({"ls": "list", "rm": "delete"})

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]
Seqs = Annotated[
    list[int], typer.Argument(min=0, max=SEQ_MAX, metavar="SEQ", help="Numbers of messages, as they were handed out.")
]


@app.callback()
def dlq() -> None:
    """Look at messages that were given up, and send them again.

    \b
      flo queue dlq list mails
      flo queue dlq requeue mails 17
    """


@app.command("list")
def list_(
    ctx: typer.Context, name: Name, limit: _pages.Limit = None, cursor: _pages.Cursor = "", every: _pages.All = False
) -> None:
    """List them, the oldest first: how often they were handed out, when and why they were given up. Alias: ls.

    \b
      flo queue dlq list mails --all --output json | jq '.messages[].seq'
    """
    from flo.cli import _client, _rows, _times
    from flo.wire import calls

    client = _client.open_client(ctx)
    found, has_more, following = _pages.walk(
        lambda cursor: client.call(calls.QUEUE_DLQ_LIST, calls.QueuePage(name, limit or 0, cursor)),
        lambda page: page.entries, cursor, every,
    )  # fmt: skip
    objects = [
        {"seq": each.seq, "attempts": each.attempts, "moved_at": each.moved_at, "reason": each.reason,
         "priority": each.priority, "enqueued_at": each.enqueued_at, **_rows.named("payload", each.payload)}
        for each in found
    ]  # fmt: skip
    columns = [
        _rows.Column("SEQ", lambda each: each.seq),
        _rows.Column("ATTEMPTS", lambda each: each.attempts),
        _rows.Column("MOVED", lambda each: _times.local(each.moved_at)),
        _rows.Column("REASON", lambda each: each.reason),
        _rows.Column("PAYLOAD", lambda each: each.payload),
    ]
    _rows.items(
        ctx, found, columns, value={"messages": objects, "has_more": has_more, "cursor": following},
        none="(no messages)", bare=lambda each: each.payload,
    )  # fmt: skip
    _rows.more(ctx, has_more, f"--cursor {following}, or --all")


@app.command()
def requeue(ctx: typer.Context, name: Name, seqs: Seqs) -> None:
    """Put messages back into their queue, with all attempts before them.

    \b
      flo queue dlq requeue mails 17 18
    """
    from flo.cli import _client
    from flo.wire import calls

    settled = _client.open_client(ctx).call(calls.QUEUE_DLQ_REQUEUE, calls.QueueSeqs(name, seqs))
    show_settled(ctx, "Requeued", "requeued", settled)


@app.command()
def delete(ctx: typer.Context, name: Name, seqs: Seqs) -> None:
    """Remove messages for good. Alias: rm.

    \b
      flo queue dlq delete mails 17
    """
    from flo.cli import _client
    from flo.wire import calls

    settled = _client.open_client(ctx).call(calls.QUEUE_DLQ_DELETE, calls.QueueSeqs(name, seqs))
    show_settled(ctx, "Deleted", "deleted", settled)


@app.command()
def purge(ctx: typer.Context, name: Name) -> None:
    """Remove all of them for good.

    \b
      flo queue dlq purge mails
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    count = _client.open_client(ctx).call(calls.QUEUE_DLQ_PURGE, calls.QueueName(name)).count
    _rows.done(ctx, {"purged": count}, f"Purged: {count}", count)


@app.command()
def stats(ctx: typer.Context, name: Name) -> None:
    """Show how many there are, how many fit, and how many were pushed out.

    \b
      flo queue dlq stats mails
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.QUEUE_DLQ_STATS, calls.QueueName(name))
    shown = msgspec.structs.asdict(found)
    _rows.done(ctx, shown, _rows.fields((field.replace("_", " ").capitalize(), shown[field]) for field in shown))


def show_settled(ctx: typer.Context, text: str, field: str, settled: Settled) -> None:
    """How many messages were found, and on stderr which were not."""
    from flo.cli import _out, _rows

    _rows.done(ctx, {field: settled.count, "missing": settled.missing}, f"{text}: {settled.count}", settled.count)
    if settled.missing and _client_options.output(ctx) != "json":
        _out.note(f"not in this queue: {', '.join(map(str, settled.missing))}")
