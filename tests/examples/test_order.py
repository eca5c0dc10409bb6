"""examples/order.flow: reserve, charge, ship; undone in reverse when a step is refused."""

from __future__ import annotations

from typing import Any

from tests.support.flo_command import FloCommand, arguments
from tests.support.http_server import Answer, HttpServer

STEPS = ("/inventory/reservations", "/payments", "/shipments")


def run_words(flo_command: FloCommand, url: str, **values: Any) -> list[str]:
    script = flo_command.example("order.flow")
    return ["run", f"{script}::main", "--id", "order-1", "--format", "json", *arguments(url=url, **values)]


def accept_everything(server: HttpServer) -> None:
    for path, id in zip(STEPS, ("r1", "p1", "s1"), strict=True):
        server.answer(path, Answer(status=201, json={"id": id}))


def test_order_works_against_the_demo_server(flo_command: FloCommand, demo_server: str):
    result = flo_command(*run_words(flo_command, demo_server)).completed()

    assert result["status"] == "shipped" and result["shipped_so_far"] == 1


def test_order_that_cannot_be_shipped_is_refunded_and_released(flo_command: FloCommand, demo_server: str):
    result = flo_command(*run_words(flo_command, demo_server, country="XX")).completed()

    assert result == {
        "status": "rejected", "why": "not shipped: we do not deliver to XX", "undone": ["refund", "release"],
    }  # fmt: skip


def test_order_with_the_same_id_is_the_same_order(flo_command: FloCommand, server: HttpServer):
    accept_everything(server)
    words = run_words(flo_command, server.url)

    first, second = flo_command(*words).completed(), flo_command(*words).completed()

    assert first == second == {"status": "shipped", "shipment": "s1", "shipped_so_far": 1}
    assert [server.count(path) for path in STEPS] == [1, 1, 1]


def test_order_id_with_other_arguments_is_refused(flo_command: FloCommand, server: HttpServer):
    accept_everything(server)
    flo_command(*run_words(flo_command, server.url))

    assert flo_command(*run_words(flo_command, server.url, amount=41)).exit_code == 3


def test_order_killed_while_it_pays_pays_with_the_same_key_again(flo_command: FloCommand, server: HttpServer):
    accept_everything(server)
    server.hold("/payments", Answer(status=201, json={"id": "p1"}))
    running = flo_command.start(*run_words(flo_command, server.url))
    server.wait("/payments")

    running.kill()

    assert flo_command.resumed("order-1")["status"] == "shipped"
    assert server.count("/inventory/reservations") == 1
    keys = [request.headers["idempotency-key"] for request in server.requests("/payments")]
    assert keys == ["order-1-pay", "order-1-pay"]


def test_order_has_a_test_in_virtual_time_of_its_own(flo_command: FloCommand):
    done = flo_command("test", flo_command.example("order.flow"))

    assert done.exit_code == 0 and "1 passed, 0 failed" in done.out, str(done)
