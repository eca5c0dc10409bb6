"""examples/batch.flow: many jobs, some at a time, a report at the end."""

from __future__ import annotations

import threading

from tests.support.flo_command import FloCommand, arguments
from tests.support.http_server import Answer, HttpServer, Request


def test_batch_works_against_the_demo_server(flo_command: FloCommand, demo_server: str):
    script = flo_command.example("batch.flow")

    result = flo_command("run", f"{script}::main", "--format", "json", *arguments(url=demo_server)).completed()

    assert result["made"] == [f"small-img-{n}.png" for n in range(1, 20)]
    assert "broken.png: no image" in result["failed"]["broken.png"]


def test_batch_keeps_to_its_bound_and_reports_in_the_order_of_the_list(flo_command: FloCommand, server: HttpServer):
    lock, most, now = threading.Lock(), 0, 0
    three = threading.Event()

    def make(request: Request) -> Answer:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            if now == 3:
                three.set()
        three.wait(10)
        with lock:
            now -= 1
        return Answer(json={"thumbnail": request.json["image"].upper()})

    server.answer("/thumbnails", make)
    script = flo_command.example("batch.flow")
    images = [f"{n}.png" for n in range(12)]

    result = flo_command(
        "run", f"{script}::main", "--format", "json", *arguments(url=server.url, images=images, parallel=3)
    ).completed()

    assert result == {"made": [image.upper() for image in images], "failed": {}}
    assert three.is_set() and most == 3


def test_batch_killed_in_the_middle_repeats_no_finished_job(flo_command: FloCommand, server: HttpServer):
    held = threading.Event()

    def make(request: Request) -> Answer:
        hold = held if request.json["image"] == "4.png" and not held.is_set() else None
        return Answer(json={"thumbnail": request.json["image"]}, hold=hold)

    server.answer("/thumbnails", make)
    script = flo_command.example("batch.flow")
    images = [f"{n}.png" for n in range(8)]
    running = flo_command.start(
        "run", f"{script}::main", "--id", "batch", *arguments(url=server.url, images=images, parallel=2)
    )
    server.wait("/thumbnails", len(images))
    running.kill()
    held.set()

    assert flo_command.resumed("batch")["made"] == images
    asked = [request.json["image"] for request in server.requests("/thumbnails")]
    assert all(asked.count(image) == 1 for image in images[:-1] if image != "4.png"), asked
