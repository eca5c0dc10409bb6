"""What must hold of a core service that was killed: its clients' journals against what it has in the end.

    told = read_journals(paths)
    problems = wrong(told, final)

Nothing that was acknowledged or shown is lost, nothing is half or double, numbers never go back or repeat, and what
somebody has acknowledged is never delivered again. Of an unknown outcome either is right.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from tests.faults.linearizability import NEVER, UNKNOWN, Operation, check_each
from tests.faults.models import Register

Delivery: TypeAlias = tuple[int, int, int, int]
"""Of a message: number of the delivery, time, deadline of the lease, when the dequeue was answered."""


@dataclass(frozen=True)
class Told:
    """One line of a journal and what became of it."""

    client: str
    op: str
    arguments: dict[str, Any]
    begun: int
    ended: int  # NEVER: unknown
    status: str  # ok | refused | unknown
    result: Any

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def unknown(self) -> bool:
        return self.status == "unknown"


@dataclass
class Final:
    """What the service has when all is quiet."""

    values: dict[str, tuple[str, int]] = field(default_factory=dict)  # name of the value and version, by key
    counts: dict[str, int] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)  # by seq: what is handed out in the end
    dead: dict[int, str] = field(default_factory=dict)
    records: list[tuple[str, str]] = field(default_factory=list)  # id and name, as read
    pending: dict[str, str] = field(default_factory=dict)  # what the group gives out in the end


class JournalReader:
    """Reads a journal as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._open: dict[int, dict[str, Any]] = {}

    def read(self) -> list[Told]:
        """What has been answered since the last look."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at += whole
        told = []
        for line in data[:whole].splitlines():
            entry = json.loads(line)
            if "op" in entry:
                self._open[entry["n"]] = entry
            else:
                told.append(self._told(self._open.pop(entry["n"]), entry))
        return told

    def rest(self) -> list[Told]:
        """What was never answered."""
        return [self._told(intent, {"s": "unknown", "t": NEVER}) for intent in self._open.values()]

    def _told(self, intent: dict[str, Any], end: dict[str, Any]) -> Told:
        unknown = end["s"] == "unknown"
        return Told(
            self._path.stem, intent["op"], intent["a"], intent["t"], NEVER if unknown else end["t"], end["s"],
            end.get("r"),
        )  # fmt: skip


def wrong(told: list[Told], final: Final) -> list[str]:
    """Everything that must not be."""
    return [
        *_registers(told, final),
        *_counters(told, final),
        *_transactions(told, final),
        *_numbers(told),
        *_messages(told, final),
        *_records(told, final),
        *_deliveries_of_records(told, final),
    ]


def _of(told: Iterable[Told], op: str) -> list[Told]:
    return [each for each in told if each.op == op]


# Keys


def _registers(told: list[Told], final: Final) -> Iterator[str]:
    """Each key is a register that can be linearized, what it has in the end included."""
    history: list[tuple[str, Operation]] = []
    for each in told:
        key = each.arguments.get("key", "")
        if each.op in ("put", "get", "delete", "txn") and not _was_not_done(each):
            history.append((key, _on_register(each)))
    last = max((max(each.begun, each.ended if each.ended != NEVER else 0) for each in told), default=0)
    for key in {key for key, _ in history}:
        found = final.values.get(key)
        history.append((key, Operation("end", "get", (), found, last + 1, last + 2)))
    keys = {id(operation): key for key, operation in history}
    operations = [operation for _, operation in history]
    for key, verdict in check_each(Register(), operations, lambda operation: keys[id(operation)]).items():
        if not verdict.ok:
            yield f"key {key}: {verdict}"


def _was_not_done(each: Told) -> bool:
    """It was refused before anything was decided."""
    return each.status == "refused" and each.result["code"] not in ("not_found", "conflict")


def _on_register(each: Told) -> Operation:
    result = each.result
    if each.op == "get":
        arguments: tuple[Any, ...] = ()
        seen = (result["value"], result["version"]) if each.ok else None
    elif each.op == "delete":
        arguments = (None,)
        seen = ("ok", result["version"]) if each.ok else ("missing",)
    else:
        arguments = (each.arguments["value"], each.arguments.get("if"))
        seen = ("conflict", result["current"]) if each.status == "refused" else each.ok and ("ok", result["version"])
    name = "put" if each.op == "txn" else each.op
    return Operation(each.client, name, arguments, UNKNOWN if each.unknown else seen, each.begun, each.ended)


def _counters(told: list[Told], final: Final) -> Iterator[str]:
    """In the order of their versions each increment adds to the one before, and what lies between are unknown ones."""
    by_key: dict[str, list[Told]] = defaultdict(list)
    for each in _of(told, "incr"):
        if not _was_not_done(each):
            by_key[each.arguments["key"]].append(each)
    for key, increments in sorted(by_key.items()):
        unknown = sum(each.arguments["delta"] for each in increments if each.unknown)
        value = 0
        for each in sorted((each for each in increments if each.ok), key=lambda each: each.result["version"]):
            between = each.result["value"] - each.arguments["delta"] - value
            if between < 0:
                yield f"counter {key}: {-between} is lost before {each}"
            unknown -= between
            value = each.result["value"]
        last = final.counts.get(key, 0) - value
        if last < 0 or unknown - last < 0:
            yield f"counter {key} is {final.counts.get(key, 0)} after {value}, more or less than was counted"


def _transactions(told: list[Told], final: Final) -> Iterator[str]:
    """Both keys have one transaction's value and version, and each transaction is counted once."""
    commits = _of(told, "txn")
    for key in sorted({each.arguments["key"] for each in commits}):
        mine = [each for each in commits if each.arguments["key"] == key]
        one, other = final.values.get(key), final.values.get(f"{key}-other")
        if one != other:
            yield f"half a transaction: {key} is {one}, {key}-other is {other}"
        least = sum(each.ok for each in mine)
        count = final.counts.get(f"{key}-count", 0)
        if not least <= count <= least + sum(each.unknown for each in mine):
            yield f"{key}-count is {count}, and {least} transactions were acknowledged"
        refused = [each for each in mine if each.status == "refused" and not _was_not_done(each)]
        if refused:
            yield f"a transaction was refused: {refused[0]}"


def _numbers(told: list[Told]) -> Iterator[str]:
    """Versions are indexes of the log: of two writes one after the other the second has the higher one."""
    writes = [each for each in told if each.ok and each.op in ("put", "delete", "incr", "txn")]
    owners: dict[int, Told] = {}
    for each in writes:
        other = owners.setdefault(each.result["version"], each)
        if other is not each:
            yield f"one version of two writes: {other} and {each}"
    highest = 0  # of all that had ended
    by_end = sorted(writes, key=lambda each: each.ended)
    ended = 0
    for each in sorted(writes, key=lambda each: each.begun):
        while ended < len(by_end) and by_end[ended].ended < each.begun:
            highest = max(highest, by_end[ended].result["version"])
            ended += 1
        if each.result["version"] < highest:
            yield f"a version went back: {each} began when {highest} was known"


# Queues


def _messages(told: list[Told], final: Final) -> Iterator[str]:
    names: dict[int, str] = {}  # by seq
    known_from: dict[int, int] = {}
    for each in _of(told, "enqueue"):
        if each.ok:
            seqs, batch = each.result["seqs"], each.arguments["names"]
            if seqs != list(range(seqs[0], seqs[0] + len(batch))):
                yield f"a batch has gaps: {each}"
            for seq, name in zip(seqs, batch, strict=True):
                known_from[seq] = each.begun
                if names.setdefault(seq, name) != name:
                    yield f"seq {seq} is of {names[seq]} and of {name}"
    deliveries: dict[int, list[Delivery]] = defaultdict(list)
    for each in _of(told, "dequeue"):
        for seq, name, number, deadline in each.result["got"] if each.ok else ():
            if names.setdefault(seq, name) != name:
                yield f"seq {seq} is of {names[seq]} and of {name}"
            at = deadline - each.arguments["visibility"]
            deliveries[seq].append((number, at, deadline, each.begun))
    for where in (final.messages, final.dead):
        for seq, name in where.items():
            if names.setdefault(seq, name) != name:
                yield f"seq {seq} is of {names[seq]} and in the end of {name}"
    if twice := set(names.values()) if len(set(names.values())) < len(names) else set():
        yield f"a message has two seqs, among {len(twice)}"
    yield from _nothing_lost(told, names, final)
    yield from _acks(told, deliveries, final)
    yield from _leases(told, deliveries)


def _nothing_lost(told: list[Told], names: dict[int, str], final: Final) -> Iterator[str]:
    seen = set(names.values())
    settled = {seq for each in _of(told, "ack") for seq in each.arguments["seqs"] if each.status != "refused"}
    there = {*final.messages, *final.dead}
    for each in _of(told, "enqueue"):
        batch = each.arguments["names"]
        if each.unknown and 0 < sum(name in seen for name in batch) < len(batch):
            yield f"half a batch is there: {each}"
    for seq, name in names.items():
        if seq not in settled and seq not in there:
            yield f"message {seq}, {name}, is lost"


def _acks(told: list[Told], deliveries: dict[int, list[Delivery]], final: Final) -> Iterator[str]:
    """What was acknowledged is never delivered again, and is not there in the end."""
    acked: dict[int, int] = {}
    for each in _of(told, "ack"):
        if each.ok:
            for seq in set(each.arguments["seqs"]) - set(each.result["missing"]):
                if seq in acked:
                    yield f"message {seq} was acknowledged twice"
                acked[seq] = each.ended
        missing = each.arguments["seqs"] if each.status == "refused" else each.result["missing"] if each.ok else ()
        for seq in missing:
            if seq in final.messages and any(begun < each.begun for *_, begun in deliveries[seq]):
                yield f"message {seq} was not there for its ack, and is there in the end"
    for seq, ended in acked.items():
        if seq in final.messages or seq in final.dead:
            yield f"message {seq} was acknowledged and is there"
        for number, _, _, begun in deliveries[seq]:
            if begun > ended:
                yield f"message {seq} was delivered again, for the {number}. time, after its ack"


def _leases(told: list[Told], deliveries: dict[int, list[Delivery]]) -> Iterator[str]:
    """No message is handed out twice within a lease that nobody gave back."""
    given_back: dict[int, int] = defaultdict(int)
    for each in _of(told, "nack"):
        if each.status != "refused":
            for seq in each.arguments["seqs"]:
                given_back[seq] += 1
    for seq, mine in deliveries.items():
        mine.sort()
        early = 0
        for (number, at, deadline, _), (following, next_at, _, _) in pairwise(mine):
            if number == following:
                yield f"message {seq} has two deliveries of number {number}"
            if next_at < at:
                yield f"time went back from {at} to {next_at} between two deliveries of message {seq}"
            early += next_at < deadline
        if early > given_back[seq]:
            yield f"message {seq} was delivered {early} times within a lease, and given back {given_back[seq]} times"


# Streams


def id_of(text: str) -> tuple[int, int]:
    ms, _, seq = text.partition("-")
    return int(ms), int(seq)


def _records(told: list[Told], final: Final) -> Iterator[str]:
    ids = [id_of(id) for id, _ in final.records]
    if any(one >= other for one, other in pairwise(ids)):
        yield "ids of records go back or repeat"
    place = {name: number for number, (_, name) in enumerate(final.records)}
    if len(place) < len(final.records):
        yield "a record is there twice"
    at = dict(zip((name for _, name in final.records), ids, strict=True))
    appends = _of(told, "append")
    made = {name for each in appends for name in each.arguments["names"]}
    if invented := place.keys() - made:
        yield f"records that nobody appended: {sorted(invented)[:5]}"
    for each in appends:
        batch = each.arguments["names"]
        found = [place[name] for name in batch if name in place]
        if each.ok and len(found) < len(batch):
            yield f"appended records are lost: {each}"
        elif each.unknown and 0 < len(found) < len(batch):
            yield f"half a batch of records is there: {each}"
        elif found and found != list(range(found[0], found[0] + len(batch))):
            yield f"a batch of records is torn apart: {each}"
        elif each.ok and (at[batch[0]], at[batch[-1]]) != (id_of(each.result["first"]), id_of(each.result["last"])):
            yield f"records have other ids than was told: {each}"
    ended = sorted((each for each in appends if each.ok), key=lambda each: each.ended)
    done, highest = 0, (0, 0)
    for each in sorted((each for each in appends if each.ok), key=lambda each: each.begun):
        while done < len(ended) and ended[done].ended < each.begun:
            highest = max(highest, id_of(ended[done].result["last"]))
            done += 1
        if id_of(each.result["first"]) <= highest:
            yield f"ids went back: {each} began when {highest} was known"


def _deliveries_of_records(told: list[Told], final: Final) -> Iterator[str]:
    names = dict(final.records)
    acked: dict[str, int] = {}
    perhaps: set[str] = set()
    for each in _of(told, "done"):
        for id in each.arguments["ids"] if each.status != "refused" else ():
            perhaps.add(id)
            if each.ok:
                acked[id] = min(each.ended, acked.get(id, NEVER))
    numbers: set[tuple[str, int]] = set()
    for each in _of(told, "read"):
        for id, name, number in each.result["got"] if each.ok else ():
            if names.get(id) != name:
                yield f"record {id} was delivered as {name} and is {names.get(id)}"
            if (id, number) in numbers:
                yield f"record {id} has two deliveries of number {number}"
            numbers.add((id, number))
            if each.begun > acked.get(id, NEVER):
                yield f"record {id} was delivered again, for the {number}. time, after its ack"
    for id, name in names.items():
        if id not in final.pending and id not in perhaps:
            yield f"record {id}, {name}, is not delivered any more, and nobody acknowledged it"
    for id in sorted(final.pending.keys() & acked.keys()):
        yield f"record {id} was acknowledged and is delivered again"
