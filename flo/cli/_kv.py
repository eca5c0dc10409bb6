"""`flo kv …`: keys and values on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from flo.cli import _client_options, _pages, _values
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from flo.cli._client import Client
    from flo.primitives.kv_pages import Entry, Found

VERSION_MAX: Final = 2**64 - 1
TXN_MAX: Final = 2**53 - 1
MGET_KEYS: Final = 256

app = _client_options.client_group(
    {
        "put": "set", "del": "delete", "ls": "list", "scan": "list", "hist": "history", "json-get": "jget",
        "json-set": "jset", "json-del": "jdel",
    }
)  # fmt: skip

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Cas = Annotated[
    int | None,
    typer.Option("--cas", min=0, max=VERSION_MAX, metavar="V", help="Only if the key has this version."),
]  # fmt: skip
Routing = Annotated[
    str | None,
    typer.Option("--routing-key", "-r", metavar="RK", help="Place the key beside this one; it is found without."),
]
Txn = Annotated[
    int | None, typer.Option("--txn", "-t", min=1, max=TXN_MAX, metavar="T", help="Within this transaction.")
]
Ttl = Annotated[str | None, typer.Option("--ttl", metavar="D", help="It expires after this time: 30, 30s, 15m, 7d.")]
Path = Annotated[str | None, typer.Argument(metavar="PATH", help="$ (the default), $.name, $.list[0].")]
PathOption = Annotated[str | None, typer.Option("--path", metavar="PATH", help="The same as the argument PATH.")]


@app.callback()
def kv() -> None:
    """Read and write keys and values.

    \b
      flo kv set greeting hello
      flo kv get greeting
      flo kv list --prefix user:
    """


@app.command("set")
def set_(
    ctx: typer.Context,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value; - reads stdin.")],
    ttl: Ttl = None,
    nx: Annotated[bool, typer.Option("--nx", "--if-not-exists", help="Only if the key is not there.")] = False,
    xx: Annotated[bool, typer.Option("--xx", "--if-exists", help="Only if the key is there.")] = False,
    cas: Cas = None,
    routing_key: Routing = None,
    txn: Txn = None,
) -> None:
    """Write a value; it replaces the one before, and its expiry. Alias: put.

    \b
      flo kv set greeting hello
      flo kv set session:7 - --ttl 30m < session.json
      flo kv set config '{"a": 2}' --cas 41         only if the version is still 41
      flo kv set offset -- -3                       a value that begins with a dash
    """
    if nx and (xx or cas is not None):
        ctx.fail(f"--nx and {'--xx' if xx else '--cas'} exclude one another")
    ttl_ms = 0 if ttl is None else _values.span_ms("--ttl", ttl, unit_ms=1_000)
    data = _values.payload(value, "VALUE")
    from flo.cli import _client
    from flo.wire import calls

    written = _client.open_client(ctx).call(
        calls.KV_PUT,
        calls.KvPut(
            _values.data_bytes(key), data, ttl_ms=ttl_ms, nx=nx, xx=xx, cas=cas,
            routing_key=_values.data_bytes(routing_key or ""), txn=txn or 0,
        ),
    )  # fmt: skip
    _written(ctx, key, written.version)


@app.command()
def get(
    ctx: typer.Context,
    key: Key,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="MS", help="Wait until the key is there; 0 without limit.")
    ] = None,
    block: Annotated[
        str | None, typer.Option("--block", metavar="MS", help="Wait for its next version; 0 without limit.")
    ] = None,
    routing_key: Routing = None,
    txn: Txn = None,
) -> None:
    """Print a value; (nil) and exit code 1 when there is none.

    \b
      flo kv get greeting
      flo kv get picture --output raw > picture.png       the exact bytes
      flo kv get job:7 --wait 5000                        waits until somebody writes it
    """
    if wait is not None and block is not None:
        ctx.fail("--wait and --block exclude one another")
    wait_ms = None if wait is None else _values.span_ms("--wait", wait, unit_ms=1)
    block_ms = None if block is None else _values.span_ms("--block", block, unit_ms=1)
    if txn is not None and (wait_ms is not None or block_ms is not None):
        ctx.fail("a transaction does not wait: --txn excludes --wait and --block")
    from flo.cli import _client, _out, _rows

    entry = _entry(_client.open_client(ctx), _values.data_bytes(key), wait_ms, block_ms, txn or 0)
    if entry is None:
        form = _client_options.output(ctx)
        _out.data({"text": "(nil)\n", "json": "null\n", "raw": ""}[form])
        raise typer.Exit(ExitCode.FAILED)
    shown = {
        **_rows.named("key", _values.data_bytes(key)),
        **_rows.named("value", entry.value),
        "version": entry.version,
    }
    _rows.bytes_of(ctx, shown, entry.value)


def _entry(client: Client, key: bytes, wait_ms: int | None, block_ms: int | None, txn: int) -> Entry | None:
    """None when there is no such key, at the end of the wait or because its next version is that it was deleted."""
    from flo.cli import _client
    from flo.client.sdk_errors import NotFoundError
    from flo.wire import calls

    blocks = block_ms is not None
    seen: int | None = None
    for ms in _client.waits(block_ms if blocks else wait_ms):
        asked = calls.KvGet(key, block_ms=ms, after_version=seen, txn=txn) if blocks else calls.KvGet(
            key, wait_ms=ms, txn=txn
        )  # fmt: skip
        try:
            return client.call(calls.KV_GET, asked, wait_ms=ms)
        except NotFoundError as missing:
            if not missing.details.get("timed_out"):
                return None
            seen = missing.details.get("version")
    return None


@app.command()
def mget(ctx: typer.Context, keys: Annotated[list[str], typer.Argument(metavar="KEY", help="Up to 256 keys.")]) -> None:
    """Print the values of several keys, (nil) for those that are not there.

    \b
      flo kv mget a b c
    """
    if len(keys) > MGET_KEYS:
        ctx.fail(f"{len(keys)} keys are over the limit of {MGET_KEYS}")
    from flo.cli import _client, _rows
    from flo.wire import calls

    client = _client.open_client(ctx)
    asked = [_values.data_bytes(key) for key in keys]
    found: list[Found] = []
    while len(found) < len(asked):  # a reply has a size limit
        page = client.call(calls.KV_MGET, calls.KvMget(asked[len(found) :]))
        found += page.entries
        if not page.truncated or not page.entries:
            break
    objects = [
        {**_rows.named("key", each.key), "found": each.found,
         **_rows.named("value", each.value if each.found else None), "version": each.version}
        for each in found
    ]  # fmt: skip
    columns = [
        _rows.Column("KEY", lambda each: each.key),
        _rows.Column("VERSION", lambda each: each.version if each.found else "-"),
        _rows.Column("VALUE", lambda each: each.value if each.found else "(nil)"),
    ]
    _rows.items(
        ctx, found, columns, value=objects, none="no keys", bare=lambda each: each.value if each.found else b"(nil)"
    )  # fmt: skip


@app.command()
def delete(ctx: typer.Context, key: Key, cas: Cas = None, routing_key: Routing = None, txn: Txn = None) -> None:
    """Delete a key. Alias: del.

    \b
      flo kv delete greeting
      flo kv delete lock:7 --cas 41      only if the version is still 41
    """
    from flo.cli import _client
    from flo.wire import calls

    written = _client.open_client(ctx).call(
        calls.KV_DELETE, calls.KvDelete(_values.data_bytes(key), if_match=cas, txn=txn or 0)
    )
    _written(ctx, key, written.version)


@app.command("list")
def list_(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="PREFIX", help="The same as --prefix.", show_default=False)] = "",
    prefix: Annotated[
        str, typer.Option("--prefix", "-p", metavar="P", help="Only keys that begin so.", show_default=False)
    ] = "",
    limit: _pages.Limit = None,
    cursor: _pages.Cursor = "",
    every: _pages.All = False,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Without values.")] = False,
) -> None:
    """List keys and values, in the order of the keys' bytes. Aliases: ls, scan.

    \b
      flo kv list user: --limit 20
      flo kv list --prefix user: --all --keys-only --output raw
    """
    if first and prefix:
        ctx.fail("give the prefix once")
    from flo.cli import _client, _rows
    from flo.wire import calls

    client = _client.open_client(ctx)
    begins = _values.data_bytes(first or prefix)
    rows, has_more, following = _pages.walk(
        lambda cursor: client.call(calls.KV_SCAN, calls.KvScan(begins, limit or 0, cursor, keys_only)),
        lambda page: page.rows, cursor, every,
    )  # fmt: skip
    objects = [
        {**_rows.named("key", row.key), **({} if keys_only else _rows.named("value", row.value)),
         "version": row.version, "size": row.size}
        for row in rows
    ]  # fmt: skip
    columns = [
        _rows.Column("KEY", lambda row: row.key),
        _rows.Column("VERSION", lambda row: row.version),
        _rows.Column("SIZE", lambda row: row.size),
    ]
    if not keys_only:
        columns.append(_rows.Column("VALUE", lambda row: row.value))
    _rows.items(
        ctx, rows, columns, value={"keys": objects, "has_more": has_more, "cursor": following}, none="no keys",
        bare=lambda row: row.key if keys_only else row.key + b"\t" + row.value,
    )  # fmt: skip
    _rows.more(ctx, has_more, f"--cursor {following}, or --all")


@app.command()
def history(
    ctx: typer.Context,
    key: Key,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, metavar="N", help="How many, at most 64.")] = 10,
) -> None:
    """List a key's versions, the newest first; what was deleted shows as (deleted). Alias: hist.

    \b
      flo kv history greeting --limit 3
    """
    from flo.cli import _client, _rows, _times
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.KV_HISTORY, calls.KvHistory(_values.data_bytes(key), limit)).versions
    objects = [
        {"version": each.version, "timestamp_ms": each.timestamp_ms, "size": each.size, "tombstone": each.tombstone,
         **_rows.named("value", each.value)}
        for each in found
    ]  # fmt: skip
    columns = [
        _rows.Column("VERSION", lambda each: each.version),
        _rows.Column("AT", lambda each: _times.local(each.timestamp_ms)),
        _rows.Column("SIZE", lambda each: each.size),
        _rows.Column("VALUE", lambda each: "(deleted)" if each.tombstone else each.value),
    ]
    _rows.items(ctx, found, columns, value=objects, none="no versions", bare=lambda each: each.value or b"")


@app.command()
def incr(
    ctx: typer.Context,
    key: Key,
    by: Annotated[
        int,
        typer.Option("--by", "-b", "--delta", "-d", min=-(2**63), max=2**63 - 1, metavar="N", help="What is added."),
    ] = 1,
    txn: Txn = None,
) -> None:
    """Add to a counter and print what it is then; one that is not there begins at 0.

    \b
      flo kv incr visits
      flo kv incr stock:7 --by -3
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    counted = _client.open_client(ctx).call(calls.KV_INCR, calls.KvIncr(_values.data_bytes(key), by, txn=txn or 0))
    _rows.done(
        ctx,
        {**_rows.named("key", _values.data_bytes(key)), "value": counted.value, "version": counted.version},
        str(counted.value),
    )


@app.command()
def touch(
    ctx: typer.Context,
    key: Key,
    ttl: Annotated[str, typer.Option("--ttl", metavar="D", help="From now on: 30, 30s, 15m, 7d; 0: never.")],
    cas: Cas = None,
    routing_key: Routing = None,
    txn: Txn = None,
) -> None:
    """Set when a key expires. Its value and version stay.

    \b
      flo kv touch lock:7 --ttl 30s --cas 41
    """
    ttl_ms = _values.span_ms("--ttl", ttl, unit_ms=1_000)
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(
        calls.KV_TOUCH, calls.KvTouch(_values.data_bytes(key), ttl_ms, if_match=cas, txn=txn or 0)
    )
    _rows.done(ctx, {**_rows.named("key", _values.data_bytes(key)), "ttl_ms": ttl_ms}, "OK")


@app.command()
def persist(ctx: typer.Context, key: Key, cas: Cas = None, routing_key: Routing = None, txn: Txn = None) -> None:
    """Let a key never expire.

    \b
      flo kv persist session:7
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    done = _client.open_client(ctx).call(
        calls.KV_PERSIST, calls.KvPersist(_values.data_bytes(key), if_match=cas, txn=txn or 0)
    )
    _rows.done(ctx, {**_rows.named("key", _values.data_bytes(key)), "had_ttl": done.had_ttl}, "OK")


@app.command()
def exists(ctx: typer.Context, key: Key, routing_key: Routing = None, txn: Txn = None) -> None:
    """Print true, or false with exit code 1.

    \b
      flo kv exists lock:7 || echo free
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.KV_EXISTS, calls.KvExists(_values.data_bytes(key), txn=txn or 0))
    _rows.done(
        ctx,
        {**_rows.named("key", _values.data_bytes(key)), "exists": found.exists},
        "true" if found.exists else "false",
    )
    raise typer.Exit(ExitCode.OK if found.exists else ExitCode.FAILED)


@app.command()
def jget(ctx: typer.Context, key: Key, path: Path = None, path_option: PathOption = None) -> None:
    """Print a part of a JSON document. Alias: json-get.

    \b
      flo kv jget order:7 '$.items[0].name'
    """
    where = _path(ctx, path, path_option)
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    node = _client.open_client(ctx).call(calls.KV_JGET, calls.KvJget(_values.data_bytes(key), where))
    shown = {
        **_rows.named("key", _values.data_bytes(key)),
        "path": where,
        "value": msgspec.Raw(node.json),
        "version": node.version,
    }
    _rows.bytes_of(ctx, shown, node.json)


@app.command()
def jset(
    ctx: typer.Context,
    key: Key,
    words: Annotated[list[str], typer.Argument(metavar="[PATH] JSON", help="Where, and what; - reads stdin.")],
    path_option: PathOption = None,
    ttl: Ttl = None,
    cas: Cas = None,
) -> None:
    """Write a JSON document, or a part of it. Alias: json-set.

    \b
      flo kv jset order:7 $ '{"status": "new", "items": []}'
      flo kv jset order:7 $.status '"paid"'
    """
    if len(words) > 2:
        ctx.fail("needs KEY, PATH and JSON")
    where = _path(ctx, words[0] if len(words) == 2 else None, path_option)
    ttl_ms = 0 if ttl is None else _values.span_ms("--ttl", ttl, unit_ms=1_000)
    json = _values.payload(words[-1], "JSON")
    from flo.cli import _client
    from flo.wire import calls

    written = _client.open_client(ctx).call(
        calls.KV_JSET, calls.KvJset(_values.data_bytes(key), json, where, ttl_ms=ttl_ms, cas=cas)
    )
    _written(ctx, key, written.version)


@app.command()
def jdel(ctx: typer.Context, key: Key, path: Path = None, path_option: PathOption = None, cas: Cas = None) -> None:
    """Remove a part of a JSON document; $ deletes the key. Alias: json-del.

    \b
      flo kv jdel order:7 '$.items[0]'
    """
    where = _path(ctx, path, path_option)
    from flo.cli import _client
    from flo.wire import calls

    written = _client.open_client(ctx).call(calls.KV_JDEL, calls.KvJdel(_values.data_bytes(key), where, cas=cas))
    _written(ctx, key, written.version)


@app.command()
def begin(
    ctx: typer.Context,
    routing_key: Annotated[str, typer.Argument(metavar="RK", help="What the keys of the transaction belong to.")],
) -> None:
    """Begin a transaction and print its number, for --txn. It expires when nobody uses it for a minute.

    \b
      flo kv begin user:42                           prints T
      flo kv set user:42:name Jane --txn T
      flo kv incr user:42:visits --txn T
      flo kv commit T
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    begun = _client.open_client(ctx).call(calls.KV_BEGIN, calls.KvBegin(_values.data_bytes(routing_key)))
    _rows.done(ctx, {"txn_id": begun.txn_id, "pinned_hash": begun.pinned_hash}, str(begun.txn_id))


Transaction = Annotated[
    int, typer.Argument(min=1, max=TXN_MAX, metavar="T", help="The number that `flo kv begin` printed.")
]


@app.command()
def commit(ctx: typer.Context, txn: Transaction) -> None:
    """Apply all writes of a transaction, or none of them.

    \b
      flo kv commit T
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    done = _client.open_client(ctx).call(calls.KV_COMMIT, calls.KvTransaction(txn))
    text = f"Committed {done.op_count} operation{'' if done.op_count == 1 else 's'} (version {done.commit_index})"
    _rows.done(ctx, {"commit_index": done.commit_index, "op_count": done.op_count}, text)


@app.command()
def rollback(ctx: typer.Context, txn: Transaction) -> None:
    """Forget the writes of a transaction. One that is over already is no error.

    \b
      flo kv rollback T
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(calls.KV_ROLLBACK, calls.KvTransaction(txn))
    _rows.done(ctx, {"txn_id": txn}, "Rolled back")


def _path(ctx: typer.Context, argument: str | None, option: str | None) -> str:
    if argument is not None and option is not None:
        ctx.fail("give the path once")
    return argument or option or "$"


def _written(ctx: typer.Context, key: str, version: int) -> None:
    """A version of 0: the write waits in its transaction."""
    from flo.cli import _rows

    text = f"OK (version {version})" if version else "OK (with the commit)"
    _rows.done(ctx, {**_rows.named("key", _values.data_bytes(key)), "version": version}, text, version)
