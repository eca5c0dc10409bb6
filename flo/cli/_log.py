"""`flo log …`: the log on disk, looked at without owning it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flo.cli import _options
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from flo.log.inspect import DumpedEvent, Report

LINES_TOGETHER: Final = 256  # events that are written at once

app = _options.command_group(no_args_is_help=True)

Directory = Annotated[
    str | None,
    typer.Argument(metavar="DIR", help="A data directory; else FLO_DATA_DIR, else ~/.flo/data.", show_default=False),
]


@app.callback()
def log() -> None:
    """Check and print the log of a data directory.

    \b
      flo log verify ~/.flo/data
      flo log dump ~/.flo/data | less
    """


@app.command()
def verify(directory: Directory = None, format: _options.Format = None) -> None:
    """Check every checksum, the chain of the log, its snapshots and blobs. Changes nothing.

    Damage is named by file and offset. A torn tail (what a crash left half written) is none: the next start
    cuts it.

    \b
      flo log verify ~/.flo/data

    Exit code: 0 sound, 1 damaged.
    """
    from flo.cli import _out, _progress, _show
    from flo.client.attach import data_directory
    from flo.log.inspect import verify

    where = data_directory(directory)
    with _progress.reading("verifying") as disk:
        report = verify(where, disk=disk)
    if format == "json":
        _out.line(_show.as_json({**vars(report), "ok": report.ok}))
    else:
        _out.data(_report_text(report))
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.FAILED)


@app.command()
def dump(
    directory: Directory = None,
    from_index: Annotated[
        int, typer.Option("--from", min=0, metavar="INDEX", help="Begin with the event of this index.")
    ] = 0,
    format: _options.Format = None,
) -> None:
    """Print every event of the log, the oldest first; with --format json one object per line.

    \b
      flo log dump ~/.flo/data
      flo log dump ~/.flo/data --from 1000 --format json | jq -c 'select(.event == "RunStarted")'
    """
    from itertools import islice

    from flo.cli import _out
    from flo.client.attach import data_directory
    from flo.log.inspect import dump

    shown = _event_json if format == "json" else _event_text
    events = dump(data_directory(directory), decode=_decoder(), from_index=from_index)
    while some := list(islice(events, LINES_TOGETHER)):
        _out.data("".join(shown(event) + "\n" for event in some))


def _report_text(report: Report) -> str:
    lines = [str(problem) for problem in report.problems]
    lines += [f"note: {warning}" for warning in report.warnings]
    lines.append(f"{report.directory}: {'sound' if report.ok else f'{len(report.problems)} problems'}")
    lines.append(
        f"  log: {report.events:,} events in {report.frames:,} frames, index {report.first_index} to "
        f"{report.last_index}, epoch {report.epoch}, {report.segments} segments of {report.segment_bytes:,} bytes"
    )
    lines.append(f"  snapshots: {len(report.snapshots)}, blobs: {report.blobs}")
    return "\n".join(lines) + "\n"


def _decoder() -> Callable[[int, int, bytes], tuple[str, Any]]:
    """Gives each event's name and its fields; of a kind that this release does not know, its number and size."""
    import msgspec

    from flo.primitives.machines import Machines, UnknownEvent

    decode = Machines().decode

    def named(kind: int, version: int, payload: bytes) -> tuple[str, Any]:
        try:
            event = decode(kind, version, payload)
        except UnknownEvent:
            return f"kind-{kind}-version-{version}", {"bytes": len(payload)}
        fields = msgspec.to_builtins(msgspec.structs.asdict(event), builtin_types=(bytes,))
        return type(event).__name__, _plain(fields)

    return named


def _plain(value: Any) -> Any:
    """Bytes as text where they are text (keys, values), else as hexadecimal digits (digests)."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _event_text(event: DumpedEvent) -> str:
    import msgspec

    from flo.cli import _times

    name, fields = event.value
    return f"{event.index:>8}  {_times.local(event.time_ms)}  {name:<16} {msgspec.json.encode(fields).decode()}"


def _event_json(event: DumpedEvent) -> str:
    import msgspec

    name, fields = event.value
    head = {"index": event.index, "at": event.time_ms, "epoch": event.epoch, "event": name}
    return msgspec.json.encode({**head, "version": event.version, "fields": fields}).decode()
