"""What a connector is: the base class that built-ins and plug-ins share, and the error it fails with.

    class Shout(Connector):
        kinds = ("shout.echo",)

        async def perform(self, job: Job) -> Any:
            return {"shouted": job.input["text"].upper()}

A connector's duties:

1. Perform a job once per call; never repeat an effect by itself. A retry is the core's.
2. Return a JSON-like value (None, bool, int, finite float, str, list, dict with text keys) of at most 16 MiB.
3. Fail with `ConnectorError`; any other exception becomes an error of kind `connector` with the exception's text.
4. Do not block: `perform` runs on a loop that all connectors share. Blocking calls go to `asyncio.to_thread`.
5. End when cancelled, unless `cancellable` is False.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from flo.api.clock import Clock
from flo.api.jobs import Job as Job
from flo.api.outcome import ERROR_KINDS

SLOTS_DEFAULT = 16


class ConnectorError(Exception):
    """An action's failure. `kind` is one of ERROR_KINDS, `retryable` says whether a repetition may succeed,
    `details` is JSON-like. The message is shown to people: it says where and what, and holds no secret."""

    def __init__(self, kind: str, message: str, *, retryable: bool = False, details: Any = None) -> None:
        assert kind in ERROR_KINDS, kind
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retryable = retryable
        self.details = details


class SecretSource(Protocol):
    def get(self, name: str) -> str:
        """The secret's value. Raises ConnectorError of kind `not_found` that names it."""
        ...

    def mask_bytes(self, data: bytes) -> bytes:
        """The data with every value that `get` gave masked, for what leaves in a form that hides it (base64). Texts
        need no care: the host masks values and errors."""
        ...


class ConnectorContext:
    """What a host lends its connectors. `directory` is where connectors may keep files; it may not exist yet."""

    __slots__ = ("clock", "secrets", "directory")

    def __init__(self, *, clock: Clock, secrets: SecretSource, directory: Path) -> None:
        self.clock = clock
        self.secrets = secrets
        self.directory = directory


class Connector:
    """Performs the jobs of its `kinds`, at most `slots` at once."""

    kinds: ClassVar[tuple[str, ...]] = ()
    slots: int = SLOTS_DEFAULT
    repeatable: bool = False  # the same job may be performed twice without harm
    cancellable: bool = True  # False: a cancelled job is carried to its end, because half of it would leak

    async def open(self, context: ConnectorContext) -> None:
        """Called once before the first job, on the loop. When it raises, the jobs that waited for it fail with its
        text, and the next job tries again."""

    async def close(self) -> None:
        """Called once at a planned stop, after the last job. Gets CLOSE_MS at most (flo.connectors.host)."""

    async def perform(self, job: Job) -> Any:
        """Performs the job and returns the action's value."""
        raise NotImplementedError(f"{type(self).__name__} has no perform")
