"""Calls by name: their arguments, results and refusals as msgpack."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.wire import calls
from flo.wire.calls import CALLS, CallError, decode_arguments, decode_refusal, decode_result, encode
from tests.wire.call_tables import PAGE, replaced


def test_arguments_are_a_map_of_what_differs_from_the_defaults():
    asked = calls.QueueDequeue("jobs", count=5)

    assert msgspec.msgpack.decode(encode(asked)) == {"queue": "jobs", "count": 5}
    assert decode_arguments(calls.QUEUE_DEQUEUE, encode(asked)) == asked


def test_no_bytes_are_no_arguments():
    assert decode_arguments(calls.NAMESPACE_LIST, b"") == calls.NoArguments()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, "`queue`"),
        ({"queue": 7}, r"\$.queue"),
        ({"queue": "q", "count": "many"}, r"\$.count"),
        ({"queue": "q", "colour": "red"}, "`colour`"),
        ([1], "object"),
    ],
)
def test_wrong_arguments_are_refused_naming_the_field(arguments: object, names: str):
    with pytest.raises(CallError, match=names) as refused:
        decode_arguments(calls.QUEUE_DEQUEUE, msgspec.msgpack.encode(arguments))

    assert "queue.dequeue" in str(refused.value)


def test_a_result_may_have_fields_that_the_client_does_not_know():
    body = msgspec.msgpack.encode({"version": 7, "colour": "red"})

    assert decode_result(calls.KV_PUT, body) == calls.Written(7)


def test_a_refusal_carries_its_details():
    refusal = calls.Refusal("Version mismatch: current version 5", "conflict", {"current_version": 5})

    assert decode_refusal(encode(refusal)) == refusal


@pytest.mark.parametrize("name", sorted(CALLS))
@given(data=st.binary(max_size=40))
def test_arbitrary_bytes_raise_nothing_but_a_call_error(name: str, data: bytes):
    for decode in (decode_arguments, decode_result):
        with suppress(CallError):
            decode(CALLS[name], data)


def test_deep_nesting_is_refused():
    with pytest.raises(CallError):
        decode_refusal(b"\x83\xa7message\xa0\xa4code\xa0\xa7details" + b"\x91" * 100_000)


def test_the_page_shows_every_call_as_it_is():
    page = PAGE.read_text(encoding="utf-8")

    assert replaced(page) == page, "run python -m tests.wire.call_tables"
