"""Blobs: content that is addressed by tenant and SHA-256, each in a file of its own."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from flo.log.disk import Disk, make_folder, parent, read_file, replace_file, sync_errors, write_errors
from flo.log.errors import LogDamaged

DEFAULT_TENANT: Final = "default"
TENANT_LENGTH_MAX: Final = 64  # characters of its name in a file name
_PREFIX: Final = re.compile(r"[0-9a-f]{2}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The blobs of one log; thread-safe. A blob is pinned from `put` until `unpin`, so that a sweep which began
    before its command was decided spares it."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._lock = threading.Lock()
        self._pins: Counter[tuple[str, bytes]] = Counter()
        self._writing: set[tuple[str, bytes]] = set()
        self._written = threading.Condition(self._lock)
        self._number = itertools.count(1)

    def sync_folders(self) -> None:
        """A rename that the last owner did not live to sync must not be lost once it was answered for."""
        folders = {self._folder, *blob_folders(self._disk, self._folder)}
        for folder in sorted(folders | {parent(folder) for folder in folders}):
            with sync_errors(folder):
                self._disk.sync_directory(folder)

    def put(self, data: bytes, tenant: str) -> bytes:
        digest = hashlib.sha256(data).digest()
        key = (tenant, digest)
        path = self._path(digest, tenant)
        with self._lock:
            while key in self._writing:
                self._written.wait()
            self._pins[key] += 1
            if self._disk.exists(path):
                return digest
            self._writing.add(key)
        try:
            make_folder(self._disk, parent(path))
            temporary = os.path.join(self._folder, f"{next(self._number)}.tmp")
            replace_file(self._disk, path, [data], temporary=temporary)
        except BaseException:
            self.unpin(digest, tenant)
            raise
        finally:
            with self._lock:
                self._writing.discard(key)
                self._written.notify_all()
        return digest

    def get(self, digest: bytes, tenant: str) -> bytes:
        path = self._path(digest, tenant)
        try:
            data = read_file(self._disk, path)
        except FileNotFoundError:
            raise KeyError(digest.hex()) from None
        if hashlib.sha256(data).digest() != digest:
            raise LogDamaged(
                f"{path}: damaged: its content does not match its name",
                hint="restore this file from a backup of the directory",
            )
        return data

    def has(self, digest: bytes, tenant: str) -> bool:
        return self._disk.exists(self._path(digest, tenant))

    def unpin(self, digest: bytes, tenant: str) -> None:
        key = (tenant, digest)
        with self._lock:
            if self._pins[key] <= 1:
                del self._pins[key]
            else:
                self._pins[key] -= 1

    def sweep(self, keep: frozenset[bytes], tenant: str) -> int:
        removed = 0
        for folder in blob_folders(self._disk, self._tenant_folder(tenant), tenants=False):
            for name in self._disk.list_directory(folder):
                if not _DIGEST.fullmatch(name):
                    continue
                digest = bytes.fromhex(name)
                path = os.path.join(folder, name)
                with self._lock, write_errors(path):
                    if digest in keep or (tenant, digest) in self._pins:
                        continue
                    self._disk.unlink(path)
                    removed += 1
        return removed

    def _tenant_folder(self, tenant: str) -> str:
        if tenant == DEFAULT_TENANT:
            return self._folder
        name = quote(tenant, safe="")
        if not 0 < len(name) <= TENANT_LENGTH_MAX:
            raise ValueError(f"tenant name {tenant!r} is empty or over {TENANT_LENGTH_MAX} characters when encoded")
        return os.path.join(self._folder, "@" + name)

    def _path(self, digest: bytes, tenant: str) -> str:
        name = digest.hex()
        assert len(name) == 64, "a blob is addressed by a SHA-256 digest"
        return os.path.join(self._tenant_folder(tenant), name[:2], name)


def blob_folders(disk: Disk, folder: str, *, tenants: bool = True) -> Iterator[str]:
    """The folders that hold blobs, of all tenants unless told otherwise."""
    if not disk.is_directory(folder):
        return
    for name in disk.list_directory(folder):
        path = os.path.join(folder, name)
        if _PREFIX.fullmatch(name):
            yield path
        elif tenants and name.startswith("@"):
            yield from blob_folders(disk, path, tenants=False)


def blob_files(disk: Disk, folder: str) -> Iterator[tuple[str, bytes]]:
    """Path and promised digest of every blob."""
    for inner in blob_folders(disk, folder):
        for name in disk.list_directory(inner):
            if _DIGEST.fullmatch(name):
                yield os.path.join(inner, name), bytes.fromhex(name)
