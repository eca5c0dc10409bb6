"""examples/rest_sync.flow: one REST system's contacts are written to another."""

from __future__ import annotations

from tests.support.flo_command import FloCommand, arguments
from tests.support.http_server import Answer, HttpServer

CONTACTS = [{"id": n, "name": f"contact {n}"} for n in range(1, 5)]


def serve_contacts(server: HttpServer) -> None:
    pages = [{"contacts": CONTACTS[:2], "next": 2}, {"contacts": CONTACTS[2:], "next": None}]
    server.answer("/contacts", *(Answer(json=page) for page in pages))


def run_words(flo_command: FloCommand, server: HttpServer, id: str) -> list[str]:
    script = flo_command.example("rest_sync.flow")
    return ["run", f"{script}::main", "--id", id, "--format", "json", *arguments(source=server.url, target=server.url)]


def test_rest_sync_works_against_the_demo_server(flo_command: FloCommand, demo_server: str):
    script = flo_command.example("rest_sync.flow")
    words = ["run", f"{script}::main", "--format", "json", *arguments(source=demo_server, target=demo_server)]

    assert flo_command(*words).completed() == {"written": 5, "skipped": 0}
    assert flo_command(*words).completed() == {"written": 0, "skipped": 5}


def test_rest_sync_tries_dropped_and_refused_writes_again(flo_command: FloCommand, server: HttpServer):
    serve_contacts(server)
    server.answer("/newsletter/contacts/2", Answer(drop=True), Answer(status=503, json={}), Answer(json={}))

    assert flo_command(*run_words(flo_command, server, "sync")).completed() == {"written": 4, "skipped": 0}
    assert server.count("/newsletter/contacts/2") == 3
    assert server.requests("/newsletter/contacts/2")[-1].json == CONTACTS[1]


def test_rest_sync_killed_between_two_writes_goes_on_at_the_next(flo_command: FloCommand, server: HttpServer):
    serve_contacts(server)
    server.hold("/newsletter/contacts/3")
    running = flo_command.start(*run_words(flo_command, server, "sync"))
    server.wait("/newsletter/contacts/3")

    running.kill()

    assert flo_command.resumed("sync") == {"written": 4, "skipped": 0}
    assert [server.count(f"/newsletter/contacts/{n}") for n in (1, 2, 3, 4)] == [1, 1, 2, 1]
    assert server.count("/contacts") == 2, "the pages are in the log"
