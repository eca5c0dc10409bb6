"""Run ids and structural ids.

A **structural id** (sid) is the position of a call: the root task is `0`, its third action `0.3`, the
second action inside the flow which that action started `0.3.2`. A task that is retried or continued as
new runs under its next generation: `0.3~2`, so that its actions are `0.3~2.1` (design.md §6 point 3).
The address of a child is its run's id, `/` and its sid: `order-7/0.3`.
"""

from __future__ import annotations

import os
import re

RUN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
ROOT = "0"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_run_id(flow: str = "run") -> str:
    """`run-` (or a short form of the flow's name) and 80 random bits in base 32."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", flow.rpartition("::")[2] or "run")[:40].strip("-.") or "run"
    n = int.from_bytes(os.urandom(10), "big")
    return f"{stem}-" + "".join(_ALPHABET[(n >> (5 * i)) & 31] for i in range(16))


def is_run_id(text: str) -> bool:
    return RUN_ID.fullmatch(text) is not None


def task_prefix(base: str, generation: int) -> str:
    """The prefix of a task's own sids: `0.3` in its first generation, `0.3~2` in its second."""
    return base if generation == 1 else f"{base}~{generation}"


def base_of(prefix: str) -> tuple[str, int]:
    """Splits a task prefix into its base sid and generation: `0.1~3.2~2` gives (`0.1~3.2`, 2)."""
    head, dot, last = prefix.rpartition(".")
    name, tilde, generation = last.partition("~")
    return f"{head}{dot}{name}", int(generation) if tilde else 1


def split_sid(sid: str) -> tuple[str, int]:
    """The task prefix and number of an action: `0.3~2.1` gives (`0.3~2`, 1)."""
    task, _, n = sid.rpartition(".")
    return task, int(n)
