"""Which runs were being evaluated when the process died.

A script can kill its process (design.md §6.1): its run would then be taken up again and kill the next one, for
ever. A mapped file names the runs that are being evaluated; the system keeps what was written to it when the
process dies, so nothing has to be synced. The next process counts the runs that it finds there.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import msgspec

from flo.api.errors import FloError

SLOTS = 256
_SLOT_BYTES = 192  # a length and a run's id; ids of detached runs are longer than 128 letters, those are cut
_BYTES = SLOTS * _SLOT_BYTES
_NOTHING = b"\0\0"


class CrashGuard:
    """Names runs in the file at `path`; how often each was found there after a crash is kept beside it (`.counts`).

    One process at a time may use a path: whoever owns the data directory.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._counts_path = self._path.with_name(self._path.name + ".counts")
        self._counts = self._read_counts()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _BYTES)
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        found = self._found()
        if found:
            for run in found:
                self._counts[run] = self._counts.get(run, 0) + 1
            self._write_counts()
            self._map[:] = bytes(_BYTES)

    def crashed(self) -> dict[str, int]:
        """By run, how many processes have died while they evaluated it and none has got through it since."""
        return dict(self._counts)

    def begin(self, slot: int, run: str) -> None:
        """The thread with this number, from 0 to SLOTS - 1, evaluates the run from now on."""
        data = run.encode()[: _SLOT_BYTES - 2]
        start = slot * _SLOT_BYTES
        self._map[start + 2 : start + 2 + len(data)] = data
        self._map[start : start + 2] = len(data).to_bytes(2, "little")  # last: a slot with a length is whole

    def end(self, slot: int) -> None:
        """The thread evaluates nothing any more, or waits."""
        start = slot * _SLOT_BYTES
        self._map[start : start + 2] = _NOTHING

    def forget(self, run: str) -> None:
        """The run has got through: its crashes count no more."""
        if self._counts.pop(run, None) is not None:
            self._write_counts()

    def close(self) -> None:
        """Call it when nothing is evaluated any more."""
        self._map.close()

    def _found(self) -> set[str]:
        found = set()
        for start in range(0, _BYTES, _SLOT_BYTES):
            length = int.from_bytes(self._map[start : start + 2], "little")
            if 0 < length <= _SLOT_BYTES - 2:
                found.add(self._map[start + 2 : start + 2 + length].decode(errors="replace"))
        return found

    def _read_counts(self) -> dict[str, int]:
        try:
            data = self._counts_path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            return msgspec.json.decode(data, type=dict[str, int])
        except msgspec.DecodeError as error:
            raise FloError(f"{self._counts_path} is damaged: {error}", hint="remove the file") from None

    def _write_counts(self) -> None:
        fresh = self._counts_path.with_name(self._counts_path.name + ".new")
        fresh.write_bytes(msgspec.json.encode(self._counts))
        os.replace(fresh, self._counts_path)
