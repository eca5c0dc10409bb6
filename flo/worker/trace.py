"""Tracebacks of flows: read from the interpreter's error text, joined, and shown.

The text names its frames outermost first as `* FILE:LINE, in NAME`, then `error: MESSAGE`, perhaps of several
lines, then `--> FILE:LINE:COL` with an excerpt (design.md §6.1). A frame's line is that of the call it
made; only the last place has a column. A direct call of a flow is an evaluation inside an evaluation, whose
error the host catches and joins to the outer one. Frames of the prelude and of the host are left out: a
person can change neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from flo.worker.hints import message_hint
from flo.worker.problems import excerpt

FRAMES_SHOWN = 24  # of a longer traceback the middle is left out
_FRAMES_AT_TOP = 8
SOURCE_COLUMNS = 200  # of a frame's source line without its text at hand
MODULE = "<module>"

_FRAME = re.compile(r"  \* (?P<file>.+):(?P<line>\d+), in (?P<name>.*)\Z")
_PLACE = re.compile(r"^ *--> (?P<file>.+):(?P<line>\d+):(?P<col>\d+)$(?P<excerpt>(?:\n.*)*?)\Z", re.MULTILINE)
_PLACE_START = re.compile(r"^ *--> .+:\d+:\d+\n +\|$", re.MULTILINE)
_CARETS = re.compile(r"^ +\| +(\^+)$", re.MULTILINE)
_DEF = re.compile(r"(?P<indent> *)def +(?P<name>[A-Za-z_]\w*)")


class Frame(msgspec.Struct, frozen=True):
    """One call, or the place of the error. Lines and columns count from 1; column 0 means unknown."""

    file: str  # label
    line: int
    col: int
    name: str  # function, <module>, or ? when its source is not at hand
    source: str  # the line, without its indentation
    width: int = 0  # columns from `col` that the error concerns; 0 where only the line is known

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}:{self.col}" if self.col else f"{self.file}:{self.line}"


class Trace(msgspec.Struct, frozen=True):
    """What went wrong in an evaluation, and by which calls; outermost frame first."""

    message: str
    frames: tuple[Frame, ...] = ()
    fail: bool = False  # the script called fail(message)
    hint: str = ""

    @property
    def where(self) -> str:
        """FILE:LINE:COL of the innermost frame of a script; "" when no script was involved."""
        return self.frames[-1].where if self.frames else ""


def parse_trace(error: BaseException | str, sources: Mapping[str, str] | None = None) -> Trace:
    """Reads a StarlarkError, or its text. `sources` (label → text, `Bundle.files`) completes names and columns."""
    text = str(error)
    sources = sources or {}
    frames, rest = _frames(text, sources)
    start = None
    for match in _PLACE_START.finditer(rest):
        start = match.start()  # the last one: a message may quote anything
    place = _PLACE.match(rest, start) if start is not None else None
    message = rest[:start] if place else rest
    message = message.removeprefix("error: ").removeprefix("error:").removesuffix("\n")
    fail = message.startswith("fail:")
    if fail:
        message = message.removeprefix("fail:").removeprefix(" ")
    if place is not None and not _is_ours(place["file"]):
        _add_place(frames, place, sources)
    kept = tuple(frame for frame in frames if not _is_ours(frame.file))
    file = kept[-1].file if kept else ""
    return Trace(message, kept, fail, "" if fail else message_hint(message, sources.get(file)))


def with_message(trace: Trace, message: str, *, hint: str = "") -> Trace:
    """The same calls for an error that the worker knows more about than the interpreter."""
    return Trace(message, trace.frames, trace.fail, hint)


def render(trace: Trace, sources: Mapping[str, str] | None = None, *, kind: str = "failed") -> str:
    """The traceback as a person reads it, with source lines; `sources` is `Bundle.files`."""
    sources = sources or {}
    lines = ["Traceback (most recent call last):"] if trace.frames else []
    for frame, times in _shortened(trace.frames):
        if frame is None:
            lines.append(f"  … {times:,} more calls …")
            continue
        lines.append(f"  {frame.where}, in {frame.name}")
        lines.extend(_excerpt(frame, sources, last=frame is trace.frames[-1]))
        if times > 1:
            lines.append(f"    [repeated {times - 1:,} more times]")
    lines.append(f"{kind}: {trace.message}" if trace.message else kind)
    if trace.hint:
        lines.append(f"hint: {trace.hint}")
    return "\n".join(lines)


def _frames(text: str, sources: Mapping[str, str]) -> tuple[list[Frame], str]:
    """The frames at the beginning of an error text, and the text from `error:` on."""
    if not text.startswith("Traceback (most recent call last):\n"):
        return [], text
    frames: list[Frame] = []
    lines = {file: source.split("\n") for file, source in sources.items()}
    offset = text.index("\n") + 1
    while offset < len(text) and not text.startswith("error:", offset):
        end = text.find("\n", offset)
        end = len(text) if end < 0 else end
        line = text[offset:end]
        found = _FRAME.match(line)
        if found:
            file, number = found["file"], int(found["line"])
            source = lines[file][number - 1] if 0 < number <= len(lines.get(file, ())) else ""
            col = len(source) - len(source.lstrip()) + 1 if source else 0
            frames.append(Frame(file, number, col, found["name"], source.strip()))
        elif frames and not frames[-1].source and line.startswith("      "):
            frames[-1] = msgspec.structs.replace(frames[-1], source=line.strip()[:SOURCE_COLUMNS])
        offset = end + 1
    return frames, text[offset:]


def _add_place(frames: list[Frame], place: re.Match[str], sources: Mapping[str, str]) -> None:
    """Adds the place of the error, or gives the last call its column if that is where it happened."""
    file, line, col = place["file"], int(place["line"]), int(place["col"])
    carets = _CARETS.search(place["excerpt"])
    width = len(carets[1]) if carets else 1
    if frames and (frames[-1].file, frames[-1].line) == (file, line):
        # A call into the interpreter itself, such as fail(…), has the place of its caller.
        frames[-1] = msgspec.structs.replace(frames[-1], col=col, width=width)
        return
    text = sources.get(file, "")
    source = _line(text, line).strip()
    if not source:
        shown = re.search(rf"^ *{line} \|(.*)$", place["excerpt"], re.MULTILINE)
        source = shown[1].strip()[:SOURCE_COLUMNS] if shown else ""
    frames.append(Frame(file, line, col, _function_at(text, line), source, width))


def _is_ours(file: str) -> bool:
    """Whether a frame is the prelude's or the host's: their labels are `flo/…`, a script's end in .flow."""
    return file.startswith("flo/") and not file.endswith(".flow")


def _function_at(text: str, line: int) -> str:
    """The name of the function whose body holds this line; the interpreter tells those of callers only."""
    lines = text.split("\n", line)[:line]
    if not text or len(lines) < line:
        return "?"
    indentation = len(lines[-1]) - len(lines[-1].lstrip(" "))
    own = _DEF.match(lines[-1])
    if own:
        return own["name"]
    for above in reversed(lines[:-1]):
        if not above.strip() or above.lstrip().startswith("#"):
            continue
        here = len(above) - len(above.lstrip(" "))
        if here < indentation:
            found = _DEF.match(above)
            if found:
                return found["name"]
            indentation = here
        if indentation == 0:
            break
    return MODULE


def _line(text: str, line: int) -> str:
    lines = text.split("\n", line)
    return lines[line - 1].rstrip() if 0 < line <= len(lines) else ""


def _excerpt(frame: Frame, sources: Mapping[str, str], *, last: bool) -> list[str]:
    if last and frame.width and frame.file in sources:
        return excerpt(sources[frame.file], frame.line, frame.col, width=frame.width).splitlines()
    return [f"    {frame.source[:SOURCE_COLUMNS]}"] if frame.source else []


def _shortened(frames: tuple[Frame, ...]) -> list[tuple[Frame | None, int]]:
    """Frames with how often each stands in a row; None with a count for those left out in the middle."""
    rows: list[tuple[Frame, int]] = []
    for frame in frames:
        if rows and rows[-1][0] == frame:
            rows[-1] = (frame, rows[-1][1] + 1)
        else:
            rows.append((frame, 1))
    if len(rows) <= FRAMES_SHOWN:
        return list(rows)
    below = FRAMES_SHOWN - _FRAMES_AT_TOP
    hidden = sum(times for _, times in rows[_FRAMES_AT_TOP:-below])
    return [*rows[:_FRAMES_AT_TOP], (None, hidden), *rows[-below:]]
