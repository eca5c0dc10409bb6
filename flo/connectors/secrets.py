"""Secrets: where their values come from, and how they are kept out of everything that leaves a connector.

A flow knows only names. The value is looked up when a request is made: the environment variable
`FLO_SECRET_NAME`, then the file `<config>/flo/secrets/NAME`, which nobody but its owner may read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from flo.api.outcome import Outcome
from flo.connectors.contract import ConnectorError

ENVIRONMENT_PREFIX = "FLO_SECRET_"
SECRET_BYTES = 64 * 1024
MASKED_LENGTH_MIN = 6  # shorter values are masked in errors only: in data they would hit innocent text
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def config_directory() -> Path:
    """`$XDG_CONFIG_HOME`, or `~/.config`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


class SecretStore:
    """Looks secrets up, remembers which values it gave, and masks those in texts. Its repr shows nothing."""

    def __init__(self, *, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._directory = directory  # None: below the configuration folder
        self._given: dict[str, str] = {}  # value -> name

    def get(self, name: str) -> str:
        """The value. Raises ConnectorError `not_found`, naming the secret, when there is none to be used."""
        if not NAME.fullmatch(name):
            raise ConnectorError("bad_argument", f"{name!r:.80} is not the name of a secret")
        value = self._environ.get(ENVIRONMENT_PREFIX + name)
        if value is None:
            value = self._read(name)
        if not value:
            raise ConnectorError("not_found", f"secret {name} is empty")
        try:
            value.encode()
        except UnicodeEncodeError:  # bytes of the environment that are no text
            raise ConnectorError("not_found", f"secret {name} is refused: it is not UTF-8 text") from None
        self._given[value] = name
        return value

    def mask(self, text: str) -> str:
        """The text with every value that was given replaced by `[secret NAME]`."""
        for value, name in self._longest_first():
            for form in _forms(value):
                if form in text:
                    text = text.replace(form, f"[secret {name}]")
        return text

    def mask_bytes(self, data: bytes) -> bytes:
        """The same for binary data; values shorter than MASKED_LENGTH_MIN are left."""
        for value, name in self._longest_first():
            if len(value) >= MASKED_LENGTH_MIN:
                data = data.replace(value.encode(), f"[secret {name}]".encode())
        return data

    def mask_details(self, value: Any) -> Any:
        return _walk(value, self.mask)

    def mask_outcome(self, outcome: Outcome) -> Outcome:
        """An outcome in which no given value of at least MASKED_LENGTH_MIN characters stands."""
        values = [(v, n) for v, n in self._longest_first() if len(v) >= MASKED_LENGTH_MIN]
        if not any(form in outcome for value, _ in values for form in _forms(value)):
            return outcome

        def masked(text: str) -> str:
            for value, name in values:
                for form in _forms(value):
                    text = text.replace(form, f"[secret {name}]")
            return text

        body = _walk(msgspec.json.decode(outcome[1:].encode()), masked)
        return outcome[0] + msgspec.json.encode(body).decode()

    def _longest_first(self) -> list[tuple[str, str]]:
        """A value that is part of another one must not break up its mask. A copy: get() may run elsewhere."""
        return sorted(self._given.copy().items(), key=lambda item: -len(item[0]))

    def _read(self, name: str) -> str:
        folder = self._directory if self._directory is not None else config_directory() / "flo" / "secrets"
        path = folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise ConnectorError(
                "not_found", f"secret {name} does not exist: set {ENVIRONMENT_PREFIX}{name} or write {path} (mode 600)"
            ) from None
        except OSError as bad:
            raise ConnectorError("not_found", f"secret {name} cannot be read from {path}: {bad.strerror}") from None
        try:
            status = os.fstat(descriptor)
            mode = stat.S_IMODE(status.st_mode)
            if not stat.S_ISREG(status.st_mode):
                raise ConnectorError("not_found", f"secret {name} is refused: {path} is not a file")
            if mode & 0o077:
                raise ConnectorError(
                    "not_found", f"secret {name} is refused: others may use {path} (mode {mode:03o}), chmod 600 it"
                )
            data = os.read(descriptor, SECRET_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(data) > SECRET_BYTES:
            raise ConnectorError("not_found", f"secret {name} is refused: {path} is over {SECRET_BYTES} bytes")
        try:
            return data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise ConnectorError("not_found", f"secret {name} is refused: {path} is not UTF-8 text") from None


def _forms(value: str) -> list[str]:
    """How a value may stand in a text: as it is, quoted in JSON or by Python, in a URL."""
    forms = {value, quote(value, safe=""), quote(value), repr(value)[1:-1]}
    forms.add(msgspec.json.encode(value).decode()[1:-1])
    return sorted(forms, key=len, reverse=True)


def _walk(value: Any, mask: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {mask(key): _walk(item, mask) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item, mask) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = str(value)
        return value if mask(text) == text else mask(text)
    return value
