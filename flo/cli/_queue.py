"""`flo queue …`: messages for workers, on a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flo.cli import _client_options, _pages, _queue_dlq, _values
from flo.cli._queue_dlq import Name, Seqs, show_settled

if TYPE_CHECKING:
    from flo.primitives.queue_pages import Message

PRIORITY_MAX: Final = 255
PEEKED: Final = 100  # messages that `watch` looks at, the most that a server shows
WATCH_SECONDS: Final = 1.0
WATCH_SEEN: Final = 100_000  # messages that `watch` remembers to have printed

app = _client_options.client_group(
    {"push": "enqueue", "pop": "dequeue", "complete": "ack", "fail": "nack", "ls": "list", "info": "stats",
     "rm": "delete"}
)  # fmt: skip
app.add_typer(_queue_dlq.app, name="dlq")


@app.callback()
def queue() -> None:
    """Put messages into queues, take them, and say what became of them.

    \b
      flo queue enqueue mails '{"to": "ann"}'
      flo queue dequeue mails                  leased to you for 30 s
      flo queue ack mails 1                    done: it does not come again
    """


@app.command()
def enqueue(
    ctx: typer.Context,
    name: Name,
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD", help="The message; - reads stdin.")],
    priority: Annotated[
        int, typer.Option("--priority", min=0, max=PRIORITY_MAX, metavar="N", help="0 comes first, 255 last.")
    ] = 0,
    delay: Annotated[str, typer.Option("--delay", metavar="MS", help="Nobody gets it before: 500, 10s, 2h.")] = "0",
    dedup_key: Annotated[
        str, typer.Option("--dedup-key", metavar="K", help="A second one within 5 minutes is not stored.")
    ] = "",
) -> None:
    """Put a message into a queue and print its number. Alias: push.

    \b
      flo queue enqueue mails '{"to": "ann"}' --dedup-key order-7
      flo queue enqueue reminders - --delay 2h < text
    """
    delay_ms = _values.span_ms("--delay", delay, unit_ms=1)
    data = _values.payload(payload, "PAYLOAD")
    from flo.cli import _client, _rows
    from flo.wire import calls

    asked = calls.QueueEnqueue(
        name, data, priority=priority, delay_ms=delay_ms, dedup_key=_values.data_bytes(dedup_key)
    )  # fmt: skip
    done = _client.open_client(ctx).call(calls.QUEUE_ENQUEUE, asked)
    text = f"Enqueued: {done.seq}" + (" (it is there already)" if done.deduplicated else "")
    _rows.done(ctx, {"seq": done.seq, "deduplicated": done.deduplicated}, text, done.seq)


@app.command()
def dequeue(
    ctx: typer.Context,
    name: Name,
    count: Annotated[int, typer.Option("--count", "-c", min=1, metavar="N", help="At most so many, up to 100.")] = 1,
    visibility: Annotated[
        str,
        typer.Option(
            "--visibility",
            "--timeout",
            metavar="MS",
            help="How long they are yours before others get them. The time-out of the request stands before `queue`.",
        ),
    ] = "30000",
    block: Annotated[
        str | None, typer.Option("--block", metavar="MS", help="Wait for a message; 0 without limit.")
    ] = None,
    ack: Annotated[bool, typer.Option("--ack", help="Acknowledge at once: they do not come again.")] = False,
) -> None:
    """Take messages. Those that are not acknowledged in time come again. Alias: pop.

    \b
      flo queue dequeue mails --block 0
      flo queue dequeue mails --count 10 --visibility 5m --output json
      flo queue dequeue mails --ack --output raw > message
    """
    visibility_ms = _values.span_ms("--visibility", visibility, unit_ms=1)
    block_ms = None if block is None else _values.span_ms("--block", block, unit_ms=1)
    from flo.cli import _client
    from flo.wire import calls

    client = _client.open_client(ctx)
    messages: Sequence[Message] = ()
    for wait_ms in _client.waits(block_ms):
        asked = calls.QueueDequeue(name, count, visibility_ms=visibility_ms, ack=ack, wait_ms=wait_ms)
        messages = client.call(calls.QUEUE_DEQUEUE, asked, wait_ms=wait_ms).messages
        if messages:
            break
    _show(ctx, messages)


@app.command()
def ack(ctx: typer.Context, name: Name, seqs: Seqs) -> None:
    """Say that messages are done: they do not come again. Alias: complete.

    \b
      flo queue ack mails 1 2 3
    """
    from flo.cli import _client
    from flo.wire import calls

    settled = _client.open_client(ctx).call(calls.QUEUE_ACK, calls.QueueSeqs(name, seqs))
    show_settled(ctx, "Acknowledged", "acked", settled)


@app.command()
def nack(
    ctx: typer.Context,
    name: Name,
    seqs: Seqs,
    dlq: Annotated[bool, typer.Option("--dlq", help="Put them aside, into the dead-letter queue.")] = False,
    delay: Annotated[str, typer.Option("--delay", metavar="MS", help="They come again after this time.")] = "0",
) -> None:
    """Give messages back: they come again, at most five times in all. Alias: fail.

    \b
      flo queue nack mails 1 --delay 10s
      flo queue nack mails 2 --dlq
    """
    delay_ms = _values.span_ms("--delay", delay, unit_ms=1)
    from flo.cli import _client
    from flo.wire import calls

    settled = _client.open_client(ctx).call(calls.QUEUE_NACK, calls.QueueNack(name, seqs, dlq=dlq, delay_ms=delay_ms))
    show_settled(ctx, "Given back", "nacked", settled)


@app.command()
def touch(
    ctx: typer.Context,
    name: Name,
    seqs: Seqs,
    extend: Annotated[
        str, typer.Option("--extend", metavar="MS", help="From now on; else as long as they were taken for.")
    ] = "0",
) -> None:
    """Keep messages longer.

    \b
      flo queue touch mails 1 --extend 5m
    """
    extend_ms = _values.span_ms("--extend", extend, unit_ms=1)
    from flo.cli import _client
    from flo.wire import calls

    settled = _client.open_client(ctx).call(calls.QUEUE_TOUCH, calls.QueueTouch(name, seqs, extend_ms))
    show_settled(ctx, "Touched", "touched", settled)


@app.command()
def peek(
    ctx: typer.Context,
    name: Name,
    count: Annotated[
        int, typer.Option("--count", "-c", "--limit", "-l", min=1, metavar="N", help="At most so many, up to 100.")
    ] = 1,
) -> None:
    """Look at the messages that come next, without taking them.

    \b
      flo queue peek mails --count 5
    """
    from flo.cli import _client
    from flo.wire import calls

    _show(ctx, _client.open_client(ctx).call(calls.QUEUE_PEEK, calls.QueuePeek(name, count)).messages)


@app.command()
def watch(ctx: typer.Context, name: Name) -> None:
    """Print messages as they turn up among the next 100, without taking them, until Ctrl-C.

    \b
      flo queue watch mails
    """
    import threading

    from flo.api.errors import FloError
    from flo.cli import _client, _out, _show
    from flo.wire import calls

    client = _client.open_client(ctx, follows=True)
    persistence = _client.Persistence()
    pause = threading.Event()
    form = _client_options.output(ctx)
    printed: dict[int, None] = {}
    while True:
        try:
            messages = client.call(calls.QUEUE_PEEK, calls.QueuePeek(name, PEEKED)).messages
            persistence.answered()
        except FloError as error:
            persistence.failed(error)
            continue
        for message in messages:
            if message.seq in printed:
                continue
            printed[message.seq] = None
            if form == "json":
                _out.line(_show.as_json(_object(message)))
            else:
                _out.exact(message.payload + b"\n" if form == "raw" else _line(message))
        while len(printed) > WATCH_SEEN:
            del printed[next(iter(printed))]
        pause.wait(WATCH_SECONDS)


@app.command("list")
def list_(
    ctx: typer.Context, limit: _pages.Limit = None, cursor: _pages.Cursor = "", every: _pages.All = False
) -> None:
    """List queues and how much is in them. Alias: ls.

    \b
      flo queue list
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    client = _client.open_client(ctx)
    found, has_more, following = _pages.walk(
        lambda cursor: client.call(calls.QUEUE_LIST, calls.ListPage(limit or 0, cursor)),
        lambda page: page.queues, cursor, every,
    )  # fmt: skip
    columns = [
        _rows.Column("QUEUE", lambda each: each.name),
        _rows.Column("PENDING", lambda each: each.pending),
        _rows.Column("AVAILABLE", lambda each: each.available),
        _rows.Column("ENQUEUED", lambda each: each.enqueued),
        _rows.Column("DEQUEUED", lambda each: each.dequeued),
        _rows.Column("DLQ", lambda each: each.dlq),
    ]
    shown = {"queues": msgspec.to_builtins(found), "has_more": has_more, "cursor": following}
    _rows.items(ctx, found, columns, value=shown, none="no queues", bare=lambda each: each.name.encode())
    _rows.more(ctx, has_more, f"--cursor {following}, or --all")


@app.command()
def stats(ctx: typer.Context, name: Name) -> None:
    """Show how much is in a queue and what went through it. Alias: info.

    \b
      flo queue stats mails
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.QUEUE_STATS, calls.QueueName(name))
    shown = msgspec.structs.asdict(found)
    _rows.done(ctx, shown, _rows.fields((field.replace("_", " ").capitalize(), shown[field]) for field in shown))


@app.command()
def purge(ctx: typer.Context, name: Name) -> None:
    """Remove all messages, except those in the dead-letter queue.

    \b
      flo queue purge mails
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    count = _client.open_client(ctx).call(calls.QUEUE_PURGE, calls.QueueName(name)).count
    _rows.done(ctx, {"purged": count}, f"Purged: {count}", count)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also one that is not empty.")] = False,
) -> None:
    """Delete a queue with its dead letters and statistics. Alias: rm.

    \b
      flo queue delete mails --force
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(calls.QUEUE_DELETE, calls.QueueDelete(name, force))
    _rows.done(ctx, {"queue": name}, "Deleted")


def _show(ctx: typer.Context, messages: Sequence[Message]) -> None:
    from flo.cli import _rows

    columns = [
        _rows.Column("SEQ", lambda each: each.seq),
        _rows.Column("PRIORITY", lambda each: each.priority),
        _rows.Column("DELIVERY", lambda each: each.delivery_count),
        _rows.Column("PAYLOAD", lambda each: each.payload),
    ]
    objects = [_object(message) for message in messages]
    _rows.items(ctx, messages, columns, value=objects, none="(no messages)", bare=lambda each: each.payload)


def _object(message: Message) -> dict[str, Any]:
    from flo.cli import _rows

    return {
        "seq": message.seq,
        **_rows.named("payload", message.payload),
        "priority": message.priority,
        "enqueued_at": message.enqueued_at,
        "delivery_count": message.delivery_count,
        "lease_expires_at": message.lease_expires_at or None,
    }


def _line(message: Message) -> bytes:
    from flo.cli import _rows

    return f"{message.seq}  {_rows.cell(message.payload)}\n".encode()
