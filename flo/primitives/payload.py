"""Payloads that are too large for the log stand in events as references to blobs.

A payload is JSON text or an outcome, so it never begins with `@`. A reference does: `@` and the SHA-256 of
the text in hexadecimal; the reference of an outcome keeps its sign, `@+…` or `@-…`, so that a machine knows
success from failure without loading it.
"""

from __future__ import annotations


def reference(digest: bytes, text: str) -> str:
    """The reference of a stored text; `text` tells whether it is an outcome."""
    return "@" + (text[0] if text[0] in "+-" else "") + digest.hex()


def is_reference(payload: str) -> bool:
    return payload.startswith("@")


def digest_of(reference: str) -> bytes:
    """The SHA-256 digest in a reference."""
    return bytes.fromhex(reference[-64:])


def succeeded(outcome: str) -> bool:
    """Whether an outcome, or the reference of one, is a success."""
    return outcome[1] == "+" if outcome[0] == "@" else outcome[0] == "+"
