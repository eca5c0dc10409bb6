"""`flo status`."""

from __future__ import annotations

import typer

from flo.cli import _client_options, _options

app = _options.command_group()


@app.command(cls=_client_options.ClientCommand)
def status(ctx: typer.Context) -> None:
    """Show the server that the commands talk to.

    \b
      flo status
      flo status --endpoint db-1:9000 --json

    Exit code: 0 it answers, 5 it does not.
    """
    import msgspec

    from flo.cli import _client, _rows, _times
    from flo.wire import calls

    client = _client.open_client(ctx)
    found = client.call(calls.SERVER_STATUS, calls.NoArguments())
    pairs = [
        ("Endpoint", client.endpoint),
        ("Version", found.version),
        ("Time", _times.local(found.time_ms)),
        ("Namespaces", found.namespaces),
        ("Log", f"{found.last_index} written, {found.durable_index} durable"),
    ]
    _rows.done(ctx, {"endpoint": str(client.endpoint), **msgspec.structs.asdict(found)}, _rows.fields(pairs))
