"""All I/O of the file backend goes through `Disk`: `SystemDisk` is the real one, `flo.log.simdisk.SimDisk` the fake.

Errors are OSError with an errno, from both. Paths are plain strings.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from flo.log.errors import DirectoryUnusable, NoSpace, SyncFailed

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
BUSY = frozenset({errno.EMFILE, errno.ENFILE})  # there are too many open files, for now


class Disk(Protocol):
    def open(self, path: str, *, create: bool = False) -> int:
        """A handle for reading and writing; with `create` of a new, empty file. Raises FileNotFoundError."""
        ...

    def open_to_read(self, path: str) -> int: ...

    def close(self, handle: int) -> None: ...

    def size(self, handle: int) -> int: ...

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """All of `data`, or an OSError with any prefix of it written."""
        ...

    def allocate(self, handle: int, offset: int, size: int) -> None:
        """Makes room that reads as zeros, so that writing there needs none later."""
        ...

    def truncate(self, handle: int, size: int) -> None: ...

    def sync_data(self, handle: int) -> None:
        """Content, and the size when it is needed to read it."""
        ...

    def sync_directory(self, path: str) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def link(self, source: str, target: str) -> None:
        """A second name for a file. Raises OSError where the file system has none, FileExistsError."""
        ...

    def unlink(self, path: str) -> None: ...

    def make_directory(self, path: str) -> None:
        """Raises FileExistsError."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """Sorted names."""
        ...

    def is_directory(self, path: str) -> bool: ...

    def exists(self, path: str) -> bool: ...

    def modified_s(self, path: str) -> int:
        """Unix seconds."""
        ...

    def free_bytes(self, path: str) -> int: ...

    def lock(self, path: str) -> int | None:
        """A handle that holds this file's lock until it is closed, or None when another one holds it."""
        ...

    def holds(self, handle: int, path: str) -> bool:
        """Whether the path still names the locked file."""
        ...


class SystemDisk:
    """The operating system's files."""

    def open(self, path: str, *, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0), 0o600)

    def open_to_read(self, path: str) -> int:
        return os.open(path, os.O_RDONLY)

    def close(self, handle: int) -> None:
        os.close(handle)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def read(self, handle: int, size: int, offset: int) -> bytes:
        data = os.pread(handle, size, offset)
        if len(data) in (size, 0):
            return data
        pieces = [data]
        done = len(data)
        while done < size and (data := os.pread(handle, size - done, offset + done)):
            pieces.append(data)
            done += len(data)
        return b"".join(pieces)

    def write(self, handle: int, data: bytes, offset: int) -> None:
        done = os.pwrite(handle, data, offset)
        while done < len(data):
            done += os.pwrite(handle, memoryview(data)[done:], offset + done)

    def allocate(self, handle: int, offset: int, size: int) -> None:
        os.posix_fallocate(handle, offset, size)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def sync_data(self, handle: int) -> None:
        os.fdatasync(handle)

    def sync_directory(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def modified_s(self, path: str) -> int:
        return int(os.stat(path).st_mtime)

    def free_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def lock(self, path: str) -> int | None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            os.close(handle)
            raise
        return handle

    def holds(self, handle: int, path: str) -> bool:
        mine = os.fstat(handle)
        try:
            named = os.stat(path)
        except FileNotFoundError:
            return False
        return mine.st_ino == named.st_ino and mine.st_dev == named.st_dev


@contextmanager
def write_errors(path: str) -> Iterator[None]:
    """Errors of writing become NoSpace or DirectoryUnusable, naming the file."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(
                f"{path}: no space left on the disk", hint="free some space; what waits is tried again by itself"
            ) from error
        if error.errno in BUSY:
            raise NoSpace(f"{path}: too many open files", hint="what waits is tried again by itself") from error
        raise DirectoryUnusable(
            f"{path}: cannot be written: {error.strerror}", hint="check the path, its owner and its permissions"
        ) from error


@contextmanager
def sync_errors(path: str) -> Iterator[None]:
    """A failed flush may have lost what the page cache still shows, so nothing can be trusted after it."""
    try:
        yield
    except OSError as error:
        raise SyncFailed(
            f"{path}: the disk refused to make data durable: {error.strerror}",
            hint="check the disk, then start again: the log is read back from the disk",
        ) from error


def read_file(disk: Disk, path: str) -> bytes:
    handle = disk.open_to_read(path)
    try:
        return disk.read(handle, disk.size(handle), 0)
    finally:
        disk.close(handle)


def replace_file(disk: Disk, path: str, pieces: Iterable[bytes], *, temporary: str = "") -> None:
    """Puts a whole file in place atomically and durably: temporary file, write, sync, rename, sync the folder.
    Raises NoSpace (nothing has changed), SyncFailed, DirectoryUnusable."""
    temporary = temporary or path + ".tmp"
    try:
        with write_errors(path):
            handle = disk.open(temporary, create=True)
            try:
                offset = 0
                for piece in pieces:
                    disk.write(handle, piece, offset)
                    offset += len(piece)
                with sync_errors(path):
                    disk.sync_data(handle)
            finally:
                disk.close(handle)
            disk.rename(temporary, path)
    except Exception:
        with suppress(OSError):  # the first error counts; a start removes what is left
            disk.unlink(temporary)
        raise
    with sync_errors(path):
        disk.sync_directory(parent(path))


def make_folder(disk: Disk, path: str) -> None:
    """Makes a folder durably, with those above it, where it does not exist."""
    if disk.is_directory(path):
        return
    above = parent(path)
    if above and above != path:
        make_folder(disk, above)
    with write_errors(path):
        try:
            disk.make_directory(path)
        except FileExistsError:
            if not disk.is_directory(path):
                raise
    with sync_errors(path):
        disk.sync_directory(above or ".")


def sync_upwards(disk: Disk, path: str) -> None:
    """Syncs a folder's name in every folder above it: a process that died may have left some to the page cache."""
    while (above := parent(path)) and above != path:
        with sync_errors(above), suppress(PermissionError):  # what this user cannot read, nobody made for this log
            disk.sync_directory(above)
        path = above


def parent(path: str) -> str:
    return os.path.dirname(path)
