"""examples/poller.flow: a feed is followed with continue_as_new."""

from __future__ import annotations

import threading

from tests.support.flo_command import FloCommand, arguments
from tests.support.http_server import Answer, HttpServer


def test_poller_handles_every_event_of_the_demo_server_once(flo_command: FloCommand, demo_server: str):
    script = flo_command.example("poller.flow")

    done = flo_command("run", f"{script}::main", "--format", "json", *arguments(url=demo_server, every="1ms"))

    assert done.completed() == {"handled": 10, "after": 10}
    assert done.json["output"] == [f"{n}: event {n}" for n in range(1, 11)]


def test_poller_killed_in_its_third_round_goes_on_there(flo_command: FloCommand, server: HttpServer):
    script = flo_command.example("poller.flow")
    held = threading.Event()
    rounds = [Answer(json={"events": [{"number": n, "text": f"event {n}"}]}) for n in range(1, 6)]
    server.answer("/events", *rounds[:2], Answer(drop=True, hold=held), *rounds[2:])
    running = flo_command.start(
        "run", f"{script}::main", "--id", "feed", *arguments(url=server.url, every="1ms", rounds=5)
    )
    server.wait("/events", 3)
    running.kill()
    held.set()

    assert flo_command.resumed("feed") == {"handled": 5, "after": 5}
    assert server.count("/events") == 6, "the round that was cut off is asked for again, no other"
