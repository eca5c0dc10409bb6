"""What a key, a value, a namespace and a condition must satisfy, with the refusals of the specification.

`details` of a refusal holds `code` where the specification names one that differs from the kind, and
`current_version` where a condition on versions failed (0: the key is absent).
"""

from __future__ import annotations

import re
from typing import Final

from flo.primitives.kv_entry import COUNTER, EXPIRES, Packed, expiry, unpack_counter, version_of
from flo.primitives.machine import Refused

ADDRESS_BYTES: Final = 4_096  # namespace, a separator and key
VALUE_BYTES: Final = 262_144
MGET_KEYS: Final = 256
SCAN_LIMIT_DEFAULT: Final = 100
SCAN_LIMIT: Final = 1_000
PAGE_BYTES: Final = 1_048_576
HISTORY_VERSIONS: Final = 64  # kept per key, the current one included
HISTORY_LIMIT_DEFAULT: Final = 10
INSTANT_MAX: Final = 2**63 - 1
COUNTER_MAX: Final = 2**63 - 1
COUNTER_MIN: Final = -(2**63)

DEFAULT_NAMESPACE: Final = "default"
RESERVED_PREFIXES: Final = (b"_action:", b"_worker:", b"_sys:", b"_internal:", b"_flo:")
UNDERSCORE: Final = 95

_namespace_name = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9_.])?")


def check_namespace(ns: str) -> None:
    if _namespace_name.fullmatch(ns) is None:
        shown = ns if len(ns) <= 64 else ns[:61] + "..."
        raise Refused(
            "bad_argument",
            f"namespace name {shown!r} must be 1 to 63 letters, digits, '_', '-' or '.', begin with a letter "
            "and not end in '-'",
        )


def check_key(ns: str, key: bytes) -> None:
    if not key:
        raise Refused("bad_argument", "key is required")
    if 0 in key:
        raise Refused("bad_argument", "key must not contain NUL")
    if len(ns) + 1 + len(key) > ADDRESS_BYTES:
        raise Refused(
            "too_large",
            f"key too large: namespace, separator and key must fit {ADDRESS_BYTES} bytes",
            {"code": "kv_key_too_large"},
        )


def is_reserved(key: bytes) -> bool:
    return key.startswith(RESERVED_PREFIXES)


def reserved_key() -> Refused:
    return Refused("bad_argument", "access to reserved key denied", {"code": "unauthorized"})


def check_value(value: bytes) -> None:
    if len(value) > VALUE_BYTES:
        raise Refused("too_large", f"value too large (max {VALUE_BYTES} bytes)")


def expiry_instant(now: int, ttl_ms: int) -> int:
    """0 for a ttl of 0."""
    if ttl_ms == 0:
        return 0
    if ttl_ms < 0:
        raise Refused("bad_argument", "ttl must not be negative")
    if now + ttl_ms > INSTANT_MAX:
        raise Refused("bad_argument", "ttl too large")
    return now + ttl_ms


def check_version(current: Packed | None, wanted: int) -> None:
    """`cas` of a write: 0 means that the key must be absent."""
    found = 0 if current is None else version_of(current)
    if found != wanted or (wanted == 0 and current is not None):
        raise mismatch(found)


def check_match(current: Packed | None, if_match: int | None) -> Packed:
    """`if_match` of what acts on an existing key; returns the key's current version."""
    if if_match is not None and (current is None or if_match == 0 or version_of(current) != if_match):
        raise mismatch(0 if current is None else version_of(current))
    if current is None:
        raise Refused("not_found", "key not found")
    return current


def mismatch(found: int) -> Refused:
    return Refused("conflict", f"Version mismatch: current version {found}", {"current_version": found})


def put_expiry(
    current: Packed | None, now: int, ttl_ms: int, nx: bool, xx: bool, cas: int | None, keep_ttl: bool
) -> int:
    """Checks the conditions of a put on a key's live version; returns when what is put will expire."""
    if nx and (xx or cas is not None):
        raise Refused("bad_argument", "nx cannot be combined with xx or cas")
    if keep_ttl and ttl_ms:
        raise Refused("bad_argument", "ttl cannot be combined with keep_ttl")
    expires_at = expiry_instant(now, ttl_ms)
    if cas is not None:
        check_version(current, cas)
    if nx and current is not None:
        raise Refused("conflict", "key already exists", {"current_version": version_of(current)})
    if xx and current is None:
        raise Refused("conflict", "key does not exist", {"current_version": 0})
    if keep_ttl and current is not None and current[0] & EXPIRES:
        return expiry(current)
    return expires_at


def sum_and_expiry(current: Packed | None, delta: int) -> tuple[int, int]:
    """The counter after the addition, and when it expires."""
    total = delta
    expires_at = 0
    if current is not None:
        if not current[0] & COUNTER:
            raise Refused("conflict", "not a counter", {"current_version": version_of(current)})
        _, _, _, expires_at, number = unpack_counter(current)
        total = number + delta
    if not COUNTER_MIN <= total <= COUNTER_MAX:
        raise Refused("bad_argument", "counter overflow")
    return total, expires_at
