"""`flo server …`: the server's life, and a look at it from outside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flo.api.errors import FloError
from flo.cli import _client_options, _options, _out
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from flo.log.inspect import Survey
    from flo.server.presence import Presence

CONFIG_FILE: Final = "flo.toml"
STOP_SECONDS: Final = 30.0
DAMAGED: Final = 3  # of `flo server inspect`
METRICS_ENDPOINT: Final = "127.0.0.1:9001"
HTTP_SECONDS: Final = 10.0
_PORT: Final = {"min": 1, "max": 65_535, "metavar": "N", "show_default": False}

app = _options.command_group(no_args_is_help=True)


@app.callback()
def server() -> None:
    """Run a server, stop it, and look at it.

    \b
      flo server start
      flo server status
      flo server stop
    """


@app.command()
def start(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", metavar="PATH", help="A flo.toml; else ./flo.toml if there is one."),
    ] = None,
    default_config: Annotated[
        bool, typer.Option("--default-config", help="Print a flo.toml with every setting explained, and exit.")
    ] = False,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port for clients; else 9000.", **_PORT)] = None,
    bind: Annotated[
        str | None, typer.Option("--bind", metavar="ADDRESS", help="Address for clients; else 127.0.0.1.")
    ] = None,
    data_dir: _options.DataDir = None,
    durability: Annotated[
        str | None,
        typer.Option(
            "--durability",
            metavar="MODE",
            help="When a write is acknowledged: sync (stable storage, the default), async_flush or ephemeral.",
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option("--shards", "--shard-count", "-s", min=0, max=256, metavar="N", help="0: as the directory is."),
    ] = None,
    partitions: Annotated[
        int | None, typer.Option("--partitions", min=0, max=16_384, metavar="N", help="0: as the directory is.")
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", "-t", min=0, max=256, metavar="N", help="For reads from the disk; 0: by the machine."
        ),
    ] = 0,
    log_level: Annotated[
        str | None, typer.Option("--log-level", "-l", metavar="LEVEL", help="debug, info, warn or error.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", metavar="text|json", help="Lines for people, or JSON objects.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Port for metrics; else the client port + 1.", **_PORT)
    ] = None,
    no_metrics: Annotated[bool, typer.Option("--no-metrics", help="No port for metrics.")] = False,
    dashboard_port: Annotated[
        int | None,
        typer.Option("--dashboard-port", help="Port for /health and the dashboard; else the client port + 2.", **_PORT),
    ] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="No port for them.")] = False,
) -> None:
    """Run a server until it is told to stop (SIGTERM, Ctrl-C).

    It keeps keys, queues, streams and runs in its data directory, and serves clients on one port. One line on stdout
    says when it is ready, with all addresses; the log goes to stderr. `flo run` with the same data directory uses it.
    Runs that were going on when it was stopped, or died, go on.

    \b
      flo server start
      flo server start --port 9100 --data-dir /var/lib/flo --log-format json
      flo server start --default-config > flo.toml

    Exit code: 0 stopped as told, 1 it could not start, or its log was lost.
    """
    from flo.server.config import BadConfiguration, default_file, load

    if default_config:
        _out.data(default_file())
        return
    flags = {
        "server.port": port,
        "server.bind": bind,
        "server.data_dir": data_dir,
        "server.shards": shards,
        "server.partition_count": partitions,
        "storage.durability": durability,
        "logging.level": log_level,
        "logging.format": log_format,
        "metrics.port": metrics_port,
        "metrics.enabled": False if no_metrics else None,
        "dashboard.port": dashboard_port,
        "dashboard.enabled": False if no_dashboard else None,
    }
    if config is None and os.path.exists(CONFIG_FILE):
        config = CONFIG_FILE
    try:
        configuration = load(flags, os.environ, config)
        from flo.client.owner import open_node
        from flo.server.serve import serve

        code = serve(configuration, open_node, threads=threads)
    except BadConfiguration as error:
        if error.flag:
            raise typer.BadParameter(str(error), ctx) from None
        raise typer.Exit(_cannot_start(error)) from None
    except FloError as error:
        raise typer.Exit(_cannot_start(error)) from None
    raise typer.Exit(code)


def _cannot_start(error: FloError) -> ExitCode:
    """One line, whatever the error; whether trying again helps is not the question here."""
    _out.note(f"Error: {error} [{error.code}]".replace("\n", " "))
    return ExitCode.FAILED


@app.command()
def stop(
    data_dir: _options.DataDir = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Kill it: as a crash, nothing is lost.")] = False,
) -> None:
    """Stop the server of a data directory, and wait until it has ended.

    \b
      flo server stop
      flo server stop --data-dir /var/lib/flo

    Exit code: 0 stopped, 1 none was running, 4 it has not ended within 30 seconds.
    """
    import signal

    from flo.api.clock import SystemClock
    from flo.client.attach import data_directory
    from flo.server import presence

    directory = data_directory(data_dir)
    pid = presence.running(directory)
    if not pid:
        _out.note(f"no server is running on {directory}")
        raise typer.Exit(ExitCode.FAILED)
    _kill(pid, signal.SIGKILL if force else signal.SIGTERM)
    if not _gone(pid, SystemClock().monotonic_ms() + int(STOP_SECONDS * 1000)):
        _out.note(f"the server (pid {pid}) has not ended within {STOP_SECONDS:g} seconds; -f kills it")
        raise typer.Exit(ExitCode.RETRYABLE)
    _out.data(f"stopped (pid {pid})\n")


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended meanwhile
    except PermissionError:
        _out.note(f"error[not_permitted]: the server (pid {pid}) belongs to another user")
        raise typer.Exit(ExitCode.REFUSED) from None


def _gone(pid: int, until_ms: int) -> bool:
    """Waits for the end of a process that is not a child of this one."""
    import threading

    from flo.api.clock import SystemClock
    from flo.server import presence

    clock, pause = SystemClock(), threading.Event()
    while clock.monotonic_ms() < until_ms:
        if not presence.is_alive(pid):
            return True
        pause.wait(0.02)
    return False


@app.command(cls=_client_options.ClientCommand)
def status(ctx: typer.Context, data_dir: _options.DataDir = None, format: _options.Format = None) -> None:
    """Say whether a server runs on a data directory: version, uptime, addresses, shards, role.

    With --endpoint or --port it asks whoever answers there, and learns less.

    \b
      flo server status
      flo server status --format json | jq -r .client
      flo server status --endpoint db-1:9000

    Exit code: 0 running, 1 not.
    """
    from flo.client.attach import data_directory
    from flo.server import presence

    if data_dir is None and _client_options.settings(ctx).endpoint_from in ("--endpoint", "--port"):
        raise typer.Exit(_status_at_endpoint(ctx, format))
    directory = data_directory(data_dir)
    pid = presence.running(directory)
    found = presence.ready(directory) if pid else None
    state = _state(found) if found is not None else "starting" if pid else "not running"
    if format == "json":
        _out.line(_status_json(directory, pid, state, found))
    elif found is None:
        _out.data(f"{state}: {directory}" + (f" (pid {pid})" if pid else "") + "\n")
    else:
        _out.data(_status_text(directory, state, found))
    raise typer.Exit(ExitCode.OK if pid else ExitCode.FAILED)


def _status_at_endpoint(ctx: typer.Context, format: str | None) -> ExitCode:
    import msgspec

    from flo.cli import _client, _show
    from flo.client.sdk_errors import FloConnectionError
    from flo.wire import calls

    client = _client.open_client(ctx)
    try:
        found = client.call(calls.SERVER_STATUS, calls.NoArguments())
    except FloConnectionError as error:
        _out.note(f"not running: {error.message}")
        return ExitCode.FAILED
    shown = {"status": "running", "client": str(client.endpoint), "role": "leader", **msgspec.structs.asdict(found)}
    if format == "json":
        _out.line(_show.as_json(shown))
    else:
        _out.data(f"running\n  version    {found.version}\n  clients    {client.endpoint}\n  role       leader\n")
    return ExitCode.OK


def _state(found: Presence) -> str:
    """What the server itself says, where it has a port for that."""
    import json

    from flo.client.sdk_errors import ConnectionFailedError

    if not found.health:
        return "running"
    try:
        _, body = _get(found.health, "/health")
        status = str(json.loads(body)["status"])
    except (ConnectionFailedError, ValueError, KeyError, TypeError):
        return "not answering"
    return "running" if status == "ok" else status


def _uptime_ms(found: Presence) -> int:
    from flo.api.clock import SystemClock

    return max(0, SystemClock().wall_ms() - found.started_at_ms)


def _status_json(directory: str, pid: int, state: str, found: Presence | None) -> bytes:
    from dataclasses import asdict

    from flo.cli import _show

    shown: dict[str, Any] = {"status": state, "data_dir": directory, "pid": pid or None}
    if found is not None:
        shown |= asdict(found) | {"role": "leader", "uptime_ms": _uptime_ms(found)}
    return _show.as_json(shown)


def _status_text(directory: str, state: str, found: Presence) -> str:
    rows = [
        ("version", found.version),
        ("pid", str(found.pid)),
        ("uptime", _duration(_uptime_ms(found) // 1000)),
        ("clients", found.client),
        ("metrics", f"http://{found.metrics}/metrics" if found.metrics else "off"),
        ("health", f"http://{found.health}/health" if found.health else "off"),
        ("data", directory),
        ("durability", found.durability),
        ("shards", f"{found.shards} (partitions {found.partitions})"),
        ("role", "leader"),
    ]
    return f"{state}\n" + "".join(f"  {name:<11}{value}\n" for name, value in rows)


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    return f"{days}d {hours}h {rest // 60}m {rest % 60}s"


@app.command()
def metrics(
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            "-e",
            metavar="HOST:PORT",
            help=f"The server's port for metrics; else that of the data directory's server, else {METRICS_ENDPOINT}.",
        ),
    ] = None,
    filter: Annotated[
        str | None, typer.Option("--filter", "-f", metavar="TEXT", help="Only families whose name holds this text.")
    ] = None,
    data_dir: _options.DataDir = None,
) -> None:
    """Print a server's metrics, in the text format of Prometheus.

    \b
      flo server metrics --filter queue
      flo server metrics --endpoint 10.0.0.7:9001

    Exit code: 0 printed, 1 nothing has that name, 5 no server answers.
    """
    from flo.client.attach import data_directory
    from flo.client.sdk_errors import ConnectionFailedError
    from flo.server import presence

    if endpoint is None:
        found = presence.ready(data_directory(data_dir))
        endpoint = found.metrics if found is not None and found.metrics else METRICS_ENDPOINT
    elif ":" not in endpoint:
        endpoint = f"{endpoint}:9001"
    status, text = _get(endpoint, "/metrics")
    if status != 200:
        raise ConnectionFailedError(f"{endpoint} answers {status}: {text.strip()[:200]}")
    lines = [line for line in text.splitlines(keepends=True) if filter is None or filter in _family(line)]
    _out.data("".join(lines))
    raise typer.Exit(ExitCode.OK if lines else ExitCode.FAILED)


def _family(line: str) -> str:
    words = line.split(" ", 3)
    return words[2] if line.startswith("#") and len(words) > 2 else words[0].partition("{")[0]


def _get(address: str, path: str) -> tuple[int, str]:
    """Status and text. Raises ConnectionFailedError."""
    from http.client import HTTPConnection, HTTPException

    from flo.client.sdk_errors import ConnectionFailedError

    connection = HTTPConnection(address, timeout=HTTP_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, HTTPException, ValueError) as error:
        raise ConnectionFailedError(f"{address} does not answer: {error}", hint="is the server running?") from None
    finally:
        connection.close()


@app.command()
def inspect(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="A data directory; else FLO_DATA_DIR, else ~/.flo/data.", show_default=False
        ),
    ] = None,
    format: _options.Format = None,
) -> None:
    """Look at a data directory without changing it: topology, log, snapshots, and whether all is sound.

    It may be in use meanwhile.

    \b
      flo server inspect /var/lib/flo
      flo server inspect --format json | jq .shards

    Exit code: 0 sound, 1 there is no log, 3 damaged.
    """
    from flo.cli import _progress, _show
    from flo.client.attach import data_directory
    from flo.log.inspect import survey

    with _progress.reading("reading") as disk:
        found = survey(data_directory(directory), disk=disk)
    _out.line(_show.as_json(_survey_object(found))) if format == "json" else _out.data(_survey_text(found))
    raise typer.Exit(ExitCode.OK if found.damage is None else DAMAGED)


def _survey_object(found: Survey) -> dict[str, Any]:
    damage = found.damage
    return {
        "directory": found.directory,
        "topology": found.system._asdict(),
        "pid": found.owner.pid if found.owner is not None else None,
        "ok": damage is None,
        "damage": None if damage is None else damage._asdict(),
        "shards": [{**vars(shard), "ok": shard.ok} for shard in found.shards],
    }


def _survey_text(found: Survey) -> str:
    system = found.system
    lines = [
        f"{found.directory}: shards {system.shards}, partitions {system.partitions}, log {system.log_id or 'none'}"
    ]
    for number, shard in enumerate(found.shards):
        lines.append(
            f"shard {number:05d}: index {shard.first_index} to {shard.last_index}, {shard.events:,} events, "
            f"{shard.segments} segments of {shard.segment_bytes:,} bytes"
        )
        lines += [
            f"  snapshot at {each.index}: {each.size:,} bytes" if each.ok else f"  snapshot {each.file}: damaged"
            for each in shard.snapshots
        ]
        if shard.kept_files:
            lines.append(
                f"  kept: {shard.kept_events:,} events of earlier segments that streams still hold, "
                f"in {shard.kept_files} files of {shard.kept_bytes:,} bytes"
            )
        lines += [f"  note: {warning}" for warning in shard.warnings]
        lines += [f"  damaged: {problem}" for problem in shard.problems]
    lines.append("sound" if found.damage is None else "damaged")
    return "\n".join(lines) + "\n"


@app.command()
def secret() -> None:
    """Print a new secret for the nodes of a cluster.

    \b
      flo server secret > secret && chmod 600 secret
    """
    import secrets

    _out.data(f"flo-secret-{secrets.token_hex(32)}\n")
