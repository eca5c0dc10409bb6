"""Which strands were being evaluated when the process died.

A script can kill its process (design.md §6.1): its run would then be taken up again and kill the next one, for
ever. A mapped file names the strands that are being evaluated; the system keeps what was written to it when the
process dies, so nothing has to be synced. The next process counts the strands that it finds there.

Strands and not runs are counted: one that waits has got through, and a run's others wait for the one that kills.
"""

from __future__ import annotations

import mmap
import os
from hashlib import sha256
from pathlib import Path

import msgspec

from flo.api.errors import FloError, Unavailable
from flo.api.limits import CRASHES_BEFORE_PAUSE
from flo.api.worker import Lease

SLOTS = 256
_SLOT_BYTES = 192  # a length and a name
_NAME_BYTES = _SLOT_BYTES - 2
_BYTES = SLOTS * _SLOT_BYTES
_NOTHING = b"\0\0"


def strand_name(lease: Lease) -> str:
    """What a strand is called here. Ids of detached runs have no bound: a long name ends in its hash."""
    name = f"{lease.run} {lease.task}"
    data = name.encode()
    if len(data) <= _NAME_BYTES:
        return name
    return data[: _NAME_BYTES - 64].decode(errors="ignore") + sha256(data).hexdigest()


class CrashGuard:
    """Names strands in the file at `path`; how often each was found there after a crash is kept beside it
    (`.counts`). Names have at most 190 bytes (`strand_name`).

    One process at a time may use a path: whoever owns the data directory.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._counts_path = self._path.with_name(self._path.name + ".counts")
        self._counts = self._read_counts()
        self._map = self._mapped()
        found = self._found()
        if found:
            for name in found:
                self._counts[name] = self._counts.get(name, 0) + 1
            self._write_counts()
            self._map[:] = bytes(_BYTES)

    @property
    def counted(self) -> bool:
        """Whether any strand has a crash to its name."""
        return bool(self._counts)

    def crashes(self, name: str) -> int:
        """How many processes have died while they evaluated the strand and none has got through it since."""
        return self._counts.get(name, 0)

    def begin(self, slot: int, name: str) -> None:
        """The thread with this number, from 0 to SLOTS - 1, evaluates the strand from now on."""
        data = name.encode()
        start = slot * _SLOT_BYTES
        self._map[start + 2 : start + 2 + len(data)] = data
        self._map[start : start + 2] = len(data).to_bytes(2, "little")  # last: a slot with a length is whole

    def end(self, slot: int) -> None:
        """The thread evaluates nothing any more, or waits."""
        start = slot * _SLOT_BYTES
        self._map[start : start + 2] = _NOTHING

    def forget(self, name: str) -> None:
        """The strand has got through: its crashes count no more."""
        if self._counts.pop(name, None) is not None:
            self._write_counts()

    def leave_one_try(self, name: str) -> None:
        """The strand is put aside. Who asks for it nevertheless gets it evaluated, until its next crash."""
        self._counts[name] = CRASHES_BEFORE_PAUSE - 1
        self._write_counts()

    def close(self) -> None:
        """A planned end: what is still evaluated then, or later, is no crash."""
        file, self._map = self._map, mmap.mmap(-1, _BYTES)
        file[:] = bytes(_BYTES)

    def _mapped(self) -> mmap.mmap:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _BYTES)  # a hole that a full disk cannot fill kills who writes there
                return mmap.mmap(descriptor, _BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be made: {error.strerror or error}") from error

    def _found(self) -> set[str]:
        found = set()
        for start in range(0, _BYTES, _SLOT_BYTES):
            length = int.from_bytes(self._map[start : start + 2], "little")
            if 0 < length <= _NAME_BYTES:
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
