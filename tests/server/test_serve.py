"""The life of a real server process: start, ready line, health, metrics, kills, signals, guests."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flo.server import presence
from flo.server.serve import connections_max
from flo.wire import opcodes, tlv
from flo.wire.layouts import u32
from tests.support import flo_server as flo_server_module
from tests.support.flo_command import COMMAND_SECONDS, EXAMPLES, ROOT
from tests.support.flo_command import flo_command as flo_command_line
from tests.support.flo_server import HOST, FloServer


@pytest.fixture
def made(short_folder: Path) -> Iterator[list[FloServer]]:
    servers: list[FloServer] = []
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def flo_server(short_folder: Path, made: list[FloServer]) -> FloServer:
    made.append(FloServer(short_folder))
    return made[-1]


def test_a_ready_server_says_where_and_answers_there(flo_server: FloServer):
    flo_server.start()
    port = flo_server.port

    for where in (f"{HOST}:{port}", f"http://{HOST}:{port + 1}/metrics", f"http://{HOST}:{port + 2}/health"):
        assert where in flo_server.ready
    assert flo_server.health() == {"status": "ok"}
    assert json.loads(flo_server.get("/health", 1)[1]) == {"status": "ok", "shards": 1}
    assert flo_server.get("/nowhere")[0] == 404
    client = flo_server.connect()
    client.put("k", b"v")
    assert client.get("k") == b"v"
    assert presence.running(str(flo_server.data)) == flo_server.process.pid  # type: ignore[union-attr]


class SlowStart:
    """A server that reads its log for as long as it is not told to go on."""

    def __init__(self, server: FloServer) -> None:
        self.server = server
        argv = [sys.executable, str(Path(__file__).parent / "slow_start.py"), str(server.port), str(server.data)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=env)

    def __enter__(self) -> SlowStart:
        pause = threading.Event()
        while True:  # until the port is open, before which there is nothing to wait for
            try:
                assert self.server.health() == {"status": "starting"}
            except ConnectionRefusedError:
                pause.wait(0.02)
            else:
                return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def go_on(self) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


def test_health_says_starting_while_the_log_is_read_and_clients_cannot_connect(flo_server: FloServer):
    with SlowStart(flo_server) as starting:
        assert flo_server.get("/health")[0] == 503
        assert flo_server.get("/metrics", 1)[0] == 503
        with pytest.raises(ConnectionRefusedError):
            flo_server.connect()
        assert "starting" in flo_server.flo("server", "status").stdout

        assert "is ready" in starting.go_on()
        assert flo_server.get("/health")[0] == 200
        assert flo_server.connect().get("none") is None


def test_a_signal_while_the_log_is_read_ends_it_at_once(flo_server: FloServer):
    with SlowStart(flo_server) as starting:
        starting.process.terminate()

        assert starting.process.wait(COMMAND_SECONDS) == 0
        assert not (flo_server.data / presence.PID_FILE).exists()


def test_a_service_manager_is_told(flo_server: FloServer):
    path = str(flo_server.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(path)
        notified.settimeout(COMMAND_SECONDS)
        flo_server.start(env={"NOTIFY_SOCKET": path})
        flo_server.stop()

        assert [notified.recv(64), notified.recv(64)] == [b"READY=1", b"STOPPING=1"]


def test_metrics_count_what_clients_do(flo_server: FloServer):
    flo_server.start()
    client = flo_server.connect()
    for number in range(100):
        client.put(f"k{number}", b"v")
    client.call(opcodes.QUEUE_ENQUEUE, b"q", b"payload")
    client.call(opcodes.STREAM_APPEND, b"s", b"payload")

    text = flo_server.get("/metrics", 1)[1]

    values = dict(re.findall(r"^(flo_\S+(?:\{.*\})?) (\S+)$", text, re.MULTILINE))
    assert float(values["flo_commands_total"]) == 102
    assert float(values["flo_connections_current"]) == 1
    assert float(values['flo_kv_keys{namespace="default"}']) == 100
    assert float(values['flo_queue_enqueued_total{namespace="default",queue="q"}']) == 1
    assert float(values['flo_queue_ready{namespace="default",queue="q"}']) == 1
    assert float(values['flo_stream_records{namespace="default",stream="s"}']) == 1
    assert float(values["flo_commit_seconds_count"]) >= 1
    assert float(values['flo_operation_seconds_count{operation="kv_put"}']) == 2, "one of 64"
    assert float(values["flo_tiered_log_durable_index"]) == float(values["flo_tiered_log_last_index"]) >= 102
    assert float(values["flo_bytes_received_total"]) > 102 * 32
    for family in ("flo_uptime_seconds", "flo_shards_total", "flo_bytes_sent_total", "flo_workflow_started_total"):
        assert family in values


def test_what_was_acknowledged_is_there_after_kill_nine(flo_server: FloServer):
    flo_server.start()
    client = flo_server.connect()
    for number in range(50):
        client.put(f"k{number}", b"%d" % number)
    flo_server.kill()
    assert presence.running(str(flo_server.data)) == 0, "a stale PID file is no server"

    flo_server.start()
    client = flo_server.connect()

    assert [client.get(f"k{number}") for number in range(50)] == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order_and_waits_with_it(flo_server: FloServer, number: signal.Signals):
    flo_server.start()
    client, parked = flo_server.connect(), flo_server.connect()
    parked.send(opcodes.QUEUE_DEQUEUE, b"empty", b"", {tlv.BLOCK_MS: u32(60_000)})
    client.put("k", b"v")

    flo_server.signal(number)

    assert flo_server.wait() == 0
    assert parked.receive() is None
    assert not (flo_server.data / presence.PID_FILE).exists()
    assert not (flo_server.data / presence.ADDRESSES_FILE).exists()
    assert "stopping" in flo_server.log and "stopped" in flo_server.log
    assert flo_server.start().connect().get("k") == b"v"


def test_a_second_server_on_the_directory_is_refused_and_the_first_goes_on(
    flo_server: FloServer, made: list[FloServer]
):
    flo_server.start()
    second = FloServer(flo_server.folder)
    made.append(second)
    second.spawn()

    assert second.wait() == 1
    assert "is in use by another flo server" in second.log.splitlines()[-1]
    client = flo_server.connect()
    client.put("k", b"v")
    assert client.get("k") == b"v"
    assert presence.running(str(flo_server.data)) == flo_server.process.pid  # type: ignore[union-attr]


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_taken_port_is_named_in_one_line(flo_server: FloServer, offset: int):
    with socket.socket() as taken:
        taken.bind((HOST, flo_server.port + offset))
        taken.listen()
        flo_server.spawn()

        assert flo_server.wait() == 1

    (line,) = flo_server.log.splitlines()
    assert line.startswith("Error: ") and line.endswith("[port_unusable]") and str(flo_server.port + offset) in line


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--shards", "257"], 2, "--shards"),
        (["--partitions", "16385"], 2, "--partitions"),
        (["--shards", "2"], 1, "more than one shard is not built yet"),
        (["--config", "missing.toml"], 1, "missing.toml"),
        (["--durability", "soon"], 2, "--durability: 'soon' is none of"),
        (["--port", "70000"], 2, "--port"),
    ],
)
def test_a_server_that_cannot_start_says_why(flo_server: FloServer, words: list[str], code: int, text: str):
    flo_server.spawn(*words)

    assert flo_server.wait() == code
    assert text in flo_server.log
    assert "Traceback" not in flo_server.log
    assert not flo_server.data.exists()


def test_a_directory_that_cannot_be_made_is_named(flo_server: FloServer):
    (flo_server.folder / "file").write_text("")
    flo_server.data = flo_server.folder / "file" / "data"
    flo_server.spawn()

    assert flo_server.wait() == 1
    assert str(flo_server.data) in flo_server.log.splitlines()[-1]


def test_another_topology_is_refused_and_nothing_changed(flo_server: FloServer):
    flo_server.start("--partitions", "128").stop()
    system = (flo_server.data / "SYSTEM").read_bytes()
    flo_server.spawn("--partitions", "256")

    assert flo_server.wait() == 1
    last = flo_server.log.splitlines()[-1]
    assert "TopologyMismatch" in last and "128" in last and "256" in last
    assert (flo_server.data / "SYSTEM").read_bytes() == system
    assert flo_server.start("--partitions", "0").stop() == 0


def test_a_directory_in_use_by_a_command_is_refused_for_that_reason(flo_server: FloServer, flo_command):
    script = flo_command.folder / "wait.flow"
    script.write_text('load("flo/prelude/v1", "context")\n\ncontext().actions.signal("go")\n')
    running = flo_command.start("run", script, "--id", "waits")
    runs = flo_command("runs", "list", "--format", "json")
    while '"waits"' not in runs.out:
        runs = flo_command("runs", "list", "--format", "json")
    flo_server.data = flo_command.data
    flo_server.spawn()

    assert flo_server.wait() == 1
    assert "in use by a flo command (pid " in flo_server.log.splitlines()[-1]
    running.kill()


def test_a_flow_runs_on_the_server_and_goes_on_after_its_crash(flo_server: FloServer):
    script = flo_server.folder / "wait.flow"
    script.write_text(
        'load("flo/prelude/v1", "context")\n\nprint("got", context().actions.signal("go").value)\n', encoding="utf-8"
    )
    shutil.copy(EXAMPLES / "hello.flow", flo_server.folder)
    flo_server.start()
    assert flo_server.flo("run", "hello.flow").returncode == 0
    begun = flo_server.flo("run", "wait.flow", "--id", "waits", "--detach")
    assert begun.returncode == 0, begun.stderr

    flo_server.kill()
    flo_server.start()

    assert "going on with unfinished runs" in flo_server.log
    assert flo_server.flo("runs", "signal", "waits", "go", "7").returncode == 0
    ended = flo_server.flo("run", "wait.flow", "--id", "waits")
    assert ended.returncode == 0 and "got 7" in ended.stdout, ended.stderr
    assert flo_server.stop() == 0


def test_ephemeral_keeps_nothing_and_leaves_what_is_there(flo_server: FloServer):
    flo_server.start()
    flo_server.connect().put("k", b"kept")
    flo_server.stop()

    flo_server.start("--durability", "ephemeral")
    client = flo_server.connect()
    assert client.get("k") is None
    client.put("k", b"lost")
    flo_server.stop()

    assert "neither reads nor changes" in flo_server.log
    assert flo_server.start().connect().get("k") == b"kept"


def test_settings_of_the_file_hold(flo_server: FloServer):
    (flo_server.folder / "flo.toml").write_text(
        "[queue]\nmax_attempts = 1\n[kv]\nexpose_internal_keys = true\n[metrics]\nenabled = false\n"
        "[logging]\nformat = 'json'\n"
    )
    flo_server.start()
    client = flo_server.connect()
    client.put("_sys:k", b"v")
    client.call(opcodes.QUEUE_ENQUEUE, b"q", b"once")
    client.call(opcodes.QUEUE_DEQUEUE, b"q")
    client.call(opcodes.QUEUE_NACK, b"q", (1).to_bytes(4, "little") + (1).to_bytes(8, "little"))

    assert client.get("_sys:k") == b"v"
    assert client.call(opcodes.QUEUE_DLQ_LIST, b"q").body[:4] == (1).to_bytes(4, "little")
    assert json.loads(flo_server.ready)["client"] == f"{HOST}:{flo_server.port}"
    assert all(json.loads(line)["event"] for line in flo_server.log.splitlines())
    with pytest.raises(ConnectionRefusedError):
        flo_server.get("/metrics", 1)


def test_an_address_that_others_reach_is_warned_of(flo_server: FloServer):
    flo_server.start("--bind", "0.0.0.0")

    assert "no authentication" in flo_server.log


def test_status_stop_and_metrics_find_the_server_of_the_directory(flo_server: FloServer):
    assert flo_server.flo("server", "status").returncode == 1
    assert flo_server.flo("server", "stop").returncode == 1
    flo_server.start()

    status = flo_server.flo("server", "status", "--format", "json")
    metrics = flo_server.flo("server", "metrics", "--filter", "uptime")
    asked = flo_server.flo("server", "status", "--port", str(flo_server.port), "--format", "json")
    nobody = flo_server.flo("server", "metrics", "--endpoint", f"{HOST}:1")
    stopped = flo_server.flo("server", "stop")

    assert asked.returncode == 0 and json.loads(asked.stdout)["role"] == "leader"
    assert nobody.returncode == 5
    shown = json.loads(status.stdout)
    assert status.returncode == 0
    assert (shown["status"], shown["client"], shown["shards"]) == ("running", f"{HOST}:{flo_server.port}", 1)
    assert [line.split()[0] for line in metrics.stdout.splitlines()] == ["#", "#", "flo_uptime_seconds"]
    assert stopped.returncode == 0
    assert flo_server.wait() == 0
    gone = flo_server.flo("server", "status")
    assert gone.returncode == 1 and gone.stdout.startswith("not running")
    assert flo_server.flo("server", "status", "--port", str(flo_server.port)).returncode == 1


def test_stop_by_force_is_a_crash_that_loses_nothing(flo_server: FloServer):
    flo_server.start()
    flo_server.connect().put("k", b"v")

    assert flo_server.flo("server", "stop", "-f").returncode == 0
    assert flo_server.wait() == -signal.SIGKILL
    assert flo_server.start().connect().get("k") == b"v"


def test_a_lost_log_ends_the_server_with_an_error(flo_server: FloServer):
    """Somebody has taken the lock file away: another process may own the directory by now."""
    flo_server.start()
    os.unlink(flo_server.data / "lock")
    client = flo_server.connect()
    client.send(opcodes.KV_PUT, b"k", b"v")

    assert client.receive() is None, "the outcome is unknown"
    assert flo_server.wait() == 1
    assert "the log is lost" in flo_server.log


def test_clients_do_not_take_the_open_files_that_the_log_needs(flo_server: FloServer, monkeypatch: pytest.MonkeyPatch):
    few = ["sh", "-c", 'ulimit -n 160 && exec "$@"', "sh", *flo_command_line()]
    monkeypatch.setattr(flo_server_module, "flo_command", lambda: few)
    flo_server.start()
    client = flo_server.connect()
    others = [socket.create_connection((HOST, flo_server.port), timeout=COMMAND_SECONDS) for _ in range(200)]
    refused = sum(other.recv(1) == b"" for other in others[100:])
    for number in range(100):
        client.put(f"k{number % 10}", bytes(250_000))  # three segments
    for other in others:
        other.close()

    assert refused == 100 and "clients are bounded by the limit of open files connections=80" in flo_server.log
    assert flo_server.stop() == 0


@pytest.mark.parametrize(
    ("limits", "connections", "raised"),
    [
        ((1_024, 1_048_576), 65_536, (66_560, 1_048_576)),
        ((1_024, 20_000), 18_976, (20_000, 20_000)),
        ((1_024, 1_024), 512, None),
        ((1_048_576, 1_048_576), 65_536, None),
        ((1_024, resource.RLIM_INFINITY), 65_536, (66_560, resource.RLIM_INFINITY)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 65_536, None),
    ],
)
def test_there_are_as_many_connections_as_open_files_allow(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], connections: int, raised: tuple[int, int] | None
):
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, to: made.append(to))

    assert connections_max() == connections and made == ([] if raised is None else [raised])


def test_inspect_tells_a_sound_directory_from_a_damaged_one(flo_server: FloServer):
    flo_server.start()
    client = flo_server.connect()
    for number in range(20):
        client.put(f"k{number}", b"v" * 100)
    running = flo_server.flo("server", "inspect", str(flo_server.data))
    flo_server.stop()
    sound = flo_server.flo("server", "inspect", str(flo_server.data), "--format", "json")
    (segment,) = (flo_server.data / "00000" / "segs").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(b"k10")] ^= 1
    segment.write_bytes(content)

    damaged = flo_server.flo("server", "inspect", str(flo_server.data))

    assert running.returncode == 0 and running.stdout.endswith("sound\n")
    assert json.loads(sound.stdout)["topology"]["shards"] == 1 and json.loads(sound.stdout)["ok"]
    assert damaged.returncode == 3 and segment.name in damaged.stdout and "offset" in damaged.stdout


def test_http_that_is_none_delays_nobody(flo_server: FloServer):
    flo_server.start()
    silent = [socket.create_connection((HOST, flo_server.port + 2)) for _ in range(20)]
    nonsense = socket.create_connection((HOST, flo_server.port + 2), timeout=10)
    nonsense.sendall(b"what\r\n\r\n")

    assert flo_server.health() == {"status": "ok"}
    assert nonsense.recv(1024).startswith(b"HTTP/1.1 400 ")
    nonsense.close()
    for sock in silent:
        sock.close()
