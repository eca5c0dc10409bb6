"""What names, settings and arguments of consumer groups must satisfy, with the refusals of the specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import GroupSettings, StreamId
from flo.primitives.stream_rules import check_stream_name

SHARED: Final = "shared"
EXCLUSIVE: Final = "exclusive"
KEY_SHARED: Final = "key_shared"

NAME_BYTES: Final = 255  # of a group or a consumer
# These three are not final so that tests can lower them, compiled or not.
GROUPS = 4_096  # of one stream
MEMBERS = 65_536  # of one group
PENDING = 250_000  # entries of one group; at that many it hands out nothing new
READ_LIMIT_DEFAULT: Final = 10
READ_LIMIT: Final = 1_000
PAGE_LIMIT_DEFAULT: Final = 100  # of claims and pages of the pending list
PAGE_LIMIT: Final = 1_000
IDS: Final = 1_000  # of one request
MAX_DELIVER: Final = 255
STANDBYS_UNLIMITED: Final = 65_535
SLOTS: Final = 4_096
DURATION_MAX_MS: Final = 2**53 - 1
DEAD_LETTERS: Final = ".dlq"

DEFAULT_SETTINGS: Final = GroupSettings()


def dead_letter_stream(stream: str, group: str) -> str:
    return f"{stream}.{group}{DEAD_LETTERS}"


def check_no_wildcard(stream: str) -> None:
    if "*" in stream:
        raise Refused("bad_argument", "wildcard group reads are not supported")


def check_group_name(ns: str, stream: str, group: str) -> None:
    """Also that the dead-letter stream can have its name."""
    check_no_wildcard(stream)
    check_stream_name(ns, stream)
    _check_name("group", group)
    if "*" in group:
        raise Refused("bad_argument", "group name must not contain '*'")
    check_stream_name(ns, dead_letter_stream(stream, group))


def check_consumer(consumer: str) -> None:
    _check_name("consumer", consumer)


def check_settings(settings: GroupSettings) -> None:
    if settings.mode not in (SHARED, EXCLUSIVE, KEY_SHARED):
        raise Refused("bad_argument", f"unknown group mode {settings.mode!r} (shared, exclusive or key_shared)")
    check_duration("ack_timeout", settings.ack_timeout_ms)
    _check_range("max_deliver", settings.max_deliver, 0, MAX_DELIVER)
    check_duration("redeliver_delay", settings.redeliver_delay_ms)
    _check_range("max_standbys", settings.max_standbys, 0, STANDBYS_UNLIMITED)
    _check_range("slots", settings.slots, 1, SLOTS)


def check_duration(name: str, ms: int) -> None:
    _check_range(name, ms, 0, DURATION_MAX_MS)


def check_ids(ids: Sequence[StreamId]) -> None:
    if not 1 <= len(ids) <= IDS:
        raise Refused("bad_argument", f"a request needs 1 to {IDS} ids, this one has {len(ids)}")


def page_limit(limit: int, most: int) -> int:
    if limit <= 0:
        raise Refused("bad_argument", "limit must be at least 1")
    return min(limit, most)


def no_group(stream: str, group: str) -> Refused:
    return Refused("not_found", f"no group {group!r} on stream {stream!r}")


def _check_name(what: str, name: str) -> None:
    if not name:
        raise Refused("bad_argument", f"{what} name is required")
    if "\0" in name:
        raise Refused("bad_argument", f"{what} name must not contain NUL")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Refused("bad_argument", f"{what} name must be text in UTF-8") from None
    if size > NAME_BYTES:
        raise Refused("bad_argument", f"{what} name too long (max {NAME_BYTES} bytes)")


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Refused("bad_argument", f"{name} must be {low} to {high}")
