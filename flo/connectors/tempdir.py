"""The resource kind `tempdir`: a directory of the flow's own, at the same path in every generation."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flo.connectors.contract import ConnectorContext, ConnectorError

if TYPE_CHECKING:
    from flo.connectors.resources import Opening

ROUNDS = 1_000_000  # levels of directories that one removal goes through
_HERE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TempdirResources:
    kind = "tempdir"

    def __init__(self) -> None:
        self._base = Path()

    async def prepare(self, context: ConnectorContext) -> None:
        self._base = context.directory.absolute()

    def path(self, mark: str) -> Path:
        """Where the directory with this mark is: readable at the front, unique at the back."""
        stem = re.sub(r"[^A-Za-z0-9_.-]", "-", mark.rpartition("/")[2])[:40].lstrip(".") or "tempdir"
        return self._base / f"{stem}-{sha256(mark.encode()).hexdigest()[:20]}"

    async def open(self, opening: Opening) -> Any:
        import asyncio

        path = self.path(opening.mark)
        await asyncio.to_thread(self._make, path, opening.name)
        return {"path": str(path)}

    async def close(self, opening: Opening) -> None:
        import asyncio

        await asyncio.to_thread(remove_tree, self.path(opening.mark))

    async def stop(self) -> None:
        """Directories stay: the next generation finds its content again."""

    def _make(self, path: Path, name: str) -> None:
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise ConnectorError(
                    "resource", f"resource {name} (tempdir): {path} is there and is not a directory of this user"
                ) from None


def remove_tree(path: Path) -> None:
    """Removes a directory with all it holds, also what is read-only, and never what a link points to. Missing is
    fine. Works with few open files however deep the tree is: subdirectories that are not empty are moved up to the
    top, one after another. Raises OSError with the name of what cannot be removed."""
    try:
        top = _open_directory(str(path), None)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)  # a link or a file in its place: not ours to follow
        return
    # Random, so that it meets no name of the directory's owner.
    names = (f".flo-removing-{token}-{number}" for token in [os.urandom(8).hex()] for number in count())
    try:
        for _ in range(ROUNDS):
            folders = _empty(top, top, names)
            if not folders:
                break
            for folder in folders:
                inner = _open_directory(folder, top)
                try:
                    _empty(inner, top, names)
                finally:
                    os.close(inner)
                os.rmdir(folder, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(folder: int, top: int, names: Iterator[str]) -> list[str]:
    """Removes the files in `folder` and moves its subdirectories to `top` under the next names. Returns the
    subdirectories when `folder` is the top itself."""
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    found: list[str] = []
    for name, is_folder in listed:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
        elif folder == top:
            found.append(name)
        else:
            os.close(_open_directory(name, folder))  # to be moved it must be writable: its `..` changes
            os.rename(name, next(names), src_dir_fd=folder, dst_dir_fd=top)
    return found


def _open_directory(name: str, parent: int | None) -> int:
    """Opens a directory, not through a link, with all rights on it for its owner."""
    try:
        descriptor = os.open(name, _HERE, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        descriptor = os.open(name, _HERE, dir_fd=parent)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)
    return descriptor
