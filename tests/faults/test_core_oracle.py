"""The oracle of the kill loop accepts what may be, and finds each thing that must not be."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.core_oracle import Final, JournalReader, Told, wrong
from tests.faults.linearizability import NEVER

Story = tuple[list[Told], Final]
TAKEN = [[1, "m1", 1, 1100], [3, "m3", 1, 1100], [4, "m4", 1, 1100]]


def told(begun: int, op: str, arguments: dict[str, Any], result: Any = None, *, status: str = "ok") -> Told:
    return Told("a", op, arguments, begun, NEVER if status == "unknown" else begun + 5, status, result)


def story() -> Story:
    """What one client did, ten moments apart, and what is there in the end."""
    journal = [
        told(10, "put", {"key": "r", "value": "a.1", "if": None}, {"version": 1}),
        told(20, "put", {"key": "r", "value": "a.2", "if": 1}, {"version": 2}),
        told(30, "get", {"key": "r"}, {"value": "a.2", "version": 2}),
        told(40, "incr", {"key": "c", "delta": 2}, {"value": 2, "version": 3}),
        told(50, "incr", {"key": "c", "delta": 4}, status="unknown"),
        told(60, "incr", {"key": "c", "delta": 1}, {"value": 7, "version": 5}),
        told(70, "txn", {"key": "p", "value": "a.3"}, {"version": 6}),
        told(80, "txn", {"key": "p", "value": "a.4"}, status="unknown"),
        told(100, "enqueue", {"names": ["m1", "m2"]}, {"seqs": [1, 2]}),
        told(110, "enqueue", {"names": ["m3", "m4"]}, status="unknown"),
        told(120, "enqueue", {"names": ["m5"]}, status="unknown"),
        told(130, "dequeue", {"visibility": 100, "count": 5}, {"got": TAKEN}),
        told(140, "ack", {"seqs": [1]}, {"missing": []}),
        told(150, "dequeue", {"visibility": 100, "count": 5}, {"got": [[3, "m3", 2, 1200]]}),
        told(160, "nack", {"seqs": [3]}, {"missing": []}),
        told(170, "dequeue", {"visibility": 100, "count": 5}, {"got": [[3, "m3", 3, 1210]]}),
        told(180, "ack", {"seqs": [4]}, status="unknown"),
        told(200, "append", {"names": ["e1", "e2"]}, {"first": "5-0", "last": "5-1"}),
        told(210, "append", {"names": ["e3"]}, status="unknown"),
        told(220, "read", {}, {"got": [["5-0", "e1", 1], ["5-1", "e2", 1]]}),
        told(230, "done", {"ids": ["5-0"]}, {"count": 1}),
        told(240, "append", {"names": ["e4", "e5"]}, {"first": "7-0", "last": "7-1"}),
    ]
    final = Final(
        values={"r": ("a.2", 2), "p": ("a.4", 8), "p-other": ("a.4", 8)},
        counts={"c": 7, "p-count": 2},
        messages={2: "m2", 3: "m3"},
        records=[("5-0", "e1"), ("5-1", "e2"), ("7-0", "e4"), ("7-1", "e5")],
        pending={"5-1": "e2", "7-0": "e4", "7-1": "e5"},
    )
    return journal, final


def at(journal: list[Told], begun: int) -> int:
    return next(place for place, each in enumerate(journal) if each.begun == begun)


def changed(journal: list[Told], begun: int, **result: Any) -> None:
    place = at(journal, begun)
    journal[place] = replace(journal[place], result=journal[place].result | result)


def test_what_may_be_is_accepted():
    assert wrong(*story()) == []


def test_unknown_outcomes_may_all_be_nothing():
    journal, final = story()
    changed(journal, 60, value=3)
    changed(journal, 130, got=TAKEN[:1])
    for begun in (150, 160, 170, 180):
        del journal[at(journal, begun)]
    final.counts |= {"c": 3, "p-count": 1}
    final.values |= {"p": ("a.3", 6), "p-other": ("a.3", 6)}
    final.messages = {2: "m2"}

    assert wrong(journal, final) == []


FAULTS: dict[str, tuple[str, Callable[[list[Told], Final], object]]] = {
    "a lost put": ("key r", lambda journal, final: final.values.update(r=("a.1", 1))),
    "a key that is gone": ("key r", lambda journal, final: final.values.pop("r")),
    "a read of an old value": ("key r", lambda journal, final: changed(journal, 30, value="a.1", version=1)),
    "a lost increment": ("counter c", lambda journal, final: final.counts.update(c=6)),
    "an increment too many": ("counter c", lambda journal, final: final.counts.update(c=12)),
    "an increment that others do not see": ("counter c", lambda journal, final: changed(journal, 60, value=2)),
    "half a transaction": ("half a transaction", lambda journal, final: final.values.update(p=("a.3", 6))),
    "a transaction that is lost": (
        "key p",
        lambda journal, final: final.values.update({"p": ("a.0", 5), "p-other": ("a.0", 5)}),
    ),
    "a transaction that happened twice": ("p-count", lambda journal, final: final.counts.update({"p-count": 3})),
    "a version twice": ("one version of two", lambda journal, final: changed(journal, 40, version=2)),
    "a version that goes back": ("went back", lambda journal, final: changed(journal, 70, version=4)),
    "a lost message": ("message 2, m2, is lost", lambda journal, final: final.messages.pop(2)),
    "a message of an unknown batch that was seen and lost": (
        "message 3, m3, is lost",
        lambda journal, final: final.messages.pop(3),
    ),
    "half a batch": ("half a batch", lambda journal, final: changed(journal, 130, got=TAKEN[:2])),
    "a batch with a gap": ("gaps", lambda journal, final: changed(journal, 100, seqs=[1, 5])),
    "a seq of two messages": ("seq 2 is of m2", lambda journal, final: final.messages.update({2: "m5"})),
    "an acknowledged message in the end": (
        "acknowledged and is there",
        lambda j, final: final.messages.update({1: "m1"}),
    ),
    "an acknowledged message among the dead": (
        "acknowledged and is there",
        lambda j, final: final.dead.update({1: "m1"}),
    ),
    "an acknowledged message that comes again": (
        "after its ack",
        lambda journal, final: changed(journal, 150, got=[[1, "m1", 2, 1200], [3, "m3", 2, 1200]]),
    ),
    "a message that comes within its lease": (
        "within a lease",
        lambda journal, final: changed(journal, 150, got=[[3, "m3", 2, 1199]]),
    ),
    "two deliveries of one number": (
        "two deliveries of number 2",
        lambda journal, final: changed(journal, 170, got=[[3, "m3", 2, 1210]]),
    ),
    "an ack that missed its message": (
        "was not there for its ack",
        lambda journal, final: journal.append(told(190, "ack", {"seqs": [3]}, {"missing": [3]})),
    ),
    "a lost record": ("appended records are lost", lambda journal, final: final.records.pop(1)),
    "a lost batch": ("appended records are lost", lambda journal, final: final.records.__delitem__(slice(2, 4))),
    "half an unknown batch of records": (
        "half a batch of records",
        lambda journal, final: journal.append(told(250, "append", {"names": ["e5", "e6"]}, status="unknown")),
    ),
    "a record twice": ("twice", lambda journal, final: final.records.append(("8-0", "e1"))),
    "a record that nobody appended": ("nobody appended", lambda journal, final: final.records.append(("8-0", "e9"))),
    "records in another order": ("go back", lambda journal, final: final.records.reverse()),
    "an id that goes back": ("ids went back", lambda journal, final: changed(journal, 240, first="4-0", last="4-1")),
    "a record with another id": ("other ids", lambda journal, final: changed(journal, 240, first="9-0", last="9-1")),
    "an acknowledged record that comes again": (
        "acknowledged and is delivered again",
        lambda journal, final: final.pending.update({"5-0": "e1"}),
    ),
    "an acknowledged record that came again": (
        "after its ack",
        lambda journal, final: journal.append(told(250, "read", {}, {"got": [["5-0", "e1", 2]]})),
    ),
    "a record that two got": (
        "two deliveries of number 1",
        lambda journal, final: journal.append(told(250, "read", {}, {"got": [["5-1", "e2", 1]]})),
    ),
    "a record that the group passes over": (
        "is not delivered any more",
        lambda journal, final: final.pending.pop("7-0"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_finds(name: str):
    text, fault = FAULTS[name]
    journal, final = copy.deepcopy(story())
    fault(journal, final)

    assert any(text in problem for problem in wrong(journal, final)), wrong(journal, final)


def test_a_journal_is_read_while_it_grows(tmp_path: Path):
    path = tmp_path / "load0.journal"
    reader = JournalReader(path)
    intent = {"n": 1, "op": "incr", "a": {"key": "c", "delta": 1}, "t": 5}
    assert reader.read() == []
    path.write_text(json.dumps(intent) + '\n{"n": 1, "s": "ok", "r"')
    assert reader.read() == []
    path.write_text(json.dumps(intent) + '\n{"n": 1, "s": "ok", "r": {"value": 1, "version": 2}, "t": 9}\n')
    with path.open("a") as file:
        file.write(json.dumps(intent | {"n": 2}) + "\n")

    assert reader.read() == [Told("load0", "incr", intent["a"], 5, 9, "ok", {"value": 1, "version": 2})]
    assert reader.rest() == [Told("load0", "incr", intent["a"], 5, NEVER, "unknown", None)]
