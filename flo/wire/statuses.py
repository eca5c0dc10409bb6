"""Statuses of replies, and which of them an error of ours is."""

from __future__ import annotations

from typing import Any, Final

OK: Final = 0
GENERIC: Final = 1
NOT_FOUND: Final = 2
BAD_REQUEST: Final = 3
CROSS_PARTITION: Final = 4
NO_TRANSACTION: Final = 5
GROUP_LOCKED: Final = 6
UNAUTHORIZED: Final = 7
CONFLICT: Final = 8
INTERNAL: Final = 9
OVERLOADED: Final = 10
RATE_LIMITED: Final = 11  # the highest that clients of this dialect know

_by_code: Final = {
    "unauthorized": UNAUTHORIZED,
    "kv_txn_cross_shard": CROSS_PARTITION,
    "kv_txn_unknown": NO_TRANSACTION,
    "group_locked": GROUP_LOCKED,
}
_by_kind: Final = {
    "not_found": NOT_FOUND,
    "bad_argument": BAD_REQUEST,
    "too_large": BAD_REQUEST,
    "conflict": CONFLICT,
    "quota_exceeded": OVERLOADED,
    "overloaded": OVERLOADED,
    "unavailable": OVERLOADED,
    "no_space": OVERLOADED,
}


def status_of(kind: str, details: Any = None) -> int:
    """The status of a refusal's kind and details, or of the code of a FloError."""
    if type(details) is dict:
        status = _by_code.get(details.get("code", ""))
        if status is not None:
            return status
    return _by_kind.get(kind, INTERNAL)
