"""The server's life: from its configuration to its last word.

    ports for health and metrics      /health says "starting"
    data directory                    lock, recovery; in a thread, so that /health answers meanwhile
    socket for guests, client port    "ok", one line on stdout
    SIGTERM, SIGINT                   "stopping": no new connections, waits end, the log is flushed, a snapshot
    a second signal                   the end, at once: nothing that was acknowledged is lost by that

A server whose log is lost (its disk failed, or another process took the log) says so and ends with an error: what it
holds in memory may be more than what is stored.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from flo.api.clock import Clock, SystemClock
from flo.api.errors import FloError
from flo.api.version import VERSION
from flo.grid.gateway import Gateway, Wire
from flo.log.disk import SystemDisk
from flo.log.errors import DirectoryLocked, DirectoryUnusable
from flo.log.file.directory import SHARDS_MAX, owner_of, read_system
from flo.log.url import open_log
from flo.primitives.kv import KV
from flo.primitives.machines import Machines
from flo.primitives.queues import Queues
from flo.server import logs, presence
from flo.server.config import BadConfiguration, Configuration
from flo.server.health import Health
from flo.server.http import Answer, HttpPort, Page, json_page
from flo.server.link import Connections, WebSocketSettings
from flo.server.listener import Listener, port_unusable
from flo.server.measures import Flushes, Operations
from flo.server.presence import Presence
from flo.server.turns import Turns

if TYPE_CHECKING:
    from flo.grid.node import Node
    from flo.log.contract import LogBackend
    from flo.server.metrics import Metrics

SWITCH_SECONDS: Final = 0.0005  # how long a thread that computes keeps the flusher waiting; shorter gains nothing
GC_THRESHOLD: Final = (50_000, 20, 100)  # what clients store is no garbage: a third more writes than with 700, 10, 10
CONNECTIONS_MAX: Final = 65_536
FILES_KEPT: Final = 1_024  # open files that clients leave for the log, guests, health and metrics
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OK: Final = 0
FAILED: Final = 1

_log = logging.getLogger("flo.server")


class OpenNode(Protocol):
    """Makes a node that executes runs, on a log that is not opened yet."""

    def __call__(
        self,
        directory: str,
        *,
        backend: LogBackend,
        on_warning: Callable[[str], None],
        memory_budget: int,
        hot_bytes: int,
        make_machines: Callable[[str], Machines],
        meter: Flushes,
    ) -> Node: ...


def serve(configuration: Configuration, open_node: OpenNode, *, threads: int = 0, out: TextIO | None = None) -> int:
    """Runs a server until it is told to stop; the exit code of the process. `threads`: for reads from the disk, 0 for
    as many as the machine suggests. `out` gets the line that says that the server is ready. Raises FloError when it
    cannot start."""
    settings = configuration.settings
    logs.set_up(settings.logging.level, settings.logging.format)
    directory = os.path.abspath(os.path.expanduser(settings.server.data_dir))
    _check_shards(settings.server.shards, directory)
    for warning in configuration.warnings:
        _log.warning("%s", warning)
    life = Life(configuration, directory, open_node, threads=threads, out=out or sys.stdout)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(life.run())


@dataclass
class Serving:
    """What there is once clients are served."""

    node: Node
    gateway: Gateway
    listener: Listener


class Life:
    """One run of the server."""

    def __init__(
        self,
        configuration: Configuration,
        directory: str,
        open_node: OpenNode,
        *,
        threads: int,
        out: TextIO,
        clock: Clock | None = None,
    ) -> None:
        self._configuration = configuration
        self._settings = configuration.settings
        self._directory = directory
        self._open_node = open_node
        self._threads = threads
        self._out = out
        self._clock = clock or SystemClock()
        self._health = Health()
        self._flushes = Flushes()
        self._operations = Operations()
        self._metrics: Metrics | None = None
        self._shards = 1
        self._ready_at = 0
        self._ports: dict[str, HttpPort] = {}
        self._addresses: dict[str, str] = {"metrics": "", "health": ""}
        self._stop = asyncio.Event()
        self._code = OK

    async def run(self) -> int:
        """The exit code. Raises FloError when the server cannot start."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_loop_fault)
        if self._threads:
            loop.set_default_executor(ThreadPoolExecutor(self._threads, "flo-reader"))
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.set_threshold(*GC_THRESHOLD)
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # not under nohup
                loop.add_signal_handler(number, self._signalled, number)
        try:
            await self._open_ports()
            serving = await self._start()
            if serving is not None:
                await self._stop.wait()
                self._health.phase = "stopping"
                await self._end(serving)
        finally:
            for port in self._ports.values():
                await port.close()
        return self._code

    # -- start

    async def _open_ports(self) -> None:
        """Health first, so that whoever looks after the server sees it start. Raises PortUnusable."""
        settings = self._settings
        server, metrics, dashboard = settings.server, settings.metrics, settings.dashboard
        await _probe(server.bind, server.port)
        if dashboard.enabled:
            pages: dict[str, Answer] = {"/": self._front_page, "/health": self._health.page}
            await self._open_port("health", pages, dashboard.bind, self._configuration.dashboard_port)
        if metrics.enabled:
            pages = {"/metrics": self._metrics_page, "/health": self._shards_page}
            await self._open_port("metrics", pages, metrics.bind, self._configuration.metrics_port)

    async def _open_port(self, name: str, pages: Mapping[str, Answer], bind: str, port: int) -> None:
        opened = HttpPort(pages)
        host, number = await opened.open(bind, port)
        self._ports[name] = opened
        self._addresses[name] = _address(host, number)

    async def _start(self) -> Serving | None:
        """Recovers and serves; None when told to stop before."""
        loop = asyncio.get_running_loop()
        settings = self._settings
        logs.event(_log, "starting", version=VERSION, pid=os.getpid(), data=self._directory)
        backend = open_log(
            f"file:{self._directory}", durability=settings.storage.durability, shards=settings.server.shards,
            partitions=settings.server.partition_count,
        )  # fmt: skip
        begun = self._clock.monotonic_ms()
        node = await self._unless_stopped(loop.run_in_executor(None, self._recover, backend))
        if node is None:
            return None
        took = self._clock.monotonic_ms() - begun
        logs.event(
            _log, "recovered", ms=took, last_index=node.store.last_index, replayed=node.replayed,
            runs=len(node.partition.machines.runs.runs),
        )  # fmt: skip
        try:
            serving = await self._serve(node, backend)
        except BaseException:
            await loop.run_in_executor(None, node.close)
            presence.remove(self._directory)
            raise
        return serving

    def _recover(self, backend: LogBackend) -> Node:
        """In a thread: it may take long."""
        settings = self._settings
        queue, storage = settings.queue, settings.storage
        if presence.is_locked(self._directory):
            raise _in_use(self._directory)
        try:
            os.makedirs(self._directory, exist_ok=True)
            presence.write_pid(self._directory)
        except OSError as error:
            raise DirectoryUnusable(
                f"{self._directory}: {error.strerror}", hint="choose another data directory"
            ) from error
        try:
            node = self._open_node(
                self._directory,
                backend=backend,
                on_warning=partial(_log.warning, "%s"),
                memory_budget=storage.memory_budget,
                hot_bytes=storage.hot_buffer_capacity,
                make_machines=lambda runtime: Machines(
                    runtime,
                    kv=KV(expose_internal_keys=settings.kv.expose_internal_keys),
                    queues=Queues(max_attempts=queue.max_attempts, dlq_capacity=queue.dlq_capacity),
                ),
                meter=self._flushes,
            )
        except BaseException as error:
            presence.remove(self._directory)
            if isinstance(error, DirectoryLocked):
                raise _in_use(self._directory) from error
            raise
        gc.freeze()  # what was loaded stays; a collection need not look at it
        return node

    async def _unless_stopped(self, opening: asyncio.Future[Node]) -> Node | None:
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((opening, stop), return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            stop.cancel()
            return opening.result()
        logs.event(_log, "stopped before the log was read: nothing was served")
        self._leave(OK)
        return None

    async def _serve(self, node: Node, backend: LogBackend) -> Serving:
        loop = asyncio.get_running_loop()
        settings = self._settings
        store = node.store
        turns = Turns(loop, store, self._clock)
        turns.sampler = self._operations.sampled
        web = settings.websocket
        connections = Connections(
            turns, store, loop, self._clock, self._configuration.dashboard_port,
            WebSocketSettings(
                web.rate_limit_requests, web.rate_limit_window_ms, web.ping_interval_ms, web.pong_timeout_ms
            ),
            limit=connections_max(),
        )  # fmt: skip
        if connections.limit < CONNECTIONS_MAX:
            logs.event(_log, "clients are bounded by the limit of open files", connections=connections.limit)

        def tell(error: FloError) -> None:
            loop.call_soon_threadsafe(self._lost, error)

        node.when_lost = tell
        if node.lost is not None:
            raise node.lost
        system = read_system(SystemDisk(), os.path.join(self._directory, "SYSTEM"))
        self._shards = system.shards
        listener = Listener(connections)
        gateway = Gateway(node, self._directory, version=VERSION, wire=partial(_open_wire, node), server=True)
        try:
            node.publish_socket(gateway.path)
            if self._settings.metrics.enabled:
                from flo.server.metrics import Metrics

                self._metrics = Metrics(
                    node, backend, connections, self._flushes, self._operations, self._uptime_ms,
                    lambda: gateway.guests, self._shards,
                )  # fmt: skip
            await loop.run_in_executor(None, _go_on, node)
            await listener.open(settings.server.bind, settings.server.port)
            self._ready_at = self._clock.monotonic_ms()
            self._health.trouble = partial(_trouble, node)
            self._health.phase = "ok"
            self._say_ready(listener, system.partitions)
        except BaseException:
            await listener.close()
            await loop.run_in_executor(None, gateway.close)
            raise
        return Serving(node, gateway, listener)

    def _say_ready(self, listener: Listener, partitions: int) -> None:
        client = _address(*listener.addresses[0])
        found = Presence(
            os.getpid(), VERSION, self._clock.wall_ms(), self._settings.storage.durability, self._shards, partitions,
            client, self._addresses["metrics"], self._addresses["health"],
        )  # fmt: skip
        presence.write(self._directory, found)
        pages = {"metrics": "/metrics", "health": "/health"}
        urls = {name: f"http://{self._addresses[name]}{path}" for name, path in pages.items() if self._addresses[name]}
        where = {"client": client, **urls, "data": self._directory, "durability": found.durability}
        if self._settings.logging.format == "json":
            import json

            line = json.dumps({"event": "ready", "version": VERSION, "pid": found.pid, **where})
        else:
            shown = ", ".join(f"{name} {value}" for name, value in where.items())
            line = f"flo {VERSION} is ready: {shown}"
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except OSError as error:
            _log.warning("the line that the server is ready was not written: %s", error)
        _tell_service_manager("READY=1")

    # -- pages

    def _front_page(self) -> Page:
        return json_page(200, {"flo": VERSION, "health": "/health"})

    def _shards_page(self) -> Page:
        return self._health.page(shards=self._shards)

    async def _metrics_page(self) -> Page:
        metrics = self._metrics
        if metrics is None:
            return self._health.page()
        from flo.server.metrics import CONTENT_TYPE

        body = await asyncio.get_running_loop().run_in_executor(None, metrics.page)
        return Page(200, body, CONTENT_TYPE)

    def _uptime_ms(self) -> int:
        return self._clock.monotonic_ms() - self._ready_at

    # -- end

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            logs.event(_log, "a second signal: ending at once", logging.WARNING, signal=number.name)
            self._leave(128 + number)
        logs.event(_log, "stopping", signal=number.name)
        _tell_service_manager("STOPPING=1")
        self._stop.set()

    def _lost(self, error: FloError) -> None:
        logs.event(_log, "the log is lost, the server ends: start it again", logging.ERROR, reason=str(error))
        self._code = FAILED
        self._stop.set()

    async def _end(self, serving: Serving) -> None:
        loop = asyncio.get_running_loop()
        await serving.listener.close()
        await loop.run_in_executor(None, serving.gateway.close)
        try:
            await loop.run_in_executor(None, serving.node.close)
        except FloError as error:
            logs.event(_log, "the log could not be closed in order", logging.ERROR, reason=str(error))
            self._code = FAILED
        presence.remove(self._directory)
        logs.event(_log, "stopped")

    def _leave(self, code: int) -> None:
        """Ends the process at once. The log is as after a crash: complete."""
        presence.remove(self._directory)
        logging.shutdown()
        os._exit(code)


def connections_max() -> int:
    """How many connections of clients leave enough open files to the rest: a log that can open none is lost. Raises
    the limit of this process as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_KEPT
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError) as error:
            _log.warning("the limit of open files stays at %d: %s", soft, error)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, soft - min(FILES_KEPT, soft // 2))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on every system
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _check_shards(shards: int, directory: str) -> None:
    """Raises BadConfiguration for a new directory of several shards."""
    assert shards <= SHARDS_MAX
    if shards > 1 and not os.path.exists(os.path.join(directory, "SYSTEM")):
        raise BadConfiguration(f"--shards {shards}: more than one shard is not built yet", hint="leave it out")


def _in_use(directory: str) -> DirectoryLocked:
    pid = presence.pid_in(directory)
    owner = owner_of(directory)
    if owner is not None and owner.pid != pid:
        return DirectoryLocked(
            f"{directory} is in use by a flo command (pid {owner.pid}), not by another flo server",
            socket=owner.socket, hint="wait for its runs or end it; the server then goes on with them",
        )  # fmt: skip
    return DirectoryLocked(
        f"{directory} is in use by another flo server" + (f" (pid {owner.pid})" if owner is not None else ""),
        socket=owner.socket if owner is not None else "", hint="stop it: flo server stop",
    )  # fmt: skip


def _go_on(node: Node) -> None:
    """Executes the runs that a stop or a crash has left unfinished."""
    with node.partition.lock:
        unfinished = len(node.partition.machines.live_runs())
    if unfinished:
        logs.event(_log, "going on with unfinished runs", runs=unfinished)
        node.execute(None)


def _trouble(node: Node) -> str | None:
    """Why the node cannot serve now."""
    if node.lost is not None:
        return node.lost.message
    return node.partition.broken or node.store.stalled


def _open_wire(node: Node, answer: Callable[[int, bytes | FloError], None]) -> Wire:
    from flo.server.guest_session import GuestSession  # few guests need it

    return GuestSession(node.store, answer)


async def _probe(bind: str, port: int) -> None:
    """Raises PortUnusable when nobody could listen there, before anything else is begun."""
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(asyncio.Protocol, bind, port, start_serving=False)
    except (OSError, OverflowError) as error:
        raise port_unusable(bind, port, error) from error
    server.close()
    await server.wait_closed()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tell_service_manager(state: str) -> None:
    """For systemd's Type=notify."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(state.encode())
        except OSError as error:
            _log.warning("the service manager was not told %s: %s", state, error)


def _loop_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("%s", context.get("message", "a fault in the event loop"), exc_info=context.get("exception"))
