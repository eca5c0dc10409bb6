"""`flo namespace …`: whose keys, queues and streams are kept apart."""

from __future__ import annotations

from typing import Annotated

import typer

from flo.cli import _client_options

app = _client_options.client_group({"ls": "list", "rm": "delete", "remove": "delete"})

Name = Annotated[str, typer.Argument(metavar="NAME", help="The namespace.")]


@app.callback()
def namespace() -> None:
    """Keep the keys, queues and streams of several users apart. Alias: ns.

    \b
      flo namespace list
      flo namespace delete staging --force
      flo --namespace staging kv get greeting
    """


@app.command()
def create(ctx: typer.Context, name: Name) -> None:
    """Create a namespace; the first write into it does so too.

    \b
      flo namespace create staging
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    done = _client.open_client(ctx).call(calls.NAMESPACE_CREATE, calls.NamespaceName(name))
    text = "Created" if done.created else "It is there already"
    _rows.done(ctx, {"name": name, "created": done.created}, text)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also one that is not empty, with all it holds.")
    ] = False,
) -> None:
    """Delete a namespace. Aliases: rm, remove.

    \b
      flo namespace delete staging --force
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    _client.open_client(ctx).call(calls.NAMESPACE_DELETE, calls.NamespaceDelete(name, force))
    _rows.done(ctx, {"name": name}, "Deleted")


@app.command("list")
def list_(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", "-a", help="Also those of the system.")] = False,
) -> None:
    """List namespaces. Alias: ls.

    \b
      flo namespace list
    """
    from flo.cli import _client, _rows
    from flo.wire import calls

    names = _client.open_client(ctx).call(calls.NAMESPACE_LIST, calls.NoArguments()).namespaces
    shown = [name for name in names if every or not name.startswith("_")]
    _rows.items(
        ctx, shown, [_rows.Column("NAMESPACE", str)], value=shown, none="no namespaces", bare=str.encode
    )  # fmt: skip


@app.command()
def info(ctx: typer.Context, name: Name) -> None:
    """Show how much is in a namespace.

    \b
      flo namespace info staging
    """
    import msgspec

    from flo.cli import _client, _rows
    from flo.wire import calls

    found = _client.open_client(ctx).call(calls.NAMESPACE_INFO, calls.NamespaceName(name))
    pairs = [("Namespace", found.name), ("Keys", found.keys), ("Queues", found.queues), ("Streams", found.streams)]
    _rows.done(ctx, msgspec.structs.asdict(found), _rows.fields(pairs))
