"""What queues, messages and lists of seqs must satisfy, with the refusals of the specification."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Final

from flo.primitives.kv_rules import check_namespace
from flo.primitives.machine import Refused

QUEUE_NAME_BYTES: Final = 255
PAYLOAD_BYTES: Final = 262_144
PRIORITY_MAX: Final = 255
DEDUP_KEY_BYTES: Final = 256
BATCH_MESSAGES: Final = 1_000
BATCH_BYTES: Final = 16 * 1024 * 1024  # of payloads and dedup keys in one batch
DEQUEUE_COUNT: Final = 100  # messages of one dequeue or peek
SEQS: Final = 1_000  # of one ack, nack, touch, requeue or dead-letter delete
VISIBILITY_MS_DEFAULT: Final = 30_000
LIST_LIMIT_DEFAULT: Final = 100
LIST_LIMIT: Final = 1_000
PAGE_BYTES: Final = 16 * 1024 * 1024  # of payloads in a page of dead letters
MAX_ATTEMPTS: Final = 5
DLQ_CAPACITY: Final = 10_000
INSTANT_MAX: Final = 2**63 - 1


def check_queue(ns: str, queue: str) -> None:
    check_namespace(ns)
    if not queue:
        raise Refused("bad_argument", "queue name is required")
    if "\0" in queue:
        raise Refused("bad_argument", "queue name must not contain NUL")
    try:
        size = len(queue.encode())
    except UnicodeEncodeError:
        raise Refused("bad_argument", "queue name must be text in UTF-8") from None
    if size > QUEUE_NAME_BYTES:
        raise Refused("bad_argument", f"queue name too long (max {QUEUE_NAME_BYTES} bytes)")


def is_internal(queue: str) -> bool:
    return queue.startswith("_")


def check_own(ns: str, queue: str) -> None:
    """A name that callers may write to."""
    check_queue(ns, queue)
    if is_internal(queue):
        raise Refused("bad_argument", "queue names that begin with '_' are internal", {"code": "unauthorized"})


def check_message(payload: bytes, priority: int, dedup_key: bytes) -> None:
    if not 0 <= priority <= PRIORITY_MAX:
        raise Refused("bad_argument", "priority must be 0..255")
    if len(payload) > PAYLOAD_BYTES:
        raise Refused("too_large", f"payload too large (max {PAYLOAD_BYTES} bytes)")
    if len(dedup_key) > DEDUP_KEY_BYTES:
        raise Refused("bad_argument", f"dedup key too long (max {DEDUP_KEY_BYTES} bytes)")


def check_batch(count: int) -> None:
    if not count:
        raise Refused("bad_argument", "a batch needs at least one message")
    if count > BATCH_MESSAGES:
        raise Refused("bad_argument", f"a batch of {count} messages is over the limit of {BATCH_MESSAGES}")


def instant(now: int, after_ms: int, what: str) -> int:
    """`after_ms` from now; 0 for 0. `what` names it in a refusal."""
    if after_ms == 0:
        return 0
    if after_ms < 0:
        raise Refused("bad_argument", f"{what} must not be negative")
    if now + after_ms > INSTANT_MAX:
        raise Refused("bad_argument", f"{what} too large")
    return now + after_ms


def clamped_count(count: int) -> int:
    if count < 1:
        raise Refused("bad_argument", "count must be at least 1")
    return min(count, DEQUEUE_COUNT)


def clamped_limit(limit: int) -> int:
    return min(limit, LIST_LIMIT) if limit > 0 else LIST_LIMIT_DEFAULT


def distinct(seqs: Sequence[int]) -> list[int]:
    if not seqs:
        raise Refused("bad_argument", "at least one seq is required")
    if len(seqs) > SEQS:
        raise Refused("bad_argument", f"too many seqs (max {SEQS})")
    return list(dict.fromkeys(seqs))


def unknown_message() -> Refused:
    return Refused("not_found", "message not found in this queue")


def cursor_after(last: bytes) -> str:
    return urlsafe_b64encode(b"\x01" + last).decode()


def read_cursor(cursor: str) -> bytes:
    """What the page before ended with; empty for the first page."""
    if not cursor:
        return b""
    try:
        data = urlsafe_b64decode(cursor.encode())
    except (ValueError, Base64Error):
        data = b""
    if len(data) < 2 or cursor_after(data[1:]) != cursor:
        raise Refused("bad_argument", "invalid cursor")
    return data[1:]


def read_place(cursor: str) -> int:
    """The place of the last dead letter of the page before; 0 for the first page."""
    last = read_cursor(cursor)
    if not last:
        return 0
    if not last.isdigit() or len(last) > 19:
        raise Refused("bad_argument", "invalid cursor")
    return int(last)
