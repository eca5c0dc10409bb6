"""The page `/metrics`, in the text format of Prometheus. Everything is read from the node when the page is asked for.

Labels are bounded: so many namespaces, queues, streams and groups of each family are shown, in order of their names,
and flo_metrics_left_out counts the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from flo.api.errors import FloError
from flo.api.version import VERSION
from flo.log.file.backend import FileBackend
from flo.primitives.queue_pages import QueueStats
from flo.primitives.stream_pages import GroupInfo, StreamInfo
from flo.server.measures import Flushes, Histogram, Operations
from flo.server.turns import SAMPLED

if TYPE_CHECKING:
    from flo.grid.node import Node
    from flo.grid.store import Store
    from flo.log.contract import LogBackend
    from flo.server.link import Connections

SHOWN: Final = 1_000  # of each family
PAGE: Final = 200  # read at a time with the lock held
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

QUEUE_COUNTERS: Final = {
    "enqueued": ("enqueued", "Messages put into the queue."),
    "dequeued": ("dequeued", "Deliveries."),
    "acked": ("acked", "Messages acknowledged."),
    "nacked": ("nacked", "Deliveries given back."),
    "expired_leases": ("expired", "Leases that ended without an acknowledgement."),
    "dlq_moved": ("dlq_moved", "Messages moved to the dead-letter queue."),
    "dlq_evicted": ("dlq_evicted", "Messages that a full dead-letter queue has dropped."),
    "purged": ("purged", "Messages purged."),
}
QUEUE_GAUGES: Final = {
    "ready": ("available", "Messages that can be taken."),
    "delayed": ("delayed", "Messages whose time has not come."),
    "inflight": ("inflight", "Messages leased to consumers."),
    "dlq_length": ("dlq", "Messages in the dead-letter queue."),
}
RUN_COUNTERS: Final = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "timed_out": "timed out",
}


class Metrics(Collector):
    """`page()` is the whole text. `guests`: how many processes use the node through its socket."""

    def __init__(
        self,
        node: Node,
        backend: LogBackend,
        connections: Connections,
        flushes: Flushes,
        operations: Operations,
        uptime_ms: Callable[[], int],
        guests: Callable[[], int],
        shards: int,
    ) -> None:
        self._node = node
        self._backend = backend
        self._connections = connections
        self._flushes = flushes
        self._operations = operations
        self._uptime_ms = uptime_ms
        self._guests = guests
        self._shards = shards
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """Takes the store's lock for moments; to be called outside of the event loop."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()  # else registering would collect

    def collect(self) -> Iterator[Metric]:
        yield from self._server()
        yield from self._times()
        yield from self._log()
        try:
            yield from self._state()
        except FloError:
            pass  # the node cannot serve: flo_tiered_log_lost says so
        yield from self._workflows()

    # -- families

    def _server(self) -> Iterator[Metric]:
        connections = self._connections
        turns = connections.turns
        build = GaugeMetricFamily("flo_build_info", "The release.", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build
        yield GaugeMetricFamily("flo_uptime_seconds", "Since the server became ready.", self._uptime_ms() / 1000)
        yield GaugeMetricFamily("flo_shards_total", "Shards of the data directory.", self._shards)
        yield CounterMetricFamily("flo_commands", "Requests performed, of all protocols.", turns.requests)
        yield CounterMetricFamily("flo_batches", "Batches in which they were performed.", turns.batches)
        yield GaugeMetricFamily("flo_connections_current", "Connections of clients.", len(connections.links))
        yield CounterMetricFamily("flo_connections_accepted", "Connections ever.", connections.accepted)
        yield CounterMetricFamily("flo_connections_refused", "Connections over the limit.", connections.refused)
        spoken = CounterMetricFamily("flo_connections_by_protocol", "Connections ever.", labels=["protocol"])
        for protocol, count in connections.by_protocol.items():
            spoken.add_metric([protocol], count)
        yield spoken
        yield GaugeMetricFamily("flo_guests_current", "Processes that use the server's socket.", self._guests())
        yield CounterMetricFamily("flo_bytes_received", "Bytes from clients.", connections.bytes_in)
        yield CounterMetricFamily("flo_bytes_sent", "Bytes to clients.", connections.bytes_out)

    def _times(self) -> Iterator[Metric]:
        flushes = self._flushes
        yield _histogram("flo_commit_seconds", "Append and flush of what goes to the log together.", flushes.seconds)
        yield CounterMetricFamily("flo_commit_frames", "Frames flushed.", flushes.frames)
        yield CounterMetricFamily("flo_commit_events", "Events flushed.", flushes.events)
        yield CounterMetricFamily("flo_commit_bytes", "Bytes of events flushed.", flushes.bytes)
        text = f"Time to perform an operation, without the log; measured for about one of {SAMPLED}, and so counted."
        times = HistogramMetricFamily("flo_operation_seconds", text, labels=["operation"])
        for name, histogram in sorted(self._operations.seconds.copy().items()):
            times.add_metric([name], buckets=histogram.buckets(), sum_value=histogram.total_ns / 1e9)
        yield times

    def _log(self) -> Iterator[Metric]:
        node = self._node
        store = node.store
        yield GaugeMetricFamily("flo_tiered_log_last_index", "The newest event.", store.last_index)
        yield GaugeMetricFamily("flo_tiered_log_durable_index", "The newest durable event.", store.durable_index)
        yield GaugeMetricFamily("flo_tiered_log_pending_bytes", "Bytes not durable yet.", store.pending_bytes)
        yield GaugeMetricFamily("flo_tiered_log_hot_bytes", "Payloads in memory.", node.hot.held_bytes)
        yield CounterMetricFamily("flo_tiered_log_written_bytes", "Bytes appended.", self._backend.written_bytes)
        since = self._backend.size_since_snapshot()
        yield GaugeMetricFamily("flo_tiered_log_replay_bytes", "Bytes that a start would read.", since)
        if isinstance(self._backend, FileBackend):
            backend = self._backend
            yield GaugeMetricFamily("flo_tiered_log_segment_bytes", "The log on the disk.", backend.segment_bytes)
            yield GaugeMetricFamily("flo_tiered_log_snapshot_index", "The newest snapshot.", backend.snapshot_index)
            yield GaugeMetricFamily("flo_tiered_log_snapshot_bytes", "Its size.", backend.snapshot_size)
        yield GaugeMetricFamily("flo_tiered_log_stalled", "1 while the log does not get on.", bool(store.stalled))
        yield GaugeMetricFamily("flo_tiered_log_lost", "1 once the log is lost.", node.lost is not None)

    def _state(self) -> Iterator[Metric]:
        store = self._node.store
        machines = self._node.partition.machines
        namespaces = _batch(store, store.namespace_list)
        shown = namespaces[:SHOWN]
        left_out = Counter({"namespace": len(namespaces) - len(shown)})
        keys = GaugeMetricFamily("flo_kv_keys", "Keys that are there.", labels=["namespace"])
        queues: list[QueueStats] = []
        streams: list[StreamInfo] = []
        groups: list[GroupInfo] = []
        for ns in shown:
            keys.add_metric([ns], _batch(store, lambda ns=ns: store.key_count(ns)))  # type: ignore[misc]
            left_out["queue"] += _pages(store, store.queue_list, "queues", ns, queues)
            left_out["stream"] += _pages(store, store.stream_list, "streams", ns, streams)
        for stream in streams:
            room = SHOWN - len(groups)
            found = _batch(store, lambda s=stream: store.group_list(s.namespace, s.name))  # type: ignore[misc]
            groups += found[:room]
            left_out["group"] += max(0, len(found) - room)
        yield GaugeMetricFamily("flo_namespaces", "Namespaces that are there.", len(namespaces))
        yield keys
        yield from _queues(queues)
        yield from _streams(streams, groups)
        rest = GaugeMetricFamily("flo_metrics_left_out", "What is not shown by name, at least.", labels=["kind"])
        for kind in ("namespace", "queue", "stream", "group"):
            rest.add_metric([kind], left_out[kind])
        yield rest
        refuses, refused = store.refusals
        yield GaugeMetricFamily("flo_writes_refused_now", "1 while memory or disk has no room for more.", refuses)
        yield CounterMetricFamily("flo_writes_refused", "Writes refused for that.", refused)
        with store.lock:
            waiting = self._node.partition.waiters.counts()
        for what, count in waiting.items():
            yield GaugeMetricFamily(f"flo_{what}_waiters", "Requests that wait for something to come.", count)
        yield GaugeMetricFamily("flo_kv_memory_bytes", "Memory of keys, by estimate.", machines.kv.bytes)
        yield GaugeMetricFamily("flo_queue_memory_bytes", "Memory of queues.", machines.queues.bytes)
        held = machines.streams.bytes + machines.groups.bytes
        yield GaugeMetricFamily("flo_stream_memory_bytes", "Memory of streams and groups.", held)
        yield GaugeMetricFamily("flo_memory_bytes", "Memory that the state holds.", machines.memory_bytes)

    def _workflows(self) -> Iterator[Metric]:
        with self._node.partition.lock:
            runs = [*self._node.partition.machines.runs.runs.values()]
        by_status = Counter(run.status for run in runs)
        yield GaugeMetricFamily("flo_workflow_active_runs", "Runs that are not over.", by_status["running"])
        yield CounterMetricFamily("flo_workflow_started", "Runs ever.", len(runs))
        for status, text in RUN_COUNTERS.items():
            yield CounterMetricFamily(f"flo_workflow_{status}", f"Runs that have ended as {text}.", by_status[status])


def _queues(queues: list[QueueStats]) -> Iterator[Metric]:
    labels = ["namespace", "queue"]
    for name, (attribute, text) in QUEUE_COUNTERS.items():
        counter = CounterMetricFamily(f"flo_queue_{name}", text, labels=labels)
        for queue in queues:
            counter.add_metric([queue.namespace, queue.name], getattr(queue, attribute))
        yield counter
    for name, (attribute, text) in QUEUE_GAUGES.items():
        gauge = GaugeMetricFamily(f"flo_queue_{name}", text, labels=labels)
        for queue in queues:
            gauge.add_metric([queue.namespace, queue.name], getattr(queue, attribute))
        yield gauge
    oldest = GaugeMetricFamily("flo_queue_oldest_ready_seconds", "Age of the oldest ready message.", labels=labels)
    for queue in queues:
        oldest.add_metric([queue.namespace, queue.name], queue.oldest_ready_ms / 1000)
    yield oldest


def _streams(streams: list[StreamInfo], groups: list[GroupInfo]) -> Iterator[Metric]:
    labels = ["namespace", "stream"]
    records = GaugeMetricFamily("flo_stream_records", "Records that are there.", labels=labels)
    size = GaugeMetricFamily("flo_stream_bytes", "Their bytes.", labels=labels)
    for stream in streams:
        records.add_metric([stream.namespace, stream.name], stream.records)
        size.add_metric([stream.namespace, stream.name], stream.bytes)
    labels = ["namespace", "stream", "group"]
    pending = GaugeMetricFamily("flo_stream_group_pending", "Records delivered, not acknowledged.", labels=labels)
    lag = GaugeMetricFamily("flo_stream_group_lag", "Records not delivered yet.", labels=labels)
    members = GaugeMetricFamily("flo_stream_group_members", "Consumers.", labels=labels)
    for group in groups:
        where = [group.namespace, group.stream, group.group]
        pending.add_metric(where, group.pending)
        lag.add_metric(where, group.lag)
        members.add_metric(where, len(group.members))
    yield from (records, size, pending, lag, members)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.total_ns / 1e9)


def _batch(store: Store, look: Callable[[], Any]) -> Any:
    """Raises Unavailable."""
    with store.lock:
        store.begin(0)
        try:
            found = look()
        finally:
            store.end()
    store.after()
    return found


def _pages(
    store: Store, read: Callable[[str, int, str], Any], rows: str, ns: str, found: list[Any]
) -> int:  # fmt: skip
    """Adds what is in the namespace while there is room; how much was left out, at least."""
    cursor = ""
    while True:
        page = _batch(store, lambda cursor=cursor: read(ns, PAGE, cursor))  # type: ignore[misc]
        room = SHOWN - len(found)
        here = getattr(page, rows)
        found += here[:room]
        if len(here) > room or (room == len(here) and page.has_more):
            return max(1, len(here) - room)
        if not page.has_more:
            return 0
        cursor = page.cursor
