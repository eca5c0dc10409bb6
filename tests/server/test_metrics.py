"""The page of metrics: what it counts, its bounds, and what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flo.server.health import Health
from flo.server.link import Connections
from flo.server.measures import Flushes, Histogram, Operations, operation
from flo.server.metrics import SHOWN, Metrics
from flo.server.turns import Turns
from flo.wire import opcodes
from flo.wire.frames import Request
from tests.grid.manual import Bench
from tests.server.wire_service import Service


class Scraped:
    """A node with connections, and the page about them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.flushes = Flushes()
        self.operations = Operations()
        self.service = Service(Bench(meter=self.flushes))
        bench = self.service.bench
        self.connections = Connections(Turns(loop, self.service.store), self.service.store, loop)
        self.metrics = Metrics(
            bench.node, bench.backend, self.connections, self.flushes, self.operations, lambda: 1_500, lambda: 2, 1
        )

    def samples(self) -> dict[tuple[str, ...], float]:
        """Values by the sample's name and the values of its labels, in order of their names."""
        found = {}
        for family in text_string_to_metric_families(self.metrics.page().decode()):
            assert family.documentation, family.name
            for sample in family.samples:
                found[sample.name, *sample.labels.values()] = sample.value
        return found


@pytest.fixture
def scraped() -> Iterator[Scraped]:
    loop = asyncio.new_event_loop()
    yield Scraped(loop)
    loop.close()


def test_an_idle_server_has_all_families(scraped: Scraped):
    samples = scraped.samples()

    assert samples["flo_uptime_seconds",] == 1.5
    assert samples["flo_guests_current",] == 2
    assert samples["flo_shards_total",] == 1
    assert samples["flo_kv_keys", "default"] == 0
    assert samples["flo_tiered_log_lost",] == samples["flo_tiered_log_stalled",] == 0
    assert samples["flo_workflow_active_runs",] == 0
    assert samples["flo_writes_refused_now",] == samples["flo_writes_refused_total",] == 0


def test_queues_streams_and_groups_stand_by_their_names(scraped: Scraped):
    with scraped.service.batch() as store:
        for _ in range(3):
            store.enqueue("default", "jobs", b"x")
        store.enqueue("other", "jobs", b"x", delay_ms=60_000)
        (message,) = store.dequeue("default", "jobs")
        store.ack("default", "jobs", [message.seq])
        store.dequeue("default", "jobs")
    wire = scraped.service.connect()
    wire.append("events", b"one")
    wire.append("events", b"two")
    wire.group_read("events", "readers", "c1", 1)
    scraped.service.advance(2_000)

    samples = scraped.samples()

    jobs = ("default", "jobs")
    assert samples["flo_queue_enqueued_total", *jobs] == 3
    assert samples["flo_queue_dequeued_total", *jobs] == 2
    assert samples["flo_queue_acked_total", *jobs] == 1
    assert samples["flo_queue_ready", *jobs] == samples["flo_queue_inflight", *jobs] == 1
    assert samples["flo_queue_oldest_ready_seconds", *jobs] == 2
    assert samples["flo_queue_delayed", "other", "jobs"] == 1
    assert samples["flo_stream_records", "default", "events"] == 2
    assert samples["flo_stream_group_pending", "readers", "default", "events"] == 1
    assert samples["flo_stream_group_lag", "readers", "default", "events"] == 1
    assert samples["flo_namespaces",] == 2


def test_labels_are_bounded_and_the_rest_is_counted(scraped: Scraped):
    more = SHOWN + 50
    with scraped.service.batch() as store:
        for number in range(more):
            store.enqueue("default", f"q{number:05}", b"x")

    samples = scraped.samples()

    assert sum(key[0] == "flo_queue_ready" for key in samples) == SHOWN
    assert samples["flo_metrics_left_out", "queue"] >= 1
    assert samples["flo_metrics_left_out", "stream"] == 0


def test_runs_are_counted_by_how_they_ended(scraped: Scraped):
    scraped.service.bench.start("a")
    scraped.service.bench.start("b")
    scraped.service.bench.node.cancel("b")

    samples = scraped.samples()

    assert samples["flo_workflow_started_total",] == 2
    assert samples["flo_workflow_active_runs",] + samples["flo_workflow_cancelled_total",] == 2


def test_flushes_are_measured(scraped: Scraped):
    wire = scraped.service.connect()
    wire.put("k", b"v")
    scraped.service.bench.node.pump()

    samples = scraped.samples()

    assert samples["flo_commit_seconds_count",] >= 1
    assert samples["flo_commit_events_total",] >= 1
    assert samples["flo_commit_bytes_total",] > 0


def test_a_node_that_cannot_serve_still_tells_what_it_knows(scraped: Scraped):
    scraped.service.bench.node.partition.broken = "a fault"

    samples = scraped.samples()

    assert samples["flo_uptime_seconds",] == 1.5
    assert ("flo_kv_keys", "default") not in samples


def test_a_histogram_counts_up_to_its_bounds():
    histogram = Histogram((0.001, 0.01))
    for ns in (1_000_000, 1_000_001, 9_000_000, 20_000_000):
        histogram.observe(ns)

    assert histogram.buckets() == [("0.001", 1), ("0.01", 3), ("+Inf", 4)]
    assert histogram.total_ns == 31_000_001


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request(opcodes.KV_PUT, 1, "default", b"k", b"v", {}), "kv_put"),
        (Request(opcodes.CALL, 1, "default", b"queue.stats", b"", {}), "queue.stats"),
        (Request(opcodes.CALL, 1, "default", b"whatever", b"", {}), "unknown"),
        (Request(0xFFF, 1, "default", b"k", b"v", {}), "unknown"),
        ([b"SeT", b"k", b"v"], "resp_set"),
        ([b"nosuch"], "unknown"),
        ([], "unknown"),
    ],
)
def test_operations_have_names_of_a_bounded_set(request_, name):
    assert operation(request_) == name


def test_health_tells_trouble_only_of_an_open_server():
    health = Health()
    trouble: list[str | None] = ["the disk is full"]
    health.trouble = lambda: trouble[0]

    assert (health.status, health.page().status) == ("starting", 503)
    health.phase = "ok"
    assert (health.status, health.page().status) == ("degraded", 503)
    assert b"the disk is full" in health.page().body
    trouble[0] = None
    assert (health.status, health.page().status) == ("ok", 200)
    health.phase = "stopping"
    assert (health.status, health.page().status) == ("stopping", 503)
