"""A script and everything that it loads, addressed by the SHA-256 of its content.

A run is bound to its bundle for life, so a bundle holds the prelude's texts too. Its bytes say nothing
about who made it or where its files lay: the same content has the same digest everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from flo.api.errors import FloError
from flo.api.limits import BUNDLE_BYTES, BUNDLE_FILES
from flo.worker import labels
from flo.worker.prelude_files import PRELUDE, PRELUDE_MAIN, PRELUDE_VERSION, installed_prelude

FORMAT = 1


class BundleDamaged(FloError):
    """The bytes of a bundle are not what was stored, or come from a newer release."""

    code: ClassVar[str] = "bundle_damaged"


class Bundle:
    """Immutable. Two bundles with equal digests are equal.

    `files` holds label → text of every module that can be loaded: the script, its modules and the prelude.
    `prelude` holds file name → text of the prelude's sources, `data` the canonical bytes, `digest` their
    SHA-256. `root` is where the files lie, for messages, when the bundle was made from files; it is no part
    of the content.
    """

    __slots__ = ("files", "entry", "prelude", "prelude_version", "digest", "data", "root")

    def __init__(
        self,
        scripts: Mapping[str, str],
        entry: str,
        *,
        prelude: Mapping[str, str] | None = None,
        prelude_version: str = PRELUDE_VERSION,
        root: Path | None = None,
    ) -> None:
        assert entry in scripts, "the entry is one of the files"
        self.entry = entry
        sources = installed_prelude() if prelude is None else prelude
        self.prelude: Mapping[str, str] = MappingProxyType(dict(sorted(sources.items())))
        self.prelude_version = prelude_version
        own = sorted(scripts.items())
        self.files: Mapping[str, str] = MappingProxyType({**dict(own), PRELUDE: self.prelude[PRELUDE_MAIN]})
        content = _Content(FORMAT, entry, own, prelude_version, list(self.prelude.items()))
        self.data = _encode(content)
        self.digest = hashlib.sha256(self.data).digest()
        self.root = root

    @classmethod
    def from_script(cls, path: str | PathLike[str]) -> Bundle:
        """Reads the script and what it loads. Raises ScriptError with every problem that a run refuses."""
        from flo.worker.check import inspect
        from flo.worker.problems import errors, script_error

        found = inspect(path, warnings=False)
        if errors(found.problems):
            raise script_error(found.problems)
        assert found.bundle is not None
        return found.bundle

    @classmethod
    def from_bytes(cls, data: bytes, *, digest: bytes | None = None) -> Bundle:
        """The bundle that has these bytes, and this digest if one is given. Raises BundleDamaged."""
        if digest is not None and hashlib.sha256(data).digest() != digest:
            raise BundleDamaged(f"the bundle {digest.hex()[:12]} does not match its digest")
        content = _decode(data)
        bundle = cls(
            dict(content.files),
            content.entry,
            prelude=dict(content.prelude),
            prelude_version=content.prelude_version,
        )
        if bundle.data != data:
            raise BundleDamaged("the bundle is not in its canonical form")
        return bundle

    @property
    def scripts(self) -> dict[str, str]:
        """The files without the prelude."""
        return {label: text for label, text in self.files.items() if label != PRELUDE}

    @staticmethod
    def resolve(importer: str, label: str) -> str:
        """The canonical label that a `load` of `label` in the module `importer` means. Raises BadLabel."""
        return labels.resolve(importer, label)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bundle) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Bundle({self.entry!r}, {len(self.files) - 1} files, {self.digest.hex()[:12]})"


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """What the digest covers, in the order in which it is written."""

    format: int
    entry: str
    files: list[tuple[str, str]]  # label, text; sorted by label
    prelude_version: str
    prelude: list[tuple[str, str]]  # file name, text; sorted by name


_encode = msgspec.msgpack.Encoder().encode


def _decode(data: bytes) -> _Content:
    try:
        raw: Any = msgspec.msgpack.decode(data)
        if isinstance(raw, list) and raw and isinstance(raw[0], int) and raw[0] > FORMAT:
            raise BundleDamaged(
                f"the bundle has format {raw[0]}, this release knows formats up to {FORMAT}", hint="upgrade flo"
            )
        content = msgspec.convert(raw, _Content)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise BundleDamaged(f"the bytes are not a bundle: {error}") from error
    found = [label for label, _ in content.files]
    if content.format != FORMAT or content.entry not in found or PRELUDE_MAIN not in dict(content.prelude):
        raise BundleDamaged("the bundle lacks a part")
    if PRELUDE in found or not all(labels.is_canonical(label) for label in found):
        raise BundleDamaged("the bundle holds a file outside its root")
    if len(found) > BUNDLE_FILES or sum(len(text.encode()) for _, text in content.files) > BUNDLE_BYTES:
        raise BundleDamaged(f"the bundle is over {BUNDLE_FILES} files or {BUNDLE_BYTES >> 20} MiB")
    return content
