"""`flo config …`: which server the commands talk to when nothing else says so."""

from __future__ import annotations

from typing import Annotated

import typer

from flo.cli import _client_options, _contexts

app = _client_options.client_group(asks_a_server=False)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The context.")]


@app.callback()
def config() -> None:
    """Name servers, and choose the one that the commands talk to.

    \b
      flo config set-context prod --endpoint db-1:9000 --namespace shop
      flo config use-context prod
    """


@app.command()
def init(ctx: typer.Context) -> None:
    """Create the file if it is not there, and print its path.

    \b
      flo config init
    """
    from flo.cli import _rows

    if not _contexts.path().exists():
        _contexts.write(_contexts.Contexts())
    _rows.done(ctx, {"path": str(_contexts.path())}, str(_contexts.path()))


@app.command()
def show(ctx: typer.Context) -> None:
    """Show the contexts; the one in use has a star.

    \b
      flo config show --json
    """
    import msgspec

    from flo.cli import _rows

    stored = _contexts.read()
    contexts = [(name, stored.contexts[name]) for name in sorted(stored.contexts)]
    columns = [
        _rows.Column("", lambda each: "*" if each[0] == stored.current_context else ""),
        _rows.Column("CONTEXT", lambda each: each[0]),
        _rows.Column("ENDPOINT", lambda each: each[1].endpoint or "-"),
        _rows.Column("NAMESPACE", lambda each: each[1].namespace or "-"),
    ]
    shown = msgspec.to_builtins(stored)
    _rows.items(ctx, contexts, columns, value=shown, none="no contexts", bare=lambda each: each[0].encode())


@app.command("set-context")
def set_context(
    ctx: typer.Context,
    name: Name,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", "-e", "--host", metavar="HOST[:PORT]", help="Where its server is.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NS", help='Its namespace; "" for the default one.')
    ] = None,
) -> None:
    """Create or change a context; what is not given stays. The first one is in use at once.

    \b
      flo config set-context prod --endpoint db-1:9000 --namespace shop
    """
    from flo.cli import _rows

    stored = _contexts.read()
    context = stored.contexts.setdefault(name, _contexts.Context())
    if endpoint is not None:
        context.endpoint = _client_options.endpoint_text("--endpoint", endpoint)
    if namespace is not None:
        context.namespace = namespace
    stored.current_context = stored.current_context or name
    _contexts.write(stored)
    _rows.done(ctx, {"context": name, "current": stored.current_context == name}, "OK")


@app.command("use-context")
def use_context(ctx: typer.Context, name: Name) -> None:
    """Choose the context that the commands use.

    \b
      flo config use-context prod

    Exit code: 0, or 1 when there is no such context.
    """
    from flo.api.errors import NotFound
    from flo.cli import _rows

    stored = _contexts.read()
    if name not in stored.contexts:
        raise NotFound(f"there is no context {name!r}", hint="flo config show lists them")
    stored.current_context = name
    _contexts.write(stored)
    _rows.done(ctx, {"context": name}, f"Using {name}")
