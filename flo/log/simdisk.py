"""A simulated disk: what was not synced is lost at a power loss, as a whole, in part, or torn.

    disk = SimDisk()
    disk.crash_after(17)             # the 17th change from now raises PowerLoss, as does every call after it
    ...
    disk.restart(seed=3)             # what survives is drawn from the seed; the disk works again
    disk.fail_sync(2)                # the second sync from now fails, and its data is lost though it can be read
    disk.capacity = 1_000_000        # bytes; more is ENOSPC

Reads see every write at once, like a page cache. A file's content becomes durable by `sync_data`, the names in a
folder by `sync_directory`; names that were not synced survive one by one or not at all.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

SECTOR_BYTES: Final = 512  # written whole or not at all


class PowerLoss(BaseException):
    """The simulated machine is gone; nothing may catch this on the way out."""


class _File:
    def __init__(self) -> None:
        self.content = bytearray()  # the page cache
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []  # (offset, data), or (size, None) for a new size

    def sync(self) -> None:
        for change in self.pending:
            _change(self.durable, *change)
        self.pending.clear()

    def lose_power(self, survives: Callable[[], bool]) -> None:
        for place, data in self.pending:
            if data is None:
                if survives():
                    _change(self.durable, place, None)
                continue
            at = 0
            while at < len(data):
                size = min(SECTOR_BYTES - (place + at) % SECTOR_BYTES, len(data) - at)
                if survives():
                    _change(self.durable, place + at, data[at : at + size])
                at += size
        self.pending.clear()
        self.content = bytearray(self.durable)


class _Folder:
    def __init__(self) -> None:
        self.entries: dict[str, _Node] = {}
        self.durable: dict[str, _Node] = {}
        self.pending: list[list[tuple[str, _Node | None]]] = []  # each an atomic change of names

    def change(self, *names: tuple[str, _Node | None]) -> None:
        self.pending.append(list(names))
        _rename(self.entries, names)

    def sync(self) -> None:
        for names in self.pending:
            _rename(self.durable, names)
        self.pending.clear()

    def lose_power(self, survives: Callable[[], bool]) -> None:
        for names in self.pending:
            if survives():
                _rename(self.durable, names)
        self.pending.clear()
        self.entries = dict(self.durable)
        for name in sorted(self.entries):
            self.entries[name].lose_power(survives)


_Node: TypeAlias = _File | _Folder


class SimDisk:
    """A Disk in memory. Paths are absolute; the root exists."""

    def __init__(self) -> None:
        self.capacity: int | None = None
        self.changes = 0  # how many operations have changed something so far
        self._root = _Folder()
        self._handles: dict[int, _File] = {}
        self._next_handle = 1
        self._locks: dict[int, _File] = {}  # by handle
        self._crash_at: int | None = None
        self._fail_sync_in = 0
        self._dead = False

    # ------------------------------------------------------------------ faults

    def crash_after(self, changes: int) -> None:
        """The power goes in the middle of this change, counted from now."""
        self._crash_at = self.changes + changes

    def fail_sync(self, nth: int = 1) -> None:
        """The nth `sync_data` from now fails: what it should have made durable is dropped, but can still be read."""
        self._fail_sync_in = nth

    def restart(self, *, seed: int | None = None, keep: bool = False) -> None:
        """The machine comes back. `keep`: only the process had died, and the page cache is whole. Otherwise all
        that was not synced is gone without a seed, and some of it with one."""
        if not keep:
            chance = random.Random(seed)
            self._root.lose_power((lambda: chance.random() < 0.5) if seed is not None else lambda: False)
        self._handles.clear()
        self._locks.clear()
        self._crash_at = None
        self._fail_sync_in = 0
        self._dead = False

    def flip(self, path: str, offset: int, mask: int = 1) -> None:
        """Damages one byte, on the disk and in the cache."""
        file = self._file(path)
        file.sync()
        file.content[offset] ^= mask
        file.durable[offset] ^= mask

    # ------------------------------------------------------------------ Disk

    def open(self, path: str, *, create: bool = False) -> int:
        self._alive()
        if create:
            folder, name = self._place(path)
            self._changing()
            if isinstance(folder.entries.get(name), _File):
                self._cut(self._file(path), 0)
            else:
                folder.change((name, _File()))
        return self._handle(self._file(path))

    def open_to_read(self, path: str) -> int:
        self._alive()
        return self._handle(self._file(path))

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)
        self._locks.pop(handle, None)

    def size(self, handle: int) -> int:
        self._alive()
        return len(self._handles[handle].content)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        self._alive()
        return bytes(self._handles[handle].content[offset : offset + size])

    def write(self, handle: int, data: bytes, offset: int) -> None:
        file = self._handles[handle]
        crash = self._crashes_now()
        fits = data[: max(0, self._room(len(file.content), offset + len(data)) - offset)]
        file.pending.append((offset, fits))
        _change(file.content, offset, fits)
        if crash:
            self._die()
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def allocate(self, handle: int, offset: int, size: int) -> None:
        self._changing()
        file = self._handles[handle]
        if self._room(len(file.content), offset + size) < offset + size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if offset + size > len(file.content):
            self._cut(file, offset + size)

    def truncate(self, handle: int, size: int) -> None:
        self._changing()
        self._cut(self._handles[handle], size)

    def sync_data(self, handle: int) -> None:
        self._changing()
        file = self._handles[handle]
        if self._fail_sync_in:
            self._fail_sync_in -= 1
            if not self._fail_sync_in:
                file.pending.clear()
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        file.sync()

    def sync_directory(self, path: str) -> None:
        self._changing()
        self._folder(path).sync()

    def rename(self, source: str, target: str) -> None:
        self._changing()
        from_folder, from_name = self._place(source)
        to_folder, to_name = self._place(target)
        node = self._node(source)
        if from_folder is to_folder:
            from_folder.change((from_name, None), (to_name, node))
        else:
            to_folder.change((to_name, node))
            from_folder.change((from_name, None))

    def link(self, source: str, target: str) -> None:
        file = self._file(source)
        folder, name = self._place(target)
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        self._changing()
        folder.change((name, file))

    def unlink(self, path: str) -> None:
        self._file(path)
        self._changing()
        folder, name = self._place(path)
        folder.change((name, None))

    def make_directory(self, path: str) -> None:
        folder, name = self._place(path)
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._changing()
        folder.change((name, _Folder()))

    def list_directory(self, path: str) -> list[str]:
        self._alive()
        return sorted(self._folder(path).entries)

    def is_directory(self, path: str) -> bool:
        return self.exists(path) and isinstance(self._node(path), _Folder)

    def exists(self, path: str) -> bool:
        self._alive()
        try:
            self._node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def modified_s(self, path: str) -> int:
        self._node(path)
        return 0  # no clock runs here

    def free_bytes(self, path: str) -> int:
        self._alive()
        if self.capacity is None:
            return 1 << 40
        files = {id(file): len(file.content) for file in _files(self._root)}  # one of two names counts once
        return max(0, self.capacity - sum(files.values()))

    def lock(self, path: str) -> int | None:
        self._alive()
        folder, name = self._place(path)
        if name not in folder.entries:
            self._changing()
            folder.change((name, _File()))
        file = self._file(path)
        if file in self._locks.values():
            return None
        handle = self._handle(file)
        self._locks[handle] = file
        return handle

    def holds(self, handle: int, path: str) -> bool:
        return self.exists(path) and self._node(path) is self._locks.get(handle)

    # ------------------------------------------------------------------ inside

    def _alive(self) -> None:
        if self._dead:
            raise PowerLoss

    def _crashes_now(self) -> bool:
        self._alive()
        self.changes += 1
        return self.changes == self._crash_at

    def _changing(self) -> None:
        if self._crashes_now():
            self._die()

    def _die(self) -> None:
        self._dead = True
        raise PowerLoss

    def _handle(self, file: _File) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = file
        return handle

    def _node(self, path: str) -> _Node:
        node: _Node = self._root
        for name in path.strip("/").split("/") if path.strip("/") else []:
            if not isinstance(node, _Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if name not in node.entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = node.entries[name]
        return node

    def _file(self, path: str) -> _File:
        node = self._node(path)
        if not isinstance(node, _File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    def _folder(self, path: str) -> _Folder:
        node = self._node(path)
        if not isinstance(node, _Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _place(self, path: str) -> tuple[_Folder, str]:
        above, _, name = path.rstrip("/").rpartition("/")
        return self._folder(above), name

    def _room(self, size: int, end: int) -> int:
        """How far the file may reach, at most to `end`."""
        if self.capacity is None or end <= size:
            return end
        return min(end, size + self.free_bytes("/"))

    def _cut(self, file: _File, size: int) -> None:
        file.pending.append((size, None))
        _change(file.content, size, None)


def _change(content: bytearray, place: int, data: bytes | None) -> None:
    if data is None:
        del content[place:]
        content.extend(bytes(place - len(content)))
        return
    if len(content) < place:
        content.extend(bytes(place - len(content)))
    content[place : place + len(data)] = data


def _rename(entries: dict[str, _Node], names: Iterable[tuple[str, _Node | None]]) -> None:
    for name, node in names:
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _files(folder: _Folder) -> Iterator[_File]:
    for node in folder.entries.values():
        if isinstance(node, _Folder):
            yield from _files(node)
        else:
            yield node
